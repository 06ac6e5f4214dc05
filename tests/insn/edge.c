/* How long the processor takes an instruction to be: its bytes are run so that they end where memory ends, and once
 * more without the last one.  It faults on the fetch of what is missing before it does anything else.
 *
 * fd 0 brings records of 16 bytes, the length and up to 15 bytes; fd 1 takes one byte for each, the two ends below in
 * its halves.  A 64-bit program whose signal handlers lead from one instruction to the next, in 32-bit
 * mode, each with the trap flag; what the instruction itself does is of no interest. */
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum end { ENDED, NEEDS_MORE, UNDEFINED };
enum { CODE = 0x10000000, EDGE = CODE + 0x1000, DATA = 0x20000000, DATA_SIZE = 0x10000, CODE_SELECTOR = 0x23, DATA_SELECTOR = 0x2b };
#define TRAP_FLAG 0x100
#define FETCH 0x10 /* in the error code of a page fault: an instruction's bytes were asked for */

typedef struct record {
    uint8_t length, bytes[15];
} record;

static uint8_t *writable, alternate[1 << 16];
static record now;
static unsigned shortened; /* by how many bytes `now` runs */
static uint8_t result;
static struct _libc_fpstate clean;

/* No stream and no errno: guest code may have changed %fs. */
static int whole(int number, int fd, void *at, size_t size) {
    for (size_t done = 0; done < size;) {
        long got;
        __asm__ volatile("syscall" : "=a"(got) : "a"(number), "D"(fd), "S"((char *)at + done), "d"(size - done)
                         : "rcx", "r11", "memory");
        if (got <= 0) return 0;
        done += (size_t)got;
    }
    return 1;
}

static void finish(int status) {
    __asm__ volatile("syscall" : : "a"(SYS_exit_group), "D"(status) : "rcx", "r11");
    __builtin_unreachable();
}

static void begin(ucontext_t *u) {
    static const int registers[] = {REG_RAX, REG_RBX, REG_RCX, REG_RDX, REG_RSI, REG_RDI, REG_RBP, REG_RSP};
    unsigned length = now.length - shortened;
    memcpy(writable + 0x1000 - length, now.bytes, length);
    for (unsigned i = 0; i < sizeof registers / sizeof *registers; i++)
        u->uc_mcontext.gregs[registers[i]] = DATA + DATA_SIZE / 2;
    u->uc_mcontext.gregs[REG_RIP] = EDGE - length;
    u->uc_mcontext.gregs[REG_EFL] = 0x202 | TRAP_FLAG;
    u->uc_mcontext.gregs[REG_CSGSFS] = (long long)DATA_SELECTOR << 48 | CODE_SELECTOR;
    memcpy(u->uc_mcontext.fpregs, &clean, sizeof clean - sizeof clean.__glibc_reserved1);
}

static void next(void) {
    shortened = 0;
    if (!whole(SYS_read, 0, &now, sizeof now)) finish(0);
}

static enum end end_of(int signal, const siginfo_t *info, const ucontext_t *u) {
    unsigned start = EDGE - (now.length - shortened);
    if (signal == SIGILL) return UNDEFINED;
    int fetch = signal == SIGSEGV && info->si_addr == (void *)(uintptr_t)EDGE && u->uc_mcontext.gregs[REG_ERR] & FETCH;
    return fetch && u->uc_mcontext.gregs[REG_RIP] == start ? NEEDS_MORE : ENDED;
}

static void on_signal(int signal, siginfo_t *info, void *context) {
    ucontext_t *u = context;
    if (signal == SIGUSR1) {
        clean = *u->uc_mcontext.fpregs;
        next();
    } else if (!shortened) {
        result = (uint8_t)end_of(signal, info, u);
        shortened = 1;
    } else {
        result |= (uint8_t)(end_of(signal, info, u) << 4);
        if (!whole(SYS_write, 1, &result, 1)) finish(1);
        next();
    }
    begin(u);
}

static int map(uintptr_t address, size_t size, int rights, int flags, int fd) {
    return mmap((void *)address, size, rights, flags | MAP_FIXED_NOREPLACE, fd, 0) != (void *)address;
}

int main(void) {
    static const int signals[] = {SIGUSR1, SIGTRAP, SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    int fd = (int)syscall(SYS_memfd_create, "code", 0);
    if (fd < 0 || ftruncate(fd, 0x1000) != 0) return 2;
    if (map(CODE, 0x1000, PROT_READ | PROT_EXEC, MAP_SHARED, fd) || map(EDGE, 0x1000, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1) ||
        map(DATA, DATA_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1))
        return 2;
    writable = mmap(NULL, 0x1000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (writable == MAP_FAILED) return 2;
    memset((void *)DATA, 0x80, DATA_SIZE); /* no selector that any load would take */
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    if (sigaltstack(&stack, NULL) != 0) return 2;
    for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++)
        if (sigaction(signals[i], &action, NULL) != 0) return 2;
    __asm__ volatile("mov %0, %%ds\n mov %0, %%es" : : "r"(DATA_SELECTOR));
    raise(SIGUSR1);
    return 3;
}
