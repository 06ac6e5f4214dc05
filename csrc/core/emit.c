#include "emit.h"

static void emit_segment(vx_emit *e, const vx_mem *m) {
    if (m->space != SPACE_NONE)
        emit_byte(e, 0x65);
    if (m->space == SPACE_GUEST)
        emit_byte(e, 0x67);
}

static void emit_prefixes(vx_emit *e, const vx_form *f) {
    if (f->lock)
        emit_byte(e, 0xf0);
    if (f->operand16)
        emit_byte(e, 0x66);
    if (f->rep)
        emit_byte(e, f->rep);
    if (f->is_mem)
        emit_segment(e, &f->mem);
}

static void emit_opcode(vx_emit *e, const vx_form *f, unsigned low_bits) {
    if (f->map != 0)
        emit_byte(e, 0x0f);
    if (f->map >= 2)
        emit_byte(e, f->map == 2 ? 0x38 : 0x3a);
    emit_byte(e, f->opcode | low_bits);
}

static unsigned rex_bits(const vx_form *f) {
    unsigned rex = f->wide ? 8 : 0;
    rex |= f->reg >= 8 ? 4 : 0;
    if (!f->is_mem)
        return rex | (f->rm >= 8 ? 1 : 0);
    return rex | (f->mem.index >= 8 ? 2 : 0) | (f->mem.base >= 8 ? 1 : 0);
}

static void emit_sib(vx_emit *e, const vx_mem *m) {
    unsigned index = m->index == NO_REG ? 4 : (unsigned)m->index & 7;
    unsigned base = m->base == NO_REG ? 5 : (unsigned)m->base & 7;
    emit_byte(e, (unsigned)m->scale << 6 | index << 3 | base);
}

/* No base always goes through SIB: without it the encoding means RIP-relative in 64-bit mode. */
static void emit_address(vx_emit *e, unsigned reg, const vx_mem *m) {
    unsigned field = (reg & 7) << 3;
    bool sib = m->base == NO_REG || m->index != NO_REG || (m->base & 7) == RSP;
    unsigned rm = sib ? 4 : (unsigned)m->base & 7;
    if (m->base == NO_REG) {
        emit_byte(e, field | rm);
        emit_sib(e, m);
        emit_imm(e, (uint32_t)m->disp, 4);
        return;
    }
    bool none = m->disp == 0 && (m->base & 7) != RBP;
    bool small = m->disp_size == 0 ? m->disp == (int8_t)m->disp : m->disp_size == 1;
    emit_byte(e, (none ? 0u : small ? 0x40u : 0x80u) | field | rm);
    if (sib)
        emit_sib(e, m);
    if (!none)
        emit_imm(e, (uint32_t)m->disp, small ? 1 : 4);
}

void emit_form(vx_emit *e, const vx_form *f) {
    emit_prefixes(e, f);
    unsigned rex = rex_bits(f);
    if (rex)
        emit_byte(e, 0x40 | rex);
    emit_opcode(e, f, 0);
    if (f->is_mem)
        emit_address(e, f->reg, &f->mem);
    else
        emit_byte(e, 0xc0u | (f->reg & 7u) << 3 | (f->rm & 7u));
}

void emit_plain(vx_emit *e, const vx_form *f, unsigned reg) {
    emit_prefixes(e, f);
    unsigned rex = (f->wide ? 8 : 0) | (reg >= 8 ? 1 : 0);
    if (rex)
        emit_byte(e, 0x40 | rex);
    emit_opcode(e, f, reg & 7);
}

/* Register numbers above 7 are extended by inverted bits (Intel SDM volume 2, 2.3.5 and 2.7.1); an
 * index above 7 occurs with none. */
static void emit_vector_prefix(vx_emit *e, const vx_vector_form *f) {
    unsigned high_rm = f->is_mem ? f->mem.base >= 8 : f->rm >= 8;
    unsigned extensions = (f->reg >= 8 ? 0u : 0x80u) | 0x40 | (high_rm ? 0u : 0x20u);
    unsigned vvvv = (~(unsigned)f->vvvv & 15) << 3;
    if (f->evex) {
        emit_byte(e, 0x62), emit_byte(e, extensions | 0x10 | f->map);
        emit_byte(e, (unsigned)f->w << 7 | vvvv | 4 | f->pp);
        emit_byte(e, (f->zero ? 0x80u : 0u) | (unsigned)f->l << 5 | (f->b ? 0x10u : 0u) | 8 | f->mask);
    } else if (f->map == 1 && f->w == 0 && !high_rm) {
        emit_byte(e, 0xc5), emit_byte(e, (extensions & 0x80) | vvvv | (unsigned)f->l << 2 | f->pp);
    } else {
        emit_byte(e, 0xc4), emit_byte(e, extensions | f->map);
        emit_byte(e, (unsigned)f->w << 7 | vvvv | (unsigned)f->l << 2 | f->pp);
    }
}

void emit_vector(vx_emit *e, const vx_vector_form *f) {
    if (f->is_mem)
        emit_segment(e, &f->mem);
    emit_vector_prefix(e, f);
    emit_byte(e, f->opcode);
    if (f->is_mem)
        emit_address(e, f->reg, &f->mem);
    else if (!f->plain)
        emit_byte(e, 0xc0u | (f->reg & 7u) << 3 | (f->rm & 7u));
}

void emit_rr(vx_emit *e, unsigned opcode, unsigned reg, unsigned rm) {
    emit_form(e, &(vx_form){.opcode = (uint8_t)opcode, .reg = (uint8_t)reg, .rm = (uint8_t)rm});
}

void emit_rm(vx_emit *e, unsigned opcode, unsigned reg, vx_mem mem) {
    emit_form(e, &(vx_form){.opcode = (uint8_t)opcode, .reg = (uint8_t)reg, .is_mem = true, .mem = mem});
}

void emit_rr64(vx_emit *e, unsigned opcode, unsigned reg, unsigned rm) {
    emit_form(e, &(vx_form){.wide = true, .opcode = (uint8_t)opcode, .reg = (uint8_t)reg,
                            .rm = (uint8_t)rm});
}

void emit_rm64(vx_emit *e, unsigned opcode, unsigned reg, vx_mem mem) {
    emit_form(e, &(vx_form){.wide = true, .opcode = (uint8_t)opcode, .reg = (uint8_t)reg,
                            .is_mem = true, .mem = mem});
}

void emit_mov_imm(vx_emit *e, unsigned reg, uint32_t value) {
    emit_plain(e, &(vx_form){.opcode = 0xb8}, reg);
    emit_imm(e, value, 4);
}

static void emit_relative(vx_emit *e, uintptr_t target) {
    intptr_t distance = (intptr_t)(target - (emit_here(e) + 4));
    VX_CHECK(distance == (int32_t)distance);
    emit_imm(e, (uint32_t)distance, 4);
}

void emit_branch(vx_emit *e, unsigned opcode, uintptr_t target) {
    emit_byte(e, opcode);
    emit_relative(e, target);
}

void emit_jcc(vx_emit *e, unsigned condition, uintptr_t target) {
    emit_byte(e, 0x0f);
    emit_byte(e, 0x80 | condition);
    emit_relative(e, target);
}

void emit_nop(vx_emit *e, unsigned size) {
    /* Intel SDM volume 2, NOP, table 4-12 */
    static const uint8_t nops[4][4] = {
        {0x90}, {0x66, 0x90}, {0x0f, 0x1f, 0x00}, {0x0f, 0x1f, 0x40, 0x00}};
    VX_CHECK(size <= 4);
    if (size != 0)
        memcpy(e->at, nops[size - 1], size);
    e->at += size;
}
