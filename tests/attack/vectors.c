/* Guests that look for what others left in vector and mask registers, and for ways out by way of them. */
#include <vxplug.h>
#include <string.h>

/* Every lane of zmm0-7 and k0-7: one store, or load, of each.  With AVX alone the upper halves stay out. */
#define EACH(op) op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7)
#define STORE_YMM(n) "vmovdqu %%ymm" #n ", 32*" #n "(%0);"
#define LOAD_YMM(n) "vmovdqu 32*" #n "(%0), %%ymm" #n ";"
#define STORE_ZMM(n) "vmovdqu64 %%zmm" #n ", 64*" #n "(%[vectors]);"
#define LOAD_ZMM(n) "vmovdqu64 64*" #n "(%[vectors]), %%zmm" #n ";"
#define STORE_MASK(n) "kmovq %%k" #n ", 8*" #n "(%[masks]);"
#define LOAD_MASK(n) "kmovq 8*" #n "(%[masks]), %%k" #n ";"

typedef struct registers {
    uint8_t vectors[8 * 64];
    uint64_t masks[8];
} registers;

static registers mine, seen;

static void fill(void) {
    for (unsigned i = 0; i < sizeof mine.vectors; i++) mine.vectors[i] = (uint8_t)(i * 7 + 1);
    for (unsigned i = 0; i < 8; i++) mine.masks[i] = 0x0102030405060708u * (i + 1);
}

static vx_bytes answer(uint32_t size) { return vx_borrow(&seen, size); }

VX_EXPORT void leave_ymm(void) { fill(); __asm__ volatile(EACH(LOAD_YMM) : : "r"(mine.vectors) : "memory"); }
VX_EXPORT vx_bytes read_ymm(void) {
    __asm__ volatile(EACH(STORE_YMM) : : "r"(seen.vectors) : "memory");
    return answer(8 * 32);
}
VX_EXPORT void leave_zmm(void) {
    fill();
    __asm__ volatile(EACH(LOAD_ZMM) EACH(LOAD_MASK) : : [vectors] "r"(mine.vectors), [masks] "r"(mine.masks) : "memory");
}
VX_EXPORT void fault_with_zmm(void) {
    fill();
    __asm__ volatile(EACH(LOAD_ZMM) EACH(LOAD_MASK) "ud2" : : [vectors] "r"(mine.vectors), [masks] "r"(mine.masks) : "memory");
}
VX_EXPORT vx_bytes read_zmm(void) {
    __asm__ volatile(EACH(STORE_ZMM) EACH(STORE_MASK) : : [vectors] "r"(seen.vectors), [masks] "r"(seen.masks) : "memory");
    return answer(sizeof seen);
}

/* Loads every register, does `between`, stores them: are they the same? */
#define KEPT(between, value)                                                                                 \
    uint32_t work = value;                                                                                   \
    fill();                                                                                                  \
    seen = mine;                                                                                             \
    __asm__ volatile(EACH(LOAD_ZMM) EACH(LOAD_MASK) between EACH(STORE_ZMM) EACH(STORE_MASK)                 \
                     : "+d"(work) : [vectors] "S"(seen.vectors), [masks] "b"(seen.masks) : "memory", "eax", "ecx", "edi");     \
    return memcmp(&mine, &seen, sizeof mine) == 0

/* While another thread of the host's runs, in ticks. */
VX_EXPORT uint32_t keeps_in_ticks(uint32_t rounds) {
    KEPT("mov %0, %%eax; 1: dec %%eax; jnz 1b;", rounds);
}
/* Through an instruction that is done in C. */
VX_EXPORT uint32_t keeps_in_helpers(void) {
    KEPT("mov $1, %%eax; mov %%ebx, %%edi; cpuid; mov %%edi, %%ebx;", 0);
}
/* Through a call that is not translated before it is made. */
VX_EXPORT uint32_t keeps_in_misses(void) {
    KEPT("mov $64, %%ecx; 1: call 2f; dec %%ecx; jnz 1b; jmp 3f; 2: xor %0, %%eax; ret; 3:", 1);
}

