/* The frame around a program's tasks, the same for every contestant: as a plugin and as a WebAssembly
 * module it exports `load`, `run` and `checksum`; as a native program it obeys standard input. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "bench.h"

static unsigned char *room;
static size_t room_size;
static const bench_task *task;
static bytes input, result;
static uint32_t number;

_Noreturn void bench_fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

void bench_check(int ok, const char *what) {
    if (!ok) bench_fail(what);
}

static void *copy_of(bytes data) {
    void *copy = malloc(data.len ? data.len : 1);
    bench_check(copy != NULL, "no memory for the input");
    return data.len ? memcpy(copy, data.ptr, data.len) : copy;
}

unsigned char *bench_room(size_t size) {
    if (size <= room_size) return room;
    free(room);
    room = malloc(size);
    bench_check(room != NULL, "no memory for the result");
    room_size = size;
    return room;
}

bytes bench_number(uint32_t value) {
    static uint32_t kept;
    kept = value;
    return (bytes){(const unsigned char *)&kept, sizeof kept};
}

static const bench_task *task_named(const char *name) {
    for (const bench_task *row = bench_tasks; row->name; row++)
        if (strcmp(row->name, name) == 0) return row;
    bench_fail("no such task");
}

/* Once for each task, before it runs. */
static void choose(const char *name, uint32_t size, bytes file) {
    task = task_named(name);
    number = size;
    input = task->prepare ? task->prepare(file, size) : file;
    input.ptr = copy_of(input);
}

static void run_task(void) { result = task->run(input, number); }

/* FNV-1a. */
static uint32_t checksum_of(bytes data) {
    uint32_t hash = 2166136261u ^ (uint32_t)data.len;
    for (size_t i = 0; i < data.len; i++) hash = (hash ^ data.ptr[i]) * 16777619u;
    return hash;
}

static uint32_t checksum_of_result(void) {
    if (!task->undo) return checksum_of(result);
    bytes kept = {copy_of(result), result.len};
    uint32_t sum = checksum_of(task->undo(kept, number));
    free((void *)kept.ptr);
    return sum;
}

#if defined BENCH_PLUGIN

#include <vxplug.h>

VX_EXPORT void load(const char *name, uint32_t size, vx_view file) { choose(name, size, (bytes){file.ptr, file.len}); }
VX_EXPORT void run(void) { run_task(); }
VX_EXPORT uint32_t checksum(void) { return checksum_of_result(); }

#elif defined __wasm__

#define EXPORT(name) __attribute__((export_name(name)))

/* The embedder writes the task's name, a zero and the file here, and calls `load`. */
EXPORT("space") unsigned char *wasm_space(uint32_t size) { return bench_room(size); }
EXPORT("load") void wasm_load(uint32_t size, uint32_t len) {
    size_t skip = strlen((const char *)room) + 1;
    bytes written = {room, len};
    const unsigned char *kept = copy_of(written);
    choose((const char *)kept, size, (bytes){kept + skip, len - skip});
}
EXPORT("run") void wasm_run(void) { run_task(); }
EXPORT("checksum") uint32_t wasm_checksum(void) { return checksum_of_result(); }

#else

#include <inttypes.h>
#include <time.h>

/* This thread's processor time: other programs' turns are not this one's cost. */
static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static bytes contents(const char *path) {
    FILE *file = fopen(path, "rb");
    bench_check(file && fseek(file, 0, SEEK_END) == 0, path);
    bytes data = {NULL, (size_t)ftell(file)};
    unsigned char *buffer = malloc(data.len + 1);
    rewind(file);
    bench_check(buffer && fread(buffer, 1, data.len, file) == data.len, path);
    fclose(file);
    data.ptr = buffer;
    return data;
}

/* TASK SIZE FILE: runs once for every line of standard input, and prints the nanoseconds and the checksum. */
int main(int argc, char **argv) {
    if (argc != 4) return fprintf(stderr, "usage: %s TASK SIZE FILE\n", argv[0]), 2;
    choose(argv[1], (uint32_t)strtoul(argv[2], NULL, 10), contents(argv[3]));
    for (int letter; (letter = getchar()) != EOF;) {
        if (letter != '\n') continue;
        int64_t start = now();
        run_task();
        int64_t taken = now() - start;
        printf("%" PRId64 " %" PRIu32 "\n", taken, checksum_of_result());
        fflush(stdout);
    }
    return 0;
}

#endif
