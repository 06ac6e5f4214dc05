/* Guests that make code and try to have an older or another version of it run. */
#include <vxplug.h>
#include <stdio.h>
#include <string.h>

#define PAGE 4096u
#define NONE 0
#define RW 3
#define RX 5
#define RWX 7
#define FIXED 0x10

static int32_t system_call(uint32_t n, uint32_t b, uint32_t c, uint32_t d, uint32_t s) {
    int32_t result;
    __asm__ volatile("int $0x80" : "=a"(result) : "0"(n), "b"(b), "c"(c), "d"(d), "S"(s), "D"(-1) : "memory");
    return result;
}
static int32_t protect(void *at, uint32_t size, uint32_t prot) { return system_call(125, (uint32_t)at, size, prot, 0); }
static int32_t unmap(void *at, uint32_t size) { return system_call(91, (uint32_t)at, size, 0, 0); }
static uint8_t *map(uint32_t at, uint32_t size, uint32_t prot) {
    return (uint8_t *)system_call(192, at, size, prot, 0x22 | (at ? FIXED : 0));
}

static void put(volatile uint8_t *at, uint32_t value) { /* mov $value, %eax; ret */
    at[0] = 0xb8, at[1] = (uint8_t)value, at[2] = (uint8_t)(value >> 8);
    at[3] = (uint8_t)(value >> 16), at[4] = (uint8_t)(value >> 24), at[5] = 0xc3;
}
static uint32_t run(volatile uint8_t *at) { return ((uint32_t (*)(void))at)(); }
static uint32_t run_put(volatile uint8_t *at, uint32_t value) { return put(at, value), run(at); }

static uint8_t *page; /* where most of the games are played */
static uint8_t *fresh(uint32_t prot) { return page = map(0, 2 * PAGE, prot); }

/* --- code that is no longer there --- */
VX_EXPORT uint32_t run_unmapped(void) { return run_put(fresh(RWX), 1) + (uint32_t)unmap(page, 2 * PAGE) + run(page); }
VX_EXPORT uint32_t run_hidden(void) { return run_put(fresh(RWX), 1) + (uint32_t)protect(page, PAGE, NONE) + run(page); }
VX_EXPORT uint32_t run_unexecutable(void) { return run_put(fresh(RWX), 1) + (uint32_t)protect(page, PAGE, RW) + run(page); }
VX_EXPORT uint32_t run_never_executable(void) { return run_put(fresh(RW), 1); }
VX_EXPORT uint32_t run_own_text_unexecutable(void) {
    static void (*const volatile self)(void) = (void (*)(void))run_never_executable;
    protect((void *)((uint32_t)self & ~(PAGE - 1)), PAGE, RW);
    self();
    return 0;
}
VX_EXPORT uint32_t run_remapped(void) { /* zeros: add %al, (%eax) at address 0x10 */
    run_put(fresh(RWX), 1), map((uint32_t)page, PAGE, RWX);
    uint32_t result;
    __asm__ volatile("call *%1" : "=a"(result) : "r"(page), "0"(16) : "memory");
    return result;
}
VX_EXPORT void store_without_right(void) { run_put(fresh(RWX), 1), protect(page, PAGE, RX), put(page, 2); }

/* An instruction that the end of what is executable cuts short; `whole` makes it whole. */
VX_EXPORT uint32_t cut_short(bool whole) {
    put(fresh(RWX) + PAGE - 3, 0x05040302);
    protect(page + PAGE, PAGE, RW);
    if (!whole)
        return run(page + PAGE - 3);
    protect(page + PAGE, PAGE, RWX);
    return run(page + PAGE - 3);
}
/* The same address again after it was translated cut short: only the rights of the page behind changed. */
VX_EXPORT uint32_t cut_first(void) {
    static const uint8_t unless_zero[] = {0xc3, 0x85, 0xc0, 0x75, 0xfb}; /* ret; test eax, eax; jnz back */
    uint32_t first, second;
    put(fresh(RWX) + PAGE - 3, 77);
    memcpy(page + PAGE - 8, unless_zero, 5);
    protect(page + PAGE, PAGE, RW);
    __asm__ volatile("call *%1" : "=a"(first) : "r"(page + PAGE - 7), "0"(9) : "memory");
    protect(page + PAGE, PAGE, RWX);
    __asm__ volatile("call *%1" : "=a"(second) : "r"(page + PAGE - 7), "0"(0) : "memory");
    return first * 100 + second;
}

