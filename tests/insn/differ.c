/* differ SEED SEQUENCES RUNNER: generated instruction sequences on the bare processor and in a sandbox.
 *
 * Each case is a few instructions that set up registers and memory for each other, and ends in int3
 * or in the exception it raised.  Registers, flags that are defined, x87, SSE, memory, and the
 * exception with its address must be equal.  Everything follows from the seed and the case's number.
 * Exit status: 0 all equal, 1 a difference, 2 the harness itself failed. */
#include "core/internal.h"
#include "forms.h"
#include "layout.h"

#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST_INSNS 5
#define MOST_REPORTS 20
enum { EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI };
enum { GS = 0x65 };

static const struct form *table;
static size_t form_count, vector_count;
static uint64_t *reached; /* by form: how often its instruction was executed to its end */
static uint64_t *row_seen;
static struct shared *shared;

static void die(const char *what) {
    fprintf(stderr, "differ: %s: %s\n", what, strerror(errno));
    exit(2);
}

/* --- random values ------------------------------------------------------------------------------- */

static uint64_t random_state;

static uint64_t next_random(void) { /* splitmix64 */
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint32_t below(uint32_t bound) { return (uint32_t)(next_random() % bound); }
static bool once_in(uint32_t n) { return below(n) == 0; }

static uint32_t value(void) {
    static const uint32_t edges[] = {0, 1, 2, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff,
                                     0x80000000, 0x80000001, 0xfffffffe, 0xffffffff, 0x3f800000, 0x7f800000,
                                     0x7fc00000, 0xff800000, 0x00800000, 0x55555555};
    return once_in(2) ? edges[below(VX_COUNT(edges))] : (uint32_t)next_random();
}

static void fill(void *to, size_t size) {
    uint8_t *at = to;
    for (size_t i = 0; i < size; i += 4) {
        uint32_t word = value();
        memcpy(at + i, &word, 4);
    }
}

/* An address for an operand of `size` bytes: inside, across a page, over an edge, or not mapped. */
static uint32_t place(uint32_t size, bool aligned) {
    uint32_t at;
    switch (below(32)) {
    case 0: at = DATA_BASE + DATA_SIZE - below(2 * size + 1); break; /* into the read-only page */
    case 1: at = RO_BASE + RO_SIZE - below(2 * size + 1); break;     /* over the end */
    case 2: at = DATA_BASE + PAGE - below(size + 1); break;          /* across pages */
    case 3: at = DATA_BASE - below(2 * size + 1); break;
    case 4: at = RO_BASE + below(RO_SIZE - 512); break;
    case 5: at = 0x300000 + below(0x1000); break;
    default: at = DATA_BASE + below(DATA_SIZE - 512);
    }
    return aligned && !once_in(16) ? at & ~(size < 16 ? 15u : size - 1) : at;
}

/* --- sequences ------------------------------------------------------------------------------------ */

typedef struct sequence {
    uint8_t *at, *start;
    uint16_t offsets[8 * MOST_INSNS]; /* of every instruction */
    uint32_t undefined[8 * MOST_INSNS]; /* flags undefined before it */
    int16_t form[8 * MOST_INSNS];       /* -1: set-up */
    unsigned count;
    uint32_t dead; /* flags undefined now */
} sequence;

static void byte(sequence *s, uint32_t b) { *s->at++ = (uint8_t)b; }

static void number(sequence *s, uint32_t v, unsigned size) {
    memcpy(s->at, &v, size);
    s->at += size;
}

static void begin(sequence *s, int form) {
    s->offsets[s->count] = (uint16_t)(s->at - s->start);
    s->undefined[s->count] = s->dead;
    s->form[s->count++] = (int16_t)form;
}

static void set_register(sequence *s, unsigned reg, uint32_t v) {
    begin(s, -1);
    byte(s, 0xb8 | reg);
    number(s, v, 4);
}

static void store_word(sequence *s, uint32_t address, uint32_t v) {
    begin(s, -1);
    byte(s, 0xc7), byte(s, 0x05);
    number(s, address, 4);
    number(s, v, 4);
}

/* A memory operand that names `target`, its registers set up before the instruction. */
typedef struct operand_bytes {
    uint8_t bytes[8];
    unsigned size;
    uint8_t segment;
    bool address16;
} operand_bytes;

static void put(operand_bytes *o, uint32_t v, unsigned size) {
    memcpy(o->bytes + o->size, &v, size);
    o->size += size;
}

static operand_bytes absolute(unsigned reg, uint32_t target) {
    operand_bytes o = {.size = 0};
    put(&o, reg << 3 | 5, 1);
    put(&o, target, 4);
    return o;
}

/* `kept` are registers the set-up of the instruction needs as they are; `unit` is what one byte of displacement
 * counts; `words` allows 16-bit addresses. */
static operand_bytes memory_operand(sequence *s, unsigned reg, uint32_t target, unsigned kept, uint32_t unit,
                                    bool words) {
    /* Not cs: natively a store through it faults, here it is one more name of the flat segment. */
    static const uint8_t segments[] = {0x26, 0x36, 0x3e};
    operand_bytes o = {.segment = once_in(16) ? segments[below(VX_COUNT(segments))] : 0};
    unsigned base = below(8), index = below(8), scale = below(4), shape = below(5);
    if (once_in(16))
        o.segment = GS, target -= TLS_BASE;
    if (words && o.segment == GS && once_in(4)) {
        o.address16 = true;
        put(&o, reg << 3 | 6, 1);
        put(&o, target, 2);
        return o;
    }
    if (words && once_in(64)) { /* 16-bit addresses reach nothing mapped but through gs: the fault's address is compared */
        o.address16 = true;
        put(&o, 0x80 | reg << 3 | below(8), 1);
        put(&o, value(), 2);
        return o;
    }
    if (shape == 0 || (kept >> base & 1)) {
        operand_bytes plain = absolute(reg, target);
        plain.segment = o.segment;
        return plain;
    }
    bool indexed = shape >= 3 && index != ESP && index != base && !(kept >> index & 1);
    /* esp stays near the data: on the runner's signal stack the kernel would take it for that */
    uint32_t index_value = base == ESP || once_in(2) ? below(64) : value();
    uint32_t disp = shape == 1 || base == ESP ? (uint32_t)(int8_t)next_random() * unit : shape == 2 ? 0 : value();
    uint32_t units = (uint32_t)((int32_t)disp / (int32_t)unit);
    bool small = units * unit == disp && units == (uint32_t)(int8_t)units;
    set_register(s, base, target - disp - (indexed ? index_value << scale : 0));
    if (indexed)
        set_register(s, index, index_value);
    bool sib = indexed || base == ESP;
    put(&o, (small ? 0x40u : 0x80u) | reg << 3 | (sib ? 4 : base), 1);
    if (sib)
        put(&o, scale << 6 | (indexed ? index : 4) << 3 | base, 1);
    put(&o, small ? units : disp, small ? 1 : 4);
    return o;
}

static uint32_t stack_place(void) { return STACK_BASE + 0x200 + below(0xb00); }

/* Registers as the form's hook wants them, its operand in a segment with this base.  Returns those that must stay. */
static unsigned prepare(sequence *s, const struct form *f, uint32_t base) {
    switch (f->hook) {
    case HOOK_STACK:
        set_register(s, ESP, once_in(24) ? STACK_BASE + below(40) : stack_place());
        return 1u << ESP;
    case HOOK_ENTER:
        set_register(s, ESP, stack_place());
        set_register(s, EBP, stack_place());
        return 1u << ESP | 1u << EBP;
    case HOOK_STRING:
        set_register(s, ESI, place(64, false) - base);
        set_register(s, EDI, place(64, false));
        set_register(s, ECX, once_in(16) ? 0 : below(80));
        return 1u << ESI | 1u << EDI | 1u << ECX;
    case HOOK_XLAT: set_register(s, EBX, place(256, false) - base); return 1u << EBX;
    case HOOK_DIVIDE:
        if (!once_in(8)) {
            set_register(s, EDX, below(3));
            set_register(s, EAX, below(0x8000));
        }
        return 1u << EAX | 1u << EDX;
    case HOOK_MASKMOV: set_register(s, EDI, place(16, false) - base); return 1u << EDI;
    case HOOK_POPF:
        set_register(s, ESP, stack_place());
        begin(s, -1);
        byte(s, 0x68);
        number(s, value() & EFLAGS_COMPARED, 4);
        return 1u << ESP;
    default: return 0;
    }
}

/* Of instructions whose memory operand is not named. */
static uint8_t implicit_segment(const struct form *f) {
    bool implicit = f->hook == HOOK_STRING || f->hook == HOOK_XLAT || f->hook == HOOK_MASKMOV;
    return implicit && once_in(8) ? GS : 0;
}

static void prefixes(sequence *s, const struct form *f, const operand_bytes *o, bool word) {
    if (o->segment)
        byte(s, o->segment);
    if (o->address16)
        byte(s, 0x67);
    if (o->size > 1 && (f->attributes & ATTR_LOCK) && o->bytes[0] < 0xc0 && once_in(4))
        byte(s, 0xf0);
    if (word)
        byte(s, 0x66);
    if (f->mandatory)
        byte(s, f->mandatory);
    else if (f->hook == HOOK_STRING && !once_in(3))
        byte(s, (f->attributes & ATTR_REP_CMP) && once_in(2) ? 0xf2 : 0xf3);
}

static void immediate(sequence *s, const struct form *f, bool word) {
    if (f->hook == HOOK_ENTER && f->immediate) {
        number(s, below(64), 2);
        byte(s, f->immediates == 1 ? 0 : once_in(8) ? below(256) : below(4));
        return;
    }
    switch (f->immediate) {
    case 'b': byte(s, value()); break;
    case 'w': number(s, value(), 2); break;
    case 'd': number(s, value(), 4); break;
    case 'z': number(s, value(), word ? 2 : 4); break;
    case 'm': number(s, place(4, false), 4); break;
    default: break;
    }
}

static void opcode(sequence *s, const struct form *f) {
    unsigned size = f->hook == HOOK_ENTER ? 1 : f->opcode_size; /* a nesting level of 0 stands in the table */
    for (unsigned i = 0; i < size; i++) {
        bool last = i + 1u == size;
        unsigned low = !last ? 0 : f->plus_register || f->plus_stack ? below(8) : f->plus_condition ? below(16) : 0;
        byte(s, f->opcode[i] | low);
    }
}

static uint32_t saved_area(void) { return DATA_BASE + (below(DATA_SIZE - 1024) & ~15u); }

/* fnstenv, fnsave and fxsave show instruction pointers, which differ: words that hold them are wiped. */
static void wipe(sequence *s, const struct form *f, uint32_t at) {
    uint32_t first = f->hook == HOOK_FXSAVE ? 6 : 12, last = f->hook == HOOK_FXSAVE ? 20 : 24;
    for (uint32_t offset = first; offset <= last; offset += 4)
        store_word(s, at + offset, 0);
    if (f->hook == HOOK_FXSAVE)
        store_word(s, at + 28, 0); /* MXCSR_MASK */
}

static bool saves(const struct form *f) { return f->hook == HOOK_ENV || f->hook == HOOK_FXSAVE; }

static const struct form *form_with(enum hook hook, const char *name) {
    for (size_t i = 0; i < form_count; i++)
        if (table[i].hook == hook && strcmp(table[i].name, name) == 0)
            return &table[i];
    fprintf(stderr, "differ: no form %s\n", name);
    exit(2);
}

static void one_at(sequence *s, const struct form *f, uint32_t at) {
    operand_bytes o = absolute(f->digit, at);
    begin(s, (int)(f - table));
    prefixes(s, f, &o, false);
    opcode(s, f);
    memcpy(s->at, o.bytes, o.size);
    s->at += o.size;
}

/* Forms whose memory operand has a layout. */
static bool structured(sequence *s, const struct form *f) {
    uint32_t at = saved_area();
    switch (f->hook) {
    case HOOK_MXCSR: store_word(s, at, once_in(16) ? value() : 0x1f80 | (value() & 0xe03f)); break;
    case HOOK_FXRSTOR: {
        const struct form *save = form_with(HOOK_FXSAVE, "fxsave");
        one_at(s, save, at);
        wipe(s, save, at);
        break;
    }
    case HOOK_FRSTOR: {
        const struct form *save = form_with(HOOK_ENV, "fnsave");
        one_at(s, save, at);
        wipe(s, save, at);
        break;
    }
    case HOOK_ENV: case HOOK_FXSAVE: break;
    default: return false;
    }
    one_at(s, f, at);
    if (saves(f))
        wipe(s, f, at);
    return true;
}

/* --- VEX and EVEX ----------------------------------------------------------------------------------- */

/* With EVEX.V' clear Intel's processors fault in 32-bit mode, as the sandbox does everywhere; AMD's ignore it, and are
 * not asked. */
static bool faults_without_v;

static bool is_intels(void) {
    uint32_t a, b, c, d;
    return __get_cpuid(0, &a, &b, &c, &d) && b == signature_INTEL_ebx && c == signature_INTEL_ecx && d == signature_INTEL_edx;
}

/* The choices an encoding leaves, and those bits that 32-bit mode ignores. */
typedef struct vector_bits {
    uint8_t w, l, vvvv, mask; /* vvvv as written */
    bool zero, b;
} vector_bits;

static bool rarely(void) { return once_in(32); }

static vector_bits draw_vector_bits(const struct form *f, bool memory) {
    unsigned a = f->vector.attributes;
    vector_bits v = {.w = f->vector.w, .l = f->vector.l, .vvvv = 15};
    if (a & VECTOR_ANY_W)
        v.w = (uint8_t)below(2);
    if (a & VECTOR_ANY_L)
        v.l = (uint8_t)below(f->vector.kind == 1 ? 2 : 3);
    if (a & VECTOR_VVVV)
        v.vvvv = (uint8_t)(below(8) | (rarely() ? 0 : 8));
    if ((a & VECTOR_MASKED) || ((a & VECTOR_MASK) && once_in(2)))
        v.mask = (uint8_t)(1 + below(7));
    v.zero = v.mask != 0 && (a & VECTOR_ZERO) && once_in(2);
    v.b = memory ? f->vector.element != 0 && once_in(2) : (a & VECTOR_ROUND) && once_in(2);
    if (v.b && !memory)
        v.l = (uint8_t)below(4);
    return v;
}

static void vector_prefix(sequence *s, const struct form *f, const vector_bits *v) {
    unsigned extensions = 0xc0 | (rarely() ? 0 : 0x20);
    if (f->vector.kind == 2) {
        byte(s, 0x62), byte(s, extensions | (rarely() ? 0 : 0x10) | f->vector.map);
        byte(s, (unsigned)v->w << 7 | (unsigned)v->vvvv << 3 | 4 | f->vector.pp);
        unsigned five = rarely() && faults_without_v ? 0 : 8;
        byte(s, (unsigned)v->zero << 7 | (unsigned)v->l << 5 | (unsigned)v->b << 4 | five | v->mask);
    } else if (f->vector.map == 1 && v->w == 0 && v->vvvv >= 8 && once_in(2)) {
        byte(s, 0xc5), byte(s, 0x80 | (unsigned)v->vvvv << 3 | (v->l & 1u) << 2 | f->vector.pp);
    } else {
        byte(s, 0xc4), byte(s, extensions | f->vector.map);
        byte(s, (unsigned)v->w << 7 | (unsigned)v->vvvv << 3 | (v->l & 1u) << 2 | f->vector.pp);
    }
}

/* Lanes too large to be a place become small indexes, by vpsrlq reg, reg, 57; vpsrad, 20, which leaves negative
 * ones; or vpsrld, 25, whose quadwords have high halves that 32-bit addresses drop.  None stays wild: in a few
 * million cases one would hit the runner. */
static void small_lanes(sequence *s, unsigned reg, bool quad) {
    bool negative = !quad && once_in(2);
    quad = quad && once_in(2);
    begin(s, -1);
    byte(s, 0xc5), byte(s, 0x80 | (15 - reg) << 3 | 4 | 1), byte(s, quad ? 0x73 : 0x72);
    byte(s, (negative ? 0xe0u : 0xd0u) | reg), byte(s, quad ? 57 : negative ? 20 : 25);
}

static operand_bytes vector_indexed(sequence *s, const struct form *f, unsigned reg, vector_bits *v) {
    operand_bytes o = {.segment = once_in(16) ? GS : 0};
    uint32_t target = place(1024, false) - (o.segment ? TLS_BASE : 0);
    unsigned base = below(8), index = (reg + 1 + below(7)) & 7, scale = below(4);
    uint32_t disp = base != ESP && once_in(2) ? value() : (uint32_t)(int8_t)next_random() * f->rm.size;
    bool absolute_base = base == EBP && once_in(2), small = !absolute_base && f->vector.kind == 2;
    small = small && (int32_t)disp / (int32_t)f->rm.size == (int8_t)((int32_t)disp / (int32_t)f->rm.size) &&
            (int32_t)disp % (int32_t)f->rm.size == 0;
    if (f->vector.kind == 1 && !once_in(16)) /* the mask is a third register */
        v->vvvv = (uint8_t)(15 - ((index + 1 + below(6)) & 7));
    small_lanes(s, index, f->opcode[0] & 1);
    if (!absolute_base)
        set_register(s, base, target - disp);
    put(&o, (absolute_base ? 0 : small ? 0x40u : 0x80u) | reg << 3 | 4, 1);
    put(&o, scale << 6 | index << 3 | base, 1);
    put(&o, small ? disp / f->rm.size : absolute_base ? target : disp, small ? 1 : 4);
    return o;
}

static operand_bytes vector_operand(sequence *s, const struct form *f, vector_bits *v, bool memory, unsigned kept) {
    unsigned reg = f->digit_fixed ? f->digit : below(8);
    uint32_t size = v->b ? f->vector.element : f->rm.size, at = saved_area();
    operand_bytes o = {.size = 0};
    if (f->vector.attributes & VECTOR_VSIB)
        return vector_indexed(s, f, reg, v);
    if (f->hook == HOOK_MXCSR) {
        store_word(s, at, once_in(16) ? value() : 0x1f80 | (value() & 0xe03f));
        return absolute(reg, at);
    }
    if (memory)
        return memory_operand(s, reg, place(size, f->rm.aligned), kept, f->vector.kind == 2 ? size : 1, false);
    put(&o, 0xc0 | reg << 3 | below(8), 1);
    return o;
}

static void one_vector(sequence *s, const struct form *f) {
    operand_bytes o = {.segment = implicit_segment(f)};
    unsigned kept = prepare(s, f, o.segment ? TLS_BASE : 0);
    bool memory = f->rm.mem && (!f->rm.reg || once_in(2));
    vector_bits v = draw_vector_bits(f, memory);
    if (f->modrm)
        o = vector_operand(s, f, &v, memory, kept);
    if (once_in(64))
        v.vvvv = (uint8_t)below(16); /* an illegal instruction where none is used */
    begin(s, (int)(f - table));
    if (o.segment)
        byte(s, o.segment);
    if (o.address16)
        byte(s, 0x67);
    vector_prefix(s, f, &v);
    byte(s, f->opcode[0]);
    memcpy(s->at, o.bytes, o.size);
    s->at += o.size;
    immediate(s, f, false);
    s->dead = (s->dead & ~(f->writes & ~f->undefined)) | f->undefined;
}

static void one(sequence *s, const struct form *f) {
    if (f->vector.kind != 0) {
        one_vector(s, f);
        return;
    }
    if (structured(s, f))
        return;
    operand_bytes o = {.segment = implicit_segment(f)};
    unsigned kept = prepare(s, f, o.segment ? TLS_BASE : 0);
    bool word = f->sized && once_in(4);
    if (f->modrm) {
        unsigned reg = f->digit_fixed ? f->digit : below(8);
        if (f->hook == HOOK_BITS && !once_in(16)) {
            set_register(s, reg, (uint32_t)((int32_t)below(4096) - 2048));
            kept |= 1u << reg;
        }
        if (f->rm.mem && (!f->rm.reg || once_in(2)))
            o = memory_operand(s, reg, f->hook == HOOK_BITS ? DATA_BASE + 0x800 + below(0x400)
                                                           : place(f->rm.size, f->rm.aligned), kept, 1, true);
        else
            put(&o, 0xc0 | reg << 3 | below(8), 1);
    }
    begin(s, (int)(f - table));
    prefixes(s, f, &o, word);
    opcode(s, f);
    memcpy(s->at, o.bytes, o.size);
    s->at += o.size;
    immediate(s, f, word);
    s->dead = (s->dead & ~(f->writes & ~f->undefined)) | f->undefined;
}

static const struct form *draw(const sequence *s) {
    for (;;) {
        size_t legacy = form_count - vector_count;
        const struct form *f = once_in(2) ? &table[below((uint32_t)legacy)]
                                          : &table[legacy + below((uint32_t)vector_count)];
        if (((f->attributes & ATTR_RARE) && !once_in(16)) || (f->reads & s->dead))
            continue;
        return f;
    }
}

/* --- control flow ------------------------------------------------------------------------------------ */

static uint32_t here(const sequence *s) { return CODE_BASE + (uint32_t)(s->at - shared->code); }

/* A branch over the `mov reg, imm32` that follows it, taken or not. */
static void skip_one(sequence *s, uint32_t first, uint32_t second, unsigned displacement) {
    begin(s, -1);
    byte(s, first);
    if (second)
        byte(s, second);
    number(s, 5, displacement);
    set_register(s, below(8), value());
}

static void to_stack(sequence *s) { set_register(s, ESP, stack_place()); }

/* The ways to the next instruction that end a block in the middle. */
static void branch(sequence *s) {
    unsigned reg = EAX + below(4);
    uint32_t condition = below(16), loop;
    switch (s->dead != 0 ? 2 + below(8) : below(10)) {
    case 0: skip_one(s, 0x70 | condition, 0, 1); break;
    case 1: skip_one(s, 0x0f, 0x80 | condition, 4); break;
    case 2: skip_one(s, 0xeb, 0, 1); break;
    case 3: skip_one(s, 0xe9, 0, 4); break;
    case 4: /* loopne and loope read zf */
        set_register(s, ECX, below(3) | (once_in(4) ? 0x10000 : 0));
        loop = s->dead ? 0xe2 + below(2) : 0xe0 + below(4);
        if (once_in(4))
            skip_one(s, 0x67, loop, 1);
        else
            skip_one(s, loop, 0, 1);
        break;
    case 5: /* call; ret; jump over both */
        to_stack(s);
        begin(s, -1);
        byte(s, 0xe8), number(s, 2, 4);
        begin(s, -1);
        byte(s, 0xeb), byte(s, 1);
        begin(s, -1);
        byte(s, 0xc3);
        break;
    case 6: { /* a return that no call made */
        to_stack(s);
        begin(s, -1);
        bool pops = once_in(2);
        byte(s, 0x68), number(s, here(s) + (pops ? 7 : 5), 4);
        begin(s, -1);
        byte(s, pops ? 0xc2 : 0xc3);
        number(s, below(16), pops ? 2 : 0);
        break;
    }
    case 7: { /* jmp or call through a register */
        to_stack(s);
        set_register(s, reg, here(s) + 7);
        begin(s, -1);
        byte(s, 0xff), byte(s, (once_in(2) ? 0xe0u : 0xd0u) | reg);
        break;
    }
    case 8: { /* through memory */
        uint32_t at = DATA_BASE + (below(0x100) & ~3u);
        to_stack(s);
        store_word(s, at, here(s) + 16);
        begin(s, -1);
        byte(s, 0xff), byte(s, once_in(2) ? 0x25 : 0x15), number(s, at, 4);
        break;
    }
    default: /* call next; pop */
        to_stack(s);
        begin(s, -1);
        byte(s, 0xe8), number(s, 0, 4);
        begin(s, -1);
        byte(s, 0x58 | reg);
    }
}

/* --- stack frames --------------------------------------------------------------------------------------- */

/* An instruction of a prologue, an epilogue or between, whose esp the translator may keep pending; now and
 * then one that faults while it is. */
static void frame_step(sequence *s) {
    unsigned reg = EAX + below(4), offset = below(64) & ~3u;
    begin(s, -1);
    switch (below(10)) {
    case 0: case 1: byte(s, 0x50 | reg); break;                                                /* push */
    case 2: byte(s, 0x58 | reg); break;                                                        /* pop */
    case 3: byte(s, 0x83), byte(s, once_in(2) ? 0xecu : 0xc4u), byte(s, offset), s->dead = 0; break; /* sub, add esp */
    case 4: byte(s, 0x8d), byte(s, 0x64), byte(s, 0x24), byte(s, 0u - offset); break;          /* lea esp, [esp - n] */
    case 5: byte(s, 0x89), byte(s, 0x44 | reg << 3), byte(s, 0x24), byte(s, offset); break;    /* mov [esp + n], reg */
    case 6: byte(s, 0x8b), byte(s, 0x44 | reg << 3), byte(s, 0x24), byte(s, offset); break;    /* mov reg, [esp + n] */
    case 7: byte(s, 0x89), byte(s, 0xc0 | (once_in(2) ? ESP << 3 | EBP : EBP << 3 | ESP)); break; /* mov ebp, esp; back */
    case 8: byte(s, 0x31), byte(s, 0xc0 | reg << 3 | reg), s->dead = 0x10; break;              /* xor reg, reg */
    default:
        if (once_in(6))
            byte(s, 0xa1), number(s, below(16), 4); /* mov eax, [nothing] */
        else
            byte(s, 0xff), byte(s, 0x74), byte(s, 0x24), byte(s, offset); /* push [esp + n] */
    }
}

static void frame(sequence *s) {
    to_stack(s);
    set_register(s, EBP, stack_place());
    for (unsigned i = 3 + below(5); i-- > 0 && s->at - s->start < 100 && s->count < 12;)
        frame_step(s);
}

static void generate(sequence *s, uint8_t *slot) {
    *s = (sequence){.at = slot, .start = slot};
    memset(slot, 0xcc, SLOT_SIZE);
    for (unsigned i = 1 + below(MOST_INSNS); i-- > 0 && s->at - s->start < 100 && s->count < 12;)
        if (once_in(6))
            branch(s);
        else if (once_in(10))
            frame(s);
        else
            one(s, draw(s));
    begin(s, -1); /* the int3 */
    if (s->at - s->start >= (ptrdiff_t)SLOT_SIZE) {
        fprintf(stderr, "differ: a case outgrew its slot\n");
        exit(2);
    }
}

/* Where the processor keeps what FXSAVE leaves out: the upper halves of ymm and of zmm registers, masks. */
typedef struct component {
    unsigned number, size, offset;
} component;

static component components[] = {{2, 8 * 16, 0}, {5, 8 * 8, 0}, {6, 8 * 32, 0}};

static uint32_t find_components(void) {
    uint32_t a, b, c, d, low, high, all = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1))
        return 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    for (unsigned i = 0; i < VX_COUNT(components); i++)
        if (low >> components[i].number & 1) {
            __get_cpuid_count(0xd, components[i].number, &a, &components[i].offset, &c, &d);
            all |= 1u << components[i].number;
        }
    return all == 0 ? 0 : all | 3;
}

