/* The kernels as a native program: NAME N prints the checksum and the nanoseconds it took. */
#define _POSIX_C_SOURCE 199309L
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "kernels.h"

typedef struct kernel {
    const char *name;
    uint32_t (*run)(uint32_t n);
} kernel;

#define DECLARE(name) uint32_t name(uint32_t n);
KERNELS(DECLARE)
#define ROW(name) {#name, name},
static const kernel kernels[] = {KERNELS(ROW)};

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void run(const kernel *chosen, uint32_t n) {
    int64_t start = now();
    uint32_t checksum = chosen->run(n);
    printf("%" PRIu32 " %" PRId64 "\n", checksum, now() - start);
}

int main(int argc, char **argv) {
    for (size_t i = 0; argc == 3 && i < sizeof kernels / sizeof kernels[0]; i++)
        if (strcmp(argv[1], kernels[i].name) == 0)
            return run(&kernels[i], (uint32_t)strtoul(argv[2], NULL, 10)), 0;
    return fprintf(stderr, "usage: %s KERNEL N\n", argv[0]), 2;
}
