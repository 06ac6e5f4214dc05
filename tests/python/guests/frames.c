/* Ends of every kind, at lines that tests/python/test_traceback.py names by these marks. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vxplug.h>

#define NOINLINE __attribute__((noinline))

NOINLINE static int innermost(int *p) {
    return *(volatile int *)p + 1; /* mark: fault */
}

NOINLINE static int middle(int n) {
    volatile char room[64];
    room[n & 63] = 1;
    int got = innermost((int *)(long)n); /* mark: middle */
    return got + room[1];
}

VX_EXPORT int32_t crash(int32_t n) {
    return middle(n) * 3; /* mark: crash */
}

static int compare(const void *a, const void *b) {
    (void)a, (void)b;
    return *(volatile int *)8; /* mark: compare */
}

VX_EXPORT void through_libc(void) {
    int numbers[] = {3, 2, 1};
    qsort(numbers, 3, sizeof *numbers, compare); /* mark: qsort */
}

/* A call that is the last instruction of its function returns to what is another function's. */
NOINLINE static void ends_with_a_call(void) {
    innermost((int *)4);
    abort(); /* mark: last call */
}
VX_EXPORT void last_call(void) { ends_with_a_call(); }

VX_EXPORT int32_t deep(int32_t n) {
    volatile int room[8];
    room[0] = n;
    return deep(n + 1) + room[0]; /* mark: deep */
}

VX_EXPORT void jump(uint32_t address) {
    ((void (*)(void))address)(); /* mark: jump */
    __asm__ volatile("");
}

VX_EXPORT void fail(void) {
    assert(!"the mark of the guest"); /* mark: assert */
}

VX_EXPORT void quit(int32_t code) {
    fprintf(stderr, "bad \033[31m thing \xe2\x80\xae\n");
    exit(code);
}

VX_EXPORT void say(const char *text) {
    fputs(text, stderr);
}

VX_EXPORT void say_and_crash(const char *text) {
    fputs(text, stderr);
    innermost((int *)4);
}

VX_EXPORT void spin(void) {
    for (;;)
        __asm__ volatile(""); /* mark: spin */
}

/* Stacks that lie: every one ends in ud2 with a frame pointer or stack pointer of its own choice. */
VX_EXPORT void pivot(uint32_t esp, uint32_t ebp) {
    __asm__ volatile("mov %0, %%ecx\n mov %1, %%ebp\n mov %%ecx, %%esp\n ud2" : : "r"(esp), "r"(ebp) : "ecx", "memory");
}
VX_EXPORT void cyclic(void) {
    static uint32_t ring[2];
    ring[0] = (uint32_t)ring;
    ring[1] = (uint32_t)cyclic + 1;
    __asm__ volatile("mov %0, %%ebp\n mov %0, %%esp\n ud2" : : "r"(ring) : "memory");
}

VX_EXPORT int32_t overflow(int32_t n) { return n + 1; }
VX_EXPORT int32_t shift(int32_t n) { return 1 << n; }
VX_EXPORT int32_t element(int32_t n) {
    static int numbers[4];
    return numbers[n];
}
VX_EXPORT void smash(uint32_t n) {
    char room[16];
    memset(room, 'A', n);
    __asm__ volatile("" : : "r"(room) : "memory");
}
