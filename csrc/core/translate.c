/* The translator: guest instructions at an address to one block in the code cache.
 *
 * 1. Decode from the plugin's own copy of its code, which nobody can change; for a sandbox with code of
 *    its own, from guest memory, and keep count of how far was read (owncode.c).
 * 2. For each instruction its rule (opcodes.def) emits host code.  A mark records where it starts,
 *    so that a fault anywhere in it maps back.  Rules keep this contract: at every host
 *    instruction that can fault, the guest's registers and flags are those before the guest
 *    instruction, but for what the mark's FIX says.
 * 3. Calls and untaken branches go on in the same block; it ends at a jump, a return, an exit, a
 *    limit, or where another block begins.
 * 4. Branches whose target is not translated yet go to a cold stub behind the block, which leaves
 *    through GATE_LINK with the target and the branch's own address, to be patched (cache_link).
 *
 * Every guest memory operand is emitted with a gs override and 32-bit address size; see state.h.
 * Scratch registers: r8 (guest target, effective address), r9, r10.  Flags are the guest's at all
 * times except between a pushfq and its popfq, and where flags_dead found that no one reads them. */
#include "emit.h"
#include "internal.h"

typedef struct side_exit {
    uint8_t *site; /* of the rel32, in the edit mapping */
    uint32_t target;
} side_exit;

typedef struct translation {
    vx_emit e;
    vx_cache *cache;
    const vx_plugin *plugin; /* whose text is read; or NULL, and: */
    vx_sandbox *box;         /* whose memory is read */
    const uint8_t *text;     /* of the plugin's, from text_start, where the block begins, to its segment's end */
    uint32_t text_start, text_size;
    unsigned offers;         /* of the processor */
    bool alone;              /* one instruction, which no branch may come back to */
    uint32_t reach;          /* bytes from the block's eip that decided what it does */
    vx_block block;
    uint8_t *start;    /* of the block, in the edit mapping */
    uint32_t eip, next;
    vx_insn in;
    bool made_return;   /* the instruction before this one in the block wrote the word at esp */
    unsigned count;     /* instructions before this one in the block */
    int32_t pending;    /* guest esp is r13d + pending: see "the pending part of esp" */
    uint32_t unseen;    /* up to here no instruction reads the status flags, which a comparison lost */
    bool ended;
    bool looked_ahead;  /* `ahead` is the next instruction */
    unsigned exit_count;
    vx_insn ahead;      /* from here on not cleared */
    side_exit exits[2 * VX_BLOCK_INSNS];
} translation;

static uint8_t host_reg(unsigned guest) { return guest == RSP ? R13 : (uint8_t)guest; }

static uintptr_t gate(const translation *t, vx_gate which) { return cache_gate(t->cache, which); }

static vx_mem slot(unsigned offset) { return mem_slot(ST_DISP + (int32_t)offset); }

/* Few blocks leave the segment they begin in, or are continued in another behind it. */
static const uint8_t *text_at(const translation *t, uint32_t eip, size_t *available) {
    uint32_t offset = eip - t->text_start;
    *available = offset < t->text_size ? t->text_size - offset : 0;
    return offset < t->text_size ? t->text + offset : plugin_code(t->plugin, eip, available);
}

/* The one way to an instruction's bytes. */
static vx_decode_result fetch(translation *t, uint32_t eip, vx_insn *in) {
    size_t available;
    const uint8_t *bytes = t->box != NULL ? guest_code(t->box, eip, &available) : text_at(t, eip, &available);
    vx_decode_result result = bytes == NULL ? DECODE_SHORT : vx_decode(bytes, available, in);
    /* Of what is no instruction everything there is counts, and that there is no more. */
    uint32_t read = result == DECODE_OK ? in->length - 1u : available < VX_INSN_MAX ? (uint32_t)available : VX_INSN_MAX;
    if (eip - t->block.eip + read > t->reach)
        t->reach = eip - t->block.eip + read;
    return result;
}

static void add_mark(translation *t, unsigned fix) {
    vx_mark *mark = &t->cache->marks[t->block.first_mark + t->block.marks++];
    *mark = (vx_mark){.host = (uint16_t)(t->e.at - t->start), .guest = (t->eip - t->block.eip) & 0xfff,
                      .fix = fix & 0x7, .flags_lost = t->eip - t->block.eip < t->unseen,
                      .esp = (int16_t)t->pending};
}

/* --- the pending part of esp ------------------------------------------------------------------
 *
 * Runs of pushes and pops, prologues and epilogues move esp once: until something needs it in r13,
 * guest esp is r13d + pending.  Operands based on esp have it in their displacement, marks say it to the
 * fault handler, and it is zero wherever control leaves the block. */

#define PENDING_MAX 0x3000 /* bytes; two of it, a pending part and what one instruction adds, fit a mark */

static void emit_add_esp(translation *t, int32_t bytes) {
    if (bytes != 0)
        emit_rm(&t->e, OP_LEA, R13, mem_base(R13, bytes));
}

/* A slot at guest esp + offset. */
static vx_mem stack_slot(const translation *t, int32_t offset) { return mem_near(R13, t->pending + offset); }

static void move_esp(translation *t, int32_t bytes) { t->pending += bytes; }

/* r13d is guest esp plus `bytes`, as the instruction behind a faulting one wants it. */
static void settle_esp(translation *t, int32_t bytes) {
    emit_add_esp(t, t->pending + bytes);
    if (t->pending == 0)
        return;
    t->pending = 0;
    add_mark(t, FIX_NONE);
}

static bool names_esp(const vx_insn *in) {
    return (in->has_modrm && (in->op->form & FORM_REG) && in->reg == RSP) ||
           (in->has_modrm && (in->op->form & FORM_RM) && !in->is_mem && in->rm == RSP) ||
           ((in->op->form & FORM_OP) && (in->opcode & 7) == RSP);
}

