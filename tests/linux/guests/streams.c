/* Arguments, environment, standard streams, exit status. */
#include "check.h"

#include <stdlib.h>
#include <unistd.h>

extern char **environ;

static int echo(void) {
    char buffer[777];
    ssize_t size;
    while ((size = read(0, buffer, sizeof buffer)) > 0)
        if (write(1, buffer, (size_t)size) != size)
            return 1;
    return size < 0;
}

int main(int argc, char **argv) {
    if (argc > 2 && !strcmp(argv[1], "status"))
        return atoi(argv[2]);
    if (argc > 1 && !strcmp(argv[1], "echo"))
        return echo();
    if (argc > 1 && !strcmp(argv[1], "abort"))
        abort();
    if (argc > 1 && !strcmp(argv[1], "crash"))
        *(volatile int *)16 = 1;
    for (int i = 1; i < argc; i++)
        printf("argument %d: %s\n", i, argv[i]);
    for (char **e = environ; *e; e++)
        printf("environment: %s\n", *e);
    fprintf(stderr, "to stderr\n");
    SHOW(read(0, argv, 0));
    SHOW(write(77, "x", 1));
    SHOW(read(1000000, argv, 1));
    SHOW(write(1, (void *)8, 4));
    SHOW(close(77));
    return 41;
}
