/* The frames that signal handlers run on, as Linux lays them out for i386 (arch/x86/include/asm/sigframe.h and
 * uapi/asm/sigcontext.h), and the way back from them.  Everything a guest hands back is taken for a
 * wish: flags, vector control bits and selectors are the sandbox's. */
#include "linux.h"

enum { FX_MXCSR = 24, FX_MXCSR_MASK = 28, FX_ST = 32, FX_XMM = 160, FX_END = 288, FX_SOFTWARE = 464, ST_SIZE = 10 };
enum { GUEST_SS_ONSTACK = 1, GUEST_SS_DISABLE = 2, SIG_ERROR = 11 };
#define GUEST_SA_SIGINFO 4u
#define GUEST_SA_ONSTACK 0x08000000u
#define GUEST_SA_RESTORER 0x04000000u
#define FLAGS_GUEST 0x200cd5u /* what a guest may choose of eflags */
#define FLAGS_FIXED 0x202u
#define MIN_STACK 2048

typedef struct __attribute__((packed)) guest_context {
    uint16_t gs, gs_high, fs, fs_high, es, es_high, ds, ds_high;
    uint32_t edi, esi, ebp, esp, ebx, edx, ecx, eax, trap, error, eip;
    uint16_t cs, cs_high;
    uint32_t eflags, esp_at_signal;
    uint16_t ss, ss_high;
    uint32_t fpstate, old_mask, cr2;
} guest_context;

typedef struct __attribute__((packed)) guest_stack {
    uint32_t base, flags, size;
} guest_stack;

/* FSAVE's image as the kernel writes it, then FXSAVE's. */
typedef struct __attribute__((packed)) guest_fp {
    uint32_t control, status, tags, eip, cs, address, ds;
    uint8_t st[8][ST_SIZE];
    uint16_t status_again, magic;
    uint8_t fx[ST_FX_PRESENT];
    uint64_t present, header[7]; /* from here on only with vector registers beyond FXSAVE's */
    uint8_t extended[ST_FX_SIZE - ST_FX_PRESENT - 64];
    uint32_t magic_end;
} guest_fp;

/* What the kernel says in bytes of FXSAVE's image that are software's: the rest is there too. */
typedef struct __attribute__((packed)) guest_software {
    uint32_t magic, extended_size;
    uint64_t present;
    uint32_t size;
} guest_software;

#define XSTATE_MAGIC1 0x46505853u
#define XSTATE_MAGIC2 0x46505845u
#define LEGACY_FP ((uint32_t)offsetof(guest_fp, present))
#define VECTORS (XSAVE_AVX | XSAVE_MASKS | XSAVE_ZMM)

typedef struct __attribute__((packed)) old_frame {
    uint32_t return_address, signal;
    guest_context context;
    uint8_t unused_fp[624];
    uint32_t mask_high;
    uint8_t code[8];
} old_frame;

typedef struct __attribute__((packed)) info_frame {
    uint32_t return_address, signal, info_at, context_at;
    int32_t info[32];
    uint32_t flags, link;
    guest_stack stack;
    guest_context context;
    uint64_t mask;
    uint8_t code[8];
} info_frame;

_Static_assert(sizeof(guest_context) == 88 && offsetof(guest_fp, present) == 624, "as in the kernel's headers");
_Static_assert(sizeof(old_frame) == 732 && sizeof(info_frame) == 268, "as in the kernel's headers");

/* --- floating point -------------------------------------------------------------------------------- */

/* The full tag of a register: valid, zero, special, empty. */
static unsigned tag_of(const uint8_t *st) {
    uint64_t mantissa;
    uint16_t exponent;
    memcpy(&mantissa, st, sizeof mantissa);
    memcpy(&exponent, st + 8, sizeof exponent);
    exponent &= 0x7fff;
    if (exponent == 0)
        return mantissa == 0 ? 1 : 2;
    return exponent != 0x7fff && mantissa >> 63 ? 0 : 2;
}

static uint32_t full_tags(const uint8_t *fx, unsigned top) {
    uint32_t tags = 0xffff0000;
    for (unsigned i = 0; i < 8; i++) {
        bool used = fx[4] >> i & 1;
        tags |= (used ? tag_of(fx + FX_ST + 16 * ((i - top) & 7)) : 3) << (2 * i);
    }
    return tags;
}