/* Can the instruction be done with a part of esp pending?  Whatever is not known to settles it first. */
static bool takes_pending(const translation *t) {
    const vx_insn *in = &t->in;
    if (t->pending < -PENDING_MAX || t->pending > PENDING_MAX)
        return false;
    switch (in->op->rule) {
    case RULE_COPY: case RULE_COPY_AS: case RULE_SHORT_INC: return !names_esp(in);
    case RULE_PUSH_REG: case RULE_POP_REG: return (in->opcode & 7) != RSP;
    case RULE_PUSH_RM: case RULE_POP_RM: return in->is_mem || in->rm != RSP;
    case RULE_CALL_IND: return in->is_mem || in->rm != RSP;
    case RULE_LEA: return in->reg != RSP;
    case RULE_PUSH_IMM: case RULE_MOFFS: case RULE_NOP: case RULE_LEAVE: case RULE_CALL_REL: case RULE_RET:
        return true;
    default: return false;
    }
}

/* --- small sequences ------------------------------------------------------------------------- */

/* mov between a register and guest memory, 2 or 4 bytes. */
static void emit_guest_mov(translation *t, unsigned opcode, unsigned reg, vx_mem mem, bool word) {
    emit_form(&t->e, &(vx_form){.operand16 = word, .opcode = (uint8_t)opcode, .reg = (uint8_t)reg,
                                .is_mem = true, .mem = mem});
}

static void emit_store_imm(translation *t, vx_mem mem, uint32_t value, bool word) {
    emit_form(&t->e, &(vx_form){.operand16 = word, .opcode = 0xc7, .is_mem = true, .mem = mem});
    emit_imm(&t->e, value, word ? 2 : 4);
}

static void emit_pushfq(translation *t) { emit_byte(&t->e, 0x9c); }
static void emit_popfq(translation *t) { emit_byte(&t->e, 0x9d); }
static void emit_push(translation *t, unsigned reg) { emit_plain(&t->e, &(vx_form){.opcode = 0x50}, reg); }
static void emit_pop(translation *t, unsigned reg) { emit_plain(&t->e, &(vx_form){.opcode = 0x58}, reg); }

/* op r32, imm32 of the group at 81; changes flags. */
static void emit_alu_imm(translation *t, unsigned extension, unsigned reg, uint32_t value) {
    emit_rr(&t->e, 0x81, extension, reg);
    emit_imm(&t->e, value, 4);
}

/* Ends the block: leaves to C with the guest at `eip` and a LEAVE_* reason. */
static void emit_leave(translation *t, uint32_t eip, uint32_t reason) {
    emit_mov_imm(&t->e, R8, eip);
    emit_mov_imm(&t->e, R9, reason);
    emit_branch(&t->e, OP_JMP, gate(t, GATE_REASON));
    t->ended = true;
}

static void emit_trap(translation *t, vx_trap_kind kind, unsigned code) {
    emit_leave(t, t->eip, LEAVE_TRAP | (uint32_t)kind << 8 | code << 16);
}

/* --- branches -------------------------------------------------------------------------------- */

/* The block that a branch can go to at once, without being linked. */
static const uint32_t *known_target(const translation *t, uint32_t target) {
    /* Where blocks are dropped every link has to be known: they are made by own_link only. */
    const vx_block *known = t->box != NULL ? NULL : cache_lookup(t->cache, target);
    if (known != NULL)
        return &known->start;
    return target == t->block.eip && !t->alone ? &t->block.start : NULL;
}

/* The rel32 of a branch whose opcode was just emitted: to the target's block if there is one, else to a stub. */
static void emit_target(translation *t, uint32_t target) {
    const uint32_t *known = known_target(t, target);
    uint32_t here = (uint32_t)(t->e.at - t->cache->edit);
    if (known != NULL) {
        emit_imm(&t->e, *known - (here + 4), 4);
        return;
    }
    VX_CHECK(t->exit_count < VX_COUNT(t->exits));
    t->exits[t->exit_count++] = (side_exit){t->e.at, target};
    emit_imm(&t->e, 0, 4);
}

/* Bytes to put in front of a branch, so that its rel32, `ahead` bytes from here, can be linked by one store
 * (cache.h, C1). */
static unsigned link_pad(const translation *t, uint32_t target, unsigned ahead) {
    unsigned place = ((uintptr_t)t->e.at + ahead) & 7;
    return place <= 4 || known_target(t, target) != NULL ? 0 : 8 - place;
}

/* A branch of `size` opcode bytes.  In 64-bit mode a cs override does nothing, and unlike a nop it neither
 * takes a slot nor comes between a comparison and its branch. */
static void emit_branch_to(translation *t, unsigned opcode, unsigned size, uint32_t target) {
    for (unsigned pad = link_pad(t, target, size); pad != 0; pad--)
        emit_byte(&t->e, 0x2e);
    emit_imm(&t->e, opcode, size);
    emit_target(t, target);
}

static void emit_jump(translation *t, uint32_t target) { emit_branch_to(t, OP_JMP, 1, target); }

static void emit_stub(translation *t, const side_exit *exit) {
    uint32_t distance = (uint32_t)(t->e.at - (exit->site + 4));
    memcpy(exit->site, &distance, 4);
    /* lea r9, [rip - to the site]; seven bytes long */
    emit_byte(&t->e, 0x4c), emit_byte(&t->e, OP_LEA), emit_byte(&t->e, 0x0d);
    emit_imm(&t->e, (uint32_t)(exit->site - (t->e.at + 4)), 4);
    emit_mov_imm(&t->e, R8, exit->target);
    emit_branch(&t->e, OP_JMP, gate(t, GATE_LINK));
}

/* Instructions that go on to the next one, or fault. */
static bool goes_on(const vx_insn *in) {
    switch (in->op->rule) {
    case RULE_COPY: case RULE_COPY_AS: case RULE_VECTOR: case RULE_SHORT_INC: case RULE_LEA: case RULE_NOP:
    case RULE_PAUSE:
    case RULE_PUSH_REG: case RULE_PUSH_IMM: case RULE_PUSH_RM: case RULE_POP_REG: case RULE_POP_RM:
    case RULE_LEAVE: case RULE_MOFFS: case RULE_XLAT: return true;
    default: return false;
    }
}

/* Instructions that may change the code behind them, as far as they go on. */
static bool may_store(const vx_insn *in) {
    switch (in->op->rule) {
    case RULE_COPY: case RULE_COPY_AS: case RULE_SHORT_INC: case RULE_NOP: case RULE_PAUSE: return in->is_mem;
    default: return in->op->rule != RULE_LEA;
    }
}

