/* File calls by script: a line of standard input is a command, its result is printed.  Run natively and in
 * the sandbox, output and the tree that is left must be equal. */
#define _GNU_SOURCE
#include "check.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

static char *word[8];

static int number(int i) { return (int)strtol(word[i], NULL, 0); }

static void say(long long result) { show(word[0], result); }

static void show_stat(int result, const struct stat *s) {
    say(result);
    if (result == 0)
        printf("  mode %o links %d size %lld\n", s->st_mode, S_ISDIR(s->st_mode) ? 0 : (int)s->st_nlink,
               S_ISDIR(s->st_mode) ? 0 : (long long)s->st_size);
}

static void show_times(const struct stat *s) {
    printf("  times %lld.%09ld %lld.%09ld\n", (long long)s->st_atim.tv_sec, s->st_atim.tv_nsec,
           (long long)s->st_mtim.tv_sec, s->st_mtim.tv_nsec);
}

static int by_name(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

static void list(const char *path) {
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, by_name);
    say(count);
    for (int i = 0; i < count; i++)
        printf("  %s %d\n", entries[i]->d_name, entries[i]->d_name[0] == '.' ? 0 : entries[i]->d_type);
}

static void read_some(int fd, int size) {
    static char data[1 << 16];
    ssize_t got = read(fd, data, (size_t)size);
    say(got);
    if (got > 0)
        printf("  <%.*s>\n", (int)got, data);
}

static void map_file(int fd) {
    char *at = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    say(at == MAP_FAILED ? -1 : 0);
    if (at != MAP_FAILED) {
        unsigned sum = 0;
        for (int i = 0; i < 4096; i++)
            sum = sum * 31 + (unsigned char)at[i];
        at[0] = '#';
        printf("  sum %u\n", sum);
        munmap(at, 3 * 4096);
    }
}

static void vectors(int fd) {
    char a[3] = "", b[5] = "";
    struct iovec out[3] = {{"one", 3}, {"", 0}, {"two", 3}}, in[2] = {{a, 2}, {b, 4}};
    say(writev(fd, out, 3));
    say(lseek(fd, -6, SEEK_CUR) >= 0 ? 0 : -1);
    say(readv(fd, in, 2));
    printf("  %s %s\n", a, b);
    say(pwrite(fd, "XY", 2, 1));
    say(pread(fd, a, 2, 1));
    printf("  %s\n", a);
}

static void pipes(void) {
    int fd[2];
    char buffer[64] = "";
    say(pipe2(fd, O_NONBLOCK));
    SHOW(read(fd[0], buffer, 5));
    SHOW(write(fd[1], "hello", 5));
    SHOW(poll(&(struct pollfd){fd[0], POLLIN, 0}, 1, 0));
    int waiting = 0;
    SHOW(ioctl(fd[0], FIONREAD, &waiting));
    printf("  waiting %d\n", waiting);
    SHOW(read(fd[0], buffer, sizeof buffer));
    static char much[1 << 17];
    SHOW(write(fd[1], much, sizeof much));
    fd_set reads, writes;
    FD_ZERO(&reads);
    FD_ZERO(&writes);
    FD_SET(fd[0], &reads);
    FD_SET(fd[1], &writes);
    SHOW(select(fd[1] + 1, &reads, &writes, NULL, &(struct timeval){0, 0}));
    printf("  readable %d writable %d\n", FD_ISSET(fd[0], &reads) != 0, FD_ISSET(fd[1], &writes) != 0);
    SHOW(lseek(fd[0], 0, SEEK_SET));
    close(fd[1]);
    struct pollfd both[2] = {{fd[0], POLLIN, 0}, {900, POLLIN, 0}};
    SHOW(poll(both, 2, 1000));
    printf("  events %x %x\n", both[0].revents, both[1].revents);
    SHOW(close(fd[0]));
}

static void duplicates(int fd) {
    SHOW(dup2(fd, 20));
    SHOW(dup2(20, 20));
    SHOW(dup3(20, 20, 0));
    SHOW(dup3(20, 21, O_CLOEXEC));
    SHOW(fcntl(21, F_GETFD));
    SHOW(fcntl(20, F_GETFD));
    SHOW(fcntl(20, F_SETFD, FD_CLOEXEC));
    SHOW(fcntl(20, F_DUPFD, 30));
    SHOW(fcntl(30, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK));
    SHOW(lseek(fd, 3, SEEK_SET));
    SHOW(lseek(30, 0, SEEK_CUR));
    SHOW(close(20) + close(21) + close(30));
    SHOW(dup(99));
    SHOW(fcntl(fd, F_SETFL, O_APPEND));
    SHOW(fcntl(fd, F_GETFL) & O_APPEND);
    SHOW(write(fd, "end", 3));
    SHOW(lseek(fd, 0, SEEK_CUR) == lseek(fd, 0, SEEK_END));
}

