/* Memory calls: results that do not depend on where things lie are printed, the rest is compared here. */
#define _GNU_SOURCE
#include "check.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096
static sigjmp_buf back;
static void caught(int signal) { siglongjmp(back, signal); }

/* 0 when the byte can be read (and written), else the signal. */
static int touch(volatile char *p, int write) {
    int signal = sigsetjmp(back, 1);
    if (signal == 0) {
        char value = *p;
        if (write)
            *p = value;
    }
    return signal;
}

static int at(void *p) { return p == MAP_FAILED ? -1 : 0; }

static char *get(size_t size, int prot, int flags) { return mmap(NULL, size, prot, flags | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }

static unsigned sum(const char *p, size_t size) {
    unsigned hash = 1;
    for (size_t i = 0; i < size; i++)
        hash = hash * 31 + (unsigned char)p[i];
    return hash;
}

static void maps(void) {
    char *p = get(8 * PAGE, PROT_READ | PROT_WRITE, 0);
    printf("fresh %u\n", sum(p, 8 * PAGE));
    memset(p, 'x', 8 * PAGE);
    SHOW(mprotect(p + PAGE, PAGE, PROT_READ));
    SHOW(mprotect(p + 2 * PAGE, PAGE, PROT_NONE));
    printf("touch %d %d %d %d\n", touch(p, 1), touch(p + PAGE, 0), touch(p + PAGE, 1), touch(p + 2 * PAGE, 0));
    SHOW(munmap(p + 3 * PAGE, PAGE));
    printf("hole %d %d\n", touch(p + 3 * PAGE, 0), touch(p + 4 * PAGE, 1));
    SHOW(mprotect(p, 8 * PAGE, PROT_READ));
    SHOW(munmap(p + 1, PAGE));
    SHOW(munmap(p, 0));
    SHOW(at(mmap(p + 3 * PAGE, PAGE, PROT_READ, MAP_FIXED_NOREPLACE | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)));
    SHOW(at(mmap(p + 4 * PAGE, PAGE, PROT_READ, MAP_FIXED_NOREPLACE | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)));
    SHOW(at(mmap(p + 4 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)));
    printf("replaced %u\n", sum(p + 4 * PAGE, PAGE));
    SHOW(at(mmap(p + 1, PAGE, PROT_READ, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)));
    SHOW(at(mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)));
    SHOW(at(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, 99, 0)));
    SHOW(at(mmap((void *)0xfffff000, PAGE, PROT_READ, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)));
    SHOW(at(mmap(NULL, 0xfffff000, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)));
    SHOW(munmap(p, 8 * PAGE));
    SHOW(munmap(p, 8 * PAGE));
}

static void remaps(void) {
    char *p = get(4 * PAGE, PROT_READ | PROT_WRITE, 0), *q;
    for (int i = 0; i < 4 * PAGE; i++)
        p[i] = (char)(i * 7);
    unsigned before = sum(p, 4 * PAGE);
    q = mremap(p, 4 * PAGE, 64 * PAGE, MREMAP_MAYMOVE);
    printf("grown %d same %d tail %d\n", at(q), sum(q, 4 * PAGE) == before, q[63 * PAGE]);
    q[63 * PAGE] = 1;
    p = mremap(q, 64 * PAGE, 2 * PAGE, 0);
    printf("shrunk %d in place %d beyond %d\n", at(p), p == q, touch(q + 3 * PAGE, 0));
    char *wall = mmap(p + 2 * PAGE, PAGE, PROT_NONE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)wall;
    SHOW(at(mremap(p, 2 * PAGE, 4 * PAGE, 0)));
    before = sum(p, 2 * PAGE);
    q = mremap(p, 2 * PAGE, 4 * PAGE, MREMAP_MAYMOVE);
    printf("moved %d same %d old gone %d\n", q != p, sum(q, 2 * PAGE) == before, touch(p, 0));
    SHOW(mprotect(q, 4 * PAGE, PROT_READ));
    p = mremap(q, 4 * PAGE, 400 * PAGE, MREMAP_MAYMOVE);
    printf("read-only stays %d %d %d\n", touch(p, 0), touch(p, 1), touch(p + 399 * PAGE, 1));
    SHOW(at(mremap(p + 1, PAGE, PAGE, 0)));
    SHOW(at(mremap(p, PAGE, 0, 0)));
    SHOW(at(mremap((void *)0x70000000, PAGE, 2 * PAGE, MREMAP_MAYMOVE)));
    SHOW(mprotect(p, PAGE, PROT_NONE));
    SHOW(at(mremap(p, 2 * PAGE, 500 * PAGE, MREMAP_MAYMOVE)));
}