static unsigned most_insns(const translation *t) { return t->alone ? 1 : VX_BLOCK_INSNS; }

/* An instruction behind the current one, or NULL where there is none.  The next one is kept for its turn. */
static const vx_insn *look_ahead(translation *t, uint32_t eip, vx_insn *room) {
    bool next = eip == t->next;
    if (next && t->looked_ahead)
        return &t->ahead;
    vx_insn *in = next ? &t->ahead : room;
    bool found = fetch(t, eip, in) == DECODE_OK;
    t->looked_ahead |= next && found;
    return found ? in : NULL;
}

/* Does the rest of this block, behind the current instruction, overwrite all status flags but those in `kept`
 * before it reads one?  Then they may be lost here, and until then a fault reports none (vx_trap.flags_lost).
 * Where the guest writes code the rest must not change before its time. */
static bool flags_dead_but(translation *t, unsigned kept) {
    enum { LOOK_AHEAD = 8 };
    unsigned live = FLAGS_ALL & ~kept, room = most_insns(t) - 1 - t->count;
    uint32_t eip = t->next;
    for (unsigned i = 0; i < LOOK_AHEAD && i < room && live != 0; i++) {
        vx_insn room_for_it;
        const vx_insn *in = look_ahead(t, eip, &room_for_it);
        if (in == NULL || cache_lookup(t->cache, eip) != NULL || (t->box != NULL && may_store(in)))
            return false;
        if (!goes_on(in) || (in->op->reads & live))
            return false;
        live &= ~(unsigned)in->op->writes;
        eip += in->length;
    }
    if (live == 0)
        t->unseen = eip - t->block.eip;
    return live == 0;
}

static bool flags_dead(translation *t) { return flags_dead_but(t, 0); }

/* jmp (extension 4) or call (2) through the lookup table, which r15 holds; r8d is the guest target, r14 the
 * cache. */
static void emit_probe(translation *t, unsigned extension) {
    emit_rm(&t->e, OP_MOV_LOAD, R9, (vx_mem){.base = R15, .index = R8, .scale = 2});
    emit_rm64(&t->e, OP_LEA, R9, (vx_mem){.base = R14, .index = R9});
    emit_rr(&t->e, 0xff, extension, R9);
}

static void emit_push_return(translation *t) {
    emit_store_imm(t, stack_slot(t, -4), t->next, false);
    settle_esp(t, -4);
}

/* --- operands -------------------------------------------------------------------------------- */

static vx_mem address_of(const translation *t, const vx_insn *in) {
    uint32_t pending = in->base == RSP ? (uint32_t)t->pending : 0;
    return (vx_mem){.base = in->base < 0 ? NO_REG : (int8_t)host_reg((unsigned)in->base),
                    .index = in->index, .scale = in->scale, .disp = (int32_t)((uint32_t)in->disp + pending)};
}

/* A near sum that leaves the window ends in a guard.  Wrapped around, as i386 has it, it would end where nothing is
 * mapped: the same fault at the same address.  Lanes that a mask leaves out do not fault, so the others' sums too. */
static vx_mem confined(vx_mem mem) {
    enum { LANES = 64 }; /* bytes */
    _Static_assert(VX_LOW_GUARD <= VX_GUEST_MIN && VX_LOW_GUARD <= VX_WINDOW - VX_GUEST_MAX, "a guard's width from both ends");
    bool near = mem.base != NO_REG && mem.index == NO_REG && mem.disp >= -VX_LOW_GUARD && mem.disp <= VX_LOW_GUARD - LANES;
    mem.space = near ? SPACE_NEAR : SPACE_GUEST;
    return mem;
}

/* movzx r8d, r8w: what 16-bit addresses do to a sum */
static void emit_wrap16(translation *t) {
    emit_form(&t->e, &(vx_form){.map = MAP_0F, .opcode = 0xb7, .reg = R8, .rm = R8});
}

/* r8d += base of the guest's gs; changes r9 */
static void emit_add_tls(translation *t) {
    emit_rm(&t->e, OP_MOV_LOAD, R9, slot(ST_TLS_BASE));
    emit_rm(&t->e, OP_LEA, R8, (vx_mem){.base = R8, .index = R9});
}

/* From the sum of base, index and displacement in r8d to the address, flags untouched. */
static void emit_finish_address(translation *t, const vx_insn *in) {
    if (in->address16)
        emit_wrap16(t);
    if (in->segment == SEG_GS)
        emit_add_tls(t);
}

/* r8d = effective address, flags untouched. */
static void emit_address_in_r8(translation *t, const vx_insn *in) {
    emit_rm(&t->e, OP_LEA, R8, address_of(t, in));
    emit_finish_address(t, in);
}

/* The operand of an instruction as guest memory; may use r8 and r9. */
static vx_mem guest_operand(translation *t, const vx_insn *in) {
    if (in->address16 || in->segment == SEG_GS) {
        emit_address_in_r8(t, in);
        return mem_near(R8, 0);
    }
    return confined(address_of(t, in));
}

static vx_form form_of(const vx_insn *in) {
    return (vx_form){.lock = in->lock, .operand16 = in->operand16, .rep = in->rep, .map = in->map,
                     .opcode = in->opcode,
                     .reg = in->op->form & FORM_REG ? host_reg(in->reg) : in->reg,
                     .is_mem = in->is_mem,
                     .rm = in->op->form & FORM_RM ? host_reg(in->rm) : in->rm};
}

/* --- rules: copies --------------------------------------------------------------------------- */

static void copy_immediate(translation *t) {
    emit_imm(&t->e, t->in.imm, t->in.imm_size);
}

static void copy_plain(translation *t) {
    const vx_insn *in = &t->in;
    vx_form form = form_of(in);
    if (in->op->form & FORM_OP) {
        form.opcode = in->opcode & 0xf8;
        emit_plain(&t->e, &form, host_reg(in->opcode & 7));
    } else {
        emit_plain(&t->e, &form, 0);
    }
    copy_immediate(t);
}

static bool needs_rex(const vx_form *form) {
    return form->reg >= 8 || (form->is_mem ? form->mem.base >= 8 : form->rm >= 8);
}

/* xchg of the low two bytes of eax, ecx, edx or ebx: no flags, no REX. */
static void emit_swap_bytes(translation *t, unsigned reg) {
    emit_rr(&t->e, OP_XCHG8, reg, reg + 4);
}