static void change_times(const char *path, int omit) {
    struct stat s;
    struct timespec times[2] = {{1000000000, 123456789}, {omit ? 0 : 1500000000, omit ? UTIME_OMIT : 1}};
    utimes(path, (struct timeval[]){{1, 2}, {3, 4}});
    say(utimensat(AT_FDCWD, path, times, 0));
    if (stat(path, &s) == 0)
        show_times(&s);
    say(utimes(path, (struct timeval[]){{7, 8}, {9, 10}}));
    if (stat(path, &s) == 0)
        show_times(&s);
}

/* What does not change while others write to the same file system. */
static void show_system(const char *path) {
    struct statfs s;
    int result = statfs(path, &s);
    say(result);
    if (result == 0)
        printf("  blocks %llu of %ld, by %ld, names of %ld\n", (unsigned long long)s.f_blocks, (long)s.f_bsize, (long)s.f_frsize,
               (long)s.f_namelen);
}

static void descriptors(void) {
    int count = 0, fd, last = -1;
    while ((fd = open(".", O_RDONLY)) >= 0 && count < 5000)
        last = fd, count++;
    int error = errno;
    for (fd = 3; fd <= last; fd++)
        close(fd);
    printf("ran out with errno %d\n", error);
}

static void call(void) {
    struct stat s;
    char text[5000];
    const char *c = word[0];
    if (!strcmp(c, "open")) say(open(word[1], number(2), number(3)));
    else if (!strcmp(c, "openat")) say(openat(number(1), word[2], number(3), number(4)));
    else if (!strcmp(c, "close")) say(close(number(1)));
    else if (!strcmp(c, "read")) read_some(number(1), number(2));
    else if (!strcmp(c, "write")) say(write(number(1), word[2], strlen(word[2])));
    else if (!strcmp(c, "seek")) say(lseek(number(1), number(2), number(3)));
    else if (!strcmp(c, "ftruncate")) say(ftruncate(number(1), number(2)));
    else if (!strcmp(c, "truncate")) say(truncate(word[1], number(2)));
    else if (!strcmp(c, "stat")) show_stat(stat(word[1], &s), &s);
    else if (!strcmp(c, "lstat")) show_stat(lstat(word[1], &s), &s);
    else if (!strcmp(c, "fstat")) show_stat(fstat(number(1), &s), &s);
    else if (!strcmp(c, "statat")) show_stat(fstatat(number(1), word[2], &s, number(3)), &s);
    else if (!strcmp(c, "statfs")) show_system(word[1]);
    else if (!strcmp(c, "access")) say(access(word[1], number(2)));
    else if (!strcmp(c, "mkdir")) say(mkdir(word[1], (mode_t)number(2)));
    else if (!strcmp(c, "rmdir")) say(rmdir(word[1]));
    else if (!strcmp(c, "unlink")) say(unlink(word[1]));
    else if (!strcmp(c, "rename")) say(rename(word[1], word[2]));
    else if (!strcmp(c, "link")) say(link(word[1], word[2]));
    else if (!strcmp(c, "symlink")) say(symlink(word[1], word[2]));
    else if (!strcmp(c, "chmod")) say(chmod(word[1], (mode_t)number(2)));
    else if (!strcmp(c, "fchmod")) say(fchmod(number(1), (mode_t)number(2)));
    else if (!strcmp(c, "umask")) say(umask((mode_t)number(1)));
    else if (!strcmp(c, "chdir")) say(chdir(word[1]));
    else if (!strcmp(c, "fchdir")) say(fchdir(number(1)));
    else if (!strcmp(c, "cwd")) printf("cwd %s\n", getcwd(text, sizeof text) ? strrchr(text, '/') : "none");
    else if (!strcmp(c, "mkfifo")) say(mkfifo(word[1], 0600));
    else if (!strcmp(c, "list")) list(word[1]);
    else if (!strcmp(c, "map")) map_file(number(1));
    else if (!strcmp(c, "vectors")) vectors(number(1));
    else if (!strcmp(c, "pipes")) pipes();
    else if (!strcmp(c, "duplicates")) duplicates(number(1));
    else if (!strcmp(c, "times")) change_times(word[1], number(2));
    else if (!strcmp(c, "descriptors")) descriptors();
    else if (!strcmp(c, "long")) { memset(text, 'a', 4999); text[4999] = 0; say(open(text, 0)); text[300] = 0; say(open(text, 0)); }
    else if (!strcmp(c, "badpointer")) { say(open((char *)16, 0)); say(stat("f", (struct stat *)16)); say(read(0, (void *)16, 1)); }
    else if (!strcmp(c, "readlink")) {
        ssize_t size = readlink(word[1], text, sizeof text - 1);
        say(size);
        printf("  %.*s\n", size > 0 ? (int)size : 0, text);
    } else printf("what is %s?\n", c);
}

int main(void) {
    static char line[10000];
    while (fgets(line, sizeof line, stdin)) {
        int count = 0;
        static char empty[] = "0";
        for (char *w = strtok(line, " \n"); w && count < 8; w = strtok(NULL, " \n"))
            word[count++] = !strcmp(w, "''") ? strdup("") : w;
        for (int i = count; i < 8; i++)
            word[i] = empty;
        if (count)
            call();
    }
    return 0;
}
