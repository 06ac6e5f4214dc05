/* A call: its frame, the first entry into guest code, its result.  Most calls never leave guest code but by
 * returning, and this file is all that they cost; what the guest leaves for else is in run.c. */
#include "internal.h"

/* --- entering ----------------------------------------------------------------------------------- */

/* What the first entry loads: of a fresh call what is not zero, or all of the state. */
static inline uint32_t prepare(vx_sandbox *box, uint32_t how) {
    vx_state *s = box->state;
    if (how != ENTER_FULL) {
        how = box->how;
        s->guest_mxcsr = box->kernel.mxcsr;
        if (VX_UNLIKELY(how == ENTER_FULL))
            run_fresh(box);
    }
    s->code = (const void *)(uintptr_t)vx_probe;
    s->guest_rsp = s->stack_top;
    return how;
}

/* The guest returned; the host's floating point is its own again. */
static inline vx_status returned(vx_sandbox *box, uint32_t how, vx_trap *trap) {
    vx_state *s = box->state;
    if (VX_UNLIKELY(how == ENTER_FULL)) {
        vx_fp_leave(s);
        memcpy(&box->kernel.mxcsr, s->fx + (ST_FX_MXCSR - ST_FX), 4);
        memcpy(&box->kernel.fcw, s->fx, 2);
    } else if (how != ENTER_INTEGER) {
        __builtin_ia32_ldmxcsr(s->host_mxcsr); /* no code of the cache loads control bits */
    }
    trap->kind = VX_TRAP_RETURN;
    return VX_TRAP;
}

vx_status run_returned(vx_sandbox *box, uint32_t how, vx_trap *trap) { return returned(box, how, trap); }

static inline void clear_trap(vx_trap *trap) {
    trap->kind = VX_TRAP_NONE;
    trap->has_address = trap->flags_lost = false;
    trap->code = trap->signal = 0;
}

/* Between watchdog_enter and watchdog_leave. */
VX_INLINE vx_status enter(vx_sandbox *box, uint32_t how, vx_trap *trap) {
    how = prepare(box, how);
    os_set_gs(box->base);
    uint32_t reason = vx_enter(box->state, how);
    if (VX_UNLIKELY(reason != LEAVE_RETURN))
        return run_on(box, how, reason, trap);
    return returned(box, how, trap);
}

VX_INLINE vx_status run(vx_sandbox *box, uint32_t how, uint64_t timeout_ns, vx_trap *trap) {
    vx_trap *outer = box->trap;
    clear_trap(trap);
    if (VX_UNLIKELY(!(run_ready(box) || run_attach(box)) || (vx_this_thread == NULL && !vx_thread_init())))
        return VX_NO_MEMORY;
    vx_thread *thread = vx_this_thread;
    vx_status status = watchdog_enter(thread, box, timeout_ns);
    if (VX_UNLIKELY(status != VX_OK))
        return status;
    vx_frame *frame = thread->current;
    box->trap = trap;
    if (VX_LIKELY(box->depth++ == 0 && !box->more))
        box->written = 0;
    if (VX_UNLIKELY(atomic_load_explicit(&thread->lingers, memory_order_relaxed)) &&
        box->options.hooks.linger != NULL)
        box->options.hooks.linger(box->options.context);
    status = enter(box, how, trap);
    box->depth--;
    box->trap = outer;
    watchdog_leave(thread, frame);
    return status;
}

vx_status run_guest(vx_sandbox *box, uint32_t how, uint64_t timeout_ns, vx_trap *trap) {
    return run(box, how, timeout_ns, trap);
}

/* --- calls -------------------------------------------------------------------------------------- */

/* A cdecl frame below `top`.  False: the guest's stack does not hold it. */
static inline bool push_frame(vx_sandbox *box, uint32_t top, const uint32_t *words, size_t count) {
    if (VX_UNLIKELY(count > 1024))
        return false;
    /* The ABI wants esp + 4 a multiple of 16 at the callee's first instruction. */
    uint32_t esp = ((top - (uint32_t)(4 * count)) & ~15u) - 4;
    uint32_t *frame = guest_pointer(box, esp, 4 * (count + 1), VX_PROT_READ | VX_PROT_WRITE);
    if (VX_UNLIKELY(frame == NULL))
        return false;
    frame[0] = VX_EXIT_EIP;
    for (size_t i = 0; i < count; i++)
        frame[i + 1] = words[i];
    box->state->gpr[4] = esp;
    return true;
}

/* The top of the x87 stack in an FXSAVE image: ST0 comes first; the tag byte has a bit for each
 * physical register, which FSW's TOP field selects. */
static __attribute__((noinline)) double read_st0(const uint8_t *fx) {
    uint16_t fsw;
    long double value;
    memcpy(&fsw, fx + 2, 2);
    if (!(fx[4] >> (fsw >> 11 & 7) & 1))
        return 0;
    memcpy(&value, fx + 32, 10);
    return (double)value;
}

static inline vx_status give(const vx_sandbox *box, vx_status status, const vx_trap *trap, vx_result *result) {
    const vx_state *s = box->state;
    if (VX_UNLIKELY(status != VX_TRAP || trap->kind != VX_TRAP_RETURN))
        return status;
    result->eax = s->gpr[0], result->edx = s->gpr[2];
    result->st0 = VX_UNLIKELY(box->needs & NEEDS_X87) ? read_st0(s->fx) : 0; /* there may be no cache any more */
    return VX_OK;
}

