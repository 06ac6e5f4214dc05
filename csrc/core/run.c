/* The run loop: why guest code left, and in again.  call.c enters it first. */
#include "internal.h"

/* FXSAVE64 image (Intel SDM volume 1, table 10-2). */
enum { FX_FCW = 0, FX_FSW = 2, FX_FTW = 4, FX_MXCSR = 24, FX_ST0 = 32, FX_XMM0 = 160, FX_XMM8 = 288 };
enum { LEGACY = XSAVE_X87 | XSAVE_SSE };

static void fresh_x87(vx_sandbox *box) {
    uint8_t *fx = box->state->fx;
    memset(fx, 0, FX_MXCSR);
    memset(fx + FX_ST0, 0, FX_XMM0 - FX_ST0);
    memcpy(fx + FX_FCW, &box->kernel.fcw, 2);
}

static void fresh_fp(vx_sandbox *box) {
    fresh_x87(box);
    memset(box->state->fx + FX_XMM0, 0, sizeof box->state->fx - FX_XMM0);
    memcpy(box->state->fx + FX_MXCSR, &box->kernel.mxcsr, 4);
    box->state->fx_present = LEGACY; /* the rest is in its initial state: zero */
}

void run_fresh(vx_sandbox *box) {
    vx_state *s = box->state;
    uint32_t esp = s->gpr[4];
    memset(s->gpr, 0, sizeof s->gpr);
    s->gpr[4] = esp;
    s->eflags = 0x202;
    fresh_fp(box);
}

/* What vx_enter did not set up was the host's when it was saved: make it the guest's fresh state,
 * and registers the guest has no name for empty. */
static void complete_fp(vx_sandbox *box, uint32_t how) {
    if (how == ENTER_INTEGER)
        fresh_fp(box);
    else if (how != ENTER_FULL) {
        fresh_x87(box);
        box->state->fx_present |= LEGACY; /* FXSAVE does not say so */
    }
    memset(box->state->fx + FX_XMM8, 0, sizeof box->state->fx - FX_XMM8);
}

/* --- the attached code cache ------------------------------------------------------------------- */

static void empty_host_stack(vx_sandbox *box) { box->state->guest_rsp = box->state->stack_top; }

static uint32_t how_to_enter(unsigned needs) {
    if (needs & NEEDS_X87)
        return ENTER_FULL;
    return needs & NEEDS_AVX ? ENTER_AVX : needs & NEEDS_SSE ? ENTER_SSE : ENTER_INTEGER;
}

void run_needs(vx_sandbox *box, unsigned needs) {
    box->needs |= needs;
    box->how = how_to_enter(box->needs);
    box->state->xsave = cpu_xsave_mask(box->needs);
}

void run_use_cache(vx_sandbox *box) {
    box->state->run = box->cache->run;
    box->state->table = box->cache->table.entries;
    run_needs(box, box->cache->uses);
}

/* A tick may come at any instruction, and looks into the box's cache: it is never one that is gone. */
static void attach(vx_sandbox *box, vx_cache *cache) {
    vx_cache *before = box->cache;
    if (before == cache)
        return;
    cache_ref(cache);
    box->cache = cache;
    atomic_signal_fence(memory_order_seq_cst);
    cache_unref(before);
    run_use_cache(box);
    empty_host_stack(box);
}

/* A new, empty cache for the plugin; sandboxes move to it when they next look. */
static bool replace_cache(vx_plugin *plugin, unsigned uses) {
    vx_cache *cache = cache_create(plugin->code_bytes, uses);
    if (cache == NULL)
        return false;
    plugin->flushes += plugin->cache != NULL;
    cache_unref(plugin->cache);
    __atomic_store_n(&plugin->cache, cache, __ATOMIC_RELEASE);
    return true;
}

/* A plugin's code mostly meets its first floating point while it initialises.  Then a new cache would only cost
 * time: no other sandbox is attached, and this one's thread is outside, with no frame inside that expects the
 * old way of entering. */
static bool initialises_alone(const vx_sandbox *box) {
    return box->initialising && box->depth == 1 && box->cache == box->plugin->cache && box->cache->references == 2;
}

/* The current cache for code of other needs. */
static bool extend_cache(vx_sandbox *box, unsigned needs) {
    if (!initialises_alone(box))
        return replace_cache(box->plugin, box->cache->uses | needs);
    box->cache->uses |= needs;
    run_use_cache(box);
    return true;
}