/* Host addresses of the last x87 instruction stay here. */
static void show_fp(const vx_state *s, guest_fp *out) {
    uint16_t control, status;
    memset(out, 0, sizeof *out);
    memcpy(out->fx, s->fx, FX_END);
    memset(out->fx + 6, 0, FX_MXCSR - 6);
    memcpy(&control, s->fx, sizeof control);
    memcpy(&status, s->fx + 2, sizeof status);
    out->control = 0xffff0000 | control;
    out->status = 0xffff0000 | status;
    out->tags = full_tags(s->fx, status >> 11 & 7);
    out->ds = 0xffff0000;
    for (unsigned i = 0; i < 8; i++)
        memcpy(out->st[i], s->fx + FX_ST + 16 * i, ST_SIZE);
    out->status_again = status;
}

/* Bytes of the image: all of it once the guest's code uses more than FXSAVE's registers. */
static uint32_t show_vectors(const vx_state *s, guest_fp *out) {
    if (!(s->xsave & VECTORS))
        return LEGACY_FP;
    guest_software software = {XSTATE_MAGIC1, sizeof *out, s->xsave, ST_FX_SIZE};
    memcpy(out->fx + FX_SOFTWARE, &software, sizeof software);
    out->present = s->fx_present & s->xsave;
    memcpy(out->extended, s->fx_extended, sizeof out->extended);
    out->magic_end = XSTATE_MAGIC2;
    return sizeof *out;
}

/* The x87 part counts where it is told twice, as in the kernel. */
static void take_fp(vx_state *s, const guest_fp *in) {
    uint32_t mask, mxcsr;
    memcpy(&mask, s->fx + FX_MXCSR_MASK, sizeof mask);
    memcpy(&mxcsr, in->fx + FX_MXCSR, sizeof mxcsr);
    mxcsr &= mask != 0 ? mask : 0xffbf;
    memset(s->fx, 0, sizeof s->fx);
    memcpy(s->fx, &in->control, 2);
    memcpy(s->fx + 2, &in->status, 2);
    for (unsigned i = 0; i < 8; i++) {
        s->fx[4] |= (uint8_t)(((in->tags >> (2 * i) & 3) != 3) << i);
        memcpy(s->fx + FX_ST + 16 * i, in->st[i], ST_SIZE);
    }
    memcpy(s->fx + FX_MXCSR, &mxcsr, sizeof mxcsr);
    memcpy(s->fx + FX_MXCSR_MASK, &mask, sizeof mask);
    memcpy(s->fx + FX_XMM, in->fx + FX_XMM, FX_END - FX_XMM);
}

/* Any bytes are good for these registers; which of them there are is not the guest's to say. */
static void take_vectors(linux_call *c, uint32_t address) {
    vx_state *s = c->box->state;
    guest_fp fp;
    guest_software software;
    s->fx_present = XSAVE_X87 | XSAVE_SSE;
    if (!(s->xsave & VECTORS) || !guest_read(c->box, address, &fp, sizeof fp))
        return;
    memcpy(&software, fp.fx + FX_SOFTWARE, sizeof software);
    if (software.magic != XSTATE_MAGIC1 || fp.magic_end != XSTATE_MAGIC2)
        return;
    s->fx_present |= fp.present & s->xsave & VECTORS;
    memcpy(s->fx_extended, fp.extended, sizeof s->fx_extended);
}

static void fresh_fp(vx_state *s) {
    static const uint16_t control = 0x37f;
    static const uint32_t mxcsr = 0x1f80;
    memset(s->fx, 0, FX_MXCSR_MASK);
    memset(s->fx + FX_ST, 0, sizeof s->fx - FX_ST);
    memcpy(s->fx, &control, sizeof control);
    memcpy(s->fx + FX_MXCSR, &mxcsr, sizeof mxcsr);
    s->fx_present = XSAVE_X87 | XSAVE_SSE;
}

/* --- into the handler ------------------------------------------------------------------------------ */

static bool on_altstack(const vx_signals *s, uint32_t esp) {
    return s->stack_size != 0 && esp - s->stack_base - 1 < s->stack_size;
}