static uint32_t host_components;

static void initial_vectors(struct cpu *cpu) {
    uint64_t present = host_components;
    cpu->components = host_components;
    memcpy(cpu->fx + XSAVE_PRESENT, &present, sizeof present);
    for (unsigned i = 0; i < VX_COUNT(components); i++)
        if (host_components >> components[i].number & 1)
            fill(cpu->fx + components[i].offset, components[i].size);
}

/* The same part of a vx_cpu. */
static uint8_t *vector_part(vx_cpu *cpu, unsigned number) {
    return number == 2 ? cpu->ymm_high[0] : number == 5 ? (uint8_t *)cpu->mask : cpu->zmm_high[0];
}

static void initial_cpu(struct cpu *cpu, uint32_t eip) {
    static const uint16_t tops[] = {0, 0, 0x3800, 0x2000};
    memset(cpu, 0, sizeof *cpu);
    for (unsigned i = 0; i < 8; i++)
        cpu->gpr[i] = value();
    cpu->gpr[ESP] = stack_place();
    cpu->eip = eip;
    cpu->eflags = (value() & EFLAGS_ARITH) | 0x202 | (once_in(8) ? EFLAGS_DF : 0);
    uint16_t fcw = once_in(8) ? (uint16_t)(0x340 | (value() & 0xc3f)) : 0x37f;
    uint16_t fsw = tops[below(4)];
    uint32_t mxcsr = once_in(8) ? 0x1f80 | (value() & 0xe040) : 0x1f80;
    fill(cpu->fx + 32, 256);
    for (unsigned i = 0; i < 8; i++) {
        uint8_t *st = cpu->fx + 32 + 16 * i;
        uint16_t exponent = once_in(4) ? (uint16_t)value() : (uint16_t)(0x3ff0 + below(32));
        memcpy(st + 8, &exponent, 2);
        if (!once_in(8))
            st[7] |= 0x80;
        memset(st + 10, 0, 6);
    }
    cpu->fx[4] = once_in(3) ? (uint8_t)next_random() : 0; /* mostly an empty stack */
    memcpy(cpu->fx, &fcw, 2);
    memcpy(cpu->fx + 2, &fsw, 2);
    memcpy(cpu->fx + 24, &mxcsr, 4);
    initial_vectors(cpu);
}

