/* Hostile initialisation: ATTACK names what the constructor does before the host's snapshot. */
#include <vxplug.h>
#include <stdlib.h>
#include <string.h>

static int32_t system_call(uint32_t n, uint32_t b, uint32_t c, uint32_t d, uint32_t s) {
    int32_t result;
    __asm__ volatile("int $0x80" : "=a"(result) : "0"(n), "b"(b), "c"(c), "d"(d), "S"(s), "D"(0) : "memory");
    return result;
}
#define PAGE 4096u
#define PROTECT(at, size, prot) system_call(125, at, size, prot, 0)
#define UNMAP(at, size) system_call(91, at, size, 0, 0)
#define MAP(at, size, prot, flags) system_call(192, at, size, prot, 0x20 | 2 | (flags))
#define FIXED 0x10

static uint32_t stack_page(void) { uint32_t here; return (uint32_t)&here & ~(PAGE - 1); }
static char secret[2 * PAGE] __attribute__((aligned(4096)));
static const volatile char constants[4 * PAGE] __attribute__((aligned(4096))) = {[PAGE] = 1, [2 * PAGE] = 2, [3 * PAGE] = 3};

static void unreadable_stack(void) { PROTECT(stack_page() - 16 * PAGE, 8 * PAGE, 0); }
static void unreadable_stack_top(void) {
    __asm__ volatile("mov $125,%eax; mov $0xfffdf000,%ebx; mov $4096,%ecx; xor %edx,%edx; int $0x80;"
                     "xor %eax,%eax; int $0x30; ud2");
}
static void write_only_stack(void) { PROTECT(stack_page() - 16 * PAGE, 8 * PAGE, 2); }
static void holes_in_stack(void) {
    for (uint32_t i = 2; i < 64; i += 2)
        UNMAP(stack_page() - i * PAGE, PAGE);
}
static void no_stack(void) {
    __asm__ volatile("mov $91,%eax; mov $0xff7e0000,%ebx; mov $0x800000,%ecx; int $0x80; xor %eax,%eax; int $0x30; ud2");
}
static void wild_esp(void) { __asm__ volatile("mov $0x1236,%esp; xor %eax,%eax; int $0x30; ud2"); }
static void highest_esp(void) { __asm__ volatile("mov $0xffffffff,%esp; xor %eax,%eax; int $0x30; ud2"); }
static void zero_esp(void) { __asm__ volatile("xor %esp,%esp; xor %eax,%eax; int $0x30; ud2"); }
static void hidden_data(void) {
    memcpy(secret, "kept", 5);
    PROTECT((uint32_t)secret, sizeof secret, 0);
}
/* Written while they initialise, and constants again. */
static void changed_constants(void) {
    PROTECT((uint32_t)constants, sizeof constants, 3);
    *(volatile char *)&constants[0] = 7;
    *(volatile char *)&constants[2 * PAGE] = 8;
    PROTECT((uint32_t)constants, sizeof constants, 1);
}
/* Five pages of the stack in use, the second and fourth executable too. */
#define MARKED(i) ((volatile char *)(0xfffd9000u + (i) * PAGE))
static void code_in_stack(void) {
    __asm__ volatile("mov $0xfffd8ff0,%esp; call mark_stack; xor %eax,%eax; int $0x30; ud2");
}
__attribute__((used)) static void mark_stack(void) {
    for (uint32_t i = 0; i < 5; i++)
        *MARKED(i) = (char)(i + 1);
    PROTECT((uint32_t)MARKED(1), PAGE, 7);
    PROTECT((uint32_t)MARKED(3), PAGE, 7);
}
static void everything(void) {
    while (MAP(0, 1 << 20, 3, 0) > 0 || MAP(0, 1 << 20, 3, 0) < -4095)
        ;
    while (MAP(0, PAGE, 3, 0) != -12)
        ;
}
static void unlike_pages(void) {
    uint32_t at = (uint32_t)MAP(0, 16 << 20, 3, 0);
    for (uint32_t i = 0; i < 4096; i += 2)
        PROTECT(at + i * PAGE, PAGE, 1);
}
static void thread_area(void) {
    uint32_t descriptor[4] = {~0u, ~0u, ~0u, ~0u};
    system_call(243, (uint32_t)descriptor, 0, 0, 0);
    __asm__ volatile("xor %eax,%eax; int $0x30; ud2");
}
static void break_into_stack(void) { system_call(45, stack_page(), 0, 0, 0); system_call(45, 0xfffdffff, 0, 0, 0); }
static void endless(void) { for (;;) __asm__ volatile(""); }
static void leave(void) { exit(3); }
static void give_up(void) { abort(); }
static void fault(void) { *(volatile int *)16 = 1; }
static void flood(void) { for (;;) system_call(4, 1, (uint32_t)"flood", 5, 0); }

