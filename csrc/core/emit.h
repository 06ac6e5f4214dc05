/* Emitting x86-64 bytes.  Knows buffers and encodings, nothing of guests. */
#ifndef VX_EMIT_H
#define VX_EMIT_H

#include "base.h"

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15, NO_REG = -1 };

/* Where bytes go (`at`) and where they will run (`delta` added). */
typedef struct vx_emit {
    uint8_t *at;
    intptr_t delta;
} vx_emit;

/* Host address at which the next byte will run. */
static inline uintptr_t emit_here(const vx_emit *e) { return (uintptr_t)e->at + (uintptr_t)e->delta; }

static inline void emit_byte(vx_emit *e, unsigned byte) { *e->at++ = (uint8_t)byte; }

static inline void emit_imm(vx_emit *e, uint64_t value, unsigned size) {
    if (size == 4) /* nearly all, and a copy of a fixed size is one store */
        memcpy(e->at, &value, 4);
    else if (size == 1)
        *e->at = (uint8_t)value;
    else
        memcpy(e->at, &value, size); /* x86 is little-endian */
    e->at += size;
}

/* Where a memory operand lies: in the guest's window, which a gs override and 32-bit address size confine it to; there or
 * in a guard, where a gs override is enough, of a 32-bit register and a displacement that both guards are wider than; in
 * the state, of which it names a slot; nowhere, of lea. */
enum { SPACE_NONE, SPACE_GUEST, SPACE_NEAR, SPACE_STATE };

/* A memory operand. */
typedef struct vx_mem {
    int8_t base, index; /* host registers or NO_REG */
    uint8_t scale;
    int32_t disp;
    uint8_t disp_size; /* 0: the shortest; 1, 4: exactly so (EVEX scales one byte) */
    uint8_t space;
} vx_mem;

/* An instruction with ModRM.  A zeroed form is the plain 32-bit one. */
typedef struct vx_form {
    bool lock, operand16, wide;
    uint8_t rep;    /* 0, 0xf2, 0xf3 */
    uint8_t map;    /* MAP_* of decode.h: 0 none, 1 0f, 2 0f 38, 3 0f 3a */
    uint8_t opcode;
    uint8_t reg;    /* host register or opcode extension */
    bool is_mem;
    uint8_t rm;     /* host register when !is_mem */
    vx_mem mem;
} vx_form;

void emit_form(vx_emit *e, const vx_form *form);

/* An instruction with a VEX or EVEX prefix.  `map` is 1, 2, 3, of EVEX 5 or 6; registers are host ones; vector
 * registers, and a vector as index, are below 8. */
typedef struct vx_vector_form {
    bool evex, zero, b, plain; /* plain: without ModRM */
    uint8_t map, opcode, pp, w, l, mask;
    uint8_t vvvv, reg;
    bool is_mem;
    uint8_t rm;
    vx_mem mem;
} vx_vector_form;

void emit_vector(vx_emit *e, const vx_vector_form *form);
/* Opcode without ModRM; `reg` is added to its low bits, with REX.B when it needs it. */
void emit_plain(vx_emit *e, const vx_form *form, unsigned reg);

static inline vx_mem mem_base(int base, int32_t disp) {
    return (vx_mem){.base = (int8_t)base, .index = NO_REG, .disp = disp};
}
static inline vx_mem mem_near(int base, int32_t disp) {
    return (vx_mem){.base = (int8_t)base, .index = NO_REG, .disp = disp, .space = SPACE_NEAR};
}
static inline vx_mem mem_slot(int32_t disp) {
    return (vx_mem){.base = NO_REG, .index = NO_REG, .disp = disp, .space = SPACE_STATE};
}

/* One opcode byte, 32-bit operands. */
void emit_rr(vx_emit *e, unsigned opcode, unsigned reg, unsigned rm);
void emit_rm(vx_emit *e, unsigned opcode, unsigned reg, vx_mem mem);
/* 64-bit operands. */
void emit_rr64(vx_emit *e, unsigned opcode, unsigned reg, unsigned rm);
void emit_rm64(vx_emit *e, unsigned opcode, unsigned reg, vx_mem mem);
void emit_mov_imm(vx_emit *e, unsigned reg, uint32_t value);
/* jmp/call rel32 to a host address within 2 GiB. */
void emit_branch(vx_emit *e, unsigned opcode, uintptr_t target);
void emit_jcc(vx_emit *e, unsigned condition, uintptr_t target);
/* The recommended multi-byte nops. */
void emit_nop(vx_emit *e, unsigned size);

/* Opcodes and conditions by name, where a caller would otherwise write the number. */
enum { OP_MOV_STORE = 0x89, OP_MOV_LOAD = 0x8b, OP_LEA = 0x8d, OP_XCHG = 0x87, OP_XCHG8 = 0x86,
       OP_CMP = 0x3b, OP_CALL = 0xe8, OP_JMP = 0xe9, CC_NE = 5 };

#endif
