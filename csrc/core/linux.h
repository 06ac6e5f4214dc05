/* One Linux system call (`int $0x80`) while it is served.  linux.c dispatches by linuxcalls.def;
 * each linux_*.c serves one concept. */
#ifndef VX_LINUX_H
#define VX_LINUX_H

#include "internal.h"

#include <errno.h>

/* Registers in encoding order. */
enum { EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI };

typedef struct linux_call {
    vx_sandbox *box;
    uint32_t *gpr;
    vx_trap *trap;
    uint32_t number, arguments[6]; /* ebx ecx edx esi edi ebp, as the guest gave them */
    bool interrupted;               /* by a signal, before it did anything: it may be made again */
} linux_call;

/* How a function ends: a result for the guest, or the end of the guest's call. */
static inline bool done(linux_call *c, int64_t result) {
    c->gpr[EAX] = (uint32_t)result;
    return true;
}

static inline bool end(linux_call *c, vx_trap_kind kind, uint32_t code) {
    c->trap->kind = kind;
    c->trap->code = code;
    return false;
}

static inline bool refuse(linux_call *c) { return end(c, VX_TRAP_SYSCALL, c->number); }

/* Whether an embedder serves what the core does not: a program, or a plugin under a policy.  Never an initialisation:
 * all sandboxes begin with its outcome, also those whose policy allows less. */
static inline bool under_policy(const vx_sandbox *box) {
    return box->options.hooks.linux_call != NULL && !box->initialising;
}

/* linux.c: has the embedder serve a call.  False: the guest's call ends. */
bool linux_ask(linux_call *c, uint32_t number, const uint32_t arguments[6], int32_t *result);

/* linux_signal.c.  `after`: the system call that just ended, or NULL.  False: a signal killed, *trap says
 * which; what signal_deliver and signal_fault leave in the state is the guest's, in its handler or not. */
bool signal_deliver(vx_sandbox *box, const linux_call *after, vx_trap *trap);
void signal_send(vx_sandbox *box, unsigned signal, int code);
void signal_set_mask(vx_sandbox *box, uint64_t mask);

/* Why a handler runs: siginfo's fields, and the exception's of the processor. */
typedef struct vx_signal_info {
    unsigned signal;
    int code;
    uint32_t address, vector, error, cr2;
} vx_signal_info;

/* linux_frame.c: the state saved on the guest's stack, and the state of a handler's first instruction.
 * `mask` is the one to return to.  False: no room. */
bool frame_push(vx_sandbox *box, const vx_signal_action *action, const vx_signal_info *info, uint64_t mask);

/* Every function that linuxcalls.def names, call_NAME; several rows may share one. */
#define CORE(function) bool call_##function(linux_call *c);
#define WITH(function) bool call_##function(linux_call *c);
#define BOTH(function) bool call_##function(linux_call *c);
#define EITHER(function) bool call_##function(linux_call *c);
#define HOST
#define DENY(error)
#define LINUX(number, name, server, arguments) server
#include "linuxcalls.def"
#undef CORE
#undef WITH
#undef BOTH
#undef EITHER
#undef HOST
#undef DENY
#undef LINUX

#endif
