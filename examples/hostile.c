/* Eight attacks for the demo's tour; tests/attack has the whole corpus. */
#include <stdlib.h>
#include <vxplug.h>

VX_EXPORT void write_to_null(void) { *(volatile int *)0 = 1; }
VX_EXPORT uint32_t read_everywhere(void) {
    uint32_t sum = 0;
    for (uint32_t at = 0x10000;; at += 4096) sum += *(volatile uint32_t *)at;
}
VX_EXPORT void loop_for_ever(void) { for (;;) __asm__ volatile(""); }
static __attribute__((noinline)) int dig(int depth) {
    volatile char room[256];
    room[0] = (char)depth;
    return dig(depth + 1) + room[0];
}
VX_EXPORT int32_t exhaust_the_stack(void) { return dig(0); }
VX_EXPORT void open_a_file(void) {
    int result;
    __asm__ volatile("int $0x80" : "=a"(result) : "0"(5), "b"("/etc/passwd"), "c"(0) : "memory");
}
VX_EXPORT void enter_64_bit_mode(void) { __asm__ volatile(".byte 0xea,0,0,0,0,0x33,0"); }
VX_EXPORT void run_data(void) {
    static unsigned char code[] = {0x0f, 0x05, 0xc3};
    ((void (*)(void))code)();
}
VX_EXPORT vx_bytes return_host_memory(void) { return (vx_bytes){(void *)0xfffffff0, 0xffffffff, VX_MALLOCED}; }
