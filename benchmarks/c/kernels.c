/* One kernel for each thing that a translator may do badly; `size` is how often. */
#include <stdint.h>
#include <string.h>
#include "bench.h"

static uint32_t seed;
static uint32_t next_random(void) { return seed = seed * 1664525u + 1013904223u; }

__attribute__((noinline)) static uint32_t fib_of(uint32_t n) {
    return n < 2 ? n : fib_of(n - 1) + fib_of(n - 2);
}
static uint32_t fib(uint32_t n) { return fib_of(n); }

#define STEP(name, expression) \
    __attribute__((noinline)) static uint32_t name(uint32_t x) { return expression; }
STEP(step_0, x + 0x9e3779b9u)
STEP(step_1, x ^ x >> 7)
STEP(step_2, x * 5)
STEP(step_3, x - 77)
static uint32_t (*volatile steps[4])(uint32_t) = {step_0, step_1, step_2, step_3};
static uint32_t indirect(uint32_t n) {
    uint32_t x = 1;
    for (uint32_t i = 0; i < n; i++) x = steps[x >> 9 & 3](x);
    return x;
}

#define SORTED 100000
static uint32_t numbers[SORTED];
static int ascending(const uint32_t *a, const uint32_t *b) { return (*a > *b) - (*a < *b); }
static int (*volatile order)(const uint32_t *, const uint32_t *) = ascending;
static void exchange(uint32_t *a, uint32_t *b) {
    uint32_t kept = *a;
    *a = *b, *b = kept;
}
static void sort(uint32_t *low, uint32_t *high, int (*compare)(const uint32_t *, const uint32_t *)) {
    while (low < high) {
        uint32_t pivot = low[(high - low) / 2], *i = low - 1, *j = high + 1;
        for (;;) {
            do i++; while (compare(i, &pivot) < 0);
            do j--; while (compare(j, &pivot) > 0);
            if (i >= j) break;
            exchange(i, j);
        }
        sort(low, j, compare);
        low = j + 1;
    }
}
static uint32_t quicksort(uint32_t n) {
    uint32_t count = n < SORTED ? n : SORTED, total = 0;
    seed = 1;
    for (uint32_t i = 0; i < count; i++) numbers[i] = next_random();
    if (count != 0) sort(numbers, numbers + count - 1, order);
    for (uint32_t i = 0; i < count; i++) total = total * 31 + numbers[i];
    return total;
}

/* One cycle through all cells, in an order that no prefetcher guesses (Sattolo). */
#define CELLS (1 << 12)
static uint32_t cells[CELLS];
static void link_cells(void) {
    seed = 1;
    for (uint32_t i = 0; i < CELLS; i++) cells[i] = i;
    for (uint32_t i = CELLS - 1; i > 0; i--) exchange(&cells[i], &cells[(next_random() >> 8) % i]);
}
static uint32_t chase(uint32_t n) {
    uint32_t at = 0;
    link_cells();
    for (uint32_t i = 0; i < n; i++) at = cells[at];
    return at;
}

static uint32_t stream(uint32_t n) {
    uint32_t total = 0;
    link_cells();
    for (uint32_t round = 0; round < n; round++)
        for (uint32_t i = 0; i < CELLS; i++) total += cells[i] ^ round;
    return total;
}

static uint32_t wide(uint32_t n) {
    uint64_t x = 88172645463325252u, total = 0;
    for (uint32_t i = 0; i < n; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        total += x * 6364136223846793005u;
    }
    return (uint32_t)(total ^ total >> 32);
}

#define SIDE 64
static double left[SIDE][SIDE], right[SIDE][SIDE], product[SIDE][SIDE];
static void multiply(void) {
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            double total = 0;
            for (int k = 0; k < SIDE; k++) total += left[i][k] * right[k][j];
            product[i][j] = total;
        }
}
static uint32_t matrix(uint32_t n) {
    double trace = 0;
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) left[i][j] = i - j, right[i][j] = i + j;
    for (uint32_t round = 0; round < n; round++) {
        left[0][0] = round % 7;
        multiply();
    }
    for (int i = 0; i < SIDE; i++) trace += product[i][i];
    return (uint32_t)(int64_t)trace;
}

