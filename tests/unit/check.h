/* What a test of the core found, and how it ends. */
#ifndef CHECK_H
#define CHECK_H

#include <stdbool.h>
#include <stdio.h>

static _Atomic unsigned failures;

static void check(bool ok, const char *what, const char *file, int line) {
    if (!ok && failures++ < 20)
        printf("%s:%d: %s\n", file, line, what);
}
#define CHECK(x) check((x), #x, __FILE__, __LINE__)

/* The status of main. */
static int checked(const char *test) {
    printf("%s: %s\n", test, failures == 0 ? "all checks passed" : "FAILED");
    return failures != 0;
}

#endif
