/* Decoding i386 instructions: a pure function over opcodes.def. */
#ifndef VX_DECODE_H
#define VX_DECODE_H

#include "base.h"

/* What the translator does with an instruction; translate.c has one function for each. */
typedef enum vx_rule {
    RULE_COPY,       /* same opcode, operands mapped */
    RULE_COPY_AS,    /* the same under another opcode byte (arg) */
    RULE_VECTOR,     /* VEX and EVEX: same opcode, operands mapped */
    RULE_SHORT_INC,  /* 40-4f became REX prefixes */
    RULE_PUSH_REG, RULE_PUSH_IMM, RULE_PUSH_RM, RULE_POP_REG, RULE_POP_RM,
    RULE_PUSHF, RULE_POPF, RULE_LEAVE,
    RULE_LEA, RULE_MOFFS, RULE_XLAT, RULE_MASKMOV,
    RULE_BIT_STRING, /* bt family with a register offset: may reach far from its address */
    RULE_STRING,     /* arg: STRING_SRC, STRING_DST */
    RULE_FNSTENV,    /* stores host instruction pointers: wiped */
    RULE_NOP, RULE_PAUSE,
    RULE_JCC, RULE_LOOP, RULE_JMP_REL, RULE_JMP_IND, RULE_CALL_REL, RULE_CALL_IND, RULE_RET,
    RULE_INT3, RULE_INT,
    RULE_HELPER,     /* arg: vx_helper; leaves to C */
    RULE_REFUSE,     /* arg: vx_refusal */
} vx_rule;

/* Instructions done in C (helper.c). */
typedef enum vx_helper {
    HELPER_DAA, HELPER_DAS, HELPER_AAA, HELPER_AAS, HELPER_AAM, HELPER_AAD, HELPER_SALC,
    HELPER_PUSHA, HELPER_POPA, HELPER_ENTER, HELPER_INTO, HELPER_BOUND, HELPER_CPUID, HELPER_XGETBV,
    HELPER_FROM_SEGMENT, HELPER_TO_SEGMENT, HELPER_FXSAVE, HELPER_FXRSTOR,
    HELPER_LOOP16, /* of rows that are RULE_LOOP, beside an address-size prefix */
} vx_helper;

/* Why a known instruction is refused: from REFUSE_UD on as one that the processor does not have. */
typedef enum vx_refusal {
    REFUSE_SEGMENT, REFUSE_PORT, REFUSE_FAR, REFUSE_SYSTEM,
    REFUSE_UD,
    REFUSE_WORD_BRANCH, /* cuts eip to 16 bits, where nothing is mapped */
    REFUSE_ABSENT,      /* cpuid does not offer it */
} vx_refusal;

enum { STRING_SRC = 1, STRING_DST = 2 };

/* vx_op.form */
enum {
    FORM_REG = 1, FORM_REG8 = 2,  /* ModRM.reg is a general register */
    FORM_RM = 4, FORM_RM8 = 8,    /* ModRM.rm, when a register, is one */
    FORM_OP = 16, FORM_OP8 = 32,  /* the opcode's low bits are one */
    FORM_LOCK = 64,
    /* VEX and EVEX */
    FORM_V = 128, FORM_VG = 256,  /* vvvv names a register; a general one */
    FORM_VSIB = 512,              /* the index is a vector */
    FORM_BROADCAST = 1024,        /* EVEX.b on memory; on registers it needs FORM_ROUND */
    FORM_ROUND = 2048,            /* embedded rounding, or exceptions suppressed */
    FORM_MASK = 4096, FORM_ZERO = 8192, FORM_MASKED = 16384, /* may, may zeroing, must be masked */
};

/* vx_op.needs: parts of the processor state outside the integer registers.  AVX512 is the upper
 * halves of zmm0-7 and the mask registers. */
enum { NEEDS_X87 = 1, NEEDS_SSE = 2, NEEDS_AVX = 4, NEEDS_AVX512 = 8 };

enum { FLAGS_NONE = 0, FLAG_CF = 0x001, FLAG_PF = 0x004, FLAG_AF = 0x010, FLAG_ZF = 0x040,
       FLAG_SF = 0x080, FLAG_DF = 0x400, FLAG_OF = 0x800, FLAGS_ALL = 0x8d5 };

/* vx_op.w and vx_op.l, of vector rows: which values of W and of the vector length. */
enum { W_0 = 1, W_1 = 2, W_ANY = 3, W_PRECISION = 4 /* 1 beside 66 or f2, else 0 */ };
enum { L_128 = 1, L_256 = 2, L_512 = 4 };

typedef struct vx_op {
    uint8_t map, first, last, prefixes, ext, rm;
    uint16_t form;
    uint8_t imm, w, l;
    uint16_t reads, writes;
    uint8_t rule, arg, needs, modes;
    const char *name;
} vx_op;

/* The vector maps are in the order of the legacy ones that share their opcode bytes. */
enum { MAP_1, MAP_0F, MAP_0F38, MAP_0F3A, MAP_LEGACY_COUNT,
       MAP_VEX_0F = MAP_LEGACY_COUNT, MAP_VEX_0F38, MAP_VEX_0F3A,
       MAP_EVEX_0F, MAP_EVEX_0F38, MAP_EVEX_0F3A, MAP_EVEX_4 /* empty */, MAP_EVEX_5, MAP_EVEX_6, MAP_COUNT };
enum { SEG_NONE, SEG_FLAT, SEG_FS, SEG_GS }; /* flat: es, cs, ss, ds */

/* One decoded instruction.  Registers are guest numbers; -1 is absent. */
typedef struct vx_insn {
    const vx_op *op;
    uint8_t length;
    uint8_t map, opcode;
    bool operand16, address16, lock;
    uint8_t rep;     /* 0, 0xf2 or 0xf3 */
    uint8_t segment; /* SEG_* */
    bool vector;     /* the map is a VEX or EVEX one; only then: */
    uint8_t pp, w, l, vvvv; /* mandatory prefix as in VEX, vector length as written */
    uint8_t mask;    /* EVEX.aaa */
    bool zero, b;    /* EVEX.z, EVEX.b */
    bool has_modrm, is_mem;
    uint8_t reg, rm; /* ModRM fields; rm as a register number when !is_mem */
    int8_t base, index;
    uint8_t scale; /* 0..3 */
    int32_t disp;      /* EVEX scales one byte by the operand's size; here it is as written */
    uint8_t disp_size; /* 0, 1, 2 or 4 */
    uint8_t imm_size;
    uint32_t imm;  /* sign-extended when one byte */
    uint8_t imm2;  /* of enter */
} vx_insn;

typedef enum vx_decode_result {
    DECODE_OK,
    DECODE_INVALID,  /* no row, or a combination the table does not allow */
    DECODE_SHORT,    /* the instruction continues past `available` bytes */
} vx_decode_result;

#define VX_INSN_MAX 15

/* Decodes at most `available` bytes.  Reads no more than VX_INSN_MAX. */
/* Makes the tables that decoding needs, which it does itself when it first does. */
void vx_decode_prepare(void);
vx_decode_result vx_decode(const uint8_t *bytes, size_t available, vx_insn *out);

/* The table itself, for tools and tests. */
const vx_op *vx_op_table(size_t *count);

#endif
