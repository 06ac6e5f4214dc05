/* What the call table times, once for every peer: as little work as shows that the call was made. */
#ifndef CALLS_H
#define CALLS_H

#include <stddef.h>
#include <stdint.h>

static unsigned char storage[1 << 20];

/* Once written: what nobody has written is a page of zeros, a small one or a large one, and as quick to copy as either. */
static inline unsigned char *filled(void) {
    volatile unsigned char *bytes = storage; /* not a call of memset, which wasm without a C library lacks */
    for (size_t i = 0; storage[sizeof storage - 1] == 0; i++) bytes[i] = 1;
    return storage;
}

/* Constants that make a file as large as a library of some use is. */
#ifdef BALLAST
__attribute__((used, retain)) const unsigned char ballast[BALLAST] = {1};
#endif

static inline int32_t sum(int32_t a, int32_t b) { return (int32_t)((uint32_t)a + (uint32_t)b); }

/* Into the host `count` times in one call. */
static inline int32_t total(int32_t (*function)(int32_t), int32_t count) {
    int32_t sum = 0;
    for (int32_t i = 0; i < count; i++) sum += function(i);
    return sum;
}

/* Both ends of the data, so that all of it had to be there. */
static inline uint32_t both_ends(const unsigned char *data, uint32_t size) {
    return size == 0 ? 0 : (uint32_t)data[0] << 8 | data[size - 1];
}

#endif