static bool attach_own(vx_sandbox *box) {
    if (box->own == NULL || cache_inherited(box->own->cache))
        if (!own_renew(box, box->own == NULL ? NEEDS_X87 | NEEDS_SSE : box->own->cache->uses))
            return false;
    attach(box, box->own->cache);
    return true;
}

static bool attach_current(vx_sandbox *box) {
    vx_plugin *plugin = box->plugin;
    if (box->kernel.own_code)
        return attach_own(box);
    if (plugin->cache == NULL || cache_inherited(plugin->cache))
        if (!replace_cache(plugin, plugin->cache == NULL ? 0 : plugin->cache->uses))
            return false;
    attach(box, plugin->cache);
    return true;
}

bool run_attach(vx_sandbox *box) {
    vx_translate_lock();
    bool ok = attach_current(box);
    vx_translate_unlock();
    return ok;
}

static vx_status no_block(vx_sandbox *box, vx_trap_kind kind, vx_trap *trap) {
    trap_fill(box, kind, trap);
    trap->has_address = kind == VX_TRAP_EXECUTE;
    trap->address = box->state->eip;
    return VX_TRAP;
}

/* The block of one instruction, or the block at `eip`, translated now if need be. */
static vx_translate_result block_at(vx_sandbox *box, uint32_t eip, bool alone, const vx_block **out,
                                    unsigned *needs) {
    if (alone)
        return translate_own(box, eip, true, out, needs);
    *out = cache_lookup(box->cache, eip);
    if (*out != NULL)
        return TRANSLATE_OK;
    return box->kernel.own_code ? translate_own(box, eip, false, out, needs)
                                : translate_block(box->cache, box->plugin, eip, out, needs);
}

/* VX_TRAP and why there is none.  Under the translation lock. */
static vx_status find_block(vx_sandbox *box, bool alone, const vx_block **out, vx_trap_kind *why) {
    for (;;) {
        unsigned needs = 0;
        if (!attach_current(box))
            return VX_NO_MEMORY;
        switch (block_at(box, box->state->eip, alone, out, &needs)) {
        case TRANSLATE_OK: return VX_OK;
        case TRANSLATE_NOT_CODE: *why = VX_TRAP_EXECUTE; return VX_TRAP;
        case TRANSLATE_REFUSED: *why = VX_TRAP_UNVERIFIED; return VX_TRAP;
        case TRANSLATE_UNGUARDED: return VX_NO_MEMORY;
        case TRANSLATE_FULL:
        case TRANSLATE_NEEDS:
            if (!(box->kernel.own_code ? own_renew(box, box->cache->uses | needs)
                  : needs == 0         ? replace_cache(box->plugin, box->cache->uses)
                                       : extend_cache(box, needs)))
                return VX_NO_MEMORY;
        }
    }
}

vx_status run_find_block(vx_sandbox *box, const vx_block **out, vx_trap_kind *why) {
    return find_block(box, false, out, why);
}

static void link_branch(vx_sandbox *box, uintptr_t site, const vx_block *block) {
    uint32_t stub;
    if (cache_link(box->cache, site, block, &stub) && box->kernel.own_code)
        own_link(box, site, block, stub);
}

/* Sets state->code for state->eip; `site` is a branch to patch, or 0. */
static vx_status resolve(vx_sandbox *box, uintptr_t site, vx_trap *trap) {
    const vx_block *block = NULL;
    vx_trap_kind why = VX_TRAP_NONE;
    vx_translate_lock();
    uint64_t before = box->cache == NULL ? 0 : box->cache->number; /* the site is of this one */
    vx_status status = find_block(box, false, &block, &why);
    if (status == VX_OK) {
        cache_set_table(box->cache, block);
        if (site != 0 && box->cache->number == before)
            link_branch(box, site, block);
        box->state->code = box->cache->run + block->start;
    }
    vx_translate_unlock();
    return status == VX_TRAP ? no_block(box, why, trap) : status;
}

/* A store into translated code: with what was translated from the page gone, the store is done alone.
 * What follows it is looked up, and read, afterwards. */
