/* Guests that are lent a Buffer: what they may do with it, and what they try. */
#define _GNU_SOURCE
#include <vxplug.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static unsigned char *kept;
static uint32_t kept_size;

VX_EXPORT uint32_t where(vx_view data) { return (uint32_t)data.ptr; }
VX_EXPORT uint32_t keep(vx_mut data) { kept = data.ptr, kept_size = data.len; return (uint32_t)data.ptr; }
VX_EXPORT uint32_t sum_at(uint32_t address, uint32_t size) {
    uint32_t total = 0;
    for (uint32_t i = 0; i < size; i++) total += ((volatile unsigned char *)address)[i];
    return total;
}
VX_EXPORT uint32_t look(uint32_t at) { return kept[at]; }
VX_EXPORT void poke(uint32_t at, uint32_t value) { kept[at] = (unsigned char)value; }
VX_EXPORT void fill(vx_mut data, uint32_t value) { memset(data.ptr, (int)value, data.len); }
VX_EXPORT uint32_t sum(vx_view data) {
    uint32_t total = 0;
    for (size_t i = 0; i < data.len; i++) total += ((const unsigned char *)data.ptr)[i];
    return total;
}
VX_EXPORT uint32_t same(vx_view a, vx_mut b) { return a.ptr == b.ptr && a.len == b.len; }
VX_EXPORT int64_t total(vx_array_i32 numbers) {
    int64_t sum = 0;
    for (size_t i = 0; i < numbers.len; i++) sum += numbers.ptr[i];
    return sum;
}
VX_EXPORT vx_bytes echo(vx_view data) { return vx_borrow(data.ptr, data.len); }
VX_EXPORT const char *text(vx_view data) { return data.ptr; }
VX_EXPORT uint32_t fault(vx_mut data) { return *(volatile uint32_t *)0 + data.len; }
VX_EXPORT uint32_t jump(vx_mut data) {
    ((unsigned char *)data.ptr)[0] = 0xc3; /* ret */
    ((void (*)(void))data.ptr)();
    return 1;
}
VX_EXPORT uint32_t call_back(vx_mut data, uint32_t (*function)(void)) {
    uint32_t answer = function();
    return ((unsigned char *)data.ptr)[0] + answer;
}
VX_EXPORT uint32_t view_back(vx_view data, uint32_t (*function)(void)) {
    uint32_t answer = function();
    return ((const unsigned char *)data.ptr)[0] + answer;
}
VX_EXPORT void spin(vx_mut data) { for (;;) ((volatile unsigned char *)data.ptr)[data.len - 1]++; }

/* Each returns what the call returned: all are refused, and the bytes stay. */
VX_EXPORT int32_t try_munmap(vx_mut data) { return munmap(data.ptr, data.len); }
VX_EXPORT int32_t try_mprotect(vx_mut data) { return mprotect(data.ptr, data.len, PROT_NONE); }
VX_EXPORT int32_t try_execute(vx_mut data) { return mprotect(data.ptr, data.len, PROT_READ | PROT_EXEC); }
VX_EXPORT int32_t try_madvise(vx_mut data) { return madvise(data.ptr, data.len, MADV_DONTNEED); }
VX_EXPORT int32_t try_mremap(vx_mut data) {
    return mremap(data.ptr, data.len, 2 * data.len, MREMAP_MAYMOVE) == MAP_FAILED ? -1 : 0;
}
VX_EXPORT int32_t try_shrink(vx_mut data) { return mremap(data.ptr, data.len, 4096, 0) == MAP_FAILED ? -1 : 0; }
VX_EXPORT int32_t try_map_over(vx_mut data) {
    return mmap(data.ptr, data.len, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED ? -1 : 0;
}
VX_EXPORT int32_t try_brk(vx_mut data) {
    long end = (long)data.ptr + (long)data.len;
    return syscall(SYS_brk, end) == end ? 0 : -1;
}
VX_EXPORT int32_t try_around(vx_mut data) {
    return munmap((char *)data.ptr - 4096, data.len + 8192);
}

/* Fresh memory where earlier Buffers were, written to; and what is at an address of it, or 256 for nothing. */
static unsigned char *pages;
static uint32_t page_count;
VX_EXPORT void add_pages(uint32_t count) {
    pages = mmap(NULL, count * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    page_count = pages == MAP_FAILED ? 0 : count;
    for (uint32_t i = 0; i < page_count; i++) pages[i * 4096 + 1] = 1;
}
VX_EXPORT uint32_t first_byte(uint32_t address) {
    uint32_t offset = address - (uint32_t)pages;
    return offset < page_count * 4096 ? pages[offset] : 256;
}
