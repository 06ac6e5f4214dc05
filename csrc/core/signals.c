#include "internal.h"

#include <pthread.h>
#include <stdio.h>
#include <ucontext.h>
#include <unistd.h>

static const int fault_signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
#define TICK_SIGNAL SIGURG /* ignored by default: a stray one does no harm */

static struct sigaction previous[64];
static VX_THREAD_LOCAL int chaining; /* signal being given to the previous handler */
static pthread_mutex_t translate_mutex = PTHREAD_MUTEX_INITIALIZER;
_Atomic uint32_t vx_forks;
static _Atomic bool dying; /* the default disposition stays: nobody takes signals any more */

void vx_panic(const char *rule, const char *file, int line) {
    fprintf(stderr, "vxplug: broken invariant: %s (%s:%d)\n", rule, file, line);
    abort();
}

static uintptr_t interrupted_at(void *context) {
    return (uintptr_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
}

/* The handler chained to raised the signal again, or there is none: the default is due.  A fault
 * happens again by itself; a signal that was sent has to be sent again. */
static void die_by_default(int signal, const siginfo_t *info) {
    struct sigaction fallback = {.sa_handler = SIG_DFL};
    atomic_store(&dying, true);
    os_sigaction(signal, &fallback, NULL);
    if (info->si_code <= 0)
        raise(signal);
}

static void chain(int signal, siginfo_t *info, void *context) {
    const struct sigaction *old = &previous[signal];
    bool none = !(old->sa_flags & SA_SIGINFO) && (old->sa_handler == SIG_DFL || old->sa_handler == SIG_IGN);
    if (signal == TICK_SIGNAL && (none || chaining == signal)) /* the next tick says the same */
        return;
    if (none || chaining == signal) {
        die_by_default(signal, info);
        return;
    }
    chaining = signal;
    if (old->sa_flags & SA_SIGINFO)
        old->sa_sigaction(signal, info, context);
    else
        old->sa_handler(signal);
    chaining = 0;
}

static bool in_translated_code(const vx_sandbox *box, void *context) {
    return box != NULL && box->cache != NULL && cache_contains(box->cache, interrupted_at(context));
}

/* The one instruction outside it that faults when a guest says so: a lookup on the way back to it. */
static bool in_lookup(const vx_sandbox *box, void *context) {
    return box != NULL && interrupted_at(context) == (uintptr_t)vx_probe;
}

static void on_fault_signal(int signal, siginfo_t *info, void *context) {
    vx_sandbox *box = watchdog_current();
    if ((!in_translated_code(box, context) && !in_lookup(box, context)) || !trap_fault(box, signal, info, context))
        chain(signal, info, context);
}

/* In a hook, most likely; then the embedder may know how to end what it waits for. */
static bool overdue_elsewhere(pthread_t *wakes) {
    vx_trap_kind why;
    const vx_sandbox *box = watchdog_overdue(&why);
    return box != NULL && box->options.hooks.overdue != NULL &&
           box->options.hooks.overdue(box->options.context, why, wakes);
}

static void on_tick_signal(int signal, siginfo_t *info, void *context);
static _Atomic uint64_t cutting_since; /* a tick that cuts system calls short was wanted then; 0: they restart */

/* A system call that waits goes on after a tick, but not when the call it belongs to is overdue: it comes back with
 * EINTR at the next one, to whoever knows how to end.  The kernel asks the signal's own flags, all threads' at that. */
static void cut_system_calls(bool cut) {
    struct sigaction now;
    if (!os_sigaction(TICK_SIGNAL, NULL, &now) || !(now.sa_flags & SA_SIGINFO) || now.sa_sigaction != on_tick_signal)
        return;
    now.sa_flags = cut ? now.sa_flags & ~SA_RESTART : now.sa_flags | SA_RESTART;
    if (os_sigaction(TICK_SIGNAL, &now, NULL))
        atomic_store(&cutting_since, cut ? os_now_ns() : 0);
}

static void on_tick_signal(int signal, siginfo_t *info, void *context) {
    vx_sandbox *box = watchdog_current();
    if (in_translated_code(box, context) && trap_tick(box, context))
        return;
    if (box != NULL)
        box->tick_due = true;
    pthread_t self = pthread_self(), wakes = self;
    bool overdue = overdue_elsewhere(&wakes);
    uint64_t since = atomic_load(&cutting_since);
    if (overdue || (since != 0 && os_now_ns() - since > VX_CUT_NS))
        cut_system_calls(overdue);
    if (info->si_code != SI_TKILL || info->si_pid != getpid() || overdue)
        chain(signal, info, context);
    if (!pthread_equal(wakes, self))
        (void)pthread_kill(wakes, TICK_SIGNAL);
}

static bool take_signal(int signal, void (*handler)(int, siginfo_t *, void *)) {
    struct sigaction now;
    if (!os_sigaction(signal, NULL, &now))
        return false;
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == handler)
        return true;
    previous[signal] = now;
    struct sigaction ours = {.sa_sigaction = handler,
                             .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_NODEFER};
    return os_sigaction(signal, &ours, NULL);
}

static bool take_all(void) {
    bool ok = take_signal(TICK_SIGNAL, on_tick_signal);
    for (size_t i = 0; i < VX_COUNT(fault_signals); i++)
        ok &= take_signal(fault_signals[i], on_fault_signal);
    return ok;
}

void vx_signals_reclaim(void) {
    if (!atomic_load(&dying))
        (void)take_all();
}

void vx_translate_lock(void) { pthread_mutex_lock(&translate_mutex); }
void vx_translate_unlock(void) { pthread_mutex_unlock(&translate_mutex); }

static void before_fork(void) {
    vx_translate_lock();
    watchdog_before_fork();
}

/* A child that was forked in a tick goes on in the middle of a cache that it shares with us: we leave
 * it, so that nothing changes there under its feet. */
static void after_fork_parent(void) {
    if (watchdog_in_tick())
        vx_forks++;
    watchdog_after_fork_parent();
    vx_translate_unlock();
}

static void after_fork_child(void) {
    vx_forks++;
    watchdog_after_fork();
    vx_translate_unlock();
}

static bool init_ok;

static void init_once(void) {
    init_ok = os_gs_init() && take_all() &&
              pthread_atfork(before_fork, after_fork_parent, after_fork_child) == 0;
}

bool vx_signals_init(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init_once);
    return init_ok;
}
