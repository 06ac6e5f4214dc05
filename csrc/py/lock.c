/* One call at a time in a box.
 *
 * A thread that finds Box.owner zero takes the box by writing its ident: with a GIL, which guards the field, by a plain
 * store, without one by a compare and exchange.  A thread that finds another owner sleeps detached, since the owner may
 * need the GIL, or whoever stops the world may need us, before it can finish.
 *
 * No wakeup is lost: a waiter counts itself, then looks at `owner` with the mutex held, which it lets go of only inside
 * pthread_cond_timedwait; the owner writes `owner`, then looks at the count, and wakes with the mutex held.  So either the
 * waiter sees the box free, or the owner sees the waiter and wakes it after its sleep began.  No deadlock: nobody
 * attaches, or waits for the GIL, with the mutex held.
 *
 * A fork leaves only one thread.  A box whose owner was another one is given up: its memory is
 * in the middle of a call that nobody will finish. */
#include "binding.h"

#include <sched.h>
#include <time.h>

static int init_sleep(Box *box)
{
    pthread_condattr_t attributes;
    int error = pthread_condattr_init(&attributes);
    if (error != 0)
        return error;
    error = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    if (error == 0)
        error = pthread_cond_init(&box->freed, &attributes);
    pthread_condattr_destroy(&attributes);
    return error;
}

int lock_create(Box *box)
{
    int error = pthread_mutex_init(&box->mutex, NULL);
    if (error != 0)
        return error;
    error = init_sleep(box);
    if (error != 0)
        pthread_mutex_destroy(&box->mutex);
    POKE(box->forks, box->state->forks);
    return error;
}

void lock_destroy(Box *box)
{
    /* In a child the mutex may be held, and the condition waited on, by threads it never had. */
    if (!lock_is_sound(box))
        return;
    pthread_cond_destroy(&box->freed);
    pthread_mutex_destroy(&box->mutex);
}

/* The running call died with its thread.  The sandbox is not freed: the core allows that only
 * outside calls, and this one never ends. */
static void give_up(Box *box)
{
    box->call = NULL;
    POKE(box->core, NULL);
    Py_XSETREF(box->broken, PyUnicode_FromString(
        "sandbox is lost: another thread ran a call in it when the process forked"));
    POKE(box->owner, 0);
}

static void forget_threads(Box *box)
{
    POKE(box->waiters, 0);
    pthread_mutex_init(&box->mutex, NULL);
    init_sleep(box);
    if (PEEK(box->owner) != 0 && PEEK(box->owner) != box->state->forked_by)
        give_up(box);
}

/* After a fork: forgets the threads that are gone.  Nobody takes the box before `forks` says that it is done. */
static void refresh(Box *box)
{
    if (lock_is_sound(box))
        return;
    guard_enter(&box->guard);
    if (!lock_is_sound(box)) {
        forget_threads(box);
        __atomic_store_n(&box->forks, box->state->forks, __ATOMIC_RELEASE);
    }
    guard_leave(&box->guard);
}

static struct timespec soon(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_nsec += SIGNAL_CHECK_MS * 1000000L;
    at.tv_sec += at.tv_nsec / 1000000000L;
    at.tv_nsec %= 1000000000L;
    return at;
}

/* Until the owner wakes us or it is time to look at signals. */
static void sleep_once(Box *box)
{
    struct timespec until = soon();
    __atomic_add_fetch(&box->waiters, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_lock(&box->mutex);
    PyThreadState *suspended = PyEval_SaveThread();
    if (__atomic_load_n(&box->owner, __ATOMIC_SEQ_CST) != 0)
        pthread_cond_timedwait(&box->freed, &box->mutex, &until);
    pthread_mutex_unlock(&box->mutex);
    PyEval_RestoreThread(suspended);
    __atomic_sub_fetch(&box->waiters, 1, __ATOMIC_SEQ_CST);
}

void guard_wait(void)
{
    Py_BEGIN_ALLOW_THREADS
    sched_yield();
    Py_END_ALLOW_THREADS
}

bool lock_is_mine(Box *box, unsigned long me)
{
    refresh(box);
    return PEEK(box->owner) == me;
}

/* A call of another sandbox, in whose callback this thread waits, may have to end.  Else two threads that wait for each
 * other's sandbox would do so for ever, whatever their limits. */
static bool own_call_is_over(void)
{
    vx_trap_kind why;
    if (vx_overdue(&why) == NULL)
        return false;
    PyObject *module = PyImport_ImportModule("vxplug._signals");
    PyObject *result = module == NULL ? NULL : PyObject_CallMethod(module, "end_overdue", "s", "waiting for another thread's call");
    Py_XDECREF(module);
    Py_XDECREF(result);
    return result == NULL;
}

bool lock_acquire(Box *box)
{
    unsigned long me = thread_ident();
    while (!lock_try(box, me)) {
        sleep_once(box);
        if (PyErr_CheckSignals() < 0 || own_call_is_over())
            return false;
    }
    return true;
}

void lock_wake(Box *box)
{
    refresh(box);
    pthread_mutex_lock(&box->mutex);
    pthread_cond_signal(&box->freed);
    pthread_mutex_unlock(&box->mutex);
}
