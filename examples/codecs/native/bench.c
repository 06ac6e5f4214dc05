/* Times one export of a codec in a native program: FILE SIZE RUNS, and prints the nanoseconds of
 * each run on a line of its own.  Compile with -DBENCH_FUNCTION=name of a (vx_view, uint32_t). */
#define _POSIX_C_SOURCE 199309L
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <vxplug.h>

extern char vx_error_name[64], vx_error_text[256];
void vx_release_(void *ptr);
VX_EXTERN_C vx_bytes BENCH_FUNCTION(vx_view data, uint32_t argument);

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static vx_view load(const char *path) {
    static unsigned char buffer[1 << 26];
    FILE *file = fopen(path, "rb");
    if (!file) perror(path), exit(2);
    vx_view data = {buffer, fread(buffer, 1, sizeof buffer, file)};
    fclose(file);
    return data;
}

static void run(vx_view data, uint32_t argument) {
    int64_t start = now();
    vx_bytes out = BENCH_FUNCTION(data, argument);
    int64_t end = now();
    if (out.owner == VX_MALLOCED) vx_release_(out.ptr);
    if (vx_error_name[0])
        fprintf(stderr, "%s: %s\n", vx_error_name, vx_error_text), exit(1);
    printf("%" PRId64 "\n", end - start);
}

int main(int argc, char **argv) {
    if (argc != 4) return fprintf(stderr, "usage: %s FILE ARGUMENT RUNS\n", argv[0]), 2;
    vx_view data = load(argv[1]);
    uint32_t argument = (uint32_t)strtoul(argv[2], NULL, 10);
    for (int left = atoi(argv[3]); left > 0; left--) run(data, argument);
    return 0;
}