/* cmpxchg compares with al, so the source ah cannot be swapped there: it goes through r9. */
static void copy_cmpxchg_ah(translation *t, vx_form *form) {
    emit_rr(&t->e, OP_MOV_STORE, RCX, R9);
    emit_form(&t->e, &(vx_form){.map = MAP_0F, .opcode = 0xb6, .reg = RCX, .rm = 4}); /* movzx ecx, ah */
    emit_rr(&t->e, OP_XCHG, RCX, R9);
    form->reg = R9;
    emit_form(&t->e, form);
}

/* AH, CH, DH, BH have no encoding beside REX: their bytes change places for one instruction. */
static void copy_high_byte(translation *t, vx_form *form, bool reg_is_high) {
    unsigned low = (reg_is_high ? form->reg : form->rm) - 4;
    if (form->is_mem && form->mem.base != R8) {
        emit_address_in_r8(t, &t->in);
        form->mem = mem_near(R8, 0);
    }
    if (form->map == MAP_0F && form->opcode == 0xb0 && low == RAX) {
        copy_cmpxchg_ah(t, form);
        return;
    }
    emit_swap_bytes(t, low);
    add_mark(t, FIX_SWAP + low);
    if (reg_is_high)
        form->reg = (uint8_t)low;
    else
        form->rm = (uint8_t)low;
    emit_form(&t->e, form);
    copy_immediate(t);
    add_mark(t, FIX_NONE);
    emit_swap_bytes(t, low);
}

static void copy_form(translation *t, vx_form *form) {
    bool high_reg = (t->in.op->form & FORM_REG8) && t->in.reg >= 4;
    bool high_rm = (t->in.op->form & FORM_RM8) && !t->in.is_mem && t->in.rm >= 4;
    if (t->in.is_mem)
        form->mem = guest_operand(t, &t->in);
    if ((high_reg || high_rm) && needs_rex(form)) {
        copy_high_byte(t, form, high_reg);
        return;
    }
    emit_form(&t->e, form);
    copy_immediate(t);
}

static void rule_copy(translation *t) {
    vx_form form = form_of(&t->in);
    if (t->in.has_modrm)
        copy_form(t, &form);
    else
        copy_plain(t);
}

static void rule_copy_as(translation *t) {
    vx_form form = form_of(&t->in);
    form.opcode = t->in.op->arg;
    copy_form(t, &form);
}

/* The operand of a VEX or EVEX instruction.  One byte of displacement may be scaled by a size that only
 * the processor knows, and a vector index is no part of what can be computed here: both stay in the
 * operand, whatever else the address needs. */
static vx_mem vector_operand(translation *t, bool vector_index) {
    vx_insn in = t->in;
    vx_mem mem = address_of(t, &in);
    mem.disp_size = in.map >= MAP_EVEX_0F ? in.disp_size & 5 : 0;
    if (in.segment != SEG_GS)
        return confined(mem);
    in.index = vector_index ? -1 : in.index;
    in.disp = 0;
    emit_address_in_r8(t, &in);
    return confined((vx_mem){.base = R8, .index = vector_index ? mem.index : NO_REG, .scale = mem.scale,
                             .disp = mem.disp, .disp_size = mem.disp_size});
}

static uint8_t mapped(const vx_insn *in, unsigned form, unsigned reg) {
    return in->op->form & form ? host_reg(reg) : (uint8_t)reg;
}

static vx_vector_form vector_form_of(const vx_insn *in) {
    bool evex = in->map >= MAP_EVEX_0F;
    return (vx_vector_form){.evex = evex, .map = (uint8_t)(in->map - (evex ? MAP_EVEX_0F : MAP_VEX_0F) + 1),
                            .opcode = in->opcode, .pp = in->pp, .w = in->w, .l = in->l, .mask = in->mask,
                            .zero = in->zero, .b = in->b, .plain = !in->has_modrm,
                            .vvvv = mapped(in, FORM_VG, in->vvvv), .reg = mapped(in, FORM_REG, in->reg),
                            .is_mem = in->is_mem, .rm = mapped(in, FORM_RM, in->rm)};
}

static void rule_vector(translation *t) {
    const vx_insn *in = &t->in;
    if (in->address16 && in->is_mem) { /* displacements are scaled before the cut, lanes of vmaskmov wrap after it */
        emit_trap(t, VX_TRAP_ILLEGAL, 0);
        return;
    }
    vx_vector_form form = vector_form_of(in);
    if (in->is_mem)
        form.mem = vector_operand(t, in->op->form & FORM_VSIB);
    emit_vector(&t->e, &form);
    copy_immediate(t);
}

static void rule_short_inc(translation *t) {
    emit_form(&t->e, &(vx_form){.operand16 = t->in.operand16, .opcode = 0xff, .reg = t->in.op->arg,
                                .rm = host_reg(t->in.opcode & 7)});
}

static void rule_lea(translation *t) {
    uint8_t reg = host_reg(t->in.reg);
    t->in.segment = SEG_NONE;
    vx_form form = {.operand16 = t->in.operand16, .opcode = OP_LEA, .reg = reg, .is_mem = true,
                    .mem = address_of(t, &t->in)};
    if (t->in.address16) {
        emit_address_in_r8(t, &t->in);
        form = (vx_form){.operand16 = t->in.operand16, .opcode = OP_MOV_LOAD, .reg = reg, .rm = R8};
    }
    emit_form(&t->e, &form);
}

static void rule_moffs(translation *t) {
    static const uint8_t opcodes[4] = {0x8a, 0x8b, 0x88, 0x89};
    vx_insn in = t->in;
    in.base = in.index = -1;
    in.disp = (int32_t)in.imm;
    in.address16 = false; /* the offset was read with its own size */
    vx_form form = {.operand16 = in.operand16, .opcode = opcodes[in.opcode & 3], .reg = RAX,
                    .is_mem = true, .mem = guest_operand(t, &in)};
    emit_form(&t->e, &form);
}

static void rule_nop(translation *t) { (void)t; }

static void rule_pause(translation *t) {
    if (t->in.rep)
        emit_byte(&t->e, 0xf3), emit_byte(&t->e, 0x90);
}

