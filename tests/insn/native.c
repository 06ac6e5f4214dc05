/* The oracle: a freestanding i386 program that runs each case on the bare processor.
 *
 * Contract with the driver: fd 3 is struct shared, fd 0 brings struct command, fd 1 takes it back
 * when its cases are done.  A case starts with every register loaded and ends in whatever
 * exception it raises; the handler, on a stack of its own, writes the interrupted state and
 * leaves by restoring the runner's stack pointer, never by sigreturn.
 *
 * Nothing else is mapped while cases run: the loader's stack and the vdso are unmapped first. */
#include "layout.h"

#define NULL ((void *)0)
typedef __UINTPTR_TYPE__ word;

enum { SYS_exit = 1, SYS_write = 4, SYS_munmap = 91, SYS_setitimer = 104, SYS_prctl = 172,
       SYS_sigreturn = 173, SYS_rt_sigaction = 174, SYS_pread = 180, SYS_pwrite = 181,
       SYS_sigaltstack = 186, SYS_mmap2 = 192, SYS_set_thread_area = 243, SYS_read = 3 };
enum { SIG_ILL = 4, SIG_TRAP = 5, SIG_BUS = 7, SIG_FPE = 8, SIG_SEGV = 11, SIG_VTALRM = 26 };
enum { READ = 1, WRITE = 2, EXEC = 4, SHARED = 1, PRIVATE = 2, FIXED = 16, ANONYMOUS = 32 };
enum { SA_INFO = 4, SA_RESTORER = 0x04000000, SA_ONSTACK = 0x08000000, SA_NODEFER = 0x40000000,
       SA_RESTART = 0x10000000 };

/* Ticks of the timer that a case may live; it counts from the tick before the case began.  No case takes a millisecond of
 * its own, but kernels and hypervisors let who locks across cache lines wait for as long as they please. */
#define ITIMER_VIRTUAL 1
#define TICK_MICROSECONDS 50000
#define TICKS_ALLOWED 200

/* The kernel's 32-bit signal frame, as far as it is read here. */
struct sigcontext32 {
    uint16_t gs, gsh, fs, fsh, es, esh, ds, dsh;
    uint32_t edi, esi, ebp, esp, ebx, edx, ecx, eax;
    uint32_t trapno, error, eip;
    uint16_t cs, csh;
    uint32_t eflags, esp_at_signal;
    uint16_t ss, ssh;
    uint32_t fpstate, oldmask, cr2;
};
struct ucontext32 {
    uint32_t flags, link, stack_pointer, stack_flags, stack_size;
    struct sigcontext32 context;
};
#define FPSTATE_FXSAVE 112      /* the FXSAVE image, or XSAVE area, follows the old FSAVE image */

struct sigaction32 { word handler; uint32_t flags; word restorer; uint32_t mask[2]; };
struct stack32 { void *pointer; int32_t flags; uint32_t size; };

/* Used by the assembly below by name. */
struct cpu input __attribute__((used));
word saved_esp __attribute__((used));

static uint8_t alternate[0x4000] __attribute__((aligned(4096)));
static uint8_t own_stack[0x2000] __attribute__((aligned(4096), used));
static volatile uint32_t running, ticks;
static struct cpu state;

void run_case(void);
void leave_case(void) __attribute__((noreturn));
void restorer(void);

/* enter: every register of `input` into the processor, flags last but one, then the jump.
 * Only absolute operands are used, because no register is left to address with.
 * leave_case: back to run_case's caller, from any state. */
__asm__(".text\n"
        ".globl _start\n_start:\n"
        "  mov $own_stack+0x2000, %esp\n  call start\n"
        ".globl run_case\nrun_case:\n"
        "  pusha\n  mov %esp, saved_esp\n"
        "  mov input+40, %eax\n  xor %edx, %edx\n  test %eax, %eax\n  jz 1f\n  xrstor input+64\n  jmp 2f\n"
        "1:  fxrstor input+64\n2:\n"
        "  mov $input+36, %esp\n  popf\n"
        "  mov input, %eax\n  mov input+4, %ecx\n  mov input+8, %edx\n  mov input+12, %ebx\n"
        "  mov input+20, %ebp\n  mov input+24, %esi\n  mov input+28, %edi\n"
        "  mov input+16, %esp\n  jmp *input+32\n"
        ".globl leave_case\nleave_case:\n"
        "  mov saved_esp, %esp\n  pushl $0x2\n  popf\n  popa\n  ret\n"
        ".globl restorer\nrestorer:\n"
        "  mov $173, %eax\n  int $0x80\n");

static int32_t call6(int number, word a, word b, word c, word d, word e, word f) {
    /* ebp carries the sixth argument, which the compiler cannot be told about. */
    word six[2] = { a, f };
    int32_t result;
    __asm__ volatile("push %%ebp\n push %%ebx\n mov 4(%%ebx), %%ebp\n mov (%%ebx), %%ebx\n"
                     "int $0x80\n pop %%ebx\n pop %%ebp"
                     : "=a"(result)
                     : "a"(number), "b"(six), "c"(b), "d"(c), "S"(d), "D"(e)
                     : "memory", "cc");
    return result;
}

static int32_t call3(int number, word a, word b, word c) {
    return call6(number, a, b, c, 0, 0, 0);
}

static void need(int condition, int code) {
    if (!condition)
        call3(SYS_exit, (word)code, 0, 0);
}

static void file_read(void *to, word offset, word size) {
    need(call6(SYS_pread, RUNNER_SHARED_FD, (word)to, size, offset, 0, 0) == (int32_t)size, 10);
}

