/* The table-driven decoder.  opcodes.def is the only place that knows an opcode; this file knows
 * the instruction format: prefixes, opcode maps, ModRM, SIB, displacement, immediate. */
#include "decode.h"

enum { P_NONE = 1, P_66 = 2, P_F3 = 4, P_F2 = 8, P_OPSIZE = 16 };
enum { RM_R = 1, RM_M = 2 };
enum { EXT_ANY = 0xff, EXT_NOMOD = 0 };
enum { IMM_0, IMM_1, IMM_2, IMM_Z, IMM_3, IMM_A, IMM_P, IMM_R };
enum { MODE_I386 = 1 };
enum { SRC = STRING_SRC, DST = STRING_DST, UD = REFUSE_UD, SEGMENT = REFUSE_SEGMENT,
       PORT = REFUSE_PORT, FAR = REFUSE_FAR, SYSTEM = REFUSE_SYSTEM, WORD_BRANCH = REFUSE_WORD_BRANCH,
       ABSENT = REFUSE_ABSENT,
       DAA = HELPER_DAA, DAS = HELPER_DAS, AAA = HELPER_AAA, AAS = HELPER_AAS, AAM = HELPER_AAM,
       AAD = HELPER_AAD, SALC = HELPER_SALC, PUSHA = HELPER_PUSHA, POPA = HELPER_POPA,
       ENTER = HELPER_ENTER, INTO = HELPER_INTO, BOUND = HELPER_BOUND, CPUID = HELPER_CPUID, XGETBV = HELPER_XGETBV,
       FROM_SEGMENT = HELPER_FROM_SEGMENT, TO_SEGMENT = HELPER_TO_SEGMENT,
       FXSAVE = HELPER_FXSAVE, FXRSTOR = HELPER_FXRSTOR, LOOP16 = HELPER_LOOP16 };

/* The short words of opcodes.def. */
#define M1 MAP_1
#define M0F MAP_0F
#define M38 MAP_0F38
#define M3A MAP_0F3A
#define PN P_NONE
#define P66 P_66
#define PF3 P_F3
#define PF2 P_F2
#define P_OS (P_NONE | P_66)
#define OSX P_OPSIZE
#define ANY EXT_ANY
#define NOMOD EXT_NOMOD
#define X(n) (1 << (n))
#define R RM_R
#define M RM_M
#define RM (RM_R | RM_M)
#define RG FORM_REG
#define RG8 FORM_REG8
#define GG FORM_RM
#define GG8 FORM_RM8
#define OR FORM_OP
#define OR8 FORM_OP8
#define LK FORM_LOCK
#define I0 IMM_0
#define I1 IMM_1
#define I2 IMM_2
#define IZ IMM_Z
#define I3 IMM_3
#define IA IMM_A
#define IP IMM_P
#define NF FLAGS_NONE
#define AF FLAGS_ALL
#define LF FLAGS_ALL
#define CF FLAG_CF
#define OF FLAG_OF
#define IF (FLAGS_ALL & ~FLAG_CF)
#define OC (FLAG_OF | FLAG_CF)
#define FX NEEDS_X87
#define FS NEEDS_SSE
#define I386 MODE_I386
/* and of vectors.def */
#define VV FORM_V
#define VG (FORM_V | FORM_VG)
#define VS FORM_VSIB
#define BC FORM_BROADCAST
#define ER FORM_ROUND
#define KM FORM_MASK
#define KZ (FORM_MASK | FORM_ZERO)
#define KR (FORM_MASK | FORM_MASKED)
#define IR IMM_R
#define W0 W_0
#define W1 W_1
#define WI W_ANY
#define WP W_PRECISION
#define L0 L_128
#define L1 L_256
#define L2 L_512
#define LV (L_128 | L_256)
#define LZ (L_128 | L_256 | L_512)
#define FV NEEDS_AVX
#define FZ (NEEDS_AVX | NEEDS_AVX512)