__attribute__((constructor)) static void attack(void) { ATTACK(); }

VX_EXPORT int32_t add(int32_t a, int32_t b) { return a + b; }
VX_EXPORT uint32_t size_of(vx_view data) { return (uint32_t)data.len; }
VX_EXPORT uint32_t four_constants(void) {
    return constants[0] | constants[PAGE] << 8 | constants[2 * PAGE] << 16 | (uint32_t)constants[3 * PAGE] << 24;
}
VX_EXPORT bool secret_kept(void) {
    PROTECT((uint32_t)secret, sizeof secret, 3);
    return strcmp(secret, "kept") == 0;
}
/* As it was marked, once; then otherwise. */
VX_EXPORT bool stack_kept(void) {
    bool kept = true;
    for (uint32_t i = 0; i < 5; i++) {
        kept &= *MARKED(i) == (char)(i + 1);
        *MARKED(i) = 77;
    }
    system_call(219, (uint32_t)MARKED(0), 5 * PAGE, 4, 0); /* madvise DONTNEED */
    for (uint32_t i = 0; i < 5; i++)
        kept &= *MARKED(i) == 0;
    return kept;
}
VX_EXPORT void ready_again(void) { __asm__ volatile("int $0x30" : : "a"(0) : "memory"); }

/* Islands of one page, touched, then joined: each join could leave the kernel one mapping more. */
VX_EXPORT void islands(void) {
    uint32_t at = 0x40000000;
    for (uint32_t round = 0; round < 12; round++, at += 1024 * PAGE) {
        for (uint32_t i = 0; i < 900; i += 2)
            if (MAP(at + i * PAGE, PAGE, 3, FIXED) > -4096u)
                return;
            else
                *(volatile char *)(at + i * PAGE) = 1;
        for (uint32_t i = 1; i < 900; i += 2)
            MAP(at + i * PAGE, PAGE, 3, FIXED);
    }
}
VX_EXPORT uint32_t stripes(void) {
    uint32_t refused = 0;
    uint32_t at = (uint32_t)MAP(0, 32 << 20, 3, 0);
    for (uint32_t i = 0; i < 8192; i += 2)
        refused += PROTECT(at + i * PAGE, PAGE, 1) != 0;
    return refused;
}
/* Pages of the snapshot, which the host maps from a file, traded for others and back. */
VX_EXPORT bool trade_image_pages(void) {
    for (uint32_t round = 0; round < 50; round++) {
        PROTECT((uint32_t)secret, PAGE, 3);
        memcpy(secret, "dirty", 6);
        PROTECT((uint32_t)secret, PAGE, 0);
    }
    return PROTECT((uint32_t)secret, PAGE, 3) == 0 && strcmp(secret, "dirty") == 0;
}
VX_EXPORT bool heap_page_is_zero_after_remap(void) {
    static char *heap;
    uint32_t at = (uint32_t)MAP(0x50000000, 2 * PAGE, 3, FIXED);
    heap = (char *)at;
    memset(heap, 7, 2 * PAGE);
    UNMAP(at, PAGE);
    MAP(at, PAGE, 3, FIXED);
    return heap[0] == 0 && heap[PAGE] == 7;
}
