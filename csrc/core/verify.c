/* The verifier: reads a block's emitted code again, with its own decoder, before it is published.
 *
 * It knows nothing of guests and shares no table with the decoder or the translator.  It accepts:
 *
 * V1  Memory is named by a gs override with 32-bit address size, never relative to rip or rsp.
 *     Without the address size it is near: a register whose upper half is zero (V2), and a displacement
 *     that the guards on both sides of the window are wider than.  Beside that, two slots of the state
 *     are read, each in its one sequence.
 * V2  General registers are the guest's seven, r13 and the scratch r8-r10.  64-bit operations occur
 *     only inside the sequences below, on r9 and r10 and, cut back at their end, rsi and rdi; everything
 *     else leaves upper halves zero, so those of the guest's, r13 and r8 are.
 * V3  rsp moves by call, ret and by push and pop within one sequence.
 * V4  Branches go to a gate, to the body of a block, or to a stub of this block that names the very
 *     branch; indirect ones through the lookup table, which r15 and, for the cache, r14 hold: V2 never names them.
 *     Every one starts at an instruction the walk has seen, so no bytes are read in two ways.
 * V5  The opcode is one of the table: no system, privileged, far, segment or 64-bit-only instruction,
 *     nothing that walks past its operand (bit strings and string instructions have sequences).
 * V6  Nothing falls out of the block: control ends in a jump or return before the stubs.
 *
 * Longer sequences are matched whole: a branch cannot enter them. */
#include "internal.h"
#include "verify.h"

/* --- the walk ------------------------------------------------------------------------------------ */

typedef struct walk {
    const vx_cache *cache;
    const vx_block *block;
    const uint8_t *code; /* of the cache, by offset */
    uint32_t at, end;
    uint32_t pending[2 * VX_BLOCK_INSNS]; /* sites of branches that need a stub */
    unsigned pending_count, stubs;
    bool ended;        /* the last instruction does not fall through */
    bool reason_in_r9; /* the last instruction was mov r9d, imm32 */
} walk;

/* Reads may pass the block's end, by less than LONGEST, which the cache always has room for; a step
 * that did is refused at its end. */
#define LONGEST 64

static inline bool peek(const walk *w, const void *bytes, uint32_t size) {
    return memcmp(w->code + w->at, bytes, size) == 0;
}

static inline bool skip(walk *w, const void *bytes, uint32_t size) {
    bool here = peek(w, bytes, size);
    w->at += here ? size : 0;
    return here;
}

#define SKIP(w, ...) skip(w, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))
#define PEEK(w, ...) peek(w, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static bool skip_number(walk *w, uint32_t number) { return skip(w, &number, 4); }

static uint8_t next_byte(walk *w) { return w->code[w->at++]; }

/* --- branches ------------------------------------------------------------------------------------ */

static uint32_t gate_offset(const walk *w, vx_gate gate) {
    return (uint32_t)(cache_gate(w->cache, gate) - (uintptr_t)w->cache->run);
}

static uint32_t branch_target(const walk *w, uint32_t site) {
    uint32_t distance;
    memcpy(&distance, w->code + site, 4);
    return site + 4 + distance;
}

static bool to_gate(const walk *w, uint32_t target) {
    return target == gate_offset(w, GATE_RESYNC) || target == gate_offset(w, GATE_RESYNC_RCX) ||
           (target == gate_offset(w, GATE_REASON) && w->reason_in_r9);
}

static bool to_body(const walk *w, uint32_t target) {
    if (target == w->block->start)
        return true;
    const vx_block *block = cache_find(w->cache, (uintptr_t)w->cache->run + target);
    return block != NULL && block->start == target;
}

/* The rel32 of a branch.  What goes forward in the block has to be met as a stub. */
static bool branch(walk *w) {
    uint32_t site = w->at;
    w->at += 4;
    uint32_t target = branch_target(w, site);
    if (target < w->at || target >= w->end)
        return to_gate(w, target) || to_body(w, target);
    if (site % 8 > 4 || w->pending_count == VX_COUNT(w->pending))
        return false;
    w->pending[w->pending_count++] = site;
    return true;
}

/* lea r9, [rip -> site]; mov r8d, imm32; jmp link.  The branch at the site leads here. */
static bool stub(walk *w) {
    uint32_t start = w->at;
    if (!SKIP(w, 0x4c, 0x8d, 0x0d))
        return false;
    uint32_t site = branch_target(w, w->at);
    w->at += 4;
    if (w->stubs == w->pending_count || w->pending[w->stubs] != site || branch_target(w, site) != start)
        return false;
    w->stubs++;
    if (!SKIP(w, 0x41, 0xb8))
        return false;
    w->at += 4;
    if (!SKIP(w, 0xe9) || branch_target(w, w->at) != gate_offset(w, GATE_LINK))
        return false;
    w->at += 4;
    return w->at <= w->end;
}

