/* Signals to itself: handlers with both frames, faults, masks, the alternate stack, timers, EINTR. */
#define _GNU_SOURCE
#include "check.h"

#include <fenv.h>
#include <poll.h>
#include <setjmp.h>
#include <sys/select.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>
#include <sys/mman.h>

static volatile sig_atomic_t seen[65];
static sigjmp_buf back;

static void count(int signal) { seen[signal]++; }

static void install(int signal, void (*handler)(int), int flags) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    sigemptyset(&action.sa_mask);
    SHOW(sigaction(signal, &action, NULL));
}

static void install_info(int signal, void (*handler)(int, siginfo_t *, void *), int flags) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = flags | SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    SHOW(sigaction(signal, &action, NULL));
}

static void plain(void) {
    install(SIGUSR1, count, 0);
    SHOW(raise(SIGUSR1));
    SHOW(kill(getpid(), SIGUSR1));
    printf("SIGUSR1 %d times\n", seen[SIGUSR1]);
    sigset_t set, old, waiting;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    SHOW(sigprocmask(SIG_BLOCK, &set, &old));
    raise(SIGUSR1);
    sigpending(&waiting);
    printf("blocked: %d seen, pending %d\n", seen[SIGUSR1], sigismember(&waiting, SIGUSR1));
    SHOW(sigprocmask(SIG_SETMASK, &old, NULL));
    printf("unblocked: %d seen\n", seen[SIGUSR1]);
    install(SIGUSR2, SIG_IGN, 0);
    SHOW(raise(SIGUSR2));
    SHOW(kill(getpid(), 0));
    SHOW(kill(getpid(), 99));
    SHOW(sigaction(SIGKILL, &(struct sigaction){.sa_handler = count}, NULL));
    install(SIGUSR1, count, SA_RESETHAND);
    raise(SIGUSR1);
    struct sigaction now;
    sigaction(SIGUSR1, NULL, &now);
    printf("after SA_RESETHAND default %d\n", now.sa_handler == SIG_DFL);
}

static void *expected_address;

/* What the handler changes in its frame is what the interrupted code finds. */
static void fault(int signal, siginfo_t *info, void *data) {
    ucontext_t *context = data;
    greg_t *r = context->uc_mcontext.gregs;
    printf("signal %d code %d trap %d edx %x\n", signal, info->si_code, (int)r[REG_TRAPNO], (unsigned)r[REG_EDX]);
    if (signal == SIGSEGV)
        printf("error %x address %d\n", (unsigned)r[REG_ERR], (char *)info->si_addr - (char *)expected_address);
    if (r[REG_TRAPNO] == 14)
        printf("cr2 %d\n", (char *)context->uc_mcontext.cr2 - (char *)expected_address);
    seen[signal]++;
    r[REG_EIP] = r[REG_ECX]; /* where the test wants to go on */
    r[REG_EAX] = 0x1234;
}

#define FAULTING(instruction)                                                                           \
    ({                                                                                                  \
        unsigned result;                                                                                \
        __asm__ volatile("movl $1f, %%ecx\n movl $0xabcdef, %%edx\n xorl %%ebx, %%ebx\n" instruction "\n1:\n"      \
                         : "=a"(result) : "a"(0) : "ebx", "ecx", "edx", "memory");                                 \
        result;                                                                                         \
    })

static void faults(void) {
    static const int signals[] = {SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGBUS};
    for (unsigned i = 0; i < 5; i++)
        install_info(signals[i], fault, SA_NODEFER);
    printf("read null: %x\n", FAULTING("movl 8(%%ebx), %%eax"));
    printf("write null: %x\n", FAULTING("movl %%eax, 12(%%ebx)"));
    printf("divide: %x\n", FAULTING("divl %%ebx"));
    printf("ud2: %x\n", FAULTING("ud2"));
    printf("int3: %x\n", FAULTING("int3"));
    printf("hlt: %x\n", FAULTING("hlt"));
    printf("jump: %x\n", FAULTING("movl $16, %%eax\n jmp *%%eax"));
    char *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    expected_address = page + 8;
    printf("read %d\n", page[8]);
    __asm__ volatile("movl $1f, %%ecx\n movl %%edx, 8(%%esi)\n1:\n" : : "S"(page), "d"(7) : "eax", "ecx", "memory");
    munmap(page, 4096);
    expected_address = page;
    __asm__ volatile("movl $1f, %%ecx\n cld\n movl $3, %%edi\n lodsb\n1:\n" : : "S"(page), "d"(7) : "eax", "ecx", "edi", "memory");
}

