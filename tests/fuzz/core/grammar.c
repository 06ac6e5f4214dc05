/* Instruction streams for the harnesses that eat code: instructions are drawn from the decoder's own table,
 * so that every row is met, and mutations insert, replace, drop and swap whole ones. */
#include "fuzz.h"

enum { TRIES = 8, TAIL = 12 };

static bool one_in(fuzz_random *r, uint32_t n) { return fuzz_below(r, n) == 0; }

/* --- one instruction ----------------------------------------------------------------------------- */

static size_t put_prefixes(fuzz_random *r, uint8_t *out) {
    static const uint8_t prefixes[] = {0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};
    static const uint8_t mandatory[] = {0x66, 0xf2, 0xf3};
    size_t size = 0;
    while (size < 4 && one_in(r, size == 0 ? 4 : 3))
        out[size++] = prefixes[fuzz_below(r, VX_COUNT(prefixes))];
    if (one_in(r, 2))
        out[size++] = mandatory[fuzz_below(r, VX_COUNT(mandatory))];
    return size;
}

static size_t put_opcode(fuzz_random *r, const vx_op *op, uint8_t *out) {
    size_t size = 0;
    if (op->map != MAP_1)
        out[size++] = 0x0f;
    if (op->map == MAP_0F38)
        out[size++] = 0x38;
    if (op->map == MAP_0F3A)
        out[size++] = 0x3a;
    out[size++] = (uint8_t)(op->first + fuzz_below(r, op->last - op->first + 1u));
    return size;
}

/* C5, C4 and 62 and the bytes of VEX and EVEX behind them. */
static size_t put_vector(fuzz_random *r, uint8_t *out) {
    static const uint8_t lead[] = {0xc5, 0xc4, 0x62};
    unsigned kind = fuzz_below(r, VX_COUNT(lead));
    size_t size = 0;
    out[size++] = lead[kind];
    for (unsigned i = 0; i <= kind; i++)
        out[size++] = (uint8_t)(fuzz_next(r) >> 8);
    if (kind == 1)
        out[1] = (uint8_t)((out[1] & 0xe0) | (1 + fuzz_below(r, 3)));
    out[size++] = (uint8_t)(fuzz_next(r) >> 8);
    return size;
}

/* ModRM, SIB, displacement and immediate: the decoder decides how much of it belongs to the instruction. */
static void put_tail(fuzz_random *r, uint8_t *out) {
    for (unsigned i = 0; i < TAIL; i++)
        out[i] = (uint8_t)(fuzz_next(r) >> 11);
    if (one_in(r, 3))
        out[0] |= 0xc0;
    for (unsigned at = 1; at + 4 <= TAIL; at += 1 + fuzz_below(r, 4)) {
        uint32_t number = one_in(r, 2) ? fuzz_edge(fuzz_next(r) >> 8) : fuzz_below(r, 64) - 32;
        memcpy(out + at, &number, 4);
    }
}

static size_t draw(fuzz_random *r, uint8_t *out) {
    size_t rows, size = put_prefixes(r, out);
    const vx_op *table = vx_op_table(&rows);
    size += one_in(r, 6) ? put_vector(r, out + size) : put_opcode(r, &table[fuzz_below(r, (uint32_t)rows)], out + size);
    put_tail(r, out + size);
    return size + TAIL;
}

size_t grammar_insn(fuzz_random *r, uint8_t *out, size_t room) {
    uint8_t bytes[32];
    vx_insn in;
    size_t size = 1;
    for (unsigned i = 0; i < TRIES; i++) {
        size = draw(r, bytes);
        if (vx_decode(bytes, size, &in) == DECODE_OK || one_in(r, 32))
            break;
    }
    size = in.length != 0 && in.length <= VX_INSN_MAX ? in.length : 1;
    size = size < room ? size : room;
    memcpy(out, bytes, size);
    return size;
}

/* --- the stream ---------------------------------------------------------------------------------- */

typedef struct stream {
    uint8_t *code;
    size_t size, max;
} stream;

/* A random instruction's place and length, walking as the decoder does. */
static size_t pick(fuzz_random *r, const stream *s, size_t *length) {
    size_t steps = fuzz_below(r, 24), at = 0;
    for (;;) {
        vx_insn in;
        (void)vx_decode(s->code + at, s->size - at, &in);
        *length = in.length == 0 ? 1 : in.length;
        if (*length > s->size - at)
            *length = s->size - at;
        if (steps-- == 0 || at + *length >= s->size)
            return at;
        at += *length;
    }
}

/* Exchanges the bytes [at, at + old) for `size` new ones, as far as there is room. */
static void splice(stream *s, size_t at, size_t old, const uint8_t *bytes, size_t size) {
    if (s->size - old + size > s->max)
        return;
    memmove(s->code + at + size, s->code + at + old, s->size - at - old);
    memcpy(s->code + at, bytes, size);
    s->size += size - old;
}

static void mutate_once(fuzz_random *r, stream *s) {
    uint8_t bytes[64];
    size_t length = 0, other_length, at = s->size == 0 ? 0 : pick(r, s, &length), other;
    switch (fuzz_below(r, 7)) {
    case 0: case 1:
        splice(s, at, 0, bytes, grammar_insn(r, bytes, sizeof bytes));
        break;
    case 2: case 3:
        splice(s, at, length, bytes, grammar_insn(r, bytes, sizeof bytes));
        break;
    case 4:
        splice(s, at, length, bytes, 0);
        break;
    case 5: /* one instruction's bytes again in another place */
        memcpy(bytes, s->code + at, length);
        other = s->size == 0 ? 0 : pick(r, s, &other_length);
        splice(s, other, 0, bytes, length);
        break;
    default: /* one more prefix */
        splice(s, at, 0, bytes, put_prefixes(r, bytes));
    }
}

size_t grammar_mutate(uint8_t *data, size_t size, size_t max_size, size_t header, unsigned seed) {
    fuzz_random r = fuzz_seeded(seed);
    if (size < header || max_size <= header || one_in(&r, 4))
        return LLVMFuzzerMutate(data, size, max_size);
    if (header != 0 && one_in(&r, 4)) {
        LLVMFuzzerMutate(data, header, header);
        return size;
    }
    stream s = {data + header, size - header, max_size - header};
    for (unsigned i = 1 + fuzz_below(&r, 4); i != 0; i--)
        mutate_once(&r, &s);
    return header + s.size;
}
