/* Signals that a guest sends itself, or earns by a fault, and timers: actions, masks, what waits.  The
 * frames that handlers run on are in linux_frame.c.
 *
 * S1  A signal is delivered only where the guest's state is exact: after a system call, at a fault, or
 *     where a tick finds translated code between two guest instructions.
 * S2  A fault whose signal is blocked, ignored or has no handler ends the guest's call, as a fault. */
#include "linux.h"

/* Linux's numbers, which the guest uses. */
enum { SIG_ILL = 4, SIG_TRAP = 5, SIG_ABRT = 6, SIG_FPE = 8, SIG_KILL = 9, SIG_SEGV = 11, SIG_PIPE = 13,
       SIG_ALRM = 14, SIG_CHLD = 17, SIG_CONT = 18, SIG_STOP = 19, SIG_TSTP = 20, SIG_TTIN = 21,
       SIG_TTOU = 22, SIG_URG = 23, SIG_WINCH = 28 };
enum { ACTION_DEFAULT = 0, ACTION_IGNORE = 1, HOW_BLOCK = 0, HOW_UNBLOCK = 1, HOW_SET = 2 };
enum { CODE_USER = 0, CODE_KERNEL = 0x80, CODE_TKILL = -6, GUEST_SEGV_MAPERR = 1, GUEST_SEGV_ACCERR = 2, GUEST_ILL_ILLOPN = 2,
       GUEST_FPE_INTDIV = 1, GUEST_FPE_FLTDIV = 3, GUEST_FPE_FLTOVF, GUEST_FPE_FLTUND, GUEST_FPE_FLTRES, GUEST_FPE_FLTINV };
enum { TIMER_REAL = 0, TIMER_PROF = 2, CALL_PAUSE = 29, SYSCALL_SIZE = 2 /* bytes of int $0x80 */ };
#define GUEST_SA_RESTART 0x10000000u
#define GUEST_SA_NODEFER 0x40000000u
#define GUEST_SA_RESETHAND 0x80000000u
#define SECOND_NS ((uint64_t)1000000000)

static uint64_t bit(unsigned signal) { return (uint64_t)1 << (signal - 1); }

#define UNBLOCKABLE (bit(SIG_KILL) | bit(SIG_STOP))
/* What does nothing by default.  A guest has nobody to continue it, so it does not stop either. */
#define QUIET                                                                                           \
    (bit(SIG_CHLD) | bit(SIG_CONT) | bit(SIG_URG) | bit(SIG_WINCH) | bit(SIG_STOP) | bit(SIG_TSTP) |    \
     bit(SIG_TTIN) | bit(SIG_TTOU))

static bool ignored(const vx_signals *s, unsigned signal) {
    uint32_t handler = s->actions[signal - 1].handler;
    return handler == ACTION_IGNORE || (handler == ACTION_DEFAULT && (QUIET & bit(signal)));
}

void signal_send(vx_sandbox *box, unsigned signal, int code) {
    vx_signals *s = &box->kernel.signals;
    if (ignored(s, signal))
        return;
    s->pending |= bit(signal);
    s->codes[signal - 1] = (int16_t)code;
}

/* --- timers ---------------------------------------------------------------------------------------- */

static void look_at_timer(vx_sandbox *box) {
    uint64_t now = box->timer_at == 0 ? 0 : os_now_ns();
    if (now == 0 || now < box->timer_at)
        return;
    box->timer_at = box->timer_every == 0 ? 0 : now + box->timer_every;
    signal_send(box, SIG_ALRM, CODE_KERNEL);
}

bool signal_due(vx_sandbox *box) {
    if (!under_policy(box))
        return false;
    look_at_timer(box);
    return box->kernel.signals.pending & ~box->kernel.signals.blocked;
}

static uint64_t timer_left(const vx_sandbox *box) {
    uint64_t now = os_now_ns();
    return box->timer_at > now ? box->timer_at - now : box->timer_at != 0;
}

/* Ends the call with `result`, or with the policy's refusal: a timer tells the time, stopping it does not. */
static bool set_timer(linux_call *c, uint64_t span, uint64_t every, int64_t result) {
    int32_t refused = 0;
    if (span != 0 && !linux_ask(c, c->number, c->arguments, &refused))
        return false;
    if (refused < 0)
        return done(c, refused);
    c->box->timer_at = span == 0 ? 0 : os_now_ns() + span;
    c->box->timer_every = every;
    return done(c, result);
}

bool call_alarm(linux_call *c) {
    uint64_t left = (timer_left(c->box) + SECOND_NS - 1) / SECOND_NS;
    return set_timer(c, c->arguments[0] * SECOND_NS, 0, (int64_t)left);
}

