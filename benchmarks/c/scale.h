/* What the tables of scale run, once for the plugin and once for the native library. */
#ifndef SCALE_H
#define SCALE_H

#include <stdint.h>

/* Work for a time that `rounds` decides; touches no memory. */
static inline uint32_t spin(uint32_t rounds) {
    uint32_t hash = 1;
    for (uint32_t i = 0; i < rounds; i++) {
        hash = hash * 31 + i;
        __asm__ volatile("" : "+r"(hash));
    }
    return hash;
}

static inline uint32_t checksum(const unsigned char *data, uint32_t size) {
    uint32_t hash = 1;
    for (uint32_t i = 0; i < size; i++) hash = hash * 31 + data[i];
    return hash;
}

/* A hundred thousand functions of sixteen bytes, each a basic block. */
#define BLOCKS 100000
__asm__(".text\n.balign 16\nscale_blocks:\n.rept 100000\nmovl $1, %eax\nret\n.balign 16\n.endr\n");
__attribute__((visibility("hidden"))) extern const char scale_blocks[];

/* Calls `count` of the first `blocks` functions, far from one another; how many were called. */
static inline uint32_t walk(uint32_t blocks, uint32_t count) {
    uint32_t at = 0, sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        sum += ((uint32_t(*)(void))(uintptr_t)(scale_blocks + 16 * at))();
        at = (at + 7919) % blocks;
    }
    return sum;
}

#endif
