/* Words every file of the core uses. */
#ifndef VX_BASE_H
#define VX_BASE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define VX_LIKELY(x) __builtin_expect(!!(x), 1)
#define VX_UNLIKELY(x) __builtin_expect(!!(x), 0)
/* Of functions that every call goes through: a frame of their own would cost more than what they do. */
#define VX_INLINE static inline __attribute__((always_inline))
#define VX_COUNT(array) (sizeof(array) / sizeof((array)[0]))
/* initial-exec: signal handlers read these, and lazy allocation is not signal-safe. */
#define VX_THREAD_LOCAL _Thread_local __attribute__((tls_model("initial-exec")))

/* A broken rule of our own, never of the guest's: going on could open the sandbox.  Kept in
 * release builds. */
#define VX_CHECK(x) ((void)(VX_LIKELY(x) || (vx_panic(#x, __FILE__, __LINE__), 0)))

_Noreturn void vx_panic(const char *rule, const char *file, int line);

/* pthread_once, of which every time but the first costs a load: for what is asked for each block or instruction. */
typedef struct vx_once {
    pthread_once_t once;
    _Atomic bool done;
} vx_once;
#define VX_ONCE_INIT {PTHREAD_ONCE_INIT, false}

static inline void vx_run_once(vx_once *o, void (*make)(void)) {
    if (VX_LIKELY(atomic_load_explicit(&o->done, memory_order_acquire)))
        return;
    pthread_once(&o->once, make);
    atomic_store_explicit(&o->done, true, memory_order_release);
}

#endif