static int repaired;

static void repair(int signal, siginfo_t *info, void *data) {
    (void)signal, (void)data;
    repaired++;
    mprotect((void *)((uintptr_t)info->si_addr & ~4095u), 4096, PROT_READ | PROT_WRITE);
}

/* The classic: a page is made when it is touched, and the instruction is done again. */
static void on_demand(void) {
    install_info(SIGSEGV, repair, 0);
    unsigned char *pages = mmap(NULL, 8 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 8 * 4096; i += 1000)
        pages[i] = (unsigned char)i;
    unsigned sum = 0;
    for (int i = 0; i < 8 * 4096; i++)
        sum += pages[i];
    printf("repaired %d, sum %u\n", repaired, sum);
}

static void leave(int signal) { siglongjmp(back, signal); }

static void jumps(void) {
    install(SIGSEGV, leave, 0);
    for (int i = 0; i < 1000; i++) {
        int signal = sigsetjmp(back, 1);
        if (signal == 0)
            *(volatile int *)(uintptr_t)(i * 4) = 1;
        seen[0] += signal;
    }
    printf("jumped out: %d\n", seen[0]);
}

static unsigned char stack[SIGSTKSZ * 4];
static volatile int on_stack;

static void look(int signal) {
    char here;
    (void)signal;
    stack_t now;
    sigaltstack(NULL, &now);
    on_stack = (unsigned char *)&here >= stack && (unsigned char *)&here < stack + sizeof stack;
    printf("on the alternate stack %d, flags %d\n", on_stack, now.ss_flags);
}

static void overflow_handler(int signal) {
    look(signal);
    siglongjmp(back, 1);
}

static int deep(int n) {
    volatile char room[4096];
    room[0] = (char)n;
    return deep(n + 1) + room[0];
}

static void altstack(void) {
    stack_t given = {.ss_sp = stack, .ss_size = sizeof stack}, old;
    SHOW(sigaltstack(&given, &old));
    printf("before: flags %d\n", old.ss_flags);
    install(SIGUSR1, look, SA_ONSTACK);
    raise(SIGUSR1);
    SHOW(sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = 16}, NULL));
    install(SIGSEGV, overflow_handler, SA_ONSTACK);
    if (sigsetjmp(back, 1) == 0)
        printf("%d\n", deep(0));
    printf("back from a stack overflow\n");
}

/* A handler that ruins every register it can must not be noticed. */
static void ruin(int signal) {
    (void)signal;
    seen[SIGALRM]++;
    __asm__ volatile("fninit\n fldpi\n fldpi\n pxor %%xmm0, %%xmm0\n pcmpeqd %%xmm1, %%xmm1\n std\n cld\n" : : : "xmm0", "xmm1", "cc");
    fesetround(FE_UPWARD);
}

static unsigned work(unsigned rounds) {
    unsigned hash = 2166136261u;
    double sum = 0;
    for (unsigned i = 0; i < rounds; i++) {
        hash = (hash ^ (i & 255)) * 16777619u;
        sum += 1.0 / (double)(i + 1);
    }
    return hash ^ (unsigned)(sum * 1e9);
}

__attribute__((noinline)) static unsigned calls(unsigned n) { return n < 2 ? n : calls(n - 1) + calls(n - 2); }