static guest_stack stack_now(const vx_signals *s, uint32_t esp) {
    uint32_t flags = s->stack_size == 0 ? GUEST_SS_DISABLE : on_altstack(s, esp) ? GUEST_SS_ONSTACK : 0;
    return (guest_stack){s->stack_base, flags, s->stack_size};
}

/* `bounded`: it is the alternate one, which a frame must not leave. */
static uint32_t handler_stack(const vx_sandbox *box, const vx_signal_action *action, bool *bounded) {
    const vx_signals *s = &box->kernel.signals;
    uint32_t esp = box->state->gpr[ESP];
    bool nested = on_altstack(s, esp), change = action->flags & GUEST_SA_ONSTACK && s->stack_size != 0 && !nested;
    *bounded = nested || change;
    return change ? s->stack_base + s->stack_size : esp;
}

static guest_context context_now(const vx_sandbox *box, const vx_signal_info *info, uint64_t mask, uint32_t fp) {
    const vx_state *s = box->state;
    const uint32_t *r = s->gpr;
    return (guest_context){
        .gs = s->tls_base != 0 ? SELECTOR_TLS : 0, .es = SELECTOR_DATA, .ds = SELECTOR_DATA, .edi = r[EDI],
        .esi = r[ESI], .ebp = r[EBP], .esp = r[ESP], .ebx = r[EBX], .edx = r[EDX], .ecx = r[ECX], .eax = r[EAX],
        .trap = info->vector, .error = info->error, .eip = s->eip, .cs = SELECTOR_CODE,
        .eflags = (s->eflags & FLAGS_GUEST) | FLAGS_FIXED, .esp_at_signal = r[ESP], .ss = SELECTOR_DATA,
        .fpstate = fp, .old_mask = (uint32_t)mask, .cr2 = info->cr2,
    };
}

/* `frame` is to begin at an address that a function's stack has just behind its return address. */
static uint32_t align_frame(uint32_t esp, uint32_t size) { return ((esp - size + 4) & ~15u) - 4; }

static uint32_t return_address(const vx_signal_action *action, uint32_t code_at) {
    return action->flags & GUEST_SA_RESTORER ? action->restorer : code_at;
}

/* The code behind a frame, popl %eax; movl $119,%eax; int $0x80, or movl $173,%eax; int $0x80: for debuggers
 * that look for it, and for programs that make their stack executable. */
static const uint8_t old_code[8] = {0x58, 0xb8, 119, 0, 0, 0, 0xcd, 0x80};
static const uint8_t info_code[8] = {0xb8, 173, 0, 0, 0, 0xcd, 0x80, 0};

static uint32_t push_old(vx_sandbox *box, const vx_signal_action *action, const vx_signal_info *info,
                         uint64_t mask, uint32_t fp) {
    uint32_t at = align_frame(fp, sizeof(old_frame));
    old_frame frame = {.signal = info->signal, .context = context_now(box, info, mask, fp),
                       .mask_high = (uint32_t)(mask >> 32)};
    memcpy(frame.code, old_code, sizeof frame.code);
    frame.return_address = return_address(action, at + (uint32_t)offsetof(old_frame, code));
    return guest_write(box, at, &frame, sizeof frame) ? at : 0;
}

static uint32_t push_info(vx_sandbox *box, const vx_signal_action *action, const vx_signal_info *info,
                          uint64_t mask, uint32_t fp) {
    uint32_t at = align_frame(fp, sizeof(info_frame));
    info_frame frame = {.signal = info->signal, .info_at = at + (uint32_t)offsetof(info_frame, info),
                        .context_at = at + (uint32_t)offsetof(info_frame, flags),
                        .info = {(int32_t)info->signal, 0, info->code}, .mask = mask,
                        .flags = (box->state->xsave & VECTORS) != 0, /* UC_FP_XSTATE */
                        .stack = stack_now(&box->kernel.signals, box->state->gpr[ESP]),
                        .context = context_now(box, info, mask, fp)};
    if (info->code <= 0) {
        frame.info[3] = 1; /* from process 1, user 1000: itself */
        frame.info[4] = 1000;
    } else if (info->vector != 0 || info->address != 0) {
        frame.info[3] = (int32_t)info->address;
    }
    memcpy(frame.code, info_code, sizeof frame.code);
    frame.return_address = return_address(action, at + (uint32_t)offsetof(info_frame, code));
    return guest_write(box, at, &frame, sizeof frame) ? at : 0;
}