static bool write_timer(linux_call *c, uint32_t address) {
    uint64_t every = c->box->timer_every, left = timer_left(c->box);
    uint32_t value[4] = {(uint32_t)(every / SECOND_NS), (uint32_t)(every % SECOND_NS / 1000),
                         (uint32_t)(left / SECOND_NS), (uint32_t)(left % SECOND_NS / 1000)};
    return guest_write(c->box, address, value, sizeof value);
}

bool call_getitimer(linux_call *c) {
    if (c->arguments[0] != TIMER_REAL)
        return done(c, c->arguments[0] <= TIMER_PROF ? -EPERM : -EINVAL);
    return done(c, write_timer(c, c->arguments[1]) ? 0 : -EFAULT);
}

/* Seconds and microseconds of a guest, as nanoseconds; UINT64_MAX if they are none. */
static uint64_t span_of(const uint32_t value[2]) {
    return value[0] > INT32_MAX || value[1] >= 1000000 ? UINT64_MAX : value[0] * SECOND_NS + value[1] * (uint64_t)1000;
}

bool call_setitimer(linux_call *c) {
    uint32_t value[4];
    if (c->arguments[0] != TIMER_REAL)
        return done(c, c->arguments[0] <= TIMER_PROF ? -EPERM : -EINVAL);
    if (!guest_read(c->box, c->arguments[1], value, sizeof value))
        return done(c, -EFAULT);
    uint64_t every = span_of(value), span = span_of(value + 2);
    if (every == UINT64_MAX || span == UINT64_MAX)
        return done(c, -EINVAL);
    if (c->arguments[2] != 0 && !write_timer(c, c->arguments[2]))
        return done(c, -EFAULT);
    return set_timer(c, span, every, 0);
}

/* --- delivery -------------------------------------------------------------------------------------- */

static bool die(vx_trap *trap, unsigned signal) {
    trap->kind = signal == SIG_ABRT ? VX_TRAP_ABORT : VX_TRAP_SIGNAL;
    trap->code = trap->signal = signal;
    return false;
}

/* Into the handler.  False: its frame has no place, which kills as Linux does. */
static bool enter_handler(vx_sandbox *box, const vx_signal_info *info, vx_trap *trap) {
    vx_signals *s = &box->kernel.signals;
    vx_signal_action action = s->actions[info->signal - 1];
    if (!frame_push(box, &action, info, s->suspended ? s->saved : s->blocked))
        return die(trap, SIG_SEGV);
    s->suspended = false;
    s->blocked |= action.mask | (action.flags & GUEST_SA_NODEFER ? 0 : bit(info->signal));
    s->blocked &= ~UNBLOCKABLE;
    if (action.flags & GUEST_SA_RESETHAND)
        s->actions[info->signal - 1].handler = ACTION_DEFAULT;
    return true;
}

static bool deliver_one(vx_sandbox *box, unsigned signal, vx_trap *trap) {
    vx_signals *s = &box->kernel.signals;
    s->pending &= ~bit(signal);
    if (ignored(s, signal))
        return true;
    if (s->actions[signal - 1].handler == ACTION_DEFAULT)
        return die(trap, signal);
    vx_signal_info info = {.signal = signal, .code = s->codes[signal - 1]};
    return enter_handler(box, &info, trap);
}

/* A call that a signal ended before it did anything is made again after a handler that asks for it. */
static void restart(vx_sandbox *box, unsigned signal, const linux_call *c) {
    if (c == NULL || !c->interrupted || !(box->kernel.signals.actions[signal - 1].flags & GUEST_SA_RESTART))
        return;
    box->state->eip -= SYSCALL_SIZE;
    box->state->gpr[EAX] = c->number;
}

bool signal_deliver(vx_sandbox *box, const linux_call *after, vx_trap *trap) {
    vx_signals *s = &box->kernel.signals;
    while (signal_due(box)) {
        unsigned signal = (unsigned)__builtin_ctzll(s->pending & ~s->blocked) + 1;
        if (!ignored(s, signal)) {
            restart(box, signal, after);
            after = NULL;
        }
        if (!deliver_one(box, signal, trap))
            return false;
        if (box->tick_due || watchdog_stop() != VX_TRAP_NONE)
            break; /* a timer may be due again at once: who waits for this thread comes before the rest */
    }
    if (s->suspended)
        s->blocked = s->saved;
    s->suspended = false;
    return true;
}

bool signal_take(vx_sandbox *box, vx_trap *trap) { return signal_deliver(box, NULL, trap); }

/* --- faults ---------------------------------------------------------------------------------------- */

static int float_code(const vx_state *state) {
    uint16_t control, status;
    uint32_t mxcsr;
    memcpy(&control, state->fx, sizeof control);
    memcpy(&status, state->fx + 2, sizeof status);
    memcpy(&mxcsr, state->fx + 24, sizeof mxcsr);
    unsigned raised = (status & ~control & 0x3f) | (mxcsr & ~(mxcsr >> 7) & 0x3f);
    return raised & 1    ? GUEST_FPE_FLTINV
           : raised & 4  ? GUEST_FPE_FLTDIV
           : raised & 8  ? GUEST_FPE_FLTOVF
           : raised & 18 ? GUEST_FPE_FLTUND
                         : GUEST_FPE_FLTRES;
}