/* --- rules: the stack ------------------------------------------------------------------------ */

static int32_t operand_size(const translation *t) { return t->in.operand16 ? 2 : 4; }

static void emit_push_reg(translation *t, unsigned reg) {
    emit_guest_mov(t, OP_MOV_STORE, reg, stack_slot(t, -operand_size(t)), t->in.operand16);
    move_esp(t, -operand_size(t));
}

static void rule_push_reg(translation *t) { emit_push_reg(t, host_reg(t->in.opcode & 7)); }

static void rule_push_imm(translation *t) {
    emit_store_imm(t, stack_slot(t, -operand_size(t)), t->in.imm, t->in.operand16);
    move_esp(t, -operand_size(t));
}

static void rule_push_rm(translation *t) {
    if (t->in.is_mem)
        emit_guest_mov(t, OP_MOV_LOAD, R8, guest_operand(t, &t->in), t->in.operand16);
    emit_push_reg(t, t->in.is_mem ? R8 : host_reg(t->in.rm));
}

/* The popped value wins over the increment when the destination is esp. */
static void emit_pop_reg(translation *t, unsigned guest) {
    emit_guest_mov(t, OP_MOV_LOAD, R8, stack_slot(t, 0), t->in.operand16);
    settle_esp(t, operand_size(t));
    emit_form(&t->e, &(vx_form){.operand16 = t->in.operand16, .opcode = OP_MOV_STORE, .reg = R8,
                                .rm = host_reg(guest)});
}

static void rule_pop_reg(translation *t) {
    unsigned guest = t->in.opcode & 7;
    if (guest == RSP) {
        emit_pop_reg(t, guest);
        return;
    }
    emit_guest_mov(t, OP_MOV_LOAD, guest, stack_slot(t, 0), t->in.operand16);
    move_esp(t, operand_size(t));
}

/* An address based on esp counts from the incremented one (Intel SDM, POP). */
static void rule_pop_rm(translation *t) {
    if (!t->in.is_mem) {
        emit_pop_reg(t, t->in.rm);
        return;
    }
    vx_insn in = t->in;
    if (in.base == RSP)
        in.disp = (int32_t)((uint32_t)in.disp + (uint32_t)operand_size(t));
    emit_guest_mov(t, OP_MOV_LOAD, R10, stack_slot(t, 0), in.operand16);
    emit_guest_mov(t, OP_MOV_STORE, R10, guest_operand(t, &in), in.operand16);
    move_esp(t, operand_size(t));
}

/* Flags that are the guest's own; the rest is fixed: bit 1, and IF as user code sees it. */
#define GUEST_FLAGS ((uint32_t)(FLAGS_ALL | FLAG_DF | EFLAGS_ID))
#define FIXED_FLAGS 0x202u

static void rule_pushf(translation *t) {
    emit_pushfq(t);
    emit_pop(t, R8);
    emit_rr(&t->e, OP_MOV_STORE, R8, R10);
    emit_alu_imm(t, 4, R8, GUEST_FLAGS);
    emit_alu_imm(t, 1, R8, FIXED_FLAGS);
    emit_push(t, R10);
    emit_popfq(t);
    emit_push_reg(t, R8);
}

static void rule_popf(translation *t) {
    vx_form load = {.map = t->in.operand16 ? MAP_0F : MAP_1,
                    .opcode = t->in.operand16 ? 0xb7 : OP_MOV_LOAD, .reg = R8, .is_mem = true,
                    .mem = stack_slot(t, 0)};
    emit_form(&t->e, &load);
    settle_esp(t, operand_size(t));
    emit_alu_imm(t, 4, R8, GUEST_FLAGS);
    emit_alu_imm(t, 1, R8, FIXED_FLAGS);
    emit_push(t, R8);
    emit_popfq(t);
}

static void rule_leave(translation *t) {
    bool word = t->in.operand16;
    emit_guest_mov(t, OP_MOV_LOAD, R8, mem_near(RBP, 0), word);
    emit_rm(&t->e, OP_LEA, R13, mem_base(RBP, operand_size(t)));
    t->pending = 0;
    emit_form(&t->e, &(vx_form){.operand16 = word, .opcode = OP_MOV_STORE, .reg = R8, .rm = RBP});
}

/* --- rules: memory in unusual ways ----------------------------------------------------------- */

static void rule_xlat(translation *t) {
    emit_form(&t->e, &(vx_form){.map = MAP_0F, .opcode = 0xb6, .reg = R8, .rm = RAX}); /* movzx r8d, al */
    emit_rm(&t->e, OP_LEA, R8, (vx_mem){.base = R8, .index = RBX});
    emit_finish_address(t, &t->in);
    emit_rm(&t->e, 0x8a, RAX, mem_near(R8, 0));
}

/* Stores at ds:edi, which the prefixes confine like any operand.  Through gs or with 16-bit addresses edi holds
 * the sum for this one instruction. */
static void rule_maskmov(translation *t) {
    vx_insn in = t->in;
    bool moved = in.address16 || in.segment == SEG_GS;
    if (moved) {
        in.base = RDI;
        emit_address_in_r8(t, &in);
        emit_rr(&t->e, OP_XCHG, RDI, R8);
        add_mark(t, FIX_EDI);
    }
    emit_byte(&t->e, 0x65), emit_byte(&t->e, 0x67);
    if (in.vector) {
        in.w = 0; /* ignored */
        emit_vector(&t->e, &(vx_vector_form){.map = 1, .opcode = in.opcode, .pp = in.pp, .reg = in.reg, .rm = in.rm});
    } else {
        vx_form form = form_of(&in);
        emit_form(&t->e, &form);
    }
    if (moved)
        emit_rr(&t->e, OP_MOV_STORE, R8, RDI);
}

/* bt [mem], reg reaches reg bits from mem: the address is computed here, so that the prefixes
 * confine it, and the processor sees only the bit's offset in its word. */
