/* What a call pays for its time limit: a frame, and a look at whether the watchdog is awake.  In line,
 * because every call pays it; watchdog.c has the rest. */
#ifndef VX_WATCHDOG_H
#define VX_WATCHDOG_H

#include "../vx.h"
#include "base.h"
#include "limits.h"

typedef struct vx_frame {
    _Atomic uint64_t sequence; /* of the call in this frame: it alone has the number */
    vx_sandbox *box; /* NULL: the call is over, others that began after it are not */
    _Atomic uint64_t timeout_ns;
    _Atomic uint64_t expired;  /* sequence number whose time is over */
    struct vx_frame *outer;    /* the current one when it was entered */
    uint64_t seen, seen_at;    /* watchdog's own */
} vx_frame;

typedef struct vx_thread {
    vx_frame frames[VX_MAX_NESTING];
    _Atomic unsigned depth;    /* frames from here on are not looked at */
    vx_frame *current;         /* whose guest code runs, if any does: not always the last one's */
    uint64_t next_sequence;
    _Atomic bool lingers;      /* its calls take long */
    _Atomic unsigned hold;     /* for so many ticks it does not linger, whatever they take */
    uint64_t lost_ns;          /* by lingering: what was waited more than it ran */
    unsigned slowness;         /* watchdog's own, as is `used`: processor time at the last tick */
    uint64_t used;
    int id;
    void *altstack;
    struct vx_thread *next;
} vx_thread;

enum { WATCHDOG_ABSENT, WATCHDOG_AWAKE, WATCHDOG_ASLEEP };
extern _Atomic uint32_t vx_watchdog_state;
extern VX_THREAD_LOCAL vx_thread *vx_this_thread; /* NULL before vx_thread_init */

bool watchdog_wake(void);

/* After a hook, which may have forked: the child's call has no watchdog yet.  False: no thread. */
static inline bool watchdog_resume(void) {
    return VX_LIKELY(atomic_load_explicit(&vx_watchdog_state, memory_order_relaxed) == WATCHDOG_AWAKE) ||
           watchdog_wake();
}

/* `thread` is the calling one.  Calls end in any order where an embedder switches stacks in a hook, as greenlets do. */
static inline void watchdog_leave(vx_thread *thread, vx_frame *f) {
    unsigned depth = atomic_load_explicit(&thread->depth, memory_order_relaxed);
    thread->current = f->outer;
    f->box = NULL;
    while (depth != 0 && thread->frames[depth - 1].box == NULL)
        depth--;
    atomic_store_explicit(&thread->depth, depth, memory_order_release);
}

/* VX_TOO_DEEP, VX_NO_MEMORY (no watchdog).  The state is read after the frame is stored: see
 * sleep_until_woken. */
static inline vx_status watchdog_enter(vx_thread *thread, vx_sandbox *box, uint64_t timeout_ns) {
    unsigned depth = atomic_load_explicit(&thread->depth, memory_order_relaxed);
    if (VX_UNLIKELY(depth == VX_MAX_NESTING))
        return VX_TOO_DEEP;
    vx_frame *f = &thread->frames[depth];
    f->box = box;
    atomic_store_explicit(&f->timeout_ns, timeout_ns, memory_order_relaxed);
    atomic_store_explicit(&f->sequence, ++thread->next_sequence, memory_order_release);
    f->outer = thread->current;
    thread->current = f;
    atomic_store_explicit(&thread->depth, depth + 1, memory_order_release);
    if (VX_LIKELY(watchdog_resume()))
        return VX_OK;
    watchdog_leave(thread, f);
    return VX_NO_MEMORY;
}

#endif
