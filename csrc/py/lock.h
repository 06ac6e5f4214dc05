/* Who may touch what, when several threads have the same objects.
 *
 * 1. A box is used by one thread at a time: Box.owner says which (lock.c).  Whatever the rules below do not name, the
 *    core's sandbox first of all, belongs to the owner.
 * 2. What threads that are not the owner change as well is changed between guard_enter and guard_leave, where no
 *    Python code and no guest runs and nothing waits: of a Box `core` when it is closed, `broken` and `forks` after a
 *    fork, `sample`, `handles`, `graves` with `generation`; of a Buffer or a Mapping everything.
 * 3. Single words that others read, to say why something cannot be used, are read by PEEK and written by POKE.  A peek is a hint: whoever acts on it looks again as the owner.
 * 4. Work for the owner that somebody else finds (a handle that nobody holds, a Buffer that was released) is left where
 *    it belongs, then `left` is set, then the lock is tried: box_leave_work.  The owner looks at `left` after it has
 *    let go, so one of the two does it.
 * 5. Everything else is immutable once it is made (Function, Layout, Plugin) or lives on one thread's stack (Call, Lease).
 *
 * With a GIL, guards are empty, lock_try and lock_release are plain loads and stores, and the GIL guards all of this.
 * Without one a thread is attached while it is in the binding or in a short call, and whoever stops the world, as the
 * garbage collector does, waits for it: so long calls detach, exactly where they release a GIL (hooks.c). */
#ifndef VXPLUG_LOCK_H
#define VXPLUG_LOCK_H

#include "binding.h"

#define PEEK(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)
#define POKE(field, value) __atomic_store_n(&(field), (value), __ATOMIC_RELAXED)

int lock_create(Box *box);                 /* 0 or an errno */
void lock_destroy(Box *box);
/* Whether the calling thread is inside a call of the box. */
bool lock_is_mine(Box *box, unsigned long me);
bool lock_acquire(Box *box);               /* waits; false: the exception of a signal handler */
void lock_wake(Box *box);                  /* slow part of lock_let_go */
void guard_wait(void);                     /* a moment */

/* PyThread_get_thread_ident without its detour. */
static inline unsigned long thread_ident(void)
{
#if defined(__GLIBC__) && defined(__has_builtin)
#if __has_builtin(__builtin_thread_pointer)
    return (unsigned long)__builtin_thread_pointer(); /* which is what pthread_self returns there */
#endif
#endif
    return (unsigned long)pthread_self();
}

/* A guard is none of Python's critical sections, since those of 3.13t do not survive a fork: a lock that others wait for
 * is handed to one of them while it is detached, and in the child it may be the lock of a thread that is not there.  Who
 * has a guard is attached and does not wait, so a fork, which stops the world, finds all of them free. */
static inline void guard_enter(Guard *guard)
{
#ifdef Py_GIL_DISABLED
    while (!USUALLY(!__atomic_exchange_n(guard, true, __ATOMIC_ACQUIRE)))
        guard_wait();
#else
    (void)guard;
#endif
}

static inline void guard_leave(Guard *guard)
{
#ifdef Py_GIL_DISABLED
    __atomic_store_n(guard, false, __ATOMIC_RELEASE);
#else
    (void)guard;
#endif
}

/* No fork since: what is in the lock is true. */
static inline bool lock_is_sound(Box *box)
{
    return USUALLY(__atomic_load_n(&box->forks, __ATOMIC_ACQUIRE) == box->state->forks);
}

/* The two lines that an uncontended call pays. */
static inline bool lock_try(Box *box, unsigned long me)
{
#ifdef Py_GIL_DISABLED
    unsigned long nobody = 0;
    return lock_is_sound(box)
        && USUALLY(__atomic_compare_exchange_n(&box->owner, &nobody, me, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
#else
    if (!USUALLY(PEEK(box->owner) == 0 && lock_is_sound(box)))
        return false;
    POKE(box->owner, me);
    return true;
#endif
}

/* Work that was left meanwhile stays: for who has none of it, or has just done it. */
static inline void lock_let_go(Box *box)
{
#ifdef Py_GIL_DISABLED
    __atomic_store_n(&box->owner, 0, __ATOMIC_SEQ_CST); /* before the looks at `waiters` and, later, at `left` */
#else
    POKE(box->owner, 0);
#endif
    if (!USUALLY(__atomic_load_n(&box->waiters, __ATOMIC_SEQ_CST) == 0))
        lock_wake(box);
}

/* With a GIL whoever leaves work knows whether the box is locked, and who has it locked looks before it lets go. */
static inline void lock_release(Box *box)
{
    lock_let_go(box);
#ifdef Py_GIL_DISABLED
    if (!USUALLY(!__atomic_load_n(&box->left, __ATOMIC_SEQ_CST)))
        box_catch_up(box);
#endif
}

#endif