/* --- sequences ----------------------------------------------------------------------------------- */

static bool state_slot(walk *w, uint32_t offset) { return skip_number(w, (uint32_t)ST_DISP + offset); }

/* mov r9d, [r15 + r8 * 4]; lea r9, [r14 + r9]; jmp or call r9.  By V2 r8 names a guest address. */
static bool probe(walk *w) {
    if (!SKIP(w, 0x47, 0x8b, 0x0c, 0x87, 0x4f, 0x8d, 0x0c, 0x0e))
        return false;
    bool jumps = SKIP(w, 0x41, 0xff, 0xe1);
    if (!jumps && !SKIP(w, 0x41, 0xff, 0xd1))
        return false;
    w->ended = jumps;
    return true;
}

/* mov r10, base; lea rsi, [rsi + r10]; lea rdi, [rdi + r10]; the instruction; mov esi, esi; mov edi, edi */
static bool string(walk *w) {
    if (!SKIP(w, 0x65, 0x4c, 0x8b, 0x14, 0x25) || !state_slot(w, ST_BASE))
        return false;
    bool source = SKIP(w, 0x4a, 0x8d, 0x34, 0x16), destination = SKIP(w, 0x4a, 0x8d, 0x3c, 0x17);
    (void)SKIP(w, 0x66);
    if (!SKIP(w, 0xf2))
        (void)SKIP(w, 0xf3);
    switch (next_byte(w) & 0xfe) {
    case 0xa4: case 0xa6: if (!source || !destination) return false; break;
    case 0xaa: case 0xae: if (source || !destination) return false; break;
    case 0xac: if (!source || destination) return false; break;
    default: return false;
    }
    return (!source || SKIP(w, 0x89, 0xf6)) && (!destination || SKIP(w, 0x89, 0xff));
}

/* and r8d, flags of a guest; or r8d, fixed ones */
static bool flags_masked(walk *w) {
    return SKIP(w, 0x41, 0x81, 0xe0) && skip_number(w, FLAGS_ALL | FLAG_DF | 0x200000) &&
           SKIP(w, 0x41, 0x81, 0xc8) && skip_number(w, 0x202);
}

/* pushfq; pop r8; mov r10d, r8d; mask; push r10; popfq */
static bool flags_out(walk *w) {
    return SKIP(w, 0x9c, 0x41, 0x58, 0x45, 0x89, 0xc2) && flags_masked(w) && SKIP(w, 0x41, 0x52, 0x9d);
}

/* mask; push r8; popfq */
static bool flags_in(walk *w) { return flags_masked(w) && SKIP(w, 0x41, 0x50, 0x9d); }

/* The guest's seven registers, and r13 for its esp. */
static bool general(unsigned reg) { return (reg <= 7 && reg != 4) || reg == 13; }

static bool thread_base(walk *w) { return SKIP(w, 0x65, 0x44, 0x8b, 0x0c, 0x25) && state_slot(w, ST_TLS_BASE); }

/* pushfq; movsx r9, reg; mov r10d, r9d; and r10d, 31; sar r9, 5; lea r8d, [r8 + r9 * 4]; with 16-bit addresses
 * movzx r8d, r8w; popfq; through gs mov r9d, its base; lea r8d, [r8 + r9]; then the one bt, bts, btr or btc of
 * [r8], r10 (15, 4 and 2 with words). */
static bool bit_string(walk *w) {
    if (!SKIP(w, 0x9c))
        return false;
    uint8_t rex = next_byte(w);
    bool word = !SKIP(w, 0x63);
    if ((rex & ~1u) != 0x4c || (word && !SKIP(w, 0x0f, 0xbf)))
        return false;
    uint8_t modrm = next_byte(w);
    if ((modrm & 0xf8) != 0xc8 || !general((modrm & 7u) | (rex & 1u) << 3))
        return false;
    bool split = word ? SKIP(w, 0x45, 0x89, 0xca, 0x41, 0x81, 0xe2, 15, 0, 0, 0, 0x49, 0xc1, 0xf9, 4,
                             0x47, 0x8d, 0x04, 0x48)
                      : SKIP(w, 0x45, 0x89, 0xca, 0x41, 0x81, 0xe2, 31, 0, 0, 0, 0x49, 0xc1, 0xf9, 5,
                             0x47, 0x8d, 0x04, 0x88);
    (void)SKIP(w, 0x45, 0x0f, 0xb7, 0xc0);
    if (!split || !SKIP(w, 0x9d) || (PEEK(w, 0x65, 0x44) && !(thread_base(w) && SKIP(w, 0x47, 0x8d, 0x04, 0x08))))
        return false;
    (void)SKIP(w, 0xf0);
    if (word != SKIP(w, 0x66) || !SKIP(w, 0x65, 0x45, 0x0f))
        return false;
    return (next_byte(w) & 0xe7) == 0xa3 && SKIP(w, 0x10);
}

