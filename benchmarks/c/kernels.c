#ifdef KERNEL_PLUGIN
#include <vxplug.h>
#define KERNEL VX_EXPORT
#else
#define KERNEL
#endif
#include "kernels.h"

#define DECLARE(name) KERNEL uint32_t name(uint32_t n);
KERNELS(DECLARE)

static uint32_t seed;
static uint32_t next_random(void) { return seed = seed * 1664525u + 1013904223u; }

__attribute__((noinline)) static uint32_t fib_of(uint32_t n) {
    return n < 2 ? n : fib_of(n - 1) + fib_of(n - 2);
}
uint32_t fib(uint32_t n) { return fib_of(n); }

#define STEP(name, expression) \
    __attribute__((noinline)) static uint32_t name(uint32_t x) { return expression; }
STEP(step_0, x + 0x9e3779b9u)
STEP(step_1, x ^ x >> 7)
STEP(step_2, x * 5)
STEP(step_3, x - 77)
static uint32_t (*volatile steps[4])(uint32_t) = {step_0, step_1, step_2, step_3};
uint32_t indirect(uint32_t n) {
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
uint32_t quicksort(uint32_t n) {
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
uint32_t chase(uint32_t n) {
    uint32_t at = 0;
    link_cells();
    for (uint32_t i = 0; i < n; i++) at = cells[at];
    return at;
}

uint32_t stream(uint32_t n) {
    uint32_t total = 0;
    link_cells();
    for (uint32_t round = 0; round < n; round++)
        for (uint32_t i = 0; i < CELLS; i++) total += cells[i] ^ round;
    return total;
}

uint32_t wide(uint32_t n) {
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
uint32_t matrix(uint32_t n) {
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
