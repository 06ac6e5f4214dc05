/* What the host's processor has, and what of it a guest is told.
 *
 * A guest is told of what the table has rows for, and of that what this processor has: a fixed answer
 * for everything else.  xsave and its family are refused, so leaf 0xd gives sizes that nobody can use;
 * programs ask for them all the same before they trust xgetbv. */
#include "internal.h"

#include <cpuid.h>

enum { EAX, EBX, ECX, EDX };

/* Asked once: under a hypervisor each question costs microseconds, or tens of them. */
typedef struct host {
    uint32_t last_leaf[2]; /* of the basic and the extended ones */
    unsigned offers; /* NEEDS_* */
    uint32_t one[4], seven[4], seven_one[4], extended[4]; /* leaves 1, 7, 7.1, 80000001 */
    uint32_t xcr0;   /* the part of it that a guest is told */
    uint32_t offsets[8]; /* of XSAVE components by number */
} host;

static host this_host;
static vx_once host_once = VX_ONCE_INIT;

/* Of a leaf that the processor has not the answer is another's: nothing, here. */
static void ask(uint32_t leaf, uint32_t subleaf, uint32_t r[4]) {
    memset(r, 0, 4 * sizeof *r);
    if (leaf <= this_host.last_leaf[leaf >> 31])
        __cpuid_count(leaf, subleaf, r[EAX], r[EBX], r[ECX], r[EDX]);
}