/* --- the sandbox's side --------------------------------------------------------------------------- */

static vx_plugin *plugin;
static vx_sandbox *box;

static void open_box(void) {
    const vx_segment segments[] = {
        {CODE_BASE, CODE_SIZE, CODE_SIZE, VX_PROT_READ | VX_PROT_EXEC, shared->code, 0},
        {DATA_BASE, DATA_SIZE, 0, VX_PROT_READ | VX_PROT_WRITE, "", 0},
        {RO_BASE, RO_SIZE, RO_SIZE, VX_PROT_READ, shared->ro, 0},
        {STACK_BASE, STACK_SIZE, 0, VX_PROT_READ | VX_PROT_WRITE, "", 0}};
    vx_image image = {.segments = segments, .count = VX_COUNT(segments), .entry = CODE_BASE};
    vx_options options = {.memory = 16 << 20, .stack = PAGE, .timeout_ns = 2000000000u, .raw = true};
    vx_trap trap;
    if (vx_plugin_create(&image, &plugin) != VX_OK || vx_sandbox_create(plugin, &options, &box, &trap) != VX_OK)
        die("sandbox");
    box->state->tls_base = TLS_BASE;
}

static void close_box(void) {
    vx_sandbox_free(box);
    vx_plugin_unref(plugin);
}

