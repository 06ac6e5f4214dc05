/* One call at a time in a box.
 *
 * The GIL guards Box.owner: a thread that finds it zero takes the box by writing its ident, with
 * no system call and no atomic instruction.  A thread that finds another owner sleeps without the
 * GIL, which the owner may need to finish.
 *
 * No wakeup is lost: a waiter locks the mutex while it still holds the GIL and lets go of it only
 * inside pthread_cond_timedwait; the owner wakes with the GIL and the mutex held, so it is
 * either before the waiter's look at `owner` or after its sleep began.  No deadlock: nobody
 * waits for the GIL with the mutex held.
 *
 * A fork leaves only one thread.  A box whose owner was another one is given up: its memory is
 * in the middle of a call that nobody will finish. */
#include "binding.h"

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
    box->forks = box->state->forks;
    return error;
}

void lock_destroy(Box *box)
{
    /* In a child the mutex may be held, and the condition waited on, by threads it never had. */
    if (box->forks != box->state->forks)
        return;
    pthread_cond_destroy(&box->freed);
    pthread_mutex_destroy(&box->mutex);
}

/* The running call died with its thread.  The sandbox is not freed: the core allows that only
 * outside calls, and this one never ends. */
static void give_up(Box *box)
{
    box->owner = 0;
    box->call = NULL;
    box->core = NULL;
    Py_XSETREF(box->broken, PyUnicode_FromString(
        "sandbox is lost: another thread ran a call in it when the process forked"));
}

/* After a fork: forgets the threads that are gone. */
static void refresh(Box *box)
{
    if (box->forks == box->state->forks)
        return;
    box->forks = box->state->forks;
    box->waiters = 0;
    pthread_mutex_init(&box->mutex, NULL);
    init_sleep(box);
    if (box->owner != 0 && box->owner != box->state->forked_by)
        give_up(box);
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
    box->waiters++;
    pthread_mutex_lock(&box->mutex);
    PyThreadState *suspended = PyEval_SaveThread();
    pthread_cond_timedwait(&box->freed, &box->mutex, &until);
    pthread_mutex_unlock(&box->mutex);
    PyEval_RestoreThread(suspended);
    box->waiters--;
}

bool lock_is_mine(Box *box, unsigned long me)
{
    refresh(box);
    return box->owner == me;
}

bool lock_acquire(Box *box)
{
    unsigned long me = thread_ident();
    while (!lock_try(box, me)) {
        sleep_once(box);
        if (PyErr_CheckSignals() < 0)
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
