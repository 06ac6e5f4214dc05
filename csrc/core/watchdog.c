/* One thread that ticks while guests run.
 *
 * A call writes its frame and a sequence number, nothing else.  The watchdog notices when it meets
 * the same sequence number at two ticks; from then on it signals the calling thread every tick,
 * and marks frames whose time is over.  A mark carries the sequence number it was meant for, so a
 * late one can never hit the next call. */
#include "internal.h"

#include <pthread.h>

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static vx_thread *threads;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
VX_THREAD_LOCAL vx_thread *vx_this_thread;

_Atomic uint32_t vx_watchdog_state;
static _Atomic int samplers;

static void forget_thread(void *pointer) {
    vx_thread *thread = pointer;
    pthread_mutex_lock(&list_lock);
    for (vx_thread **link = &threads; *link != NULL; link = &(*link)->next)
        if (*link == thread) {
            *link = thread->next;
            break;
        }
    pthread_mutex_unlock(&list_lock);
    vx_this_thread = NULL;
    os_altstack_leave(thread->altstack);
    free(thread);
}

static void make_key(void) { VX_CHECK(pthread_key_create(&key, forget_thread) == 0); }

bool vx_thread_init(void) {
    if (vx_this_thread != NULL)
        return true;
    pthread_once(&key_once, make_key);
    vx_thread *thread = calloc(1, sizeof *thread);
    bool ok = false;
    if (thread == NULL)
        return false;
    thread->id = os_thread_id();
    thread->altstack = os_altstack_enter(&ok);
    if (!ok || pthread_setspecific(key, thread) != 0) {
        os_altstack_leave(thread->altstack);
        free(thread);
        return false;
    }
    pthread_mutex_lock(&list_lock);
    thread->next = threads;
    threads = thread;
    pthread_mutex_unlock(&list_lock);
    vx_this_thread = thread;
    return true;
}

/* --- the watchdog's side ---------------------------------------------------------------------- */

void vx_sampling(bool on) { atomic_fetch_add(&samplers, on ? 1 : -1); }

/* True while the frame's call has been running since an earlier tick, or a profiler wants all of them. */
static bool look_at_frame(vx_frame *f, uint64_t now) {
    uint64_t sequence = atomic_load(&f->sequence);
    uint64_t timeout = atomic_load_explicit(&f->timeout_ns, memory_order_relaxed);
    if (f->seen != sequence) {
        f->seen = sequence;
        f->seen_at = now;
        return atomic_load_explicit(&samplers, memory_order_relaxed) > 0;
    }
    if (timeout != 0 && now - f->seen_at >= timeout)
        atomic_store(&f->expired, sequence);
    return true;
}

/* A thread lingers when ticks meet it in calls for a third of the time that it runs, and no more of them were
 * made since the tick that met it there before than long ones would have been.  A thread that waits tells
 * nothing: it may wait for the lock that another one's call holds. */
static void judge(vx_thread *thread, unsigned depth, uint64_t now) {
    const vx_frame *f = &thread->frames[0];
    uint64_t used = os_thread_time_ns(thread->id);
    if (depth == 0)
        thread->slowness -= thread->slowness != 0 && used - thread->used > VX_TICK_NS / 10;
    else if (now - f->seen_at < (atomic_load(&f->sequence) - f->seen) * VX_LINGER_NS)
        thread->slowness = 0;
    else
        thread->slowness = thread->slowness < 4 ? thread->slowness + 2 : 6;
    thread->used = used;
    unsigned hold = atomic_load_explicit(&thread->hold, memory_order_relaxed);
    if (hold != 0)
        atomic_store_explicit(&thread->hold, hold - 1, memory_order_relaxed);
    atomic_store_explicit(&thread->lingers, hold == 0 && thread->slowness >= 3, memory_order_relaxed);
}

void vx_lingered(uint64_t ran_ns, uint64_t waited_ns) {
    vx_thread *thread = vx_this_thread;
    uint64_t lost = thread->lost_ns + waited_ns;
    thread->lost_ns = lost > ran_ns ? lost - ran_ns : 0;
    if (thread->lost_ns < VX_LINGER_LOSS_NS)
        return;
    thread->lost_ns = 0;
    atomic_store_explicit(&thread->hold, VX_LINGER_HOLD_TICKS, memory_order_relaxed);
    atomic_store_explicit(&thread->lingers, false, memory_order_relaxed);
}

static bool look_at_thread(vx_thread *thread, uint64_t now) {
    unsigned depth = atomic_load(&thread->depth);
    bool long_running = false;
    judge(thread, depth, now);
    for (unsigned i = 0; i < depth; i++)
        long_running |= look_at_frame(&thread->frames[i], now);
    if (long_running)
        os_signal_thread(thread->id, SIGURG);
    return depth != 0;
}