static uint8_t *guest(uint32_t address, uint32_t size) {
    uint8_t *pointer = vx_guest_pointer(box, (vx_gaddr){address}, size, VX_PROT_READ | VX_PROT_WRITE);
    if (pointer == NULL)
        die("guest memory");
    return pointer;
}

static void run_sandboxed(const struct cpu *input, vx_cpu *cpu, vx_trap *trap) {
    memcpy(guest(DATA_BASE, DATA_SIZE), shared->memory.data, DATA_SIZE);
    memcpy(guest(STACK_BASE, STACK_SIZE), shared->memory.stack, STACK_SIZE);
    memset(cpu, 0, sizeof *cpu);
    memcpy(cpu->registers.gpr, input->gpr, sizeof input->gpr);
    cpu->registers.eip = input->eip;
    cpu->registers.eflags = input->eflags;
    memcpy(cpu->fx, input->fx, sizeof cpu->fx);
    for (unsigned i = 0; i < VX_COUNT(components); i++)
        if (host_components >> components[i].number & 1)
            memcpy(vector_part(cpu, components[i].number), input->fx + components[i].offset, components[i].size);
    memset(trap, 0, sizeof *trap);
    if (vx_run(box, cpu, trap) != VX_TRAP)
        die("vx_run");
}

/* --- comparing ------------------------------------------------------------------------------------- */

