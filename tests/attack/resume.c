/* What a guest has in its registers is there when a host function comes back, also where no compiler would
 * count on it.  There is no x87 code here but behind a result in st0. */
#include <vxplug.h>

typedef uint32_t (*host)(void);

VX_EXPORT void use_vectors(void) {
    __asm__ volatile("pcmpeqd %xmm0,%xmm0; movdqa %xmm0,%xmm1; movdqa %xmm0,%xmm5; movdqa %xmm0,%xmm7");
}
/* Sum of what eight vector registers hold, the n-th n + 1, before 40 and after the host's answer. */
VX_EXPORT uint32_t vectors(host function) {
    uint32_t sum;
    __asm__ volatile(
        "mov $1,%%eax; movd %%eax,%%xmm0; inc %%eax; movd %%eax,%%xmm1; inc %%eax; movd %%eax,%%xmm2;"
        "inc %%eax; movd %%eax,%%xmm3; inc %%eax; movd %%eax,%%xmm4; inc %%eax; movd %%eax,%%xmm5;"
        "inc %%eax; movd %%eax,%%xmm6; inc %%eax; movd %%eax,%%xmm7; call *%1;"
        "paddd %%xmm1,%%xmm0; paddd %%xmm2,%%xmm0; paddd %%xmm3,%%xmm0; paddd %%xmm4,%%xmm0;"
        "paddd %%xmm5,%%xmm0; paddd %%xmm6,%%xmm0; paddd %%xmm7,%%xmm0; movd %%xmm0,%%ecx; add %%ecx,%%eax"
        : "=a"(sum) : "S"(function) : "ecx", "edx", "memory", "cc",
          "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7");
    return sum;
}
/* ebx, edi, ebp, esp and the carry. */
VX_EXPORT uint32_t registers(host function) {
    uint32_t answer;
    __asm__ volatile(
        "push %%ebp; push %%ebx; mov $0x100,%%ebx; mov $0x1000,%%edi; mov $0x10000,%%ebp; stc; call *%1;"
        "adc %%ebx,%%eax; add %%edi,%%eax; add %%ebp,%%eax; pop %%ebx; pop %%ebp"
        : "=a"(answer) : "S"(function) : "ecx", "edx", "edi", "memory", "cc");
    return answer;
}
/* The x87 code is in a block of its own. */
VX_EXPORT double halved(double (*function)(void)) {
    double result;
    __asm__ volatile("call *%1; jmp 1f; 1: fstpl %0" : "=m"(result) : "r"(function) : "eax", "ecx", "edx", "memory", "cc");
    return result / 2;
}
VX_EXPORT uint32_t many(host function, uint32_t count) {
    uint32_t sum = 0;
    while (count--) sum += function();
    return sum;
}
/* Leaves its export by a jump to the host. */
VX_EXPORT uint32_t last_act(host function) { __attribute__((musttail)) return ((uint32_t (*)(host))function)(function); }