/* A call from a hook of a running call: the outer guest's state waits on our stack. */
static __attribute__((noinline)) vx_status nested_call(vx_sandbox *box, uint32_t function, const uint32_t *words, size_t count,
                             vx_result *result, vx_trap *trap) {
    vx_state saved = *box->state;
    if (!push_frame(box, saved.gpr[4] - VX_RED_ZONE, words, count))
        return VX_LIMIT;
    box->state->eip = function;
    vx_status status = run_guest(box, ENTER_INTEGER, box->options.timeout_ns, trap);
    status = give(box, status, trap, result);
    *box->state = saved;
    if (box->cache != NULL) /* which the nested call may have replaced, or lost: then what comes next attaches one */
        run_use_cache(box);
    box->state->guest_rsp = saved.stack_top;
    return status;
}

vx_status vx_call(vx_sandbox *box, vx_gaddr function, const uint32_t *words, size_t count,
                  vx_result *result, vx_trap *trap) {
    if (VX_UNLIKELY(box->unusable)) {
        vx_status status = sandbox_wake(box);
        if (status != VX_OK)
            return status;
    }
    if (VX_UNLIKELY(box->in_tick))
        return VX_BUSY;
    if (VX_UNLIKELY(box->depth != 0))
        return nested_call(box, function.value, words, count, result, trap);
    if (VX_UNLIKELY(!push_frame(box, box->kernel.esp, words, count)))
        return VX_LIMIT;
    atomic_store_explicit(&box->interrupt, false, memory_order_relaxed);
    box->state->eip = function.value;
    vx_status status = run(box, ENTER_INTEGER, box->options.timeout_ns, trap);
    return give(box, status, trap, result);
}

void vx_call_anew(vx_sandbox *box) {
    if (box->depth == 0)
        box->written = 0;
}

vx_status vx_call_more(vx_sandbox *box, vx_gaddr function, const uint32_t *words, size_t count,
                       uint64_t timeout_ns, vx_result *result, vx_trap *trap) {
    uint64_t limit = box->options.timeout_ns;
    box->options.timeout_ns = timeout_ns;
    box->more = true;
    vx_status status = vx_call(box, function, words, count, result, trap);
    box->more = false;
    box->options.timeout_ns = limit;
    return status;
}

/* --- the whole state, for tools ------------------------------------------------------------------- */

/* Bytes of the state's area where a component is, or NULL if this host has none. */
static uint8_t *component(vx_state *s, uint32_t which) {
    uint32_t offset = cpu_xsave_offset(which);
    return offset == 0 ? NULL : s->fx_extended + (offset - ST_FX_PRESENT - 64);
}

static void load_vectors(vx_state *s, const vx_cpu *cpu) {
    struct { uint32_t which; const void *from; size_t size; } parts[] = {
        {XSAVE_AVX, cpu->ymm_high, sizeof cpu->ymm_high}, {XSAVE_MASKS, cpu->mask, sizeof cpu->mask},
        {XSAVE_ZMM, cpu->zmm_high, sizeof cpu->zmm_high}};
    s->fx_present = XSAVE_X87 | XSAVE_SSE;
    for (size_t i = 0; i < VX_COUNT(parts); i++)
        if (component(s, parts[i].which) != NULL) {
            memcpy(component(s, parts[i].which), parts[i].from, parts[i].size);
            s->fx_present |= parts[i].which;
        }
}

static void save_vectors(vx_state *s, vx_cpu *cpu) {
    struct { uint32_t which; void *to; size_t size; } parts[] = {
        {XSAVE_AVX, cpu->ymm_high, sizeof cpu->ymm_high}, {XSAVE_MASKS, cpu->mask, sizeof cpu->mask},
        {XSAVE_ZMM, cpu->zmm_high, sizeof cpu->zmm_high}};
    for (size_t i = 0; i < VX_COUNT(parts); i++)
        if (s->fx_present & parts[i].which)
            memcpy(parts[i].to, component(s, parts[i].which), parts[i].size);
        else
            memset(parts[i].to, 0, parts[i].size);
}

vx_status vx_run(vx_sandbox *box, vx_cpu *cpu, vx_trap *trap) {
    if ((box->unusable && sandbox_wake(box) != VX_OK) || box->depth != 0)
        return VX_BUSY;
    vx_state *s = box->state;
    memcpy(s->gpr, cpu->registers.gpr, sizeof s->gpr);
    s->eip = cpu->registers.eip;
    s->eflags = (cpu->registers.eflags & 0x200cd5) | 0x202;
    memcpy(s->fx, cpu->fx, sizeof s->fx);
    load_vectors(s, cpu);
    run_needs(box, cpu_offers());
    vx_status status = run_guest(box, ENTER_FULL, box->options.timeout_ns, trap);
    if (status == VX_TRAP)
        cpu->registers = trap->registers;
    memcpy(cpu->fx, s->fx, sizeof cpu->fx);
    save_vectors(s, cpu);
    return status;
}