static vx_signal_info memory_signal(const vx_sandbox *box, const vx_trap *trap) {
    bool mapped = box->page_map[trap->address / VX_PAGE_SIZE] & PAGE_MAPPED;
    uint32_t error = 4 | mapped | (trap->kind == VX_TRAP_EXECUTE ? 0x10 : trap->code & 2);
    return (vx_signal_info){SIG_SEGV, mapped ? GUEST_SEGV_ACCERR : GUEST_SEGV_MAPERR, trap->address, 14, error, trap->address};
}

/* What Linux sends for each fault (arch/x86/kernel/traps.c): signal, code, address, vector. */
static vx_signal_info fault_signal(const vx_sandbox *box, const vx_trap *trap) {
    uint32_t eip = trap->registers.eip;
    switch (trap->kind) {
    case VX_TRAP_MEMORY:
    case VX_TRAP_STACK:
    case VX_TRAP_EXECUTE: return memory_signal(box, trap);
    case VX_TRAP_ILLEGAL: return (vx_signal_info){SIG_ILL, GUEST_ILL_ILLOPN, eip, 6, 0, 0};
    case VX_TRAP_DIVIDE: return (vx_signal_info){SIG_FPE, GUEST_FPE_INTDIV, eip, 0, 0, 0};
    case VX_TRAP_FLOAT: return (vx_signal_info){SIG_FPE, float_code(box->state), eip, 16, 0, 0};
    case VX_TRAP_BREAKPOINT: return (vx_signal_info){SIG_TRAP, CODE_KERNEL, 0, 3, 0, 0};
    case VX_TRAP_OVERFLOW: return (vx_signal_info){SIG_SEGV, CODE_KERNEL, 0, 4, 0, 0};
    case VX_TRAP_BOUND: return (vx_signal_info){SIG_SEGV, CODE_KERNEL, 0, 5, 0, 0};
    case VX_TRAP_PRIVILEGED:
    case VX_TRAP_PROTECTION: return (vx_signal_info){SIG_SEGV, CODE_KERNEL, 0, 13, 0, 0};
    case VX_TRAP_INTERRUPT_VECTOR:
        return (vx_signal_info){SIG_SEGV, CODE_KERNEL, 0, 13, trap->code * 8 + 2, 0};
    default: return (vx_signal_info){0};
    }
}

bool signal_fault(vx_sandbox *box, vx_trap *trap) {
    vx_signals *s = &box->kernel.signals;
    vx_signal_info info = under_policy(box) ? fault_signal(box, trap) : (vx_signal_info){0};
    if (info.signal == 0)
        return false;
    trap->signal = info.signal;
    uint32_t handler = s->actions[info.signal - 1].handler;
    if ((s->blocked & bit(info.signal)) || handler == ACTION_DEFAULT || handler == ACTION_IGNORE)
        return false;
    if (trap->kind == VX_TRAP_BREAKPOINT || trap->kind == VX_TRAP_OVERFLOW)
        box->state->eip++; /* these two the processor reports from behind */
    if (!enter_handler(box, &info, trap))
        return false;
    trap->kind = VX_TRAP_NONE;
    trap->has_address = trap->flags_lost = false;
    trap->signal = trap->code = 0;
    return true;
}

/* --- calls ----------------------------------------------------------------------------------------- */

/* Without a policy no signal is delivered: the old action and mask read as empty. */
static bool zero_old(linux_call *c, uint32_t address, uint32_t size) {
    static const uint8_t zeros[140];
    if (size > sizeof zeros)
        return done(c, -EINVAL);
    return done(c, address == 0 || guest_write(c->box, address, zeros, size) ? 0 : -EFAULT);
}

static bool valid(uint32_t signal) { return signal >= 1 && signal <= VX_SIGNALS; }

typedef struct __attribute__((packed)) guest_action {
    uint32_t handler, flags, restorer;
    uint64_t mask;
} guest_action;