static unsigned reports;
static unsigned flags_lost; /* ends whose status flags are not compared: vx_trap.flags_lost */
static const char *difference;

static bool differs(bool unequal, const char *what) {
    if (unequal && difference == NULL)
        difference = what;
    return unequal;
}

/* Exceptions by number (Intel SDM volume 3, table 6-1). */
static bool same_exception(const struct outcome *o, const vx_trap *trap) {
    switch (o->vector) {
    case 0: return trap->kind == VX_TRAP_DIVIDE;
    case 1: return trap->kind == VX_TRAP_PRIVILEGED;
    case 3: return trap->kind == VX_TRAP_BREAKPOINT;
    case 4: return trap->kind == VX_TRAP_OVERFLOW;
    case 5: /* Intel's processors compare the lower bound before they read the upper one, in the next page here */
        return trap->kind == VX_TRAP_BOUND || (trap->kind == VX_TRAP_MEMORY && trap->address % PAGE == 0);
    case 6: return trap->kind == VX_TRAP_ILLEGAL || trap->kind == VX_TRAP_PRIVILEGED;
    case 13: return trap->kind == VX_TRAP_PROTECTION || trap->kind == VX_TRAP_PRIVILEGED ||
                    trap->kind == VX_TRAP_INTERRUPT_VECTOR;
    case 14: return (trap->kind == VX_TRAP_MEMORY || trap->kind == VX_TRAP_EXECUTE ||
                     trap->kind == VX_TRAP_STACK) && trap->address == o->address;
    case 16: case 19: return trap->kind == VX_TRAP_FLOAT;
    default: return false;
    }
}