/* A machine of five registers; the loop around a dense switch becomes a jump table. */
enum { LOAD, ADD, MULTIPLY, XOR, SHIFT, DECREMENT, JUMP_UNLESS_ZERO, HALT };
typedef struct instruction {
    uint8_t operation, to, from;
    int32_t value;
} instruction;
static const instruction mixer[] = {
    {LOAD, 0, 0, 1}, {LOAD, 1, 0, 31},    {MULTIPLY, 0, 1, 0},          {XOR, 0, 4, 0},  {SHIFT, 0, 0, 7},
    {ADD, 0, 4, 0},  {DECREMENT, 4, 0, 0}, {JUMP_UNLESS_ZERO, 4, 0, -6}, {HALT, 0, 0, 0},
};
__attribute__((noinline)) static uint32_t interpret(const instruction *at, uint32_t *registers) {
    for (;; at++) {
        uint32_t *to = &registers[at->to], from = registers[at->from];
        switch (at->operation) {
        case LOAD: *to = (uint32_t)at->value; break;
        case ADD: *to += from; break;
        case MULTIPLY: *to *= from; break;
        case XOR: *to ^= from; break;
        case SHIFT: *to ^= from >> at->value; break;
        case DECREMENT: --*to; break;
        case JUMP_UNLESS_ZERO: at += *to ? at->value : 0; break;
        case HALT: return registers[0];
        }
    }
}
static uint32_t bytecode(uint32_t n) {
    uint32_t registers[5] = {0, 0, 0, 0, n};
    return interpret(mixer, registers);
}

/* The C library's string functions, on short and long strings. */
#define TEXT 4096
static char text[TEXT + 16];
static uint32_t strings(uint32_t n) {
    uint32_t total = 0;
    seed = 1;
    for (int i = 0; i < TEXT; i++) text[i] = (char)('a' + (next_random() >> 16) % 20);
    memcpy(text + TEXT, "xyz", 4);
    for (uint32_t i = 0; i < n; i++) {
        const char *from = text + i % 512;
        total += (uint32_t)strlen(from) + (uint32_t)(strchr(from + 3, 'q') - from);
        total += (uint32_t)(strstr(from + TEXT / 2, "xyz") - from);
        total += (uint32_t)strncmp(from, text + (i + 1) % 512, 16) & 1;
    }
    return total;
}

/* The C library's memory functions: many short ones, some long. */
static unsigned char area[2][1 << 16];
static uint32_t memory(uint32_t n) {
    uint32_t total = 0;
    seed = 1;
    memset(area, 1, sizeof area);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = next_random() >> 17, len = i % 64 ? next_random() >> 26 : 1 << 14;
        memset(area[0] + at, (int)i, len);
        memcpy(area[1] + at + i % 7, area[0] + at, len);
        memmove(area[1] + at, area[1] + at + 5, len);
        total += area[1][at + 2] + (uint32_t)(memcmp(area[0] + at, area[1] + at, len) == 0);
    }
    return total;
}

#define KERNELS(K) \
    K(fib)         /* direct calls and returns */ \
    K(indirect)    /* calls through a table of functions */ \
    K(quicksort)   /* a callback a comparison, unpredictable branches */ \
    K(bytecode)    /* jumps through a table */ \
    K(chase)       /* loads that depend on loads */ \
    K(stream)      /* loads that do not */ \
    K(wide)        /* 64-bit arithmetic on 32-bit registers */ \
    K(matrix)      /* doubles */ \
    K(strings) \
    K(memory)

#define TASK(name) \
    static bytes run_##name(bytes input, uint32_t size) { return (void)input, bench_number(name(size)); }
KERNELS(TASK)
#define ROW(name) {#name, NULL, run_##name, NULL},
const bench_task bench_tasks[] = {KERNELS(ROW){0}};
