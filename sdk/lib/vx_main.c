/* What a plugin has in place of a program's main: libc and the constructors are ready, so say so.
 * The host takes its snapshot here and never comes back; exports are called on this stack. */
#ifndef __i386__
#error "this compiler makes no code for i386: a plugin needs one for i386 and musl, which the SDK's own is, without --cc"
#endif

#include <stdio.h>
#include "vx_abi.h"

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0); /* a line a plugin prints is seen when it is printed */
    __asm__ volatile("int %0" : : "i"(VX_HOSTCALL_VECTOR), "a"(VX_HC_READY) : "memory");
    return 1;
}
