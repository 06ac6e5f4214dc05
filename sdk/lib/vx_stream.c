/* Streams: an exported function that gives its result in pieces runs on a stack of its own.  The host
 * starts it, asks for one piece after the other, and closes it; each is an ordinary call. */
#include <stdlib.h>
#include <sys/mman.h>
#include "vxplug.h"

enum { STACK = 256 << 10, GUARD = VX_STACK_GUARD };
enum { FRESH, SUSPENDED, RUNNING, FINISHED };

/* Memory that the host asked for to put arguments in. */
typedef struct block {
    struct block *next;
    uint32_t pad[3]; /* what follows is aligned as malloc's */
} block;

typedef struct coroutine {
    uint32_t *words; /* where the host writes the arguments; it reads this pointer, so it comes first */
    uint32_t esp;    /* of the side that waits */
    struct coroutine *outer;
    block *blocks;
    unsigned char *memory;
    vx_view piece;
    uint8_t state;
    bool closing, orphan;
} coroutine;

static coroutine *running;

/* Saves this side's registers on its stack, exchanges esp with the slot, and takes up the other side. */
static __attribute__((naked, noinline)) void swap(__attribute__((unused)) uint32_t *slot) {
    __asm__("movl 4(%esp), %eax\n\t"
            "pushl %ebp\n\tpushl %ebx\n\tpushl %esi\n\tpushl %edi\n\t"
            "movl %esp, %edx\n\tmovl (%eax), %esp\n\tmovl %edx, (%eax)\n\t"
            "popl %edi\n\tpopl %esi\n\tpopl %ebx\n\tpopl %ebp\n\tret");
}

static void resume(coroutine *c) {
    c->outer = running;
    c->state = RUNNING;
    running = c;
    swap(&c->esp);
    running = c->outer;
}

static __attribute__((used)) void finish(void) {
    running->state = FINISHED;
    swap(&running->esp);
}

/* What the function returns to; the stack is then aligned otherwise than at a function's start. */
static __attribute__((naked, noinline)) void finished(void) {
    __asm__("andl $-16, %%esp\n\tcall %P0" : : "i"(finish));
}

/* The stack as if the function had been called with `count` words and had not begun. */
static void prepare(coroutine *c, uint32_t function, uint32_t count) {
    uint32_t top = (uint32_t)(uintptr_t)c->memory + GUARD + STACK;
    uint32_t *at = (uint32_t *)(uintptr_t)((top - 4 * count) & ~15u);
    c->words = at;
    *--at = (uint32_t)(uintptr_t)finished;
    *--at = function;
    for (int i = 0; i < 4; i++) *--at = 0; /* the registers that swap takes up */
    c->esp = (uint32_t)(uintptr_t)at;
}

__attribute__((used, retain)) coroutine *vx_stream_open_(uint32_t function, uint32_t count) {
    coroutine *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->memory = mmap(NULL, GUARD + STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (c->memory == MAP_FAILED || mprotect(c->memory, GUARD, PROT_NONE) != 0) {
        if (c->memory != MAP_FAILED) munmap(c->memory, GUARD + STACK);
        free(c);
        return NULL;
    }
    prepare(c, function, count);
    return c;
}

__attribute__((used, retain)) void *vx_stream_alloc_(coroutine *c, uint32_t size) {
    block *b = size <= UINT32_MAX - sizeof *b ? malloc(sizeof *b + size) : NULL;
    if (!b) return NULL;
    b->next = c->blocks;
    c->blocks = b;
    return b + 1;
}

static void destroy(coroutine *c) {
    for (block *b = c->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    munmap(c->memory, GUARD + STACK);
    free(c);
}

/* No bytes are the end: vx_yield passes over pieces without any. */
__attribute__((used, retain)) vx_bytes vx_stream_next_(coroutine *c) {
    if (c->state == RUNNING) return vx_raise(VX_ValueError, "the stream is already running");
    if (c->state != FINISHED) resume(c);
    if (c->state != FINISHED) return vx_borrow(c->piece.ptr, c->piece.len);
    if (c->orphan) destroy(c);
    return vx_borrow(NULL, 0);
}

/* A function that has begun goes on to its end, without giving more. */
__attribute__((used, retain)) void vx_stream_close_(coroutine *c) {
    c->closing = true;
    if (c->state == SUSPENDED) resume(c);
    if (c->state == RUNNING) c->orphan = true;
    else destroy(c);
}

bool vx_yield(const void *data, size_t size) {
    coroutine *c = running;
    if (!c) {
        vx_raise(VX_RuntimeError, "vx_yield outside a vx_stream function");
        return false;
    }
    if (size == 0 || c->closing) return !c->closing;
    c->piece = (vx_view){data, size};
    c->state = SUSPENDED;
    swap(&c->esp);
    return !c->closing;
}