static bool look_at_all(void) {
    bool any = false;
    uint64_t now = os_now_ns();
    pthread_mutex_lock(&list_lock);
    for (vx_thread *thread = threads; thread != NULL; thread = thread->next)
        any |= look_at_thread(thread, now);
    pthread_mutex_unlock(&list_lock);
    return any;
}

/* A caller stores its frame, then reads the state, without a fence.  So the watchdog announces its
 * sleep, waits a tick, by when every store has long arrived, and looks once more. */
static void sleep_until_woken(void) {
    atomic_store(&vx_watchdog_state, WATCHDOG_ASLEEP);
    os_sleep_ns(VX_TICK_NS);
    if (look_at_all())
        atomic_store(&vx_watchdog_state, WATCHDOG_AWAKE);
    while (atomic_load(&vx_watchdog_state) == WATCHDOG_ASLEEP)
        os_wait(&vx_watchdog_state, WATCHDOG_ASLEEP);
}

static void *watchdog_main(void *unused) {
    (void)unused;
    for (unsigned idle = 0;; idle++) {
        os_sleep_ns(VX_TICK_NS);
        vx_signals_reclaim();
        if (look_at_all())
            idle = 0;
        if (idle < VX_IDLE_TICKS)
            continue;
        sleep_until_woken();
        idle = 0;
    }
    return NULL;
}

static bool start_watchdog(void) {
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, old;
    uint32_t absent = WATCHDOG_ABSENT;
    if (!atomic_compare_exchange_strong(&vx_watchdog_state, &absent, WATCHDOG_AWAKE))
        return true;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 256 << 10);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int error = pthread_create(&thread, &attributes, watchdog_main, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
    if (error != 0)
        atomic_store(&vx_watchdog_state, WATCHDOG_ABSENT);
    return error == 0;
}

bool watchdog_wake(void) {
    uint32_t asleep = WATCHDOG_ASLEEP;
    if (atomic_compare_exchange_strong(&vx_watchdog_state, &asleep, WATCHDOG_AWAKE)) {
        os_wake(&vx_watchdog_state);
        return true;
    }
    return asleep == WATCHDOG_AWAKE || start_watchdog();
}

/* --- the caller's side ------------------------------------------------------------------------ */

static unsigned own_depth(void) {
    return vx_this_thread == NULL ? 0 : atomic_load_explicit(&vx_this_thread->depth, memory_order_relaxed);
}

vx_sandbox *watchdog_current(void) {
    const vx_frame *current = vx_this_thread == NULL ? NULL : vx_this_thread->current;
    return current == NULL ? NULL : current->box;
}

bool watchdog_in_tick(void) {
    unsigned depth = own_depth();
    for (unsigned i = 0; i < depth; i++)
        if (vx_this_thread->frames[i].box != NULL && vx_this_thread->frames[i].box->in_tick)
            return true;
    return false;
}

static vx_trap_kind frame_stop(vx_frame *f) {
    if (f->box == NULL)
        return VX_TRAP_NONE;
    if (atomic_load_explicit(&f->expired, memory_order_relaxed) ==
        atomic_load_explicit(&f->sequence, memory_order_relaxed))
        return VX_TRAP_TIMEOUT;
    return atomic_load_explicit(&f->box->interrupt, memory_order_relaxed) ? VX_TRAP_INTERRUPT : VX_TRAP_NONE;
}

vx_sandbox *watchdog_overdue(vx_trap_kind *why) {
    unsigned depth = own_depth();
    for (unsigned i = 0; i < depth; i++) {
        *why = frame_stop(&vx_this_thread->frames[i]);
        if (*why != VX_TRAP_NONE)
            return vx_this_thread->frames[i].box;
    }
    *why = VX_TRAP_NONE;
    return NULL;
}

vx_trap_kind watchdog_stop(void) {
    vx_trap_kind why;
    (void)watchdog_overdue(&why);
    return why;
}

void *vx_overdue(vx_trap_kind *why) {
    vx_sandbox *box = watchdog_overdue(why);
    return box == NULL ? NULL : box->options.context;
}

/* --- fork -------------------------------------------------------------------------------------- */

void watchdog_before_fork(void) { pthread_mutex_lock(&list_lock); }
void watchdog_after_fork_parent(void) { pthread_mutex_unlock(&list_lock); }

/* Only the forking thread lives on.  The others' records are freed: nobody else can. */
void watchdog_after_fork(void) {
    while (threads != NULL) {
        vx_thread *thread = threads;
        threads = thread->next;
        if (thread != vx_this_thread)
            free(thread);
    }
    if (vx_this_thread != NULL) {
        vx_this_thread->next = NULL;
        vx_this_thread->id = os_thread_id();
        threads = vx_this_thread;
    }
    atomic_store(&vx_watchdog_state, WATCHDOG_ABSENT);
    pthread_mutex_unlock(&list_lock);
}