static vx_status store_into_code(vx_sandbox *box, vx_trap *trap) {
    const vx_block *block = NULL;
    vx_trap_kind why = VX_TRAP_NONE;
    uint32_t address = box->code_store;
    box->code_store = 0;
    if (!own_write(box, address, 1))
        return VX_NO_MEMORY;
    vx_translate_lock();
    vx_status status = find_block(box, true, &block, &why);
    if (status == VX_OK)
        box->state->code = box->cache->run + block->start;
    vx_translate_unlock();
    return status == VX_TRAP ? no_block(box, why, trap) : status;
}

/* --- reasons to leave --------------------------------------------------------------------------- */

static vx_status stop(vx_sandbox *box, vx_trap_kind kind, vx_trap *trap) {
    trap_fill(box, kind, trap);
    return VX_TRAP;
}

/* A trapping instruction; for one that runs off its code, where the code ended. */
static vx_status trapping(vx_sandbox *box, uint32_t argument, vx_trap *trap) {
    trap_fill(box, (vx_trap_kind)(argument & 0xff), trap);
    trap->code = argument >> 8;
    if (trap->kind == VX_TRAP_EXECUTE) {
        trap->has_address = true;
        trap->address = box->state->eip + trap->byte_count;
    }
    return VX_TRAP;
}

/* Something in C did the guest's bidding, or set the trap's kind and what belongs to it. */
static vx_status after_service(vx_sandbox *box, bool ok, vx_trap *trap) {
    if (ok && VX_UNLIKELY(box->state->eip == VX_EXIT_EIP)) {
        trap->kind = VX_TRAP_RETURN; /* the export's last act was a jump to a host function */
        return VX_TRAP;
    }
    if (ok)
        return watchdog_resume() ? resolve(box, 0, trap) : VX_LIMIT;
    trap_fill(box, trap->kind, trap);
    return VX_TRAP;
}

/* A host function came back: most likely to code that is translated. */
static vx_status after_call(vx_sandbox *box, bool ok, vx_trap *trap) {
    if (VX_UNLIKELY(!ok || box->state->eip == VX_EXIT_EIP || !watchdog_resume() || !run_ready(box)))
        return after_service(box, ok, trap);
    box->state->code = (const void *)(uintptr_t)vx_probe;
    return VX_OK;
}

static vx_status faulted(vx_sandbox *box, vx_trap *trap) {
    trap_fill(box, trap->kind, trap);
    trap->flags_lost = box->flags_lost;
    return VX_TRAP;
}

/* A tick found a signal for the guest, between two of its instructions.  What the host-side stack holds
 * belongs to where it was. */
static vx_status interrupted(vx_sandbox *box, vx_trap *trap) {
    empty_host_stack(box);
    return after_service(box, signal_take(box, trap), trap);
}

static vx_status left_by_signal(vx_sandbox *box, vx_trap *trap) {
    if (box->code_store != 0)
        return store_into_code(box, trap);
    return trap->kind == VX_TRAP_NONE ? interrupted(box, trap) : faulted(box, trap);
}

static bool calls_host(const vx_state *s, uint32_t reason) {
    return callback_is(s->eip) && ((reason & 0xff) == LEAVE_MISS || (reason & 0xff) == LEAVE_LINK);
}

static vx_status serve(vx_sandbox *box, uint32_t reason, vx_trap *trap) {
    vx_state *s = box->state;
    uint32_t argument = reason >> 8;
    if (s->eip == VX_EXIT_EIP && ((reason & 0xff) == LEAVE_MISS || (reason & 0xff) == LEAVE_LINK)) {
        trap->kind = VX_TRAP_RETURN;
        return VX_TRAP;
    }
    if (calls_host(s, reason))
        return after_call(box, callback_run(box, s->eip, trap), trap);
    switch (reason & 0xff) {
    case LEAVE_MISS: return resolve(box, 0, trap);
    case LEAVE_LINK: return resolve(box, s->link_site, trap);
    case LEAVE_FAULT: return left_by_signal(box, trap);
    case LEAVE_TRAP: return trapping(box, argument, trap);
    case LEAVE_HELPER: return after_service(box, helper_run(box, (vx_helper)argument, trap), trap);
    case LEAVE_HOSTCALL: return after_service(box, hostcall_run(box, trap), trap);
    case LEAVE_LINUX: return after_service(box, linux_run(box, trap), trap);
    default: vx_panic("known reason to leave", __FILE__, __LINE__);
    }
}

/* --- the loop ----------------------------------------------------------------------------------- */

