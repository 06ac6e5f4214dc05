/* The table of instruction forms the generator draws from, parsed from forms.def and vector_forms.def. */
#ifndef INSN_FORMS_H
#define INSN_FORMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Register file that a ModRM field names. */
enum bank { BANK_NONE, BANK_GPR, BANK_MMX, BANK_XMM };

/* What has to hold before the instruction for it to do something worth seeing. */
enum hook {
    HOOK_NONE,
    HOOK_STACK,    /* esp in the stack page */
    HOOK_ENTER,    /* ebp in the stack page as well */
    HOOK_STRING,   /* esi, edi in the data pages, ecx a count; rep is drawn */
    HOOK_XLAT,     /* ebx near the data pages */
    HOOK_DIVIDE,   /* edx:eax small, most of the time */
    HOOK_BITS,     /* a bit offset that stays near the operand */
    HOOK_MASKMOV,  /* edi in the data pages */
    HOOK_CMPXCHG,  /* eax often equal to what is compared */
    HOOK_MXCSR,    /* the memory operand holds a valid MXCSR, most of the time */
    HOOK_POPF,     /* the popped word holds no TF, NT or AC */
    HOOK_ENV,      /* writes the x87 environment: instruction pointers are scrubbed after it */
    HOOK_FXSAVE,   /* likewise, FXSAVE layout */
    HOOK_FXRSTOR,  /* the memory operand was written by fxsave, most of the time */
    HOOK_FRSTOR,   /* the memory operand was written by fnsave, most of the time */
};

enum {
    ATTR_LOCK = 1,         /* lock is allowed with a memory operand */
    ATTR_PRIVILEGED = 2,   /* general protection natively; the sandbox may name it better */
    ATTR_REP_CMP = 4,      /* repe and repne mean different things */
    ATTR_RARE = 8,         /* drawn seldom: it always ends the sequence */
};

struct operand {
    enum bank bank;
    bool reg, mem;       /* what the r/m field may be */
    bool sized;          /* follows the operand-size prefix: 2 or 4 bytes */
    uint16_t size;       /* bytes in memory, or of the register */
    bool aligned;        /* faults when the address is no multiple of the size */
};

/* What a VEX or EVEX row says (vectors.py); legacy ones have kind 0. */
enum {
    VECTOR_VVVV = 1, VECTOR_VSIB = 2,   /* vvvv is a register; the index is a vector */
    VECTOR_ROUND = 4,                   /* EVEX.b on registers */
    VECTOR_MASK = 8, VECTOR_MASKED = 16, VECTOR_ZERO = 32,
    VECTOR_ANY_W = 64, VECTOR_ANY_L = 128,
};

struct vector {
    uint8_t kind;            /* 1 VEX, 2 EVEX */
    uint8_t map, pp, w, l;
    uint8_t element;         /* bytes of a broadcast element, 0 if none */
    unsigned attributes;
};

struct form {
    const char *name;
    uint8_t opcode[4];       /* mandatory prefix apart */
    uint8_t opcode_size;
    uint8_t mandatory;       /* 0, 0x66, 0xf2 or 0xf3 */
    bool modrm, digit_fixed; /* digit_fixed: the reg field extends the opcode */
    uint8_t digit;
    bool plus_register;      /* the opcode's low three bits name a general register */
    bool plus_condition;     /* the opcode's low four bits are a condition */
    bool plus_stack;         /* the low three bits of the second opcode byte are an x87 register */
    bool sized;              /* an operand-size prefix is drawn */
    char immediate;          /* 0, 'b', 'w', 'd', 'z' (2 or 4 by operand size), 'm' (moffs) */
    uint8_t immediates;      /* `enter` has a word and a byte */
    struct operand rm, reg;
    uint32_t reads, writes, undefined; /* eflags bits */
    uint8_t kills;           /* registers written without being named, by encoding number */
    bool destination_rm;     /* the first operand, which is written, is the r/m one */
    enum hook hook;
    unsigned attributes;
    struct vector vector;
};

/* Parses the table; a row that does not parse ends the program, naming it. */
const struct form *forms(size_t *count);
/* How many of them, at the end, are VEX and EVEX ones. */
size_t vector_forms(void);

#endif