/* Legacy SSE; then the same registers by AVX, whose state is saved otherwise. */
VX_EXPORT void use_sse(void) { __asm__ volatile("xorps %%xmm0, %%xmm0" : : : "memory"); }
VX_EXPORT uint32_t sse_to_avx(void) {
    fill();
    __asm__ volatile("movups (%0), %%xmm1; movups 16(%0), %%xmm7; jmp 1f; ud2; 1: vmovups %%xmm1, (%1); vmovups %%xmm7, 16(%1)"
                     : : "r"(mine.vectors), "r"(seen.vectors) : "memory");
    return memcmp(mine.vectors, seen.vectors, 32) == 0;
}

/* Registers 8 and up are bits that 32-bit mode ignores, and registers of the host in 64-bit mode: the sum is xmm1 + xmm2
 * whatever they say.  vblendvps names its mask in an immediate, whose top bit is such a one. */
VX_EXPORT uint32_t high_registers(void) {
    uint32_t one[4] = {1, 2, 3, 4}, two[4] = {5, 6, 7, 8}, mask[4] = {1u << 31, 0, 1u << 31, 0}, sum[4], blend[4];
    __asm__ volatile("movups (%0), %%xmm1; movups (%1), %%xmm2; movups (%4), %%xmm3\n"
                     ".byte 0xc4,0xc1,0x31,0xfe,0xc2; movups %%xmm0, (%2)\n" /* vpaddd, B and vvvv[3] inverted */
                     ".byte 0xc4,0xe3,0x71,0x4a,0xc2,0xb0; movups %%xmm0, (%3)"
                     : : "r"(one), "r"(two), "r"(sum), "r"(blend), "r"(mask) : "memory");
    return sum[0] == 6 && sum[3] == 12 && blend[0] == 5 && blend[1] == 2 && blend[2] == 7 && blend[3] == 4;
}

/* Lanes of 64 bits as indexes: the address is the sum's low half. */
VX_EXPORT uint32_t gather(uint32_t low, uint32_t high) {
    static const uint32_t table[2] = {0x2a, 0x2b}, lanes[4] = {~0u, 0, 0, 0};
    uint32_t index[4] = {low, high, 0, 0}, result;
    __asm__ volatile("vmovdqu %1, %%xmm1; vmovdqu %2, %%xmm2; vpxor %%xmm0, %%xmm0, %%xmm0\n"
                     "vpgatherqd %%xmm2, (%3,%%xmm1,4), %%xmm0; vmovd %%xmm0, %0"
                     : "=r"(result) : "m"(index), "m"(lanes), "r"(table) : "memory");
    return result;
}
VX_EXPORT void scatter(uint32_t low, uint32_t high) {
    uint32_t index[4] = {low, high, 0, 0}, one = 1;
    __asm__ volatile("vmovdqu %0, %%xmm1; kmovw %2, %%k1; vpscatterqd %%xmm0, (%1,%%xmm1,8)%{%%k1%}"
                     : : "m"(index), "r"(&index), "r"(one) : "memory");
}
VX_EXPORT void masked_wide(uint32_t address) {
    __asm__ volatile("vpcmpeqd %%ymm0, %%ymm0, %%ymm0; vmaskmovps %%ymm0, %%ymm0, (%0)" : : "r"(address) : "memory");
}
VX_EXPORT void store_wide(uint32_t address) {
    __asm__ volatile("vmovdqu64 %%zmm0, (%0)" : : "r"(address) : "memory");
}

/* leaf, subleaf; and xgetbv, whose answer needs no call of the system. */
VX_EXPORT vx_bytes identify(uint32_t leaf, uint32_t subleaf) {
    static uint32_t out[4];
    __asm__ volatile("mov %%ebx, %%edi; cpuid; xchg %%ebx, %%edi"
                     : "=a"(out[0]), "=D"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(leaf), "c"(subleaf));
    return vx_borrow(out, sizeof out);
}
VX_EXPORT uint32_t extended_control(uint32_t which) {
    uint32_t low;
    __asm__ volatile("xgetbv" : "=a"(low) : "c"(which) : "edx");
    return low;
}

/* The last three of four words from 65533 bytes behind an address; the first is left out. */
VX_EXPORT vx_bytes read_behind(uint32_t address) {
    static const uint32_t mask[4] __attribute__((aligned(16))) = {0, ~0u, ~0u, ~0u};
    __asm__ volatile("vmovdqa %1, %%xmm1; vmaskmovps 0xfffd(%0), %%xmm1, %%xmm1; vmovdqu %%xmm1, %2"
                     : : "r"(address), "m"(mask), "m"(seen) : "xmm1", "memory");
    return answer(16);
}