/* After a host function most of the switch can be left out, if the image of the state is still as the guest
 * left it: what it then lacks is what its code cannot use. */
static bool may_resume(const vx_sandbox *box, uint32_t how) {
    return how <= ENTER_SSE && box->how == how && box->state->fx[FX_FTW] == 0; /* no result in st0 */
}

static vx_trap_kind ask_tick(vx_sandbox *box) {
    vx_trap_kind kind = watchdog_stop();
    box->tick_due = false;
    if (kind != VX_TRAP_NONE || box->options.hooks.tick == NULL)
        return kind;
    box->in_tick = true;
    bool go_on = box->options.hooks.tick(box->options.context);
    box->in_tick = false;
    if (!go_on)
        return VX_TRAP_HOOK;
    return watchdog_resume() ? watchdog_stop() : VX_TRAP_TIMEOUT;
}

/* A guest that has much done in C, as by system calls on large memory, is hardly ever met in translated code. */
static vx_trap_kind tick_in_c(vx_sandbox *box) {
    box->tick_in_c = true;
    vx_trap_kind kind = ask_tick(box);
    box->tick_in_c = false;
    return kind;
}

/* Between two steps of a guest in C. */
static vx_trap_kind why_stop(vx_sandbox *box) { return VX_UNLIKELY(box->tick_due) ? tick_in_c(box) : watchdog_stop(); }

/* Whatever a hook did meanwhile, and on whatever stack: the guest's signals are this call's. */
static void go_on(vx_sandbox *box, vx_frame *frame, vx_trap *trap) {
    vx_this_thread->current = frame;
    box->trap = trap;
    os_set_gs(box->base);
}

static vx_status loop(vx_sandbox *box, uint32_t how, uint32_t reason, vx_trap *trap) {
    vx_frame *frame = vx_this_thread->current;
    box->tick_due = false;
    for (;;) {
        bool called = calls_host(box->state, reason);
        complete_fp(box, how);
        vx_trap_kind kind = watchdog_stop();
        if (kind != VX_TRAP_NONE && (reason & 0xff) != LEAVE_FAULT)
            return stop(box, kind, trap);
        vx_status status = serve(box, reason, trap);
        while (status == VX_TRAP && signal_fault(box, trap)) {
            called = false;
            empty_host_stack(box);
            kind = why_stop(box); /* a handler where no code is earns the next signal, and so on */
            if (kind != VX_TRAP_NONE)
                return stop(box, kind, trap);
            status = after_service(box, true, trap);
        }
        if (status != VX_OK)
            return status;
        kind = why_stop(box);
        if (VX_UNLIKELY(kind != VX_TRAP_NONE))
            return stop(box, kind, trap);
        go_on(box, frame, trap);
        if (!called || !may_resume(box, how))
            how = ENTER_FULL;
        reason = vx_enter(box->state, how == ENTER_FULL ? how : how | ENTER_RESUME);
        if (reason == LEAVE_RETURN)
            return run_returned(box, how, trap);
    }
}

/* A copy of what the embedder wants to report has to be made before anything else happens. */
static void tell_end(vx_sandbox *box, vx_status status, const vx_trap *trap) {
    bool wanted = status == VX_TRAP && trap->kind != VX_TRAP_RETURN && trap->kind != VX_TRAP_READY;
    if (wanted && box->options.hooks.ended != NULL)
        box->options.hooks.ended(box->options.context, box, trap);
}

vx_status run_on(vx_sandbox *box, uint32_t how, uint32_t reason, vx_trap *trap) {
    vx_status status = loop(box, how, reason, trap);
    tell_end(box, status, trap);
    return status;
}

/* Called by vx_tick_enter on the thread's own stack.  Translated code was interrupted, so nobody
 * on this thread holds a lock; it resumes exactly where it was. */
bool vx_on_tick(vx_state *state) {
    vx_frame *frame = vx_this_thread->current;
    vx_sandbox *box = frame->box;
    vx_trap *trap = box->trap;
    vx_trap_kind kind = ask_tick(box);
    go_on(box, frame, trap);
    if (kind == VX_TRAP_NONE && !(cache_exact(box->cache, state->tick_rip) && signal_due(box)))
        return true;
    trap_recover(box, state->tick_rip, state->tick_gpr, state->tick_flags);
    box->trap->kind = kind;
    return false;
}
