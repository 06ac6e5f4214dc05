/* What every program of the compute tables gives the harness: its tasks, each a function from bytes to
 * bytes.  The harness holds input and output in this program's own memory and times `run` alone. */
#ifndef BENCH_H
#define BENCH_H

#include <stddef.h>
#include <stdint.h>

typedef struct bytes {
    const unsigned char *ptr;
    size_t len;
} bytes;

/* `size` is the task's one number: a level, a count. */
typedef bytes bench_work(bytes input, uint32_t size);

typedef struct bench_task {
    const char *name;
    bench_work *prepare; /* makes run's input from the file's bytes, untimed; NULL: they are it */
    bench_work *run;     /* the same result every time; its bytes stay until the next call */
    bench_work *undo;    /* if given, its result is compared: for encoders that write other bytes on other machines */
} bench_task;

/* By every program; ends with a row without a name. */
extern const bench_task bench_tasks[];

/* Room for a result: one buffer, which only grows, so that no page of it is touched for the first time
 * while a clock runs. */
unsigned char *bench_room(size_t size);
/* A result that is a number. */
bytes bench_number(uint32_t number);
/* Ends the program: a benchmark of an error measures nothing. */
_Noreturn void bench_fail(const char *what);
void bench_check(int ok, const char *what);

#endif
