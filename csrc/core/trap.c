#include "internal.h"

#include <ucontext.h>

static const char *const kind_names[] = {
#define TRAP(name, kind, text) kind,
#include "trap.def"
#undef TRAP
};
static const char *const kind_texts[] = {
#define TRAP(name, kind, text) text,
#include "trap.def"
#undef TRAP
};

const char *vx_trap_kind_name(vx_trap_kind kind) { return kind_names[kind]; }
const char *vx_trap_kind_text(vx_trap_kind kind) { return kind_texts[kind]; }

void trap_fill(const vx_sandbox *box, vx_trap_kind kind, vx_trap *trap) {
    size_t available = 0;
    trap->kind = kind;
    memcpy(trap->registers.gpr, box->state->gpr, sizeof trap->registers.gpr);
    trap->registers.eip = box->state->eip;
    trap->registers.eflags = box->state->eflags;
    const uint8_t *bytes = own_code(box, box->state->eip, &available);
    trap->byte_count = (uint8_t)(available < VX_INSN_MAX ? available : VX_INSN_MAX);
    if (bytes != NULL)
        memcpy(trap->bytes, bytes, trap->byte_count);
    else
        trap->byte_count = 0;
}

static uint32_t swap_low_bytes(uint32_t value) {
    return (value & 0xffff0000) | (value & 0xff) << 8 | (value >> 8 & 0xff);
}

static void undo(vx_state *s, unsigned fix, const uint64_t gpr[16]) {
    if (fix == FIX_ESI)
        s->gpr[6] -= (uint32_t)s->tls_base;
    else if (fix == FIX_EDI)
        s->gpr[7] = (uint32_t)gpr[8];
    else if (fix != FIX_NONE)
        s->gpr[fix - FIX_SWAP] = swap_low_bytes(s->gpr[fix - FIX_SWAP]);
}

void trap_recover(vx_sandbox *box, uintptr_t rip, const uint64_t gpr[16], uint64_t flags) {
    vx_state *s = box->state;
    const vx_block *block = cache_find(box->cache, rip);
    for (unsigned i = 0; i < 8; i++)
        s->gpr[i] = (uint32_t)gpr[i == 4 ? 13 : i];
    s->eflags = (uint32_t)flags;
    if (block == NULL)
        return; /* in a gate: r8d is on its way to eip, the last known one stays */
    vx_mark mark = cache_mark(box->cache, block, rip);
    s->eip = block->eip + mark.guest;
    s->gpr[4] += (uint32_t)mark.esp;
    box->flags_lost = mark.flags_lost;
    if (mark.flags_lost) /* the carry may have been kept: whoever goes on from here may read it */
        s->eflags &= ~(uint32_t)(FLAGS_ALL & ~FLAG_CF);
    undo(s, mark.fix, gpr);
}

/* ucontext's order to encoding order. */
static void read_registers(const ucontext_t *context, uint64_t gpr[16]) {
    static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                  REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    for (unsigned i = 0; i < 16; i++)
        gpr[i] = (uint64_t)context->uc_mcontext.gregs[order[i]];
}

/* ID stays the guest's: Linux takes it from no signal frame. */
static void send_to(ucontext_t *context, void (*code)(void)) {
    context->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)code;
    context->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)FLAG_DF;
}

/* The host-side stack holds predictions only: when it is full it starts empty. */
static bool host_stack_full(const vx_sandbox *box, uintptr_t address) {
    uintptr_t low = (uintptr_t)((int64_t)box->base + VX_HOST_STACK_LOW);
    return address < low && low - address <= 0x10000;
}

vx_trap_kind trap_memory_kind(const vx_sandbox *box, uint32_t address) {
    return address < box->stack_low && box->stack_low - address <= VX_STACK_GUARD ? VX_TRAP_STACK
                                                                                : VX_TRAP_MEMORY;
}

/* False: not an address guest code can name. */
static bool memory_fault(const vx_sandbox *box, const siginfo_t *info, vx_trap *trap) {
    uint64_t offset = (uint64_t)(uintptr_t)info->si_addr - (box->base - (uint64_t)VX_LOW_GUARD);
    if (offset >= VX_WINDOW + VX_ABOVE + (uint64_t)VX_LOW_GUARD)
        return false;
    trap->has_address = true;
    trap->address = (uint32_t)(uintptr_t)info->si_addr;
    trap->kind = trap_memory_kind(box, trap->address);
    return true;
}

/* A store into code that was translated: not the guest's fault.  The run loop does the store. */
static bool store_into_code(vx_sandbox *box, int signal, const siginfo_t *info) {
    uint64_t offset = (uint64_t)(uintptr_t)info->si_addr - box->base;
    if (signal != SIGSEGV || info->si_code != SEGV_ACCERR || offset >= VX_WINDOW ||
        !(box->page_map[offset / VX_PAGE_SIZE] & PAGE_GUARDED))
        return false;
    box->code_store = (uint32_t)offset;
    return true;
}

/* An indirect branch to where no code can be: a miss, and the flags are the guest's still. */
static bool outside_table(const vx_sandbox *box, int signal, const siginfo_t *info) {
    return signal == SIGSEGV && table_holds(&box->cache->table, (uintptr_t)info->si_addr);
}

static bool classify(const vx_sandbox *box, int signal, const siginfo_t *info, vx_trap *trap) {
    switch (signal) {
    case SIGSEGV:
    case SIGBUS:
        trap->kind = VX_TRAP_PROTECTION;
        if (info->si_code == SI_KERNEL || (signal == SIGBUS && info->si_code == BUS_ADRALN))
            return true;
        return memory_fault(box, info, trap);
    case SIGFPE:
        trap->kind = info->si_code == FPE_INTDIV || info->si_code == FPE_INTOVF ? VX_TRAP_DIVIDE
                                                                              : VX_TRAP_FLOAT;
        return true;
    case SIGILL: trap->kind = VX_TRAP_ILLEGAL; return true;
    default: return false;
    }
}

bool trap_fault(vx_sandbox *box, int signal, const siginfo_t *info, void *context) {
    ucontext_t *c = context;
    uint64_t gpr[16];
    if (signal == SIGSEGV && host_stack_full(box, (uintptr_t)info->si_addr)) {
        c->uc_mcontext.gregs[REG_RSP] = (greg_t)box->state->stack_top;
        return true;
    }
    if (outside_table(box, signal, info)) {
        c->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)vx_exit_miss;
        return true;
    }
    if (info->si_code <= 0 || (!store_into_code(box, signal, info) && !classify(box, signal, info, box->trap)))
        return false; /* sent by someone, or not the guest's doing */
    if (signal == SIGSEGV)
        box->trap->code = (uint32_t)c->uc_mcontext.gregs[REG_ERR] & 2;
    read_registers(c, gpr);
    trap_recover(box, (uintptr_t)c->uc_mcontext.gregs[REG_RIP], gpr,
                 (uint64_t)c->uc_mcontext.gregs[REG_EFL]);
    send_to(c, vx_fault_leave);
    return true;
}

bool trap_tick(vx_sandbox *box, void *context) {
    ucontext_t *c = context;
    vx_state *s = box->state;
    read_registers(c, s->tick_gpr);
    s->tick_rip = (uint64_t)c->uc_mcontext.gregs[REG_RIP];
    s->tick_flags = (uint64_t)c->uc_mcontext.gregs[REG_EFL];
    send_to(c, vx_tick_enter);
    return true;
}