/* --- the ends of the address space --- */
#define TOP 0xfffdf000u /* the last page of all, of the stack */
static uint8_t *top(void) { return protect((void *)TOP, PAGE, RWX) == 0 ? (uint8_t *)TOP : NULL; }
VX_EXPORT uint32_t run_off_the_top(void) {
    uint8_t *at = top();
    memset(at + PAGE - 16, 0x90, 16);
    return run(at + PAGE - 16);
}
VX_EXPORT uint32_t cut_at_the_top(void) {
    uint8_t *at = top();
    at[PAGE - 2] = 0xb8;
    return run(at + PAGE - 2);
}
/* Relative branches that leave 2^32 at either end. */
VX_EXPORT uint32_t wrap_around(void) {
    uint8_t *high = top() + PAGE - 64, *low = map(0x01000000, PAGE, RWX), kept[64];
    uint32_t up = (uint32_t)low - ((uint32_t)high + 5), down = (uint32_t)(high + 16) - ((uint32_t)low + 5);
    memcpy(kept, high, 64);
    high[0] = 0xe9, memcpy(high + 1, &up, 4); /* jmp low */
    low[0] = 0xe9, memcpy(low + 1, &down, 4); /* jmp high + 16 */
    put(high + 16, 4242);
    uint32_t result = up < 0x80000000 && down > 0x80000000 ? run(high) : 0;
    memcpy(high, kept, 64);
    return result;
}

/* --- entries everywhere --- */
static uint32_t seed = 1;
static uint8_t noise(void) { return (uint8_t)((seed = seed * 1664525 + 1013904223) >> 24); }
VX_EXPORT void fill_with_noise(uint32_t start) {
    seed = start;
    for (uint32_t i = 0; i < 2 * PAGE; i++)
        page[i] = noise();
}
VX_EXPORT uint32_t noise_page(void) { return (uint32_t)fresh(RWX); }
VX_EXPORT void jump_to(uint32_t address) { ((void (*)(void))address)(); }
/* Overlapping blocks at every byte; then one byte in the middle changes, for each of them. */
VX_EXPORT uint32_t overlapping(void) {
    uint32_t wrong = 0;
    memset(fresh(RWX), 0x40, PAGE); /* inc %eax */
    page[PAGE - 1] = 0xc3;
    for (uint32_t i = PAGE - 200; i < PAGE; i++)
        wrong += run(page + i) == 0xffffffff;
    for (uint32_t i = PAGE - 200; i < PAGE - 1; i++) {
        uint32_t result;
        page[i] = 0x48; /* dec %eax */
        __asm__ volatile("call *%1" : "=a"(result) : "r"(page + PAGE - 200), "0"(0) : "memory");
        wrong += result != 199 - 2 * (i - (PAGE - 200) + 1);
    }
    return wrong;
}

/* --- storms --- */
/* Code on every other one of many pages, over and over: each guarded page is one more host mapping.  They stay. */
VX_EXPORT uint32_t scattered(uint32_t pages, uint32_t rounds) {
    uint8_t *at = map(0, 2 * pages * PAGE, RWX);
    uint32_t wrong = 0;
    for (uint32_t round = 0; round < rounds; round++)
        for (uint32_t i = 0; i < pages; i++)
            wrong += run_put(at + 2 * i * PAGE + 64, round ^ i) != (round ^ i);
    return wrong;
}
VX_EXPORT uint32_t rewrite_often(uint32_t times) {
    uint32_t wrong = 0;
    fresh(RWX);
    for (uint32_t i = 0; i < times; i++)
        wrong += run_put(page + PAGE - 3, i * 2654435761u) != i * 2654435761u; /* across both pages */
    unmap(page, 2 * PAGE);
    return wrong;
}
/* Unique code without end: megabytes in a ring, each piece as long as a block gets. */
VX_EXPORT void endless_code(void) {
    const uint32_t size = 8u << 20;
    uint8_t *ring = map(0, size, RWX);
    for (uint32_t at = 0, n = 0;; at = (at + 512) % size, n++) {
        for (uint32_t i = 0; i < 500; i += 5)
            ring[at + i] = 0x05, memcpy(ring + at + i + 1, &n, 4); /* add $n, %eax */
        ring[at + 500] = 0xc3;
        run(ring + at);
    }
}
VX_EXPORT void endless_rewriting(void) {
    put(fresh(RWX), 0);
    __asm__ volatile("1: call *%0; incb 1(%0); jmp 1b" : : "r"(page) : "eax", "memory");
}
VX_EXPORT void endless_beside_itself(void) { /* incl page+64; jmp page: the store is in the page that runs */
    fresh(RWX);
    uint32_t counter = (uint32_t)page + 64;
    page[0] = 0xff, page[1] = 0x05, memcpy(page + 2, &counter, 4), page[6] = 0xeb, page[7] = 0xf8;
    run(page);
}
VX_EXPORT void endless_remapping(void) {
    for (fresh(RWX);;) {
        run_put(page, 1);
        protect(page, PAGE, RW), protect(page, PAGE, RX), map((uint32_t)page, PAGE, RWX);
    }
}

