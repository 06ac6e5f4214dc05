/* Guests without x87 code: entered without a switch of the whole floating-point state. */
#include <vxplug.h>

#define NAKED(name, code) VX_EXPORT __attribute__((naked)) void name(void) { __asm__ volatile(code); }

NAKED(nothing, "ret")
NAKED(direction_left_set, "std; ret")
NAKED(id_left_set, "pushfl; orl $0x200000,(%esp); popfl; xor %eax,%eax; ret")
NAKED(id_left_at_fault, "pushfl; orl $0x200000,(%esp); popfl; ud2")
NAKED(id_left_at_timeout, "pushfl; orl $0x200000,(%esp); popfl; 1: jmp 1b")
NAKED(ud2, "std; ud2")
NAKED(hostcall_unknown, "std; mov $99,%eax; int $0x30; ret")
NAKED(endless, "std; 1: jmp 1b")
/* Denormal results and a division by zero: flags in MXCSR. */
NAKED(vectors, "xorps %xmm0,%xmm0; pcmpeqd %xmm1,%xmm1; psrld $25,%xmm1; divps %xmm0,%xmm1; mulps %xmm1,%xmm1; ret")
NAKED(vectors_at_fault, "xorps %xmm0,%xmm0; divps %xmm0,%xmm0; std; ud2")
VX_EXPORT void direction_in_callback(void (*callback)(void)) {
    __asm__ volatile("std; call *%0; cld" : : "r"(callback) : "eax", "ecx", "edx", "memory");
}