/* Instructions that become several on another machine: one done by half, or twice, would show. */
static unsigned pieces(void) {
    unsigned result;
    __asm__ volatile("movl $400000, %%ecx\n xorl %%eax, %%eax\n movl %%esp, %%edx\n"
                     "1: pushl %%ecx\n incl %%eax\n popl %%ebx\n addl %%ebx, %%eax\n addb %%ah, %%al\n xchgb %%ah, %%bl\n"
                     "call 2f\n jmp 3f\n2: incl %%eax\n ret\n3: pushfl\n popl %%ebx\n decl %%ecx\n jnz 1b\n subl %%esp, %%edx\n addl %%edx, %%eax\n"
                     : "=a"(result) : : "ebx", "ecx", "edx", "memory", "cc");
    return result;
}

static void exact(void) {
    install(SIGALRM, ruin, SA_RESTART);
    unsigned fib = calls(27), whole = pieces();
    int same = 1;
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 1000}, {0, 1000}}, NULL);
    while (seen[SIGALRM] < 150) /* however slow the machine is: the caller has a time limit */
        same &= calls(27) == fib && pieces() == whole;
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 0}}, NULL);
    printf("results the same %d\n", same);
}

static void timers(void) {
    install(SIGALRM, ruin, SA_RESTART);
    unsigned expected = work(3000000);
    struct itimerval every = {{0, 10000}, {0, 10000}}, none = {{0, 0}, {0, 0}}, old;
    setitimer(ITIMER_REAL, &every, NULL);
    int same = 1;
    while (seen[SIGALRM] < 12)
        same &= work(3000000) == expected;
    setitimer(ITIMER_REAL, &none, &old);
    printf("results the same %d, rounding %d\n", same, fegetround() == FE_TONEAREST);
    printf("interval %ld\n", (long)old.it_interval.tv_usec);
    install(SIGALRM, count, 0);
    struct timespec span = {5, 0}, left = {0, 0};
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 50000}}, NULL);
    SHOW(nanosleep(&span, &left));
    printf("left of the sleep: %d\n", (int)left.tv_sec);
    alarm(1);
    SHOW(pause());
    sigset_t set, old_set, waiting;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    sigprocmask(SIG_BLOCK, &set, &old_set);
    raise(SIGALRM);
    sigemptyset(&waiting);
    SHOW(sigsuspend(&waiting));
    sigprocmask(SIG_SETMASK, NULL, &set);
    printf("still blocked after sigsuspend: %d\n", sigismember(&set, SIGALRM));
    raise(SIGALRM);
    span = (struct timespec){5, 0};
    SHOW(ppoll(NULL, 0, &span, &waiting));
    raise(SIGALRM);
    SHOW(pselect(0, NULL, NULL, NULL, &span, &waiting));
    sigprocmask(SIG_SETMASK, NULL, &set);
    printf("still blocked after ppoll: %d\n", sigismember(&set, SIGALRM));
    span = (struct timespec){0, 1000000};
    SHOW(ppoll(NULL, 0, &span, &waiting));
    sigprocmask(SIG_SETMASK, NULL, &set);
    printf("and after a quiet one: %d\n", sigismember(&set, SIGALRM));
    printf("alarm left %u\n", (alarm(100), alarm(0)));
}

static void wreck(int signal) {
    seen[signal]++;
    __asm__ volatile("vzeroall" : : : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7");
}

/* Registers wider than FXSAVE's image come back too. */
static void wide(void) {
    unsigned char in[32], out[32];
    int same = 1;
    if (!__builtin_cpu_supports("avx")) {
        printf("no avx\n");
        return;
    }
    for (int i = 0; i < 32; i++)
        in[i] = (unsigned char)(i * 7 + 1);
    install(SIGALRM, wreck, 0);
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 5000}, {0, 5000}}, NULL);
    while (seen[SIGALRM] < 10) {
        __asm__ volatile("vmovdqu %1, %%ymm7\n movl $3000000, %%ecx\n1: decl %%ecx\n jnz 1b\n vmovdqu %%ymm7, %0"
                         : "=m"(out) : "m"(in) : "ecx", "xmm7", "memory");
        same &= !memcmp(in, out, sizeof in);
    }
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 0}}, NULL);
    printf("wide registers the same %d\n", same);
}