/* --- the host in between --- */
VX_EXPORT uint32_t code_from_host(vx_view code) { /* the arguments lie in memory the guest may not make executable */
    return (uint32_t)protect((void *)((uint32_t)code.ptr & ~(PAGE - 1)), PAGE, RWX);
}
VX_EXPORT vx_bytes show_code(void) { return put(fresh(RWX), 5), run(page), vx_borrow(page, 6); }
/* While the outer call waits in its output hook, the inner one rewrites what the outer one runs next. */
VX_EXPORT void patch(uint32_t value) { put(page, value); }
static void say(void) { puts("now"), fflush(stdout); }
VX_EXPORT uint32_t calls_out(void) {
    put(fresh(RWX), 1);
    uint32_t before = run(page);
    say();
    return before * 1000 + run(page);
}
/* The call that goes out comes back into code that the inner call has changed. */
VX_EXPORT void patch_caller(uint32_t value) { page[64 + 12] = (uint8_t)value; }
VX_EXPORT uint32_t calls_out_of_code(void) {
    fresh(RWX);
    uint8_t *at = page + 64;
    uint32_t target = (uint32_t)say;
    at[0] = 0xb8, memcpy(at + 1, &target, 4); /* mov $say, %eax */
    at[5] = 0x83, at[6] = 0xec, at[7] = 0x0c; /* sub $12, %esp */
    at[8] = 0xff, at[9] = 0xd0;               /* call *%eax */
    at[10] = 0x90, at[11] = 0xb8, at[12] = 1, at[13] = at[14] = at[15] = 0; /* mov $1, %eax */
    at[16] = 0x83, at[17] = 0xc4, at[18] = 0x0c, at[19] = 0xc3; /* add $12, %esp; ret */
    return run(at);
}
VX_EXPORT uint32_t run_page(void) { return run(page); }
VX_EXPORT uint32_t run_fresh(uint32_t value) { return run_put(page ? page : fresh(RWX), value); }
/* Long loops in code of its own, changed before each; how many went wrong. */
VX_EXPORT uint32_t long_run(uint32_t steps) {
    static const uint8_t spin[] = {0xb9, 0, 0, 0x20, 0, 0x49, 0x75, 0xfd, 0x31, 0xc0, 0x05, 0, 0, 0, 0, 0xc3};
    uint32_t wrong = 0; /* mov $0x200000, %ecx; dec %ecx; jnz back; xor %eax, %eax; add $step, %eax; ret */
    memcpy(fresh(RWX), spin, sizeof spin);
    for (uint32_t i = 0; i < steps; i++)
        page[11] = (uint8_t)i, wrong += run(page) != (i & 0xff);
    unmap(page, 2 * PAGE);
    return wrong;
}
/* Code at addresses that share their low 16 bits, and so their place in the lookup table. */
VX_EXPORT uint32_t colliding(uint32_t rounds) {
    uint8_t *at = map(0, 16 << 16, RWX);
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < 16; i++)
        put(at + (i << 16) + 64, i);
    for (uint32_t i = 0; i < rounds; i++) {
        uint32_t which = noise() & 15;
        if (i % 64 == 0)
            put(at + (which << 16) + 64, which);
        wrong += run(at + (which << 16) + 64) != which;
    }
    unmap(at, 16 << 16);
    return wrong;
}

/* --- a cache that is lost while a call is open --- */
VX_EXPORT int32_t calls_back(int32_t (*callback)(int32_t)) { return callback((int32_t)run_put(fresh(RWX), 5)); }
VX_EXPORT int32_t use_avx(void) {
    __asm__ volatile("vxorps %ymm0, %ymm0, %ymm0");
    return 1;
}
/* The last thing that it does is a jump to a host function, which writes where the code is. */
VX_EXPORT void prepare(void) { run_put(fresh(RWX), 5); }
VX_EXPORT int32_t jumps_out(int32_t (*callback)(vx_mut), int32_t unused, int32_t room) {
    __asm__ volatile("mov 4(%%esp), %%eax; mov %0, %%ecx; mov %%ecx, 4(%%esp); movl $6, 8(%%esp); jmp *%%eax"
                     :: "m"(page));
    __builtin_unreachable();
}

#ifdef EARLY
/* Before the snapshot: code made by a constructor, in fresh memory and in the plugin's own text. */
static uint8_t *made;
__attribute__((aligned(4096), noinline)) static uint32_t own_text(void) {
    uint32_t value = 1;
    __asm__ volatile("" : "+r"(value));
    return value;
}
__attribute__((constructor)) static void make(void) {
    made = map(0, PAGE, RWX);
    run_put(made, 1), put(made, 1234);
    own_text();
    protect((void *)own_text, PAGE, RWX);
    put((uint8_t *)own_text, 4321);
    run(made), own_text(); /* both pages are guarded when the snapshot is taken */
}
VX_EXPORT uint32_t made_early(void) { return run(made) * 10000 + own_text(); }
VX_EXPORT void change_made(uint32_t value) { put(made, value); }
#endif