static void file_write(const void *from, word offset, word size) {
    need(call6(SYS_pwrite, RUNNER_SHARED_FD, (word)from, size, offset, 0, 0) == (int32_t)size, 11);
}

static void copy(void *to, const void *from, word size) {
    __asm__ volatile("cld; rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
}

static uint32_t vector, error, address;

static void record(const struct ucontext32 *u, uint32_t why) {
    const struct sigcontext32 *c = &u->context;
    const uint32_t gpr[8] = { c->eax, c->ecx, c->edx, c->ebx, c->esp, c->ebp, c->esi, c->edi };
    copy(state.gpr, gpr, sizeof gpr);
    state.eip = c->eip;
    state.eflags = c->eflags;
    state.components = input.components;
    copy(state.fx, (const uint8_t *)c->fpstate + FPSTATE_FXSAVE, input.components ? sizeof state.fx : XSAVE_PRESENT);
    vector = why;
    error = c->error;
    address = c->cr2;
}

static void on_fault(int signal, void *info, struct ucontext32 *u) {
    (void)signal, (void)info;
    need(running, 12);
    running = 0;
    record(u, u->context.trapno);
    leave_case();
}

static void on_tick(int signal, void *info, struct ucontext32 *u) {
    (void)signal, (void)info;
    if (!running || ++ticks < TICKS_ALLOWED)
        return;
    running = 0;
    record(u, VECTOR_TIMEOUT);
    leave_case();
}

static void handle(int signal, word handler, uint32_t flags) {
    struct sigaction32 action = { handler, SA_INFO | SA_RESTORER | SA_ONSTACK | SA_NODEFER | flags,
                                  (word)restorer, { 0, 0 } };
    need(call6(SYS_rt_sigaction, (word)signal, (word)&action, 0, 8, 0, 0) == 0, 13);
}

static void map(word base, word size, word protection, word flags, word file_offset) {
    word fd = flags & ANONYMOUS ? (word)-1 : RUNNER_SHARED_FD;
    word got = (word)call6(SYS_mmap2, base, size, protection, FIXED | flags, fd, file_offset / PAGE);
    need(got == base, 14);
}

/* One flat descriptor, writable, from TLS_BASE on: gs. */
static void set_gs(void) {
    enum { SEG_32BIT = 1, IN_PAGES = 16, USEABLE = 64 };
    uint32_t descriptor[4] = { (uint32_t)-1, TLS_BASE, 0xfffff, SEG_32BIT | IN_PAGES | USEABLE };
    need(call3(SYS_set_thread_area, (word)descriptor, 0, 0) == 0, 18);
    __asm__ volatile("mov %0, %%gs" : : "r"(descriptor[0] << 3 | 3));
}

static void set_up(void) {
    static const int signals[] = { SIG_ILL, SIG_TRAP, SIG_BUS, SIG_FPE, SIG_SEGV };
    static const uint32_t timer[4] = { 0, TICK_MICROSECONDS, 0, TICK_MICROSECONDS };
    struct stack32 stack = { alternate, 0, sizeof alternate };
    call3(SYS_munmap, RUNNER_BASE * 2, 0xffffe000u - RUNNER_BASE * 2, 0);
    map(CODE_BASE, CODE_SIZE, READ | EXEC, SHARED, __builtin_offsetof(struct shared, code));
    map(RO_BASE, RO_SIZE, READ, SHARED, __builtin_offsetof(struct shared, ro));
    map(DATA_BASE, DATA_SIZE, READ | WRITE, PRIVATE | ANONYMOUS, 0);
    map(STACK_BASE, STACK_SIZE, READ | WRITE, PRIVATE | ANONYMOUS, 0);
    need(call3(SYS_sigaltstack, (word)&stack, 0, 0) == 0, 15);
    for (word i = 0; i < sizeof signals / sizeof *signals; i++)
        handle(signals[i], (word)on_fault, 0);
    handle(SIG_VTALRM, (word)on_tick, SA_RESTART);
    set_gs();
    call3(SYS_prctl, 1 /* PR_SET_PDEATHSIG */, 9, 0);
    need(call3(SYS_setitimer, ITIMER_VIRTUAL, (word)timer, 0) == 0, 16);
}

static void load(uint32_t index) {
    const word at = __builtin_offsetof(struct shared, memory);
    file_read((void *)DATA_BASE, at, DATA_SIZE);
    file_read((void *)STACK_BASE, at + DATA_SIZE, STACK_SIZE);
    file_read(&input, __builtin_offsetof(struct shared, input) + index * sizeof input, sizeof input);
}

static void store(uint32_t index) {
    word at = __builtin_offsetof(struct shared, native) + index * sizeof(struct outcome);
    const uint32_t why[4] = { vector, error, address, 0 };
    file_write(&state, at, sizeof state);
    file_write(why, at + sizeof state, sizeof why);
    at += __builtin_offsetof(struct outcome, memory);
    file_write((const void *)DATA_BASE, at, DATA_SIZE);
    file_write((const void *)STACK_BASE, at + DATA_SIZE, STACK_SIZE);
}

void start(void) __attribute__((used, noreturn));
void start(void) {
    struct command command;
    set_up();
    while (call3(SYS_read, 0, (word)&command, sizeof command) == (int32_t)sizeof command) {
        for (uint32_t i = command.first; i < command.first + command.count; i++) {
            load(i);
            ticks = 0;
            running = 1;
            run_case();
            store(i);
        }
        need(call3(SYS_write, 1, (word)&command, sizeof command) == (int32_t)sizeof command, 17);
    }
    for (;;)
        call3(SYS_exit, 0, 0, 0);
}