/* read is made again for a handler with SA_RESTART, else it fails. */
static int pipe_ends[2];

static void feed(int signal) {
    (void)signal;
    if (write(pipe_ends[1], "fed", 3) != 3)
        _exit(9);
}

static void restarts(void) {
    char text[4] = "";
    SHOW(pipe(pipe_ends));
    install(SIGALRM, feed, SA_RESTART);
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 30000}}, NULL);
    SHOW(read(pipe_ends[0], text, 3));
    printf("text %s\n", text);
    install(SIGALRM, count, 0);
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 30000}}, NULL);
    SHOW(read(pipe_ends[0], text, 3));
    install(SIGPIPE, count, 0);
    close(pipe_ends[0]);
    SHOW(write(pipe_ends[1], "x", 1));
    printf("SIGPIPE %d\n", seen[SIGPIPE]);
}

static void nest(int signal) {
    if (++seen[signal] < 20)
        raise(signal);
}

static void nested(void) {
    install(SIGUSR1, nest, SA_NODEFER);
    raise(SIGUSR1);
    printf("nested %d\n", seen[SIGUSR1]);
}

/* A fault with DF and CF set: the handler runs without DF, its frame shows what was, and what it makes of that is
 * what comes back. */
static uint32_t inside, shown;

static void step_over(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    __asm__ volatile("pushf; pop %0" : "=r"(inside));
    shown = (uint32_t)registers[REG_EFL];
    registers[REG_EFL] ^= 0x41; /* CF and ZF */
    registers[REG_EIP] += 2;
}

static void flags(void) {
    uint32_t after;
    sigaction(SIGILL, &(struct sigaction){.sa_sigaction = step_over, .sa_flags = SA_SIGINFO}, NULL);
    __asm__ volatile("xor %0, %0\n inc %0\n std\n stc\n ud2\n pushf\n pop %0\n cld" : "=r"(after) : : "cc");
    printf("DF in the handler %u, shown %x, after %x\n", inside & 0x400, shown & 0x3fffff & ~0x10000u, after);
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    static const struct { const char *name; void (*run)(void); } tests[] = {
        {"plain", plain}, {"faults", faults}, {"on_demand", on_demand}, {"jumps", jumps}, {"altstack", altstack},
        {"timers", timers}, {"restarts", restarts}, {"nested", nested}, {"wide", wide}, {"exact", exact},
        {"flags", flags}};
    for (unsigned i = 0; i < sizeof tests / sizeof *tests; i++)
        if (!strcmp(what, tests[i].name))
            tests[i].run();
    if (!strcmp(what, "die"))
        SHOW(raise(atoi(argv[2])));
    if (!strcmp(what, "blocked")) {
        sigset_t set;
        sigfillset(&set);
        sigprocmask(SIG_SETMASK, &set, NULL);
        *(volatile int *)4 = 1;
    }
    if (!strcmp(what, "ignored")) {
        install(SIGFPE, SIG_IGN, 0);
        return argc / (argc - 2);
    }
    if (!strcmp(what, "spill")) { /* handlers of handlers, until a frame would leave the alternate stack */
        static char around[1 << 20];
        sigaltstack(&(stack_t){.ss_sp = around + (1 << 19), .ss_size = 1 << 16}, NULL);
        install(SIGSEGV, (void (*)(int))0x100, SA_ONSTACK | SA_NODEFER);
        *(volatile int *)4 = 1;
    }
    if (!strcmp(what, "nostack")) {
        install(SIGUSR1, count, 0);
        __asm__ volatile("movl $0x100, %%esp\n movl $37, %%eax\n movl %0, %%ebx\n movl $10, %%ecx\n int $0x80\n ud2"
                         : : "r"(getpid()) : "eax", "ecx");
    }
    return 0;
}