static uint32_t read_xcr0(void) {
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

/* Is component `number`, of `size` bytes, where the state has room for it? */
static bool find_component(unsigned number, uint32_t size) {
    uint32_t r[4];
    ask(0xd, number, r);
    this_host.offsets[number] = r[EBX];
    return r[EAX] >= size && r[EBX] >= ST_FX_PRESENT + 64 && r[EBX] + r[EAX] <= ST_FX_SIZE;
}

#define OSXSAVE_AVX ((1u << 27) | (1u << 28)) /* leaf 1, ecx */
#define AVX512F (1u << 16)                    /* leaf 7, ebx */
#define XCR0_AVX 0x6u
#define XCR0_AVX512 0xe0u

static void look_at_host(void) {
    this_host.offers = NEEDS_X87 | NEEDS_SSE;
    for (uint32_t i = 0; i < 2; i++)
        this_host.last_leaf[i] = __get_cpuid_max(i << 31, NULL);
    ask(1, 0, this_host.one);
    ask(7, 0, this_host.seven);
    ask(7, 1, this_host.seven_one);
    ask(0x80000001, 0, this_host.extended);
    if ((this_host.one[ECX] & OSXSAVE_AVX) != OSXSAVE_AVX)
        return;
    uint32_t xcr0 = read_xcr0();
    if ((xcr0 & XCR0_AVX) != XCR0_AVX || !find_component(2, 256))
        return;
    this_host.offers |= NEEDS_AVX;
    this_host.xcr0 = XSAVE_X87 | XCR0_AVX;
    if (!(this_host.seven[EBX] & AVX512F) || (xcr0 & XCR0_AVX512) != XCR0_AVX512 || !find_component(5, 64) ||
        !find_component(6, 512))
        return;
    this_host.offers |= NEEDS_AVX512;
    this_host.xcr0 |= XCR0_AVX512;
}

static const host *the_host(void) {
    vx_run_once(&host_once, look_at_host);
    return &this_host;
}

unsigned cpu_offers(void) { return the_host()->offers; }
uint32_t cpu_xcr0(void) { return the_host()->xcr0; }

/* zmm16-31 have no names in 32-bit mode, so their component stays out. */
uint32_t cpu_xsave_mask(unsigned uses) {
    uint32_t mask = uses & NEEDS_AVX ? XSAVE_X87 | XSAVE_SSE | XSAVE_AVX : 0;
    return uses & NEEDS_AVX512 ? mask | XSAVE_MASKS | XSAVE_ZMM : mask;
}

uint32_t cpu_xsave_offset(uint32_t component) {
    return the_host()->xcr0 & component ? the_host()->offsets[__builtin_ctz(component)] : 0;
}

/* --- what a guest is told ------------------------------------------------------------------------ */

/* Leaf 1.  edx: fpu, cx8, cmov, mmx, fxsr, sse, sse2.  ecx: sse3, pclmul, ssse3, sse4.1, sse4.2, movbe,
 * popcnt, aes; with AVX fma, xsave and osxsave, avx, f16c. */
#define ONE_EDX 0x07808101u
#define ONE_ECX 0x02d80203u
#define ONE_ECX_AVX 0x3c001000u
#define SIGNATURE 0x00000633u /* family 6: a generic i686 */
/* Leaf 7.  ebx: bmi1, bmi2, adx, sha; with AVX avx2; with AVX-512 f, dq, ifma, cd, bw, vl.  ecx: gfni; with AVX
 * vaes, vpclmulqdq; with AVX-512 vbmi, vbmi2, vnni, bitalg, vpopcntdq.  edx: with AVX-512 fp16.  Leaf 7.1, eax:
 * avx512_bf16. */
#define SEVEN_EBX 0x20080108u
#define SEVEN_EBX_AVX 0x00000020u
#define SEVEN_EBX_AVX512 0xd0230000u
#define SEVEN_ECX 0x00000100u
#define SEVEN_ECX_AVX 0x00000600u
#define SEVEN_ECX_AVX512 0x00005842u
#define SEVEN_EDX_AVX512 0x00800000u
#define SEVEN_ONE_EAX_AVX512 0x00000020u
/* Leaf 80000001, ecx: lahf, lzcnt, prefetchw. */
#define EXTENDED_ECX 0x00000121u

static bool has(unsigned need) { return the_host()->offers & need; }

/* What the host says, of bits that are told always, with AVX, and with AVX-512. */
static uint32_t told(uint32_t host_says, uint32_t always, uint32_t avx, uint32_t avx512) {
    return host_says & (always | (has(NEEDS_AVX) ? avx : 0) | (has(NEEDS_AVX512) ? avx512 : 0));
}

static void identify_maker(uint32_t r[4]) {
    r[EAX] = 0xd;
    r[EBX] = 0x6c707856, r[EDX] = 0x78566775, r[ECX] = 0x67756c70; /* "VxplugVxplug" */
}

static void identify_features(uint32_t r[4]) {
    r[EAX] = SIGNATURE;
    r[ECX] = told(the_host()->one[ECX], ONE_ECX, ONE_ECX_AVX, 0);
    r[EDX] = ONE_EDX;
}

static void identify_more_features(uint32_t subleaf, uint32_t r[4]) {
    if (subleaf == 0) {
        r[EAX] = 1;
        r[EBX] = told(the_host()->seven[EBX], SEVEN_EBX, SEVEN_EBX_AVX, SEVEN_EBX_AVX512);
        r[ECX] = told(the_host()->seven[ECX], SEVEN_ECX, SEVEN_ECX_AVX, SEVEN_ECX_AVX512);
        r[EDX] = told(the_host()->seven[EDX], 0, 0, SEVEN_EDX_AVX512);
    } else if (subleaf == 1) {
        r[EAX] = told(the_host()->seven_one[EAX], 0, 0, SEVEN_ONE_EAX_AVX512);
    }
}

/* The registers a guest has and the bytes that an area for them would take; no subleaf tells more. */
static void identify_state(uint32_t subleaf, uint32_t r[4]) {
    if (subleaf == 0 && cpu_xcr0() != 0) {
        r[EAX] = cpu_xcr0();
        r[EBX] = r[ECX] = ST_FX_SIZE;
    }
}

void cpu_identify(uint32_t leaf, uint32_t subleaf, uint32_t r[4]) {
    memset(r, 0, 4 * sizeof *r);
    switch (leaf) {
    case 0: identify_maker(r); return;
    case 1: identify_features(r); return;
    case 7: identify_more_features(subleaf, r); return;
    case 0xd: identify_state(subleaf, r); return;
    case 0x80000000: r[EAX] = 0x80000001; return;
    case 0x80000001: r[ECX] = told(the_host()->extended[ECX], EXTENDED_ECX, 0, 0); return;
    default: return;
    }
}
