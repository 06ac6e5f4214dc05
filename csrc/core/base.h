/* Words every file of the core uses. */
#ifndef VX_BASE_H
#define VX_BASE_H

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

#endif