/* Traps leave eip behind the instruction, in our report it is at the instruction. */
static bool is_trap(uint32_t vector) { return vector == 3 || vector == 4 || vector == 1; }

static unsigned instruction_at(const sequence *s, uint32_t offset) {
    unsigned last = 0;
    while (last + 1 < s->count && s->offsets[last + 1] <= offset)
        last++;
    return last;
}

static const uint8_t *native_part(const struct outcome *o, const component *c) {
    static const uint8_t initial[256];
    uint64_t present;
    memcpy(&present, o->cpu.fx + XSAVE_PRESENT, sizeof present);
    return present >> c->number & 1 ? o->cpu.fx + c->offset : initial;
}

static void compare_vectors(const struct outcome *o, const vx_cpu *cpu) {
    static const char *const names[] = {"upper halves of ymm registers", "mask registers",
                                        "upper halves of zmm registers"};
    for (unsigned i = 0; i < VX_COUNT(components); i++)
        if (host_components >> components[i].number & 1)
            differs(memcmp(native_part(o, &components[i]), vector_part((vx_cpu *)cpu, components[i].number),
                           components[i].size) != 0, names[i]);
}

static bool compare(const sequence *s, const struct cpu *input, const struct outcome *o, const vx_cpu *cpu,
                    const vx_trap *trap) {
    uint32_t eip = cpu->registers.eip;
    unsigned stopped = instruction_at(s, eip - input->eip);
    uint32_t defined = EFLAGS_COMPARED & ~s->undefined[stopped] & ~(trap->flags_lost ? EFLAGS_ARITH : 0);
    difference = NULL;
    differs(!same_exception(o, trap), "exception");
    differs(is_trap(o->vector) ? o->cpu.eip <= eip || o->cpu.eip > eip + 2 : o->cpu.eip != eip, "eip");
    differs(memcmp(o->cpu.gpr, cpu->registers.gpr, sizeof o->cpu.gpr) != 0, "registers");
    differs(((o->cpu.eflags ^ cpu->registers.eflags) & defined) != 0, "flags");
    differs(memcmp(o->cpu.fx, cpu->fx, 5) != 0, "x87 control, status, tags");
    differs(memcmp(o->cpu.fx + 24, cpu->fx + 24, 4) != 0, "mxcsr");
    for (unsigned i = 0; i < 8; i++)
        differs(memcmp(o->cpu.fx + 32 + 16 * i, cpu->fx + 32 + 16 * i, 10) != 0, "x87 registers");
    differs(memcmp(o->cpu.fx + 160, cpu->fx + 160, 128) != 0, "xmm registers");
    compare_vectors(o, cpu);
    differs(memcmp(o->memory.data, guest(DATA_BASE, DATA_SIZE), DATA_SIZE) != 0, "data");
    differs(memcmp(o->memory.stack, guest(STACK_BASE, STACK_SIZE), STACK_SIZE) != 0, "stack");
    return difference == NULL;
}