static void rule_bit_string(translation *t) {
    vx_form form = form_of(&t->in);
    if (!t->in.is_mem) {
        emit_form(&t->e, &form);
        return;
    }
    bool word = t->in.operand16;
    vx_insn in = t->in;
    in.segment = SEG_NONE; /* its base comes last: 16-bit addresses wrap before it */
    emit_address_in_r8(t, &in);
    emit_pushfq(t);
    emit_form(&t->e, &(vx_form){.wide = true, .map = word ? MAP_0F : MAP_1, .reg = R9,
                                .opcode = word ? 0xbf : 0x63, .rm = form.reg}); /* movsx r9, reg */
    emit_rr(&t->e, OP_MOV_STORE, R9, R10);
    emit_alu_imm(t, 4, R10, word ? 15 : 31);
    emit_rr64(&t->e, 0xc1, 7, R9); /* sar r9, imm8 */
    emit_byte(&t->e, word ? 4 : 5);
    emit_rm(&t->e, OP_LEA, R8, (vx_mem){.base = R8, .index = R9, .scale = word ? 1 : 2});
    if (t->in.address16) /* the sum wraps there too */
        emit_wrap16(t);
    emit_popfq(t);
    if (t->in.segment == SEG_GS)
        emit_add_tls(t);
    form.reg = R10;
    form.mem = mem_near(R8, 0);
    emit_form(&t->e, &form);
}

/* reg -= r9 without flags: -a - 1 is its complement */
static void emit_subtract_r9(translation *t, unsigned reg) {
    emit_rr(&t->e, 0xf7, 2, reg); /* not */
    emit_rm(&t->e, OP_LEA, reg, (vx_mem){.base = (int8_t)reg, .index = R9});
    emit_rr(&t->e, 0xf7, 2, reg);
}

/* String instructions ignore overrides of es, so rsi and rdi become host addresses and are cut
 * back; base is a multiple of 4 GiB, so the low halves stay the guest's even in the middle. */
static void rule_string(translation *t) {
    bool through_gs = t->in.segment == SEG_GS && (t->in.op->arg & STRING_SRC);
    if (t->in.address16) { /* the first 64 KiB hold nothing */
        emit_trap(t, VX_TRAP_ILLEGAL, 0);
        return;
    }
    vx_form form = form_of(&t->in);
    if (through_gs) {
        emit_rm(&t->e, OP_MOV_LOAD, R9, slot(ST_TLS_BASE));
        emit_rm(&t->e, OP_LEA, RSI, (vx_mem){.base = RSI, .index = R9});
        add_mark(t, FIX_ESI);
    }
    emit_rm64(&t->e, OP_MOV_LOAD, R10, slot(ST_BASE));
    if (t->in.op->arg & STRING_SRC)
        emit_rm64(&t->e, OP_LEA, RSI, (vx_mem){.base = RSI, .index = R10});
    if (t->in.op->arg & STRING_DST)
        emit_rm64(&t->e, OP_LEA, RDI, (vx_mem){.base = RDI, .index = R10});
    emit_plain(&t->e, &form, 0);
    if (t->in.op->arg & STRING_SRC)
        emit_rr(&t->e, OP_MOV_STORE, RSI, RSI);
    if (t->in.op->arg & STRING_DST)
        emit_rr(&t->e, OP_MOV_STORE, RDI, RDI);
    if (through_gs)
        emit_subtract_r9(t, RSI);
}

/* The 32-bit protected-mode x87 environment (Intel SDM volume 1, figure 8-9): the words that hold
 * instruction and operand pointers are host addresses.  The far end is touched first, so that no
 * store is left half done and unwiped by a fault. */
static void rule_fnstenv(translation *t) {
    int32_t last = t->in.opcode == 0xd9 ? 24 : 104; /* 28 and 108 bytes */
    vx_form form = form_of(&t->in);
    emit_address_in_r8(t, &t->in);
    emit_guest_mov(t, OP_MOV_LOAD, R9, mem_near(R8, last), false);
    emit_guest_mov(t, OP_MOV_STORE, R9, mem_near(R8, last), false);
    form.mem = mem_near(R8, 0);
    emit_form(&t->e, &form);
    for (int32_t offset = 12; offset <= 24; offset += 4)
        emit_store_imm(t, mem_near(R8, offset), 0, false);
}

/* --- rules: control -------------------------------------------------------------------------- */

static void rule_jcc(translation *t) {
    emit_branch_to(t, 0x800fu | (t->in.opcode & 15u) << 8, 2, t->next + t->in.imm);
}

/* loop and jecxz know only short targets: over a jump they go. */
static void rule_loop(translation *t) {
    if (t->in.address16) {
        emit_leave(t, t->eip, LEAVE_HELPER | HELPER_LOOP16 << 8);
        return;
    }
    emit_nop(&t->e, link_pad(t, t->next + t->in.imm, 6));
    emit_byte(&t->e, 0x67), emit_byte(&t->e, t->in.opcode), emit_byte(&t->e, 2);
    emit_byte(&t->e, 0xeb), emit_byte(&t->e, 5);
    emit_byte(&t->e, OP_JMP);
    emit_target(t, t->next + t->in.imm);
}

static void rule_jmp_rel(translation *t) {
    emit_jump(t, t->next + t->in.imm);
    t->ended = true;
}

static void emit_target_in_r8(translation *t) {
    if (t->in.is_mem)
        emit_rm(&t->e, OP_MOV_LOAD, R8, guest_operand(t, &t->in));
    else
        emit_rr(&t->e, OP_MOV_STORE, host_reg(t->in.rm), R8);
}

static void rule_jmp_ind(translation *t) {
    emit_target_in_r8(t);
    emit_probe(t, 4);
    t->ended = true;
}

/* r8d == eip?  jrcxz neither needs nor changes flags: whoever has to be looked for instead may read them. */
static void check_keeping_flags(translation *t, uint32_t eip) {
    emit_rr(&t->e, OP_MOV_STORE, RCX, R9);
    emit_byte(&t->e, 0x41), emit_byte(&t->e, OP_LEA), emit_byte(&t->e, 0x88); /* lea ecx, [r8 + disp32] */
    emit_imm(&t->e, 0u - eip, 4);
    emit_byte(&t->e, 0xe3), emit_byte(&t->e, 5); /* jrcxz over the jump */
    emit_branch(&t->e, OP_JMP, gate(t, GATE_RESYNC_RCX));
    emit_rr(&t->e, OP_MOV_LOAD, RCX, R9);
}