bool call_sigaction(linux_call *c) {
    uint32_t signal = c->arguments[0];
    vx_signals *s = &c->box->kernel.signals;
    guest_action given;
    if (!under_policy(c->box))
        return zero_old(c, c->arguments[2], sizeof given);
    if (!valid(signal) || c->arguments[3] != sizeof given.mask)
        return done(c, -EINVAL);
    vx_signal_action *action = &s->actions[signal - 1];
    guest_action old = {action->handler, action->flags, action->restorer, action->mask};
    if (c->arguments[1] != 0) {
        if (bit(signal) & UNBLOCKABLE)
            return done(c, -EINVAL);
        if (!guest_read(c->box, c->arguments[1], &given, sizeof given))
            return done(c, -EFAULT);
        *action = (vx_signal_action){given.handler, given.flags, given.restorer, given.mask & ~UNBLOCKABLE};
        if (ignored(s, signal))
            s->pending &= ~bit(signal);
    }
    bool ok = c->arguments[2] == 0 || guest_write(c->box, c->arguments[2], &old, sizeof old);
    return done(c, ok ? 0 : -EFAULT);
}

void signal_set_mask(vx_sandbox *box, uint64_t mask) { box->kernel.signals.blocked = mask & ~UNBLOCKABLE; }

static bool change_mask(vx_signals *s, uint32_t how, uint64_t set) {
    switch (how) {
    case HOW_BLOCK: s->blocked |= set; break;
    case HOW_UNBLOCK: s->blocked &= ~set; break;
    case HOW_SET: s->blocked = set; break;
    default: return false;
    }
    s->blocked &= ~UNBLOCKABLE;
    return true;
}

bool call_sigprocmask(linux_call *c) {
    vx_signals *s = &c->box->kernel.signals;
    uint64_t old = s->blocked, set;
    if (!under_policy(c->box))
        return zero_old(c, c->arguments[2], c->arguments[3]);
    if (c->arguments[3] != sizeof set)
        return done(c, -EINVAL);
    if (c->arguments[1] != 0) {
        if (!guest_read(c->box, c->arguments[1], &set, sizeof set))
            return done(c, -EFAULT);
        if (!change_mask(s, c->arguments[0], set))
            return done(c, -EINVAL);
    }
    bool ok = c->arguments[2] == 0 || guest_write(c->box, c->arguments[2], &old, sizeof old);
    return done(c, ok ? 0 : -EFAULT);
}

bool call_sigpending(linux_call *c) {
    vx_signals *s = &c->box->kernel.signals;
    uint64_t waiting = s->pending & s->blocked;
    uint32_t size = c->arguments[1];
    if (size > sizeof waiting)
        return done(c, -EINVAL);
    return done(c, guest_write(c->box, c->arguments[0], &waiting, size) ? 0 : -EFAULT);
}

/* Waits, by the embedder, under the mask at `set_at`; the handler's frame keeps the one to return to. */
static bool wait_under(linux_call *c, uint32_t number, uint32_t set_at, uint32_t size) {
    vx_signals *s = &c->box->kernel.signals;
    uint64_t set;
    int32_t result;
    if (size != sizeof set)
        return done(c, -EINVAL);
    if (!guest_read(c->box, set_at, &set, sizeof set))
        return done(c, -EFAULT);
    s->saved = s->blocked;
    s->suspended = true;
    s->blocked = set & ~UNBLOCKABLE;
    return linux_ask(c, number, c->arguments, &result) && done(c, result);
}

bool call_sigsuspend(linux_call *c) { return wait_under(c, CALL_PAUSE, c->arguments[0], c->arguments[1]); }

static bool wait_plainly(linux_call *c) {
    int32_t result;
    return linux_ask(c, c->number, c->arguments, &result) && done(c, result);
}

bool call_ppoll(linux_call *c) {
    const uint32_t *a = c->arguments;
    return a[3] == 0 ? wait_plainly(c) : wait_under(c, c->number, a[3], a[4]);
}

/* The sixth argument points at the mask's address and size. */
bool call_pselect(linux_call *c) {
    uint32_t set[2] = {0, 0};
    if (c->arguments[5] != 0 && !guest_read(c->box, c->arguments[5], set, sizeof set))
        return done(c, -EFAULT);
    return set[0] == 0 ? wait_plainly(c) : wait_under(c, c->number, set[0], set[1]);
}

/* Process 1, its group and everybody are one. */
static bool is_self(uint32_t pid) { return pid == 1 || pid == 0 || pid == UINT32_MAX; }

static bool send_to(linux_call *c, uint32_t pid, uint32_t signal, int code) {
    if (!under_policy(c->box))
        return signal == SIG_ABRT ? end(c, VX_TRAP_ABORT, signal) : refuse(c);
    if (signal > VX_SIGNALS)
        return done(c, -EINVAL);
    if (!is_self(pid))
        return done(c, -ESRCH);
    if (signal != 0)
        signal_send(c->box, signal, code);
    return done(c, 0);
}

bool call_kill(linux_call *c) { return send_to(c, c->arguments[0], c->arguments[1], CODE_USER); }
bool call_tkill(linux_call *c) { return send_to(c, c->arguments[0], c->arguments[1], CODE_TKILL); }
bool call_tgkill(linux_call *c) { return send_to(c, c->arguments[1], c->arguments[2], CODE_TKILL); }