static void report(uint64_t number, const sequence *s, const struct cpu *input, const struct outcome *o,
                   const vx_cpu *cpu, const vx_trap *trap) {
    static const char *const names[] = {"eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"};
    unsigned stopped = instruction_at(s, cpu->registers.eip - input->eip);
    printf("case %llu: %s differs\n  code", (unsigned long long)number, difference);
    for (unsigned i = 0; i < s->count; i++) {
        unsigned end = i + 1 < s->count ? s->offsets[i + 1] : s->offsets[i] + 1u;
        printf(" %s[", i == stopped ? "->" : "");
        for (unsigned at = s->offsets[i]; at < end; at++)
            printf("%02x", s->start[at]);
        printf(" %s]", s->form[i] < 0 ? "" : table[s->form[i]].name);
    }
    printf("\n  native: vector %u error %x address %08x eip %08x eflags %08x\n  here:   %s address %08x eip %08x eflags %08x\n",
           o->vector, o->error, o->address, o->cpu.eip, o->cpu.eflags, vx_trap_kind_name(trap->kind), trap->address,
           cpu->registers.eip, cpu->registers.eflags);
    for (unsigned i = 0; i < 8; i++)
        if (o->cpu.gpr[i] != cpu->registers.gpr[i])
            printf("  %s: %08x here %08x\n", names[i], o->cpu.gpr[i], cpu->registers.gpr[i]);
    for (unsigned i = 0; i < 288; i++)
        if (o->cpu.fx[i] != cpu->fx[i] && (i < 5 || i >= 24) && (i < 28 || i >= 32) && !(i < 160 && i >= 32 && i % 16 >= 10))
            printf("  fx[%u]: %02x here %02x\n", i, o->cpu.fx[i], cpu->fx[i]);
    for (uint32_t i = 0; i < DATA_SIZE; i++)
        if (o->memory.data[i] != guest(DATA_BASE, DATA_SIZE)[i])
            printf("  %08x: %02x here %02x\n", DATA_BASE + i, o->memory.data[i], guest(DATA_BASE, DATA_SIZE)[i]);
}