/* Behind a call: whoever returned here must have meant this address.  A comparison is quicker than
 * jrcxz (fib 1.6 against 2.4 of native) and costs what docs/architecture.md says under exceptions; dec leaves
 * the carry alone, which the likes of `dec ecx; jne` do not overwrite. */
static void emit_return_site(translation *t) {
    if (flags_dead(t)) {
        emit_alu_imm(t, 7, R8, t->next);
        emit_jcc(&t->e, CC_NE, gate(t, GATE_RESYNC));
    } else if (flags_dead_but(t, FLAG_CF)) {
        emit_rm(&t->e, OP_LEA, R9, mem_base(R8, (int32_t)(1 - t->next)));
        emit_rr(&t->e, 0xff, 1, R9); /* dec */
        emit_jcc(&t->e, CC_NE, gate(t, GATE_RESYNC));
    } else {
        check_keeping_flags(t, t->next);
    }
}

static void rule_call_rel(translation *t) {
    uint32_t target = t->next + t->in.imm;
    emit_push_return(t);
    if (target == t->next)
        return; /* call next; pop reg: reads eip, never returns */
    emit_branch_to(t, OP_CALL, 1, target);
    emit_return_site(t);
}

static void rule_call_ind(translation *t) {
    emit_target_in_r8(t);
    emit_push_return(t);
    emit_probe(t, 2);
    emit_return_site(t);
}

/* Does the instruction write the word at esp?  Then a `ret` behind it is a jump (thunks, hand-made
 * switches), and no prediction of ours fits. */
static bool makes_return(const vx_insn *in) {
    switch (in->op->rule) {
    case RULE_PUSH_REG: case RULE_PUSH_IMM: case RULE_PUSH_RM: return true;
    default: return in->is_mem && in->base == RSP && in->disp == 0;
    }
}

static void rule_ret(translation *t) {
    emit_guest_mov(t, OP_MOV_LOAD, R8, stack_slot(t, 0), false);
    settle_esp(t, 4 + (int32_t)t->in.imm);
    if (t->made_return)
        emit_probe(t, 4);
    else
        emit_byte(&t->e, 0xc3);
    t->ended = true;
}

static void rule_int3(translation *t) { emit_trap(t, VX_TRAP_BREAKPOINT, 3); }

static void rule_int(translation *t) {
    uint8_t vector = (uint8_t)t->in.imm;
    if (vector == VX_HOSTCALL_VECTOR)
        emit_leave(t, t->next, LEAVE_HOSTCALL);
    else if (vector == VX_LINUX_VECTOR)
        emit_leave(t, t->next, LEAVE_LINUX);
    else
        emit_trap(t, VX_TRAP_INTERRUPT_VECTOR, vector);
}

static void rule_helper(translation *t) {
    emit_leave(t, t->eip, LEAVE_HELPER | (uint32_t)t->in.op->arg << 8);
}

static void rule_refuse(translation *t) {
    emit_trap(t, t->in.op->arg >= REFUSE_UD ? VX_TRAP_ILLEGAL : VX_TRAP_PRIVILEGED, 0);
}

static void (*const rules[])(translation *) = {
    [RULE_COPY] = rule_copy, [RULE_COPY_AS] = rule_copy_as, [RULE_VECTOR] = rule_vector,
    [RULE_SHORT_INC] = rule_short_inc,
    [RULE_PUSH_REG] = rule_push_reg, [RULE_PUSH_IMM] = rule_push_imm,
    [RULE_PUSH_RM] = rule_push_rm, [RULE_POP_REG] = rule_pop_reg, [RULE_POP_RM] = rule_pop_rm,
    [RULE_PUSHF] = rule_pushf, [RULE_POPF] = rule_popf, [RULE_LEAVE] = rule_leave,
    [RULE_LEA] = rule_lea, [RULE_MOFFS] = rule_moffs, [RULE_XLAT] = rule_xlat,
    [RULE_MASKMOV] = rule_maskmov, [RULE_BIT_STRING] = rule_bit_string,
    [RULE_STRING] = rule_string, [RULE_FNSTENV] = rule_fnstenv, [RULE_NOP] = rule_nop,
    [RULE_PAUSE] = rule_pause, [RULE_JCC] = rule_jcc, [RULE_LOOP] = rule_loop,
    [RULE_JMP_REL] = rule_jmp_rel, [RULE_JMP_IND] = rule_jmp_ind,
    [RULE_CALL_REL] = rule_call_rel, [RULE_CALL_IND] = rule_call_ind, [RULE_RET] = rule_ret,
    [RULE_INT3] = rule_int3, [RULE_INT] = rule_int, [RULE_HELPER] = rule_helper,
    [RULE_REFUSE] = rule_refuse,
};

/* --- moves of esp without a move of r13 ------------------------------------------------------- */

/* mov r, esp */
static void copy_esp(translation *t, unsigned to) {
    emit_rm(&t->e, OP_LEA, to, mem_base(R13, t->pending));
}

/* mov esp, r */
static void load_esp(translation *t, unsigned from) {
    emit_rr(&t->e, OP_MOV_STORE, from, R13);
    t->pending = 0;
}

static bool fold_mov(translation *t, unsigned to, unsigned from) {
    if (to == RSP && from != RSP)
        load_esp(t, from);
    else if (from == RSP && to != RSP)
        copy_esp(t, to);
    else
        return false;
    return true;
}

/* add or sub of a constant whose flags nobody reads */
static bool fold_add(translation *t) {
    int32_t bytes = (int32_t)t->in.imm;
    if (bytes < -PENDING_MAX || bytes > PENDING_MAX || t->pending < -PENDING_MAX || t->pending > PENDING_MAX ||
        !flags_dead(t))
        return false;
    t->pending += t->in.reg == 5 ? -bytes : bytes;
    return true;
}

static bool fold_lea(translation *t) {
    const vx_insn *in = &t->in;
    if (in->reg != RSP || in->base != RSP || in->index >= 0 || in->address16 || in->disp < -PENDING_MAX ||
        in->disp > PENDING_MAX || t->pending < -PENDING_MAX || t->pending > PENDING_MAX)
        return false;
    t->pending += in->disp;
    return true;
}

