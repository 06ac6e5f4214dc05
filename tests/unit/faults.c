/* Whose fault is it?  (invariant 12)  Each case breaks something of the host's while a guest runs, in a process of its
 * own: that process has to die of the signal, as if there were no sandbox, and not to see a guest's fault. */
#include "core/internal.h"

#include <pthread.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define CODE 0x10000u
#define LOOP (CODE + 6)

static vx_sandbox *misused;

/* In the middle of a call, outside translated code, at an address that is the guest's. */
static bool on_tick(void *context) {
    (void)context;
    if (misused != NULL)
        *(volatile int *)(uintptr_t)(misused->base + 16) = 1;
    return true;
}

static vx_sandbox *open_box(void) {
    static const uint8_t code[] = {0xb8, 1, 0, 0, 0, 0xcc, 0xeb, 0xfe}; /* mov eax, 1; int3; jmp itself */
    vx_segment segment = {CODE, 0x1000, sizeof code, VX_PROT_READ | VX_PROT_EXEC, code, 0};
    vx_image image = {.segments = &segment, .count = 1, .entry = CODE};
    vx_options options = {.memory = 1 << 20, .stack = 1 << 16, .raw = true, .timeout_ns = (uint64_t)2000 * 1000000,
                          .hooks = {.tick = on_tick}};
    vx_plugin *plugin;
    vx_sandbox *box;
    vx_trap trap;
    if (vx_plugin_create(&image, &plugin) != VX_OK || vx_sandbox_create(plugin, &options, &box, &trap) != VX_OK)
        _exit(90);
    return box;
}

static vx_trap_kind run_at(vx_sandbox *box, uint32_t eip) {
    vx_trap trap = {0};
    vx_cpu cpu = {.registers.eip = eip, .fx = {[0] = 0x7f, [1] = 3, [24] = 0x80, [25] = 0x1f}};
    cpu.registers.gpr[4] = VX_STACK_TOP - 256;
    return vx_run(box, &cpu, &trap) == VX_TRAP ? trap.kind : VX_TRAP_NONE;
}

/* As if the translator had emitted mov rax, [0]: an address that no guest can name. */
static void fault_outside_the_window(vx_sandbox *box) {
    static const uint8_t wild[] = {0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0};
    if (run_at(box, CODE) != VX_TRAP_BREAKPOINT)
        _exit(91);
    memcpy(box->cache->edit + cache_lookup(box->cache, CODE)->start, wild, sizeof wild);
    run_at(box, CODE);
}

static void fault_in_a_hook(vx_sandbox *box) {
    misused = box;
    run_at(box, LOOP);
}

static pthread_t runner;

static void *send(void *signal) {
    os_sleep_ns(100 * 1000000);
    pthread_kill(runner, *(int *)signal);
    return NULL;
}

/* A signal that someone sends looks like a fault, but for its code. */
static void signal_sent(vx_sandbox *box) {
    static int signal = SIGFPE;
    pthread_t sender;
    runner = pthread_self();
    if (pthread_create(&sender, NULL, send, &signal) != 0)
        _exit(92);
    run_at(box, LOOP);
}

static volatile int handled;

/* A handler that the machine did not let finish before the next tick. */
static void on_urgent(int signal) {
    if (handled++ == 0)
        kill(getpid(), signal);
}

/* The second is not to be taken for a signal that ends the process: then no tick would come any more. */
static void tick_in_a_tick(vx_sandbox *box) {
    struct sigaction action = {.sa_handler = on_urgent};
    if (sigaction(SIGURG, &action, NULL) != 0)
        _exit(93);
    vx_signals_reclaim();
    kill(getpid(), SIGURG);
    alarm(20);
    if (handled == 1 && run_at(box, LOOP) == VX_TRAP_TIMEOUT)
        raise(SIGTERM);
}

static bool dies(const char *what, void (*act)(vx_sandbox *), int signal) {
    int status = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        act(open_box());
        _exit(0);
    }
    bool ok = child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == signal;
    if (!ok)
        printf("faults: %s: status %#x, not signal %d\n", what, (unsigned)status, signal);
    return ok;
}

int main(void) {
    bool ok = run_at(open_box(), CODE) == VX_TRAP_BREAKPOINT;
    ok &= dies("outside the window", fault_outside_the_window, SIGSEGV);
    ok &= dies("in a hook", fault_in_a_hook, SIGSEGV);
    ok &= dies("sent", signal_sent, SIGFPE);
    ok &= dies("by its own hand", tick_in_a_tick, SIGTERM);
    printf("%s\n", ok ? "faults: all checks passed" : "faults: FAILED");
    return !ok;
}