bool frame_push(vx_sandbox *box, const vx_signal_action *action, const vx_signal_info *info, uint64_t mask) {
    vx_state *s = box->state;
    guest_fp fp;
    show_fp(s, &fp);
    uint32_t size = show_vectors(s, &fp);
    bool bounded;
    uint32_t fx_at = (handler_stack(box, action, &bounded) - (size - (uint32_t)offsetof(guest_fp, fx))) & ~63u;
    uint32_t fp_at = fx_at - (uint32_t)offsetof(guest_fp, fx);
    bool with_info = action->flags & GUEST_SA_SIGINFO;
    if (!guest_write(box, fp_at, &fp, size))
        return false;
    uint32_t at = (with_info ? push_info : push_old)(box, action, info, mask, fp_at);
    if (at == 0 || (bounded && !on_altstack(&box->kernel.signals, at)))
        return false;
    s->gpr[ESP] = at;
    s->gpr[EAX] = info->signal;
    s->gpr[EDX] = with_info ? at + (uint32_t)offsetof(info_frame, info) : 0;
    s->gpr[ECX] = with_info ? at + (uint32_t)offsetof(info_frame, flags) : 0;
    s->eip = action->handler;
    s->eflags &= ~(uint32_t)FLAG_DF;
    fresh_fp(s);
    return true;
}

/* --- and back -------------------------------------------------------------------------------------- */

static bool bad_frame(linux_call *c) {
    c->trap->signal = SIG_ERROR;
    return end(c, VX_TRAP_SIGNAL, SIG_ERROR);
}

static bool take_context(linux_call *c, const guest_context *context, uint64_t mask) {
    vx_state *s = c->box->state;
    guest_fp fp;
    if (context->fpstate != 0) {
        if (!guest_read(c->box, context->fpstate, &fp, LEGACY_FP))
            return bad_frame(c);
        take_fp(s, &fp);
        take_vectors(c, context->fpstate);
    } else {
        fresh_fp(s);
    }
    const uint32_t registers[8] = {context->eax, context->ecx, context->edx, context->ebx,
                                   context->esp, context->ebp, context->esi, context->edi};
    memcpy(s->gpr, registers, sizeof registers);
    s->eip = context->eip;
    s->eflags = (context->eflags & FLAGS_GUEST) | FLAGS_FIXED;
    signal_set_mask(c->box, mask);
    return true;
}

/* The handler's return popped one word, the restorer another. */
bool call_sigreturn(linux_call *c) {
    old_frame frame;
    if (!guest_read(c->box, c->gpr[ESP] - 8, &frame, sizeof frame))
        return bad_frame(c);
    return take_context(c, &frame.context, frame.context.old_mask | (uint64_t)frame.mask_high << 32);
}

static bool set_stack(vx_signals *s, const guest_stack *stack) {
    bool disable = stack->flags & GUEST_SS_DISABLE;
    if (!disable && stack->size < MIN_STACK)
        return false;
    s->stack_base = disable ? 0 : stack->base;
    s->stack_size = disable ? 0 : stack->size;
    return true;
}

bool call_rt_sigreturn(linux_call *c) {
    info_frame frame;
    if (!guest_read(c->box, c->gpr[ESP] - 4, &frame, sizeof frame))
        return bad_frame(c);
    if (!take_context(c, &frame.context, frame.mask))
        return false;
    (void)set_stack(&c->box->kernel.signals, &frame.stack);
    return true;
}

bool call_sigaltstack(linux_call *c) {
    vx_signals *s = &c->box->kernel.signals;
    uint32_t esp = c->gpr[ESP];
    guest_stack old = stack_now(s, esp), given;
    if (c->arguments[0] != 0) {
        if (!guest_read(c->box, c->arguments[0], &given, sizeof given))
            return done(c, -EFAULT);
        if (on_altstack(s, esp))
            return done(c, -EPERM);
        if (given.flags & ~(uint32_t)(GUEST_SS_DISABLE | GUEST_SS_ONSTACK))
            return done(c, -EINVAL);
        if (!set_stack(s, &given))
            return done(c, -ENOMEM);
    }
    bool ok = c->arguments[1] == 0 || guest_write(c->box, c->arguments[1], &old, sizeof old);
    return done(c, ok ? 0 : -EFAULT);
}