/* The instruction in terms of the pending part of esp; false: by its rule, as any other. */
static bool fold_esp(translation *t) {
    const vx_insn *in = &t->in;
    if (in->reg != RSP && (in->is_mem || in->rm != RSP)) /* nearly all */
        return false;
    if (in->map != MAP_1 || in->operand16 || in->lock || in->rep != 0)
        return false;
    switch (in->opcode) {
    case 0x81: case 0x83: return !in->is_mem && in->rm == RSP && (in->reg == 0 || in->reg == 5) && fold_add(t);
    case 0x89: return !in->is_mem && fold_mov(t, in->rm, in->reg);
    case 0x8b: return !in->is_mem && fold_mov(t, in->reg, in->rm);
    case 0x8d: return fold_lea(t);
    default: return false;
    }
}

/* --- blocks ---------------------------------------------------------------------------------- */

/* %fs is null on i386 Linux: any access through it is a general protection fault. */
static bool uses_fs(const vx_insn *in) {
    if (in->segment != SEG_FS)
        return false;
    switch (in->op->rule) {
    case RULE_LEA: case RULE_NOP: case RULE_JCC: return false;
    case RULE_MOFFS: case RULE_STRING: case RULE_XLAT: case RULE_MASKMOV: return true;
    default: return in->is_mem;
    }
}

static void translate_insn(translation *t) {
    uint8_t *before = t->e.at;
    bool folded = fold_esp(t);
    if (!folded && t->pending != 0 && !takes_pending(t))
        settle_esp(t, 0);
    if (!folded && uses_fs(&t->in))
        emit_trap(t, VX_TRAP_PROTECTION, 0);
    else if (!folded)
        rules[t->in.op->rule](t);
    VX_CHECK((size_t)(t->e.at - before) <= VX_INSN_CODE_MAX);
}

/* False: nothing was emitted, the block has ended. */
static bool next_insn(translation *t) {
    vx_decode_result result = DECODE_OK;
    if (t->looked_ahead)
        t->in = t->ahead;
    else
        result = fetch(t, t->eip, &t->in);
    t->looked_ahead = false;
    add_mark(t, FIX_NONE);
    t->next = t->eip + (result == DECODE_OK ? t->in.length : 0);
    if (result == DECODE_OK && (t->in.op->needs & ~t->offers) == 0)
        return true;
    settle_esp(t, 0);
    emit_trap(t, result == DECODE_SHORT ? VX_TRAP_EXECUTE : VX_TRAP_ILLEGAL, 0);
    return false;
}

static vx_translate_result translate_body(translation *t, unsigned *needs) {
    for (; t->count < most_insns(t); t->count++) {
        if (t->count != 0 && cache_lookup(t->cache, t->eip) != NULL)
            break;
        if (!next_insn(t))
            return TRANSLATE_OK;
        *needs = t->in.op->needs & ~t->cache->uses;
        if (*needs != 0)
            return TRANSLATE_NEEDS;
        translate_insn(t);
        if (t->ended)
            return TRANSLATE_OK;
        t->made_return = makes_return(&t->in);
        t->eip = t->next;
    }
    add_mark(t, FIX_NONE);
    settle_esp(t, 0);
    emit_jump(t, t->eip);
    return TRANSLATE_OK;
}

static void open_block(translation *t) {
    size_t used = atomic_load(&t->cache->used), offset = (used + VX_BLOCK_ALIGN - 1) & ~(size_t)(VX_BLOCK_ALIGN - 1);
    t->start = t->cache->edit + offset;
    t->e = (vx_emit){.at = t->start, .delta = t->cache->run - t->cache->edit};
    t->block.eip = t->eip;
    t->block.start = (uint32_t)offset;
    t->block.first_mark = (uint32_t)t->cache->mark_count;
}

/* To the cache, and, where the guest may change what was read, to the pages. */
static vx_translate_result publish(translation *t, const vx_block **out) {
    vx_translate_result result = TRANSLATE_OK;
    if (t->box != NULL && !t->alone)
        result = own_guard(t->box, t->block.eip, t->reach);
    if (result != TRANSLATE_OK)
        return result;
    t->cache->mark_count += t->block.marks;
    *out = t->alone ? cache_append(t->cache, &t->block) : cache_publish(t->cache, &t->block);
    if (t->box != NULL && !t->alone)
        own_note(t->box, *out, t->reach);
    return TRANSLATE_OK;
}

static vx_translate_result close_block(translation *t, const vx_block **out) {
    add_mark(t, FIX_NONE);
    for (unsigned i = 0; i < t->exit_count; i++)
        emit_stub(t, &t->exits[i]);
    t->block.end = (uint32_t)(t->e.at - t->cache->edit);
    t->block.guest_size = (uint16_t)((t->ended ? t->next : t->eip) - t->block.eip);
    VX_CHECK(t->block.end - t->block.start <= UINT16_MAX);
    return verify_block(t->cache, &t->block) ? publish(t, out) : TRANSLATE_REFUSED;
}

static vx_translate_result translate(translation *t, const vx_block **out, unsigned *needs) {
    if (!cache_has_room(t->cache))
        return TRANSLATE_FULL;
    open_block(t);
    vx_translate_result result = translate_body(t, needs);
    return result == TRANSLATE_OK ? close_block(t, out) : result;
}

/* Not with an initialiser: most of a translation is room, which costs more to clear than many a block to translate. */
static void start(translation *t, vx_cache *cache, uint32_t eip) {
    memset(t, 0, offsetof(translation, ahead));
    t->cache = cache;
    t->eip = eip;
    t->offers = cpu_offers();
}

vx_translate_result translate_block(vx_cache *cache, const vx_plugin *plugin, uint32_t eip,
                                    const vx_block **out, unsigned *needs) {
    size_t available;
    translation t;
    start(&t, cache, eip);
    t.plugin = plugin;
    t.text = plugin_code(plugin, eip, &available);
    t.text_start = eip, t.text_size = (uint32_t)available;
    return t.text == NULL ? TRANSLATE_NOT_CODE : translate(&t, out, needs);
}

vx_translate_result translate_own(vx_sandbox *box, uint32_t eip, bool alone, const vx_block **out,
                                  unsigned *needs) {
    size_t available;
    translation t;
    start(&t, box->own->cache, eip);
    t.box = box, t.alone = alone;
    return guest_code(box, eip, &available) == NULL ? TRANSLATE_NOT_CODE : translate(&t, out, needs);
}