/* fnstenv or fnsave at [r8], then zeros over the pointers it stored */
static bool environment(walk *w) {
    if (!SKIP(w, 0x65, 0x41, 0xd9, 0x30) && !SKIP(w, 0x65, 0x41, 0xdd, 0x30))
        return false;
    for (uint8_t offset = 12; offset <= 24; offset += 4)
        if (!SKIP(w, 0x65, 0x41, 0xc7, 0x40, offset, 0, 0, 0, 0))
            return false;
    return true;
}

/* maskmovq, maskmovdqu and vmaskmovdqu store at rdi, which the prefixes confine. */
static bool masked_store(walk *w) {
    return SKIP(w, 0x65, 0x67) && (SKIP(w, 0x66, 0x0f, 0xf7) || SKIP(w, 0x0f, 0xf7) || SKIP(w, 0xc5, 0xf9, 0xf7)) && next_byte(w) >= 0xc0;
}

/* jrcxz over a jump; loop, jecxz over the jump that is not taken */
static bool counted(walk *w) {
    if (SKIP(w, 0xe3, 5)) {
        if (!SKIP(w, 0xe9))
            return false;
        return branch(w);
    }
    return SKIP(w, 0x67) && (next_byte(w) & 0xfc) == 0xe0 && SKIP(w, 2, 0xeb, 5, 0xe9) && branch(w);
}

static bool long_nop(walk *w) { return SKIP(w, 0x0f, 0x1f, 0x00) || SKIP(w, 0x0f, 0x1f, 0x40, 0x00); }

static bool jump(walk *w) {
    w->ended = true;
    w->at++;
    return branch(w);
}

static bool call(walk *w) {
    w->at++;
    return branch(w);
}

static bool ret(walk *w) {
    w->ended = true;
    w->at++;
    return true;
}

static bool conditional(walk *w) {
    w->at += 2;
    return branch(w);
}

/* --- a block ------------------------------------------------------------------------------------- */

static bool single(walk *w) {
    const uint8_t *start = w->code + w->at;
    uint32_t length = verify_insn(start);
    if (length == 0)
        return false;
    w->reason_in_r9 = start[0] == 0x41 && start[1] == 0xb9;
    w->at += length;
    return true;
}

/* Overrides of cs, which do nothing before a branch (Intel SDM volume 2, 2.1.1 and JMP). */
static bool padded(walk *w) {
    for (unsigned i = 0; i < 3 && PEEK(w, 0x2e); i++)
        w->at++;
    const uint8_t *p = w->code + w->at;
    switch (p[0]) {
    case 0xe8: return call(w);
    case 0xe9: return jump(w);
    default: return p[0] == 0x0f && (p[1] & 0xf0) == 0x80 && conditional(w);
    }
}

/* Sequences by their first bytes, no two of which are equal. */
static bool sequence(walk *w) {
    const uint8_t *p = w->code + w->at;
    switch (p[0]) {
    case 0xc3: return ret(w);
    case 0xe8: return call(w);
    case 0xe9: return jump(w);
    case 0x0f: return (p[1] & 0xf0) == 0x80 ? conditional(w) : long_nop(w);
    case 0x2e: return padded(w);
    case 0x47: return probe(w);
    case 0x65: return p[1] == 0x41 ? environment(w) : p[1] == 0x44 ? thread_base(w) : p[1] == 0x67 ? masked_store(w) : string(w);
    case 0x67: case 0xe3: return counted(w);
    case 0x9c: return p[1] == 0x41 ? flags_out(w) : bit_string(w);
    default: return false;
    }
}

/* One sequence begins like a single instruction, so it is tried first. */
static bool read_form(walk *w) {
    uint32_t at = w->at;
    const uint8_t *p = w->code + at;
    if (p[0] == 0x41 && p[1] == 0x81 && p[2] == 0xe0) {
        if (flags_in(w))
            return true;
        w->at = at;
    }
    return single(w) || sequence(w);
}

static bool step(walk *w) {
    bool reason = w->reason_in_r9;
    w->ended = false;
    bool ok = read_form(w);
    w->reason_in_r9 = w->reason_in_r9 && !reason;
    return ok && w->at <= w->end;
}

bool verify_block(const vx_cache *cache, const vx_block *block) {
    verify_insn_prepare();
    VX_CHECK(block->end + LONGEST <= cache->size);
    walk w;
    w.cache = cache, w.block = block, w.code = cache->edit, w.at = block->start, w.end = block->end;
    w.pending_count = w.stubs = 0;
    w.ended = w.reason_in_r9 = false;
    while (w.at < w.end) {
        if (w.ended && w.pending_count != 0 && PEEK(&w, 0x4c, 0x8d, 0x0d))
            break;
        if (!step(&w))
            return false;
    }
    while (w.at < w.end)
        if (!stub(&w))
            return false;
    return w.ended && w.stubs == w.pending_count;
}
