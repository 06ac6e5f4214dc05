/* Taking fault and tick signals, and what a fork does to the runtime. */
#ifndef VX_SIGNALS_H
#define VX_SIGNALS_H

#include "base.h"

/* Installs handlers once per process; false when the system refused. */
bool vx_signals_init(void);
/* Changes in every forked child: what was written before belongs to the parent too.  Changes in the
 * parent when the child may still run what was written before. */
extern _Atomic uint32_t vx_forks;
static inline uint32_t vx_fork_generation(void) { return atomic_load_explicit(&vx_forks, memory_order_relaxed); }
/* Prepares the calling thread: alternate signal stack.  False when refused. */
bool vx_thread_init(void);

/* One lock for all translation: taken over fork, so a child never inherits it held. */
void vx_translate_lock(void);
void vx_translate_unlock(void);

#endif
