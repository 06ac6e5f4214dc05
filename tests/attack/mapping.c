/* Guests that are lent a Mapping: what they may do with it, what they try, and how they make the host look at it. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <vxplug.h>

static unsigned char *kept;

VX_EXPORT uint32_t where(vx_view data) { return (uint32_t)data.ptr; }
VX_EXPORT uint32_t length(vx_view data) { return data.len; }
VX_EXPORT uint32_t keep(vx_view data) { kept = (unsigned char *)data.ptr; return (uint32_t)kept; }
VX_EXPORT uint32_t look(uint32_t at) { return ((volatile unsigned char *)kept)[at]; }
VX_EXPORT void poke(uint32_t at, uint32_t value) { ((volatile unsigned char *)kept)[at] = (unsigned char)value; }
VX_EXPORT uint32_t look_at(uint32_t address) { return *(volatile unsigned char *)address; }
VX_EXPORT uint32_t total_u8(vx_array_u8 numbers) {
    uint32_t sum = 0;
    for (size_t i = 0; i < numbers.len; i++) sum += numbers.ptr[i];
    return sum;
}
VX_EXPORT uint32_t fill(vx_mut data) { return data.len; }

/* ---- SHA-256 (FIPS 180-4) ---- */

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t x, unsigned by) { return x >> by | x << (32 - by); }

static void block(uint32_t h[8], const unsigned char *data) {
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)data[4 * i] << 24 | data[4 * i + 1] << 16 | data[4 * i + 2] << 8 | data[4 * i + 3];
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + w[i - 7] + (rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3) +
               (rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(s, h, sizeof s);
    for (int i = 0; i < 64; i++) {
        uint32_t one = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) +
                       ((s[4] & s[5]) ^ (~s[4] & s[6])) + K[i] + w[i];
        uint32_t two = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) +
                       ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += one, s[0] = one + two;
    }
    for (int i = 0; i < 8; i++) h[i] += s[i];
}

VX_EXPORT vx_bytes sha256(vx_view data) {
    static unsigned char result[32];
    uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    unsigned char last[128] = {0};
    size_t whole = data.len / 64 * 64, rest = data.len - whole, end = rest < 56 ? 64 : 128;
    uint64_t bits = (uint64_t)data.len * 8;
    for (size_t at = 0; at < whole; at += 64) block(h, (const unsigned char *)data.ptr + at);
    memcpy(last, (const unsigned char *)data.ptr + whole, rest);
    last[rest] = 0x80;
    for (int i = 0; i < 8; i++) last[end - 1 - i] = (unsigned char)(bits >> 8 * i);
    for (size_t at = 0; at < end; at += 64) block(h, last + at);
    for (int i = 0; i < 32; i++) result[i] = (unsigned char)(h[i / 4] >> (24 - i % 4 * 8));
    return vx_borrow(result, sizeof result);
}

/* ---- what the host is made to look at ---- */

VX_EXPORT vx_bytes echo(vx_view data) { return vx_borrow(data.ptr, data.len); }
VX_EXPORT vx_bytes echo_part(vx_view data, uint32_t from, uint32_t size) {
    return vx_borrow((const char *)data.ptr + from, size);
}
VX_EXPORT const char *text(vx_view data) { return data.ptr; }
VX_EXPORT const char *text_at(vx_view data, uint32_t at) { return (const char *)data.ptr + at; }
VX_EXPORT int32_t print(vx_view data) {
    ssize_t done = write(1, data.ptr, data.len);
    return done < 0 ? -errno : (int32_t)done;
}
VX_EXPORT int32_t print_vectors(vx_view data) {
    ssize_t done = writev(1, data.ptr, 2);
    return done < 0 ? -errno : (int32_t)done;
}
VX_EXPORT uint32_t give(vx_view data, uint32_t (*function)(vx_view)) { return function(data); }
VX_EXPORT uint32_t say(vx_view data, uint32_t (*function)(const char *)) { return function(data.ptr); }
VX_EXPORT uint32_t sum_after(vx_view data, uint32_t (*function)(void)) {
    uint32_t total = function();
    for (size_t i = 0; i < data.len; i++) total += ((const volatile unsigned char *)data.ptr)[i];
    return total;
}
VX_EXPORT vx_stream pieces(vx_view data) {
    vx_yield(data.ptr, data.len);
    vx_yield(kept, 10);
    return VX_END;
}
/* An instruction that is done in C. */
VX_EXPORT void bounds(vx_view data, int32_t value) {
    __asm__ volatile("bound %0, (%1)" : : "r"(value), "r"(data.ptr) : "memory");
}
/* A fault whose report reads the stack. */
VX_EXPORT void stack_in_it(vx_view data) { __asm__ volatile("mov %0, %%esp\n\tud2" : : "r"(data.ptr)); }
VX_EXPORT void return_into_it(vx_view data) { __asm__ volatile("mov %0, %%esp\n\tret" : : "r"(data.ptr)); }
VX_EXPORT void jump(vx_view data) { ((void (*)(void))data.ptr)(); }
VX_EXPORT void copy_over(vx_view data) { memset((void *)data.ptr, 1, data.len); }

/* ---- each returns what the call returned: all are refused ---- */

VX_EXPORT int32_t try_munmap(vx_view data) { return munmap((void *)data.ptr, data.len); }
VX_EXPORT int32_t try_mprotect(vx_view data) { return mprotect((void *)data.ptr, data.len, PROT_READ | PROT_WRITE); }
VX_EXPORT int32_t try_execute(vx_view data) { return mprotect((void *)data.ptr, data.len, PROT_READ | PROT_EXEC); }
VX_EXPORT int32_t try_hide(vx_view data) { return mprotect((void *)data.ptr, data.len, PROT_NONE); }
VX_EXPORT int32_t try_madvise(vx_view data) { return madvise((void *)data.ptr, data.len, MADV_DONTNEED); }
VX_EXPORT int32_t try_mremap(vx_view data) {
    return mremap((void *)data.ptr, data.len, 2 * data.len, MREMAP_MAYMOVE) == MAP_FAILED ? -1 : 0;
}
VX_EXPORT int32_t try_extend(vx_view data) {
    return mremap((void *)data.ptr, data.len, data.len + 4096, 0) == MAP_FAILED ? -1 : 0;
}
VX_EXPORT int32_t try_shrink(vx_view data) { return mremap((void *)data.ptr, data.len, 4096, 0) == MAP_FAILED ? -1 : 0; }
VX_EXPORT int32_t try_map_over(vx_view data) {
    return mmap((void *)data.ptr, data.len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
                   MAP_FAILED ? -1 : 0;
}
VX_EXPORT int32_t try_brk(vx_view data) {
    long end = (long)data.ptr + (long)data.len;
    return syscall(SYS_brk, end) == end ? 0 : -1;
}
VX_EXPORT int32_t try_around(vx_view data) { return munmap((char *)data.ptr - 4096, data.len + 8192); }
/* The kernel's answer would be written there. */
VX_EXPORT int32_t try_answer(vx_view data) {
    return syscall(SYS_sched_getaffinity, 0, 4, data.ptr) < 0 && errno == EFAULT ? -1 : 0;
}

/* Fresh memory, where earlier mappings may have been. */
VX_EXPORT uint32_t add_pages(uint32_t count) {
    unsigned char *pages = mmap(NULL, count * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint32_t seen = 0;
    for (uint32_t i = 0; i < count * 4096; i += 64) seen |= pages[i], pages[i] = 1;
    return pages == MAP_FAILED ? 256 : seen;
}
