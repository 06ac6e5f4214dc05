/* The decoder alone, on the instructions of an input one after the other.
 *
 * Every instruction is decoded from a buffer that ends where it ends, so that AddressSanitizer sees a byte
 * read too many.  Against disassemblers the decoder is compared in tests/insn; these are the rules it keeps
 * by itself. */
#include "fuzz.h"

static vx_decode_result decode_exactly(const uint8_t *bytes, size_t size, vx_insn *in) {
    uint8_t *exact = malloc(size == 0 ? 1 : size);
    if (size != 0)
        memcpy(exact, bytes, size);
    memset(in, 0xa5, sizeof *in); /* nothing of the caller's may shine through */
    vx_decode_result result = vx_decode(exact, size, in);
    free(exact);
    return result;
}

static bool same(const vx_insn *a, const vx_insn *b) {
    return a->op == b->op && a->length == b->length && a->map == b->map && a->opcode == b->opcode &&
           a->operand16 == b->operand16 && a->address16 == b->address16 && a->lock == b->lock && a->rep == b->rep &&
           a->segment == b->segment && a->has_modrm == b->has_modrm && a->is_mem == b->is_mem && a->reg == b->reg &&
           a->rm == b->rm && a->base == b->base && a->index == b->index && a->scale == b->scale &&
           a->disp == b->disp && a->imm_size == b->imm_size && a->imm == b->imm && a->imm2 == b->imm2;
}

static void check_fields(const vx_insn *in) {
    size_t rows;
    const vx_op *table = vx_op_table(&rows);
    REQUIRE(in->op >= table && in->op < table + rows);
    REQUIRE(in->length >= 1 && in->length <= VX_INSN_MAX);
    REQUIRE(in->map == in->op->map && in->opcode >= in->op->first && in->opcode <= in->op->last);
    REQUIRE(in->segment <= SEG_GS && (in->rep == 0 || in->rep == 0xf2 || in->rep == 0xf3));
    REQUIRE(in->reg < 8 && in->rm < 8 && in->scale < 4);
    REQUIRE(in->base >= -1 && in->base < 8 && in->index >= -1 && in->index < 8);
    REQUIRE(in->index != 4 || (in->op->form & FORM_VSIB)); /* esp is no index */
    REQUIRE(in->imm_size <= 4 && in->imm_size != 3 && in->imm_size < in->length);
    REQUIRE(!in->lock || (in->is_mem && (in->op->form & FORM_LOCK)));
    REQUIRE(!in->is_mem || in->has_modrm);
}

/* An instruction needs each of its bytes, and looks at none behind them. */
static void check_length(const uint8_t *bytes, const vx_insn *in) {
    vx_insn shorter, longer;
    uint8_t padded[VX_INSN_MAX + 1];
    for (size_t size = 0; size < in->length; size++)
        REQUIRE(decode_exactly(bytes, size, &shorter) == DECODE_SHORT);
    memset(padded, bytes[in->length - 1] ^ 0xff, sizeof padded);
    memcpy(padded, bytes, in->length);
    REQUIRE(decode_exactly(bytes, in->length, &shorter) == DECODE_OK && same(in, &shorter));
    REQUIRE(decode_exactly(padded, sizeof padded, &longer) == DECODE_OK && same(in, &longer));
}

/* What is invalid stays so whatever follows. */
static void check_invalid(const uint8_t *bytes, size_t size) {
    vx_insn in;
    uint8_t padded[2 * VX_INSN_MAX] = {0};
    memcpy(padded, bytes, size < VX_INSN_MAX ? size : VX_INSN_MAX);
    REQUIRE(decode_exactly(padded, sizeof padded, &in) == DECODE_INVALID);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    for (size_t at = 0; at < size;) {
        vx_insn in;
        size_t available = size - at;
        vx_decode_result result = decode_exactly(data + at, available, &in);
        REQUIRE(in.length <= VX_INSN_MAX && in.length <= available);
        if (result == DECODE_OK) {
            check_fields(&in);
            check_length(data + at, &in);
        } else if (result == DECODE_INVALID) {
            check_invalid(data + at, available);
        } else {
            REQUIRE(result == DECODE_SHORT && available < VX_INSN_MAX);
        }
        at += result == DECODE_OK ? in.length : 1;
    }
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    return grammar_mutate(data, size, max_size, 0, seed);
}
