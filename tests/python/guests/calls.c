/* One function for each thing a call can do; tests/python/test_calls.py says what each is for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vxplug.h>

VX_MODULE_DOC("Marshalling, one function a case.");

#define ECHO(code, type) \
    VX_EXPORT type echo_##code(type value) { return value; }
ECHO(i8, int8_t)
ECHO(u8, uint8_t)
ECHO(i16, int16_t)
ECHO(u16, uint16_t)
ECHO(i32, int32_t)
ECHO(u32, uint32_t)
ECHO(i64, int64_t)
ECHO(u64, uint64_t)
ECHO(bool, bool)
ECHO(f32, float)
ECHO(f64, double)
ECHO(str, const char *)

/* Results whose upper bits are garbage, as the ABI allows. */
#define GARBAGE(code, type, value) \
    VX_EXPORT __attribute__((naked)) type garbage_##code(void) { \
        __asm__("movl $" #value ", %eax\n\tmovl $0x12345678, %edx\n\tret"); \
    }
GARBAGE(i8, int8_t, 0x5a5a5a80)
GARBAGE(u8, uint8_t, 0x5a5a5a80)
GARBAGE(i16, int16_t, 0x5a5a8000)
GARBAGE(u16, uint16_t, 0x5a5a8000)
GARBAGE(bool, bool, 0x5a5a5a00)

VX_DOC(add, "The sum of two numbers.");
VX_EXPORT int32_t add(int32_t a, int32_t b) { return a + b; }

/* Each parameter weighs differently, so that one misplaced word changes the sum. */
VX_EXPORT double mixed(int8_t a, uint64_t b, bool c, float d, const char *e, double f, int16_t g,
                       vx_view h, int64_t i, uint8_t j) {
    const uint8_t *bytes = h.ptr;
    return a + 2.0 * (double)b + 3.0 * c + 5.0 * d + 7.0 * (double)strlen(e) + 11.0 * f + 13.0 * g +
           17.0 * bytes[h.len - 1] + 19.0 * (double)i + 23.0 * j;
}

VX_EXPORT uint32_t sum(vx_view data) {
    const uint8_t *bytes = data.ptr;
    uint32_t total = 0;
    for (size_t i = 0; i < data.len; i++)
        total += bytes[i];
    return total;
}

VX_EXPORT void increment(vx_mut data) {
    uint8_t *bytes = data.ptr;
    for (size_t i = 0; i < data.len; i++)
        bytes[i]++;
}

VX_EXPORT void fill_two(vx_mut first, vx_mut second) {
    memset(first.ptr, 1, first.len);
    memset(second.ptr, 2, second.len);
}

VX_EXPORT uint32_t total_of_six(vx_view a, vx_view b, vx_view c, vx_view d, vx_view e, vx_view f) {
    return sum(a) + sum(b) + sum(c) + sum(d) + sum(e) + sum(f);
}

/* ---- results in memory ---- */

VX_EXPORT vx_bytes taken(uint32_t size) {
    void *data = malloc(size);
    if (data == NULL)
        return vx_raise(VX_MemoryError, "no %u bytes", (unsigned)size);
    memset(data, 'x', size);
    return vx_take(data, size);
}

VX_EXPORT vx_bytes borrowed(void) { return vx_borrow("lent", 4); }

VX_EXPORT vx_bytes forged_bytes(uint32_t address, uint32_t size, uint32_t owner) {
    return (vx_bytes){(void *)(uintptr_t)address, size, owner};
}

VX_EXPORT const char *forged_string(uint32_t address) { return (const char *)(uintptr_t)address; }

VX_EXPORT const char *not_utf8(void) { return "\xff\xfe"; }

/* ---- errors ---- */

VX_EXPORT void raise_named(const char *name, const char *text) { vx_raise_(name, "%s", text); }

VX_EXPORT void raise_raw(vx_view name, vx_view text) {
    int result;
    __asm__ volatile("int %1"
                     : "=a"(result)
                     : "i"(VX_HOSTCALL_VECTOR), "0"(VX_HC_RAISE), "b"(name.ptr), "c"(name.len),
                       "d"(text.ptr), "S"(text.len)
                     : "memory");
}

VX_EXPORT int32_t raise_twice(void) {
    vx_raise(VX_EOFError, "first");
    vx_raise(VX_ValueError, "second");
    return 7;
}

VX_EXPORT void increment_and_raise(vx_mut data) {
    increment(data);
    vx_raise(VX_ValueError, "after the change");
}

VX_EXPORT vx_bytes raise_and_take(uint32_t size) {
    vx_raise(VX_ValueError, "dropped");
    return taken(size);
}

VX_EXPORT void raise_and_crash(void) {
    vx_raise(VX_ValueError, "never seen");
    *(volatile int *)16 = 0;
}

/* ---- running ---- */

VX_EXPORT void crash(void) { *(volatile int *)16 = 0; }
VX_EXPORT void crash_with(vx_mut data) { increment(data), crash(); }

VX_EXPORT void spin(void) {
    for (;;)
        __asm__ volatile("");
}

VX_EXPORT uint32_t work(uint32_t rounds) {
    uint32_t x = 1;
    for (uint32_t i = 0; i < rounds; i++) {
        x = x * 1664525u + 1013904223u;
        __asm__ volatile("" : "+r"(x));
    }
    return x;
}

static uint32_t calls;
VX_EXPORT uint32_t count(void) { return ++calls; }

VX_EXPORT void say(const char *text) { puts(text); }
VX_EXPORT void say_error(const char *text) { fputs(text, stderr); }

/* What `text` is after the host has run its output callback in the middle of the call. */
VX_EXPORT uint32_t sum_around_output(vx_view data) {
    puts("now");
    return sum(data);
}

VX_EXPORT void spin_and_say(uint32_t rounds) {
    work(rounds);
    puts("done");
}
