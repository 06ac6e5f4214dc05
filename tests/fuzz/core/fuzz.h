/* What the harnesses of the core share.  Each is one libFuzzer target: LLVMFuzzerTestOneInput drives one
 * parsing surface from fresh state and aborts, naming the rule, when an invariant is broken. */
#ifndef FUZZ_H
#define FUZZ_H

#include "core/internal.h"

#include <stdio.h>

/* An invariant of what is fuzzed: the input that breaks it is a finding. */
#define REQUIRE(x) ((void)((x) || (fuzz_broken(#x, __FILE__, __LINE__), 0)))

_Noreturn static inline void fuzz_broken(const char *rule, const char *file, int line) {
    fprintf(stderr, "fuzz: broken: %s (%s:%d)\n", rule, file, line);
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

/* Numbers that sit on the edges of sizes, pages and the guest window. */
static inline uint32_t fuzz_edge(unsigned choice) {
    static const uint32_t edges[] = {
        0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 64, 127, 128, 255, 256, 0xfff, 0x1000, 0x1001, 0x1fff, 0x7fff, 0x8000,
        0xffff, VX_GUEST_MIN, 0x7fffffff, 0x80000000, 0x80000001, VX_GUEST_MAX - 0x1000, VX_GUEST_MAX - 1,
        VX_GUEST_MAX, VX_EXIT_EIP, 0xfffffff0, 0xfffffffc, 0xffffffff};
    return edges[choice % VX_COUNT(edges)];
}

/* xorshift32: the custom mutators' randomness, from libFuzzer's seed. */
typedef struct fuzz_random {
    uint32_t state;
} fuzz_random;

static inline uint32_t fuzz_next(fuzz_random *r) {
    r->state ^= r->state << 13;
    r->state ^= r->state >> 17;
    r->state ^= r->state << 5;
    return r->state;
}

static inline fuzz_random fuzz_seeded(unsigned seed) { return (fuzz_random){seed * 2654435761u + 1 | 1}; }
static inline uint32_t fuzz_below(fuzz_random *r, uint32_t limit) { return fuzz_next(r) % limit; }

/* grammar.c: one instruction, most of the time valid, sometimes with odd prefixes; its size, at most `room`. */
size_t grammar_insn(fuzz_random *r, uint8_t *out, size_t room);
/* Mutates the instruction stream behind a header of `header` bytes, which plain mutations change too. */
size_t grammar_mutate(uint8_t *data, size_t size, size_t max_size, size_t header, unsigned seed);

#endif