static const vx_op op_table[] = {
#define OP(map, first, last, prefixes, ext, rm, form, imm, reads, writes, rule, arg, needs, modes, name) \
    {map, first, last, prefixes, ext, rm, form, imm, 0, 0, reads, writes, RULE_##rule, arg, needs, modes, name},
#define VECTOR(map, first, last, pp, w, l, ext, rm, form, imm, writes, rule, needs, name)  \
    {map, first, last, pp, ext, rm, form, imm, w, l, NF, writes, RULE_##rule, 0, needs, I386, name},
#include "opcodes.def"
#include "vectors.def"
#undef VECTOR
#undef OP
};

const vx_op *vx_op_table(size_t *count) {
    *count = VX_COUNT(op_table);
    return op_table;
}

/* A dense index over everything that selects a row; 0 is a hole, else row + 1. */
typedef uint16_t op_cell;
static op_cell op_index[MAP_LEGACY_COUNT][256][4][8][2];
enum { KIND_HOLE, KIND_MODRM, KIND_PLAIN };
static uint8_t op_kind[MAP_COUNT][256];
/* More selects a vector row: the rows of an opcode are searched from the first to the last. */
static struct { op_cell first, last; } vector_rows[MAP_COUNT - MAP_LEGACY_COUNT][256];
static vx_once op_index_once = VX_ONCE_INIT;

static void claim_cell(op_cell *cell, size_t row) {
    VX_CHECK(*cell == 0); /* two rows of opcodes.def claim one opcode */
    *cell = (op_cell)(row + 1);
}

static void index_prefix(size_t row, unsigned opcode, unsigned prefix) {
    const vx_op *op = &op_table[row];
    unsigned ext_mask = op->ext == EXT_NOMOD ? EXT_ANY : op->ext;
    for (unsigned ext = 0; ext < 8; ext++)
        for (unsigned mem = 0; mem < 2; mem++)
            if ((ext_mask >> ext & 1) && (op->rm >> mem & 1))
                claim_cell(&op_index[op->map][opcode][prefix][ext][mem], row);
}

/* A row that W selects by precision, beside one mandatory prefix. */
static unsigned w_values(const vx_op *op, unsigned prefix) {
    return op->w != W_PRECISION ? op->w : prefix & 1 ? W_1 : W_0;
}

static bool both_claim(const vx_op *a, const vx_op *b) {
    bool prefix = false;
    for (unsigned pp = 0; pp < 4; pp++)
        prefix |= (a->prefixes & b->prefixes) >> pp & 1 && (w_values(a, pp) & w_values(b, pp));
    return prefix && (a->ext & b->ext) && (a->rm & b->rm) && (a->l & b->l);
}

static void index_vector(size_t row, unsigned opcode) {
    const vx_op *op = &op_table[row];
    op_cell *first = &vector_rows[op->map - MAP_LEGACY_COUNT][opcode].first;
    if (*first == 0)
        *first = (op_cell)row;
    for (size_t other = *first; other < row; other++)
        VX_CHECK(op_table[other].last < opcode || op_table[other].first > opcode || !both_claim(&op_table[other], op));
    vector_rows[op->map - MAP_LEGACY_COUNT][opcode].last = (op_cell)row;
}

static void index_row(size_t row) {
    const vx_op *op = &op_table[row];
    uint8_t kind = op->ext == EXT_NOMOD ? KIND_PLAIN : KIND_MODRM;
    for (unsigned opcode = op->first; opcode <= op->last; opcode++) {
        VX_CHECK(op_kind[op->map][opcode] == KIND_HOLE || op_kind[op->map][opcode] == kind);
        op_kind[op->map][opcode] = kind;
        if (op->map >= MAP_LEGACY_COUNT)
            index_vector(row, opcode);
        else
            for (unsigned prefix = 0; prefix < 4; prefix++)
                if (op->prefixes >> prefix & 1)
                    index_prefix(row, opcode, prefix);
    }
}

static void build_index(void) {
    for (size_t row = 0; row < VX_COUNT(op_table); row++)
        index_row(row);
}

/* The one reader: it ends at the buffer and at 15 bytes. */
typedef struct reader {
    const uint8_t *bytes;
    size_t at, end;
    bool ran_out;
} reader;

static uint8_t read_byte(reader *r) {
    if (r->at >= r->end) {
        r->ran_out = true;
        return 0;
    }
    return r->bytes[r->at++];
}

static uint32_t read_bytes(reader *r, unsigned size) {
    uint32_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= (uint32_t)read_byte(r) << (8 * i);
    return value;
}

static int32_t read_signed(reader *r, unsigned size) {
    uint32_t value = read_bytes(r, size);
    return size == 1 ? (int8_t)value : size == 2 ? (int16_t)value : (int32_t)value;
}

static bool set_segment(vx_insn *in, uint8_t segment) {
    if (in->segment != SEG_NONE && in->segment != segment)
        return false;
    in->segment = segment;
    return true;
}

static bool set_rep(vx_insn *in, uint8_t rep) {
    if (in->rep != 0 && in->rep != rep)
        return false;
    in->rep = rep;
    return true;
}

/* Conflicting prefixes of one group are refused: processors disagree about them. */
static bool take_prefix(vx_insn *in, uint8_t byte) {
    switch (byte) {
    case 0x66: return in->operand16 = true;
    case 0x67: return in->address16 = true;
    case 0xf0: return in->lock = true;
    case 0xf2: case 0xf3: return set_rep(in, byte);
    case 0x26: case 0x2e: case 0x36: case 0x3e: return set_segment(in, SEG_FLAT);
    case 0x64: return set_segment(in, SEG_FS);
    case 0x65: return set_segment(in, SEG_GS);
    default: VX_CHECK(!"a prefix that is_prefix knows and take_prefix does not"); return false;
    }
}

/* Bit by bit the bytes of take_prefix: most instructions have none. */
static bool is_prefix(uint8_t byte) {
    static const uint64_t bytes[4] = {1ull << 0x26 | 1ull << 0x2e | 1ull << 0x36 | 1ull << 0x3e, 0xfull << (0x64 - 0x40), 0,
                                      1ull << (0xf0 - 0xc0) | 3ull << (0xf2 - 0xc0)};
    return bytes[byte / 64] >> byte % 64 & 1;
}

/* At the buffer's end a byte reads as 0, which is none. */
static bool read_prefixes(reader *r, vx_insn *in) {
    for (;;) {
        uint8_t byte = read_byte(r);
        if (!is_prefix(byte)) {
            in->opcode = byte;
            return true;
        }
        if (!take_prefix(in, byte))
            return false;
    }
}

static void read_legacy_opcode(reader *r, vx_insn *in) {
    in->map = MAP_1;
    if (in->opcode != 0x0f)
        return;
    in->map = MAP_0F;
    in->opcode = read_byte(r);
    if (in->opcode != 0x38 && in->opcode != 0x3a)
        return;
    in->map = in->opcode == 0x38 ? MAP_0F38 : MAP_0F3A;
    in->opcode = read_byte(r);
}

/* In 32-bit mode these are les, lds and bound when a memory operand follows. */
static bool starts_vector(const reader *r, uint8_t byte) {
    return (byte == 0xc4 || byte == 0xc5 || byte == 0x62) && r->at < r->end && r->bytes[r->at] >= 0xc0;
}

/* The byte with vvvv and pp, which VEX and EVEX share. */
static void read_vvvv(vx_insn *in, uint8_t byte) {
    in->vvvv = ~byte >> 3 & 15;
    in->pp = byte & 3;
    in->l = byte >> 2 & 1;
}

static bool set_map(vx_insn *in, unsigned first, unsigned last, unsigned map) {
    in->map = (uint8_t)(first + map - 1);
    return map >= 1 && in->map <= last;
}

/* Intel SDM volume 2, 2.3.5 and 2.7.1.  The bits that would name registers above 7 are ignored in
 * 32-bit mode, so they are dropped here; vvvv keeps all four until it is known to be used.  Of V', the
 * fifth of vvvv, processors differ: with it clear Intel's fault, as all do here; AMD's ignore it. */
static bool read_vector_opcode(reader *r, vx_insn *in) {
    uint8_t kind = in->opcode, first = read_byte(r), second = kind == 0xc5 ? first : read_byte(r), third = 0;
    bool known = set_map(in, MAP_VEX_0F, MAP_VEX_0F3A, kind == 0xc5 ? 1 : first & 31);
    read_vvvv(in, second);
    in->w = kind == 0xc5 ? 0 : second >> 7;
    if (kind == 0x62) {
        third = read_byte(r);
        known = set_map(in, MAP_EVEX_0F, MAP_EVEX_6, first & 7) && (first & 8) == 0 && (second & 4) != 0 && (third & 8) != 0;
        in->l = third >> 5 & 3;
        in->zero = third >> 7, in->b = third >> 4 & 1, in->mask = third & 7;
    }
    in->vector = true;
    in->opcode = read_byte(r);
    return known && !in->operand16 && in->rep == 0 && !in->lock;
}

static bool read_opcode(reader *r, vx_insn *in) {
    if (starts_vector(r, in->opcode))
        return read_vector_opcode(r, in);
    read_legacy_opcode(r, in);
    return true;
}

static void read_displacement(reader *r, vx_insn *in, unsigned size) {
    in->disp = read_signed(r, size);
    in->disp_size = (uint8_t)size;
}

static void read_sib(reader *r, vx_insn *in, unsigned mod) {
    uint8_t sib = read_byte(r);
    in->scale = sib >> 6;
    in->index = (sib >> 3 & 7) == 4 ? -1 : (int8_t)(sib >> 3 & 7);
    in->base = (int8_t)(sib & 7);
    if (in->base == 5 && mod == 0) {
        in->base = -1;
        read_displacement(r, in, 4);
    }
}

static void read_ea32(reader *r, vx_insn *in, unsigned mod) {
    in->base = (int8_t)in->rm;
    if (in->rm == 4) {
        read_sib(r, in, mod);
    } else if (in->rm == 5 && mod == 0) {
        in->base = -1;
        read_displacement(r, in, 4);
    }
    if (mod != 0)
        read_displacement(r, in, mod == 1 ? 1 : 4);
}

static void read_ea16(reader *r, vx_insn *in, unsigned mod) {
    /* Intel SDM volume 2, table 2-1: bx+si bx+di bp+si bp+di si di bp bx */
    static const int8_t bases[8] = {3, 3, 5, 5, 6, 7, 5, 3};
    static const int8_t indexes[8] = {6, 7, 6, 7, -1, -1, -1, -1};
    in->base = bases[in->rm];
    in->index = indexes[in->rm];
    if (in->rm == 6 && mod == 0) {
        in->base = -1;
        read_displacement(r, in, 2);
    } else if (mod != 0) {
        read_displacement(r, in, mod == 1 ? 1 : 2);
    }
}

static void read_modrm(reader *r, vx_insn *in) {
    uint8_t modrm = read_byte(r);
    unsigned mod = modrm >> 6;
    in->has_modrm = true;
    in->reg = modrm >> 3 & 7;
    in->rm = modrm & 7;
    in->is_mem = mod != 3;
    if (!in->is_mem)
        return;
    if (in->address16)
        read_ea16(r, in, mod);
    else
        read_ea32(r, in, mod);
}

static void read_immediate(reader *r, vx_insn *in) {
    static const uint8_t sizes[] = {[IMM_0] = 0, [IMM_1] = 1, [IMM_2] = 2, [IMM_3] = 2, [IMM_R] = 1};
    unsigned kind = in->op->imm;
    switch (kind) {
    case IMM_Z: in->imm_size = in->operand16 ? 2 : 4; break;
    case IMM_A: in->imm_size = in->address16 ? 2 : 4; break;
    case IMM_P: in->imm_size = in->operand16 ? 2 : 4; break;
    default: in->imm_size = sizes[kind];
    }
    in->imm = in->imm_size == 1 ? (uint32_t)read_signed(r, 1) : read_bytes(r, in->imm_size);
    if (kind == IMM_R)
        in->imm &= 0x7f; /* the top bit, ignored here, names register 8 and up in 64-bit mode */
    if (kind == IMM_3)
        in->imm2 = read_byte(r);
    if (kind == IMM_P)
        (void)read_bytes(r, 2);
}

static unsigned prefix_index(const vx_insn *in) {
    return in->rep == 0xf2 ? 3 : in->rep == 0xf3 ? 2 : in->operand16 ? 1 : 0;
}

static const vx_op *find_row(const vx_insn *in) {
    op_cell cell = op_index[in->map][in->opcode][prefix_index(in)][in->reg][in->is_mem];
    return cell == 0 ? NULL : &op_table[cell - 1];
}

static bool row_allows(const vx_insn *in) {
    if (in->rep != 0 && in->operand16 && !(in->op->prefixes & P_OPSIZE))
        return false;
    return !in->lock || ((in->op->form & FORM_LOCK) && in->is_mem);
}

static bool fits_vector_row(const vx_op *op, const vx_insn *in) {
    /* On registers EVEX.b takes the length's place for a rounding mode, and the length is the longest. */
    unsigned length = in->b && !in->is_mem ? 2 : in->l;
    return in->opcode >= op->first && in->opcode <= op->last && (op->prefixes >> in->pp & 1) &&
           (w_values(op, in->pp) >> in->w & 1) && (op->l >> length & 1) && (op->rm >> in->is_mem & 1) &&
           (op->ext == EXT_NOMOD || (op->ext >> in->reg & 1));
}

static const vx_op *find_vector_row(const vx_insn *in) {
    unsigned map = in->map - MAP_LEGACY_COUNT;
    for (unsigned row = vector_rows[map][in->opcode].first; row <= vector_rows[map][in->opcode].last; row++)
        if (fits_vector_row(&op_table[row], in))
            return &op_table[row];
    return NULL;
}

static bool has_form(const vx_insn *in, unsigned form) { return in->op->form & form; }

/* What the row says of vvvv, masks, broadcasts and vector indexes; the processor faults otherwise. */
static bool vector_row_allows(vx_insn *in) {
    if ((in->vvvv != 0 && !has_form(in, FORM_V)) || (in->mask != 0 && !has_form(in, FORM_MASK)) ||
        (in->mask == 0 && (in->zero || has_form(in, FORM_MASKED))) || (in->zero && !has_form(in, FORM_ZERO)) ||
        (in->b && !has_form(in, in->is_mem ? FORM_BROADCAST : FORM_ROUND)))
        return false;
    in->vvvv &= 7;
    if (!has_form(in, FORM_VSIB))
        return true;
    in->index = in->index < 0 ? 4 : in->index; /* there is a vector of that number */
    return !in->address16 && in->rm == 4;
}

static vx_decode_result finish(const reader *r, vx_insn *in, bool valid) {
    in->length = (uint8_t)r->at;
    if (r->ran_out)
        return r->end == VX_INSN_MAX ? DECODE_INVALID : DECODE_SHORT;
    return valid ? DECODE_OK : DECODE_INVALID;
}

void vx_decode_prepare(void) { vx_run_once(&op_index_once, build_index); }

vx_decode_result vx_decode(const uint8_t *bytes, size_t available, vx_insn *in) {
    vx_decode_prepare();
    *in = (vx_insn){.base = -1, .index = -1};
    reader r = {.bytes = bytes, .end = available < VX_INSN_MAX ? available : VX_INSN_MAX};
    if (!read_prefixes(&r, in))
        return finish(&r, in, false);
    if (!read_opcode(&r, in) || r.ran_out || op_kind[in->map][in->opcode] == KIND_HOLE)
        return finish(&r, in, false);
    if (op_kind[in->map][in->opcode] == KIND_MODRM)
        read_modrm(&r, in);
    in->op = in->vector ? find_vector_row(in) : find_row(in);
    if (in->op == NULL)
        return finish(&r, in, false);
    read_immediate(&r, in);
    return finish(&r, in, in->vector ? vector_row_allows(in) : row_allows(in));
}
