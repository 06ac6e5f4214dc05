/* What every guest program here does with a result: print it, errors by name of the number. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SHOW(call) show(#call, (long long)(call))

static void show(const char *what, long long result) {
    int error = errno;
    if (result < 0)
        printf("%s = -1 errno %d\n", what, error);
    else
        printf("%s = %lld\n", what, result);
    fflush(stdout);
}