static void advice(void) {
    char *p = get(4 * PAGE, PROT_READ | PROT_WRITE, 0);
    memset(p, 'y', 4 * PAGE);
    SHOW(madvise(p + PAGE, 2 * PAGE, MADV_DONTNEED));
    printf("emptied %d %d %d\n", p[PAGE - 1], p[PAGE], p[3 * PAGE]);
    SHOW(madvise(p, PAGE, MADV_WILLNEED));
    SHOW(madvise(p, 0, MADV_DONTNEED));
    SHOW(madvise(p + 1, PAGE, MADV_DONTNEED));
    munmap(p + PAGE, PAGE);
    SHOW(madvise(p, 4 * PAGE, MADV_DONTNEED));
}

static char *set_break(char *to) { return (char *)syscall(SYS_brk, to); }

static void breaks(void) {
    char *start = set_break(NULL), *end;
    end = set_break(start + 10 * PAGE);
    printf("grown by %d\n", (int)(end - start));
    start[10 * PAGE - 1] = 1;
    start[10] = 2;
    printf("back %d\n", (int)(set_break(start) - start));
    printf("again %d\n", (int)(set_break(start + 2 * PAGE) - start));
    printf("below %d\n", (int)(set_break((char *)PAGE) - start));
    printf("too high %d\n", (int)(set_break((char *)0xffffffff) - start));
    printf("fresh %d\n", start[PAGE + 10]);
}

static void file(void) {
    char *p;
    int fd = open("mapped", O_RDWR | O_CREAT, 0600);
    char data[5000];
    memset(data, 'm', sizeof data);
    SHOW(write(fd, data, sizeof data));
    p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    printf("file %u, then %d %d\n", sum(p, sizeof data), p[4999], p[5000]);
    p[0] = 'P';
    SHOW(pread(fd, data, 1, 0));
    printf("private %c\n", data[0]);
    munmap(p, 4 * PAGE);
    p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, PAGE);
    printf("second page %u\n", sum(p, 904));
    printf("write %d\n", touch(p, 1));
    SHOW(close(fd));
    fd = open("mapped", O_WRONLY);
    SHOW(at(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0)) == 0);
    fd = open(".", O_RDONLY);
    SHOW(at(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0)));
    int ends[2];
    SHOW(pipe(ends));
    SHOW(at(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, ends[0], 0)));
}

/* What an allocator does, for a while. */
static void heap(void) {
    static char *blocks[300];
    static size_t sizes[300];
    unsigned seed = 12345, wrong = 0;
    for (int i = 0; i < 30000; i++) {
        seed = seed * 1103515245 + 12345;
        unsigned n = (seed >> 8) % 300;
        size_t size = (seed >> 4) % 3 ? (seed >> 16) % 500 + 1 : (seed >> 10) % 300000 + 1;
        for (size_t j = 0; j < sizes[n]; j += 997)
            wrong += blocks[n][j] != (char)(n + j);
        blocks[n] = realloc(blocks[n], size);
        sizes[n] = size;
        for (size_t j = 0; j < size; j += 997)
            blocks[n][j] = (char)(n + j);
    }
    printf("heap wrong %u\n", wrong);
}

int main(int argc, char **argv) {
    (void)argv;
    if (argc > 1) {
        heap();
        return 0;
    }
    struct sigaction action = {.sa_handler = caught};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    maps();
    remaps();
    advice();
    breaks();
    file();
    signal(SIGSEGV, SIG_DFL);
    heap();
    return 0;
}