static void count_coverage(const sequence *s, uint32_t offset) {
    unsigned stopped = instruction_at(s, offset);
    vx_insn in;
    size_t rows;
    for (unsigned i = 0; i <= stopped; i++) {
        if (s->form[i] >= 0)
            reached[s->form[i]]++;
        if (vx_decode(s->start + s->offsets[i], VX_INSN_MAX, &in) == DECODE_OK)
            row_seen[in.op - vx_op_table(&rows)]++;
    }
}

/* --- the native side ------------------------------------------------------------------------------- */

static int to_runner, from_runner;

static void start_runner(const char *path, int file) {
    int down[2], up[2];
    if (pipe(down) != 0 || pipe(up) != 0)
        die("pipe");
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        dup2(down[0], 0), dup2(up[1], 1), dup2(file, RUNNER_SHARED_FD);
        close(down[1]), close(up[0]);
        execl(path, path, (char *)NULL);
        _exit(127);
    }
    close(down[0]), close(up[1]);
    to_runner = down[1], from_runner = up[0];
}

static void die_of_runner(uint64_t first) {
    int status = 0;
    wait(&status);
    fprintf(stderr, "differ: the native runner ended in the cases from %llu on, with status %x\n",
            (unsigned long long)first, (unsigned)status);
    exit(2);
}

static void run_native(uint64_t first, uint32_t count) {
    struct command command = {0, count}, answer;
    if (write(to_runner, &command, sizeof command) != sizeof command ||
        read(from_runner, &answer, sizeof answer) != sizeof answer || answer.count != count)
        die_of_runner(first);
}

static void share(const char *runner) {
    int file = memfd_create("insn", 0);
    if (file < 0 || ftruncate(file, sizeof *shared) != 0)
        die("memory file");
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (shared == MAP_FAILED)
        die("mmap");
    start_runner(runner, file);
}

/* --- batches ---------------------------------------------------------------------------------------- */

static void run_batch(uint64_t seed, uint64_t first, uint32_t count) {
    static sequence sequences[BATCH];
    random_state = seed * 0x2545f4914f6cdd1du + first;
    fill(&shared->memory, sizeof shared->memory);
    for (uint32_t i = 0; i < count; i++) {
        generate(&sequences[i], shared->code + i * SLOT_SIZE);
        initial_cpu(&shared->input[i], CODE_BASE + i * SLOT_SIZE);
    }
    run_native(first, count);
    open_box();
    for (uint32_t i = 0; i < count && reports < MOST_REPORTS; i++) {
        vx_cpu cpu;
        vx_trap trap;
        run_sandboxed(&shared->input[i], &cpu, &trap);
        flags_lost += trap.flags_lost;
        count_coverage(&sequences[i], cpu.registers.eip - shared->input[i].eip);
        if (!compare(&sequences[i], &shared->input[i], &shared->native[i], &cpu, &trap)) {
            report(first + i, &sequences[i], &shared->input[i], &shared->native[i], &cpu, &trap);
            reports++;
        }
    }
    close_box();
}

static unsigned print_coverage(void) {
    size_t rows;
    const vx_op *ops = vx_op_table(&rows);
    unsigned missing = 0;
    for (size_t i = 0; i < rows; i++)
        if (row_seen[i] == 0 && ops[i].rule != RULE_REFUSE) { /* tests/attack has the refused ones */
            missing++;
            printf("not reached: map %u opcode %02x-%02x %s\n", ops[i].map, ops[i].first, ops[i].last, ops[i].name);
        }
    for (size_t i = 0; i < form_count; i++)
        if (reached[i] == 0)
            printf("form not reached: %s\n", table[i].name);
    printf("rows not reached: %u\n", missing);
    return missing;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: differ SEED SEQUENCES RUNNER\n");
        return 2;
    }
    uint64_t seed = strtoull(argv[1], NULL, 0), total = strtoull(argv[2], NULL, 0), done = 0;
    size_t rows;
    table = forms(&form_count);
    vector_count = vector_forms();
    host_components = find_components();
    faults_without_v = is_intels();
    (void)vx_op_table(&rows);
    reached = calloc(form_count, sizeof *reached);
    row_seen = calloc(rows, sizeof *row_seen);
    share(argv[3]);
    while (done < total && reports < MOST_REPORTS) {
        uint32_t count = total - done < BATCH ? (uint32_t)(total - done) : BATCH;
        run_batch(seed, done, count);
        done += count;
    }
    print_coverage();
    printf("sequences: %llu, without flags: %u, differences: %u\n", (unsigned long long)done, flags_lost, reports);
    return reports != 0;
}
