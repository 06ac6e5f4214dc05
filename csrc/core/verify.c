/* The verifier: reads a block's emitted code again, with its own decoder, before it is published.
 *
 * It knows nothing of guests and shares no table with the decoder or the translator.  It accepts:
 *
 * V1  Memory is named by a gs override with 32-bit address size, never relative to rip or rsp.
 *     Without the address size only two slots of the state are read, each in its one sequence.
 * V2  General registers are the guest's seven, r12 and the scratch r8-r10.  64-bit operations occur
 *     only inside the sequences below; everything else leaves upper halves zero.
 * V3  rsp moves by call, ret and by push and pop within one sequence.
 * V4  Branches go to a gate, to the body of a block, or to a stub of this block that names the very
 *     branch; indirect ones through the lookup table, whose address is in r15, which V2 never names.
 *     Every one starts at an instruction the walk has seen, so no bytes are read in two ways.
 * V5  The opcode is one of the table: no system, privileged, far, segment or 64-bit-only instruction,
 *     nothing that walks past its operand (bit strings and string instructions have sequences).
 * V6  Nothing falls out of the block: control ends in a jump or return before the stubs.
 *
 * Longer sequences are matched whole: a branch cannot enter them. */
#include "internal.h"

#include <pthread.h>

enum { RBX = 3, RSP = 4, RDI = 7, R8 = 8, R10 = 10, R12 = 12 };

/* --- what may be emitted as a single instruction ------------------------------------------------ */

/* Mandatory prefixes: none, 66, f3, f2; X both of 66 and f2 or f3. */
enum { N = 1, P = 2, F3 = 4, F2 = 8, X = 16, INT = N | P, ALL = N | P | F3 | F2 };
/* Operand forms, and which ModRM fields are general registers (B: bytes of them). */
enum { R = 1, M = 2, RM = 3, PLAIN = 4, OPREG = 8, OPREGB = 16 };
enum { G = 1, GB = 2, E = 4, EB = 8, LOCK = 16 };
enum { EXT_ALL = 0xff };
enum { IMM_OPERAND = 0xf }; /* 2 or 4 bytes by operand size */

typedef struct accept {
    uint8_t map, first, last, prefixes, ext, forms, regs, imm;
} accept;

#define ALU(op, lock) \
    {0, op, op, INT, EXT_ALL, RM, GB | EB | lock, 0}, {0, op + 1, op + 1, INT, EXT_ALL, RM, G | E | lock, 0}, \
    {0, op + 2, op + 2, INT, EXT_ALL, RM, GB | EB, 0}, {0, op + 3, op + 3, INT, EXT_ALL, RM, G | E, 0}, \
    {0, op + 4, op + 4, INT, 0, PLAIN, 0, 1}, {0, op + 5, op + 5, INT, 0, PLAIN, 0, IMM_OPERAND}

static const accept accepts[] = {
    ALU(0x00, LOCK), ALU(0x08, LOCK), ALU(0x10, LOCK), ALU(0x18, LOCK), ALU(0x20, LOCK), ALU(0x28, LOCK),
    ALU(0x30, LOCK), ALU(0x38, 0),
    {0, 0x69, 0x69, INT, EXT_ALL, RM, G | E, IMM_OPERAND},
    {0, 0x6b, 0x6b, INT, EXT_ALL, RM, G | E, 1},
    {0, 0x80, 0x80, INT, 0x7f, RM, EB | LOCK, 1}, {0, 0x80, 0x80, INT, 0x80, RM, EB, 1},
    {0, 0x81, 0x81, INT, 0x7f, RM, E | LOCK, IMM_OPERAND}, {0, 0x81, 0x81, INT, 0x80, RM, E, IMM_OPERAND},
    {0, 0x83, 0x83, INT, 0x7f, RM, E | LOCK, 1}, {0, 0x83, 0x83, INT, 0x80, RM, E, 1},
    {0, 0x84, 0x84, INT, EXT_ALL, RM, GB | EB, 0}, {0, 0x85, 0x85, INT, EXT_ALL, RM, G | E, 0},
    {0, 0x86, 0x86, INT, EXT_ALL, RM, GB | EB | LOCK, 0}, {0, 0x87, 0x87, INT, EXT_ALL, RM, G | E | LOCK, 0},
    {0, 0x88, 0x88, INT, EXT_ALL, RM, GB | EB, 0}, {0, 0x89, 0x89, INT, EXT_ALL, RM, G | E, 0},
    {0, 0x8a, 0x8a, INT, EXT_ALL, RM, GB | EB, 0}, {0, 0x8b, 0x8b, INT, EXT_ALL, RM, G | E, 0},
    {0, 0x90, 0x90, INT | F3, 0, PLAIN, 0, 0}, /* nop, pause */
    {0, 0x91, 0x97, INT, 0, OPREG, 0, 0},
    {0, 0x98, 0x99, INT, 0, PLAIN, 0, 0}, {0, 0x9b, 0x9b, N, 0, PLAIN, 0, 0},
    {0, 0x9e, 0x9f, INT, 0, PLAIN, 0, 0},
    {0, 0xa8, 0xa8, INT, 0, PLAIN, 0, 1}, {0, 0xa9, 0xa9, INT, 0, PLAIN, 0, IMM_OPERAND},
    {0, 0xb0, 0xb7, INT, 0, OPREGB, 0, 1}, {0, 0xb8, 0xbf, INT, 0, OPREG, 0, IMM_OPERAND},
    {0, 0xc0, 0xc0, INT, EXT_ALL, RM, EB, 1}, {0, 0xc1, 0xc1, INT, EXT_ALL, RM, E, 1},
    {0, 0xc6, 0xc6, INT, 1, RM, EB, 1}, {0, 0xc7, 0xc7, INT, 1, RM, E, IMM_OPERAND},
    {0, 0xd0, 0xd0, INT, EXT_ALL, RM, EB, 0}, {0, 0xd1, 0xd1, INT, EXT_ALL, RM, E, 0},
    {0, 0xd2, 0xd2, INT, EXT_ALL, RM, EB, 0}, {0, 0xd3, 0xd3, INT, EXT_ALL, RM, E, 0},
    /* x87; the stores of environments are a sequence */
    {0, 0xd8, 0xd8, N, EXT_ALL, RM, 0, 0},
    {0, 0xd9, 0xd9, N, EXT_ALL, R, 0, 0}, {0, 0xd9, 0xd9, N, 0xff & ~(1 << 1 | 1 << 6), M, 0, 0},
    {0, 0xda, 0xda, N, 0x2f, R, 0, 0}, {0, 0xda, 0xda, N, EXT_ALL, M, 0, 0},
    {0, 0xdb, 0xdb, N, 0x7f, R, 0, 0}, {0, 0xdb, 0xdb, N, 0xff & ~(1 << 4 | 1 << 6), M, 0, 0},
    {0, 0xdc, 0xdc, N, EXT_ALL, RM, 0, 0},
    {0, 0xdd, 0xdd, N, 0x3f, R, 0, 0}, {0, 0xdd, 0xdd, N, 0xff & ~(1 << 5 | 1 << 6), M, 0, 0},
    {0, 0xde, 0xde, N, EXT_ALL, RM, 0, 0},
    {0, 0xdf, 0xdf, N, 0x7f, R, 0, 0}, {0, 0xdf, 0xdf, N, EXT_ALL, M, 0, 0},
    {0, 0xf5, 0xf5, INT, 0, PLAIN, 0, 0}, {0, 0xf8, 0xf9, INT, 0, PLAIN, 0, 0},
    {0, 0xfc, 0xfd, INT, 0, PLAIN, 0, 0},
    {0, 0xf6, 0xf6, INT, 3, RM, EB, 1}, {0, 0xf6, 0xf6, INT, 0x0c, RM, EB | LOCK, 0},
    {0, 0xf6, 0xf6, INT, 0xf0, RM, EB, 0},
    {0, 0xf7, 0xf7, INT, 3, RM, E, IMM_OPERAND}, {0, 0xf7, 0xf7, INT, 0x0c, RM, E | LOCK, 0},
    {0, 0xf7, 0xf7, INT, 0xf0, RM, E, 0},
    {0, 0xfe, 0xfe, INT, 3, RM, EB | LOCK, 0}, {0, 0xff, 0xff, INT, 3, RM, E | LOCK, 0},

    {1, 0x10, 0x11, ALL, EXT_ALL, RM, 0, 0}, {1, 0x12, 0x12, N | F3 | F2, EXT_ALL, RM, 0, 0},
    {1, 0x12, 0x12, P, EXT_ALL, M, 0, 0}, {1, 0x13, 0x13, INT, EXT_ALL, M, 0, 0},
    {1, 0x14, 0x15, INT, EXT_ALL, RM, 0, 0}, {1, 0x16, 0x16, N | F3, EXT_ALL, RM, 0, 0},
    {1, 0x16, 0x16, P, EXT_ALL, M, 0, 0}, {1, 0x17, 0x17, INT, EXT_ALL, M, 0, 0},
    {1, 0x28, 0x29, INT, EXT_ALL, RM, 0, 0},
    {1, 0x2a, 0x2a, INT, EXT_ALL, RM, 0, 0}, {1, 0x2a, 0x2a, F3 | F2, EXT_ALL, RM, E, 0},
    {1, 0x2b, 0x2b, INT, EXT_ALL, M, 0, 0},
    {1, 0x2c, 0x2d, INT, EXT_ALL, RM, 0, 0}, {1, 0x2c, 0x2d, F3 | F2, EXT_ALL, RM, G, 0},
    {1, 0x2e, 0x2f, INT, EXT_ALL, RM, 0, 0},
    {1, 0x40, 0x4f, INT, EXT_ALL, RM, G | E, 0},
    {1, 0x50, 0x50, INT, EXT_ALL, R, G, 0},
    {1, 0x51, 0x51, ALL, EXT_ALL, RM, 0, 0}, {1, 0x52, 0x53, N | F3, EXT_ALL, RM, 0, 0},
    {1, 0x54, 0x57, INT, EXT_ALL, RM, 0, 0}, {1, 0x58, 0x5a, ALL, EXT_ALL, RM, 0, 0},
    {1, 0x5b, 0x5b, N | P | F3, EXT_ALL, RM, 0, 0}, {1, 0x5c, 0x5f, ALL, EXT_ALL, RM, 0, 0},
    {1, 0x60, 0x6b, INT, EXT_ALL, RM, 0, 0}, {1, 0x6c, 0x6d, P, EXT_ALL, RM, 0, 0},
    {1, 0x6e, 0x6e, INT, EXT_ALL, RM, E, 0}, {1, 0x6f, 0x6f, N | P | F3, EXT_ALL, RM, 0, 0},
    {1, 0x70, 0x70, ALL, EXT_ALL, RM, 0, 1}, {1, 0x71, 0x72, INT, 0x54, R, 0, 1},
    {1, 0x73, 0x73, N, 0x44, R, 0, 1}, {1, 0x73, 0x73, P, 0xcc, R, 0, 1},
    {1, 0x74, 0x76, INT, EXT_ALL, RM, 0, 0}, {1, 0x77, 0x77, N, 0, PLAIN, 0, 0},
    {1, 0x7c, 0x7d, P | F2, EXT_ALL, RM, 0, 0},
    {1, 0x7e, 0x7e, INT, EXT_ALL, RM, E, 0}, {1, 0x7e, 0x7e, F3, EXT_ALL, RM, 0, 0},
    {1, 0x7f, 0x7f, N | P | F3, EXT_ALL, RM, 0, 0},
    {1, 0x90, 0x9f, INT, EXT_ALL, RM, EB, 0},
    {1, 0xa3, 0xa3, INT, EXT_ALL, R, G | E, 0},
    {1, 0xa4, 0xa4, INT, EXT_ALL, RM, G | E, 1}, {1, 0xa5, 0xa5, INT, EXT_ALL, RM, G | E, 0},
    {1, 0xab, 0xab, INT, EXT_ALL, R, G | E, 0},
    {1, 0xac, 0xac, INT, EXT_ALL, RM, G | E, 1}, {1, 0xad, 0xad, INT, EXT_ALL, RM, G | E, 0},
    {1, 0xae, 0xae, N, 0x0c, M, 0, 0}, {1, 0xae, 0xae, N, 0xe0, R, 0, 0},
    {1, 0xaf, 0xaf, INT, EXT_ALL, RM, G | E, 0},
    {1, 0xb0, 0xb0, INT, EXT_ALL, RM, GB | EB | LOCK, 0}, {1, 0xb1, 0xb1, INT, EXT_ALL, RM, G | E | LOCK, 0},
    {1, 0xb3, 0xb3, INT, EXT_ALL, R, G | E, 0},
    {1, 0xb6, 0xb6, INT, EXT_ALL, RM, G | EB, 0}, {1, 0xb7, 0xb7, INT, EXT_ALL, RM, G | E, 0},
    {1, 0xb8, 0xb8, F3 | X, EXT_ALL, RM, G | E, 0},
    {1, 0xba, 0xba, INT, 0x10, RM, E, 1}, {1, 0xba, 0xba, INT, 0xe0, RM, E | LOCK, 1},
    {1, 0xbb, 0xbb, INT, EXT_ALL, R, G | E, 0},
    {1, 0xbc, 0xbd, INT | F3 | X, EXT_ALL, RM, G | E, 0},
    {1, 0xbe, 0xbe, INT, EXT_ALL, RM, G | EB, 0}, {1, 0xbf, 0xbf, INT, EXT_ALL, RM, G | E, 0},
    {1, 0xc0, 0xc0, INT, EXT_ALL, RM, GB | EB | LOCK, 0}, {1, 0xc1, 0xc1, INT, EXT_ALL, RM, G | E | LOCK, 0},
    {1, 0xc2, 0xc2, ALL, EXT_ALL, RM, 0, 1}, {1, 0xc3, 0xc3, N, EXT_ALL, M, G, 0},
    {1, 0xc4, 0xc4, INT, EXT_ALL, RM, E, 1}, {1, 0xc5, 0xc5, INT, EXT_ALL, R, G, 1},
    {1, 0xc6, 0xc6, INT, EXT_ALL, RM, 0, 1},
    {1, 0xc7, 0xc7, N, 1 << 1, M, LOCK, 0}, {1, 0xc8, 0xcf, N, 0, OPREG, 0, 0},
    {1, 0xd0, 0xd0, P | F2, EXT_ALL, RM, 0, 0}, {1, 0xd1, 0xd5, INT, EXT_ALL, RM, 0, 0},
    {1, 0xd6, 0xd6, P, EXT_ALL, RM, 0, 0}, {1, 0xd6, 0xd6, F3 | F2, EXT_ALL, R, 0, 0},
    {1, 0xd7, 0xd7, INT, EXT_ALL, R, G, 0}, {1, 0xd8, 0xe5, INT, EXT_ALL, RM, 0, 0},
    {1, 0xe6, 0xe6, P | F3 | F2, EXT_ALL, RM, 0, 0}, {1, 0xe7, 0xe7, INT, EXT_ALL, M, 0, 0},
    {1, 0xe8, 0xef, INT, EXT_ALL, RM, 0, 0}, {1, 0xf0, 0xf0, F2, EXT_ALL, M, 0, 0},
    {1, 0xf1, 0xf6, INT, EXT_ALL, RM, 0, 0},
    {1, 0xf8, 0xfe, INT, EXT_ALL, RM, 0, 0},

    {2, 0x00, 0x0b, INT, EXT_ALL, RM, 0, 0}, {2, 0x10, 0x10, P, EXT_ALL, RM, 0, 0},
    {2, 0x14, 0x15, P, EXT_ALL, RM, 0, 0}, {2, 0x17, 0x17, P, EXT_ALL, RM, 0, 0},
    {2, 0x1c, 0x1e, INT, EXT_ALL, RM, 0, 0}, {2, 0x20, 0x25, P, EXT_ALL, RM, 0, 0},
    {2, 0x28, 0x29, P, EXT_ALL, RM, 0, 0},
    {2, 0x2a, 0x2a, P, EXT_ALL, M, 0, 0}, {2, 0x2b, 0x2b, P, EXT_ALL, RM, 0, 0}, {2, 0x30, 0x35, P, EXT_ALL, RM, 0, 0},
    {2, 0x37, 0x41, P, EXT_ALL, RM, 0, 0}, {2, 0xc8, 0xcd, N, EXT_ALL, RM, 0, 0},
    {2, 0xdb, 0xdf, P, EXT_ALL, RM, 0, 0},
    {2, 0xf0, 0xf1, INT, EXT_ALL, M, G, 0},
    {2, 0xf6, 0xf6, P | F3, EXT_ALL, RM, G | E, 0},
    {2, 0xf0, 0xf0, F2, EXT_ALL, RM, G | EB, 0}, {2, 0xf1, 0xf1, F2 | X, EXT_ALL, RM, G | E, 0},

    {3, 0x08, 0x0e, P, EXT_ALL, RM, 0, 1}, {3, 0x0f, 0x0f, INT, EXT_ALL, RM, 0, 1},
    {3, 0x14, 0x17, P, EXT_ALL, RM, E, 1}, {3, 0x20, 0x20, P, EXT_ALL, RM, E, 1},
    {3, 0x21, 0x21, P, EXT_ALL, RM, 0, 1}, {3, 0x22, 0x22, P, EXT_ALL, RM, E, 1},
    {3, 0x40, 0x42, P, EXT_ALL, RM, 0, 1}, {3, 0x44, 0x44, P, EXT_ALL, RM, 0, 1},
    {3, 0x60, 0x63, P, EXT_ALL, RM, 0, 1}, {3, 0xcc, 0xcc, N, EXT_ALL, RM, 0, 1}, {3, 0xdf, 0xdf, P, EXT_ALL, RM, 0, 1},
};

/* First row of each opcode, plus one; its other rows follow it or come later in the table. */
static uint8_t first_row[4][256];
static pthread_once_t first_row_once = PTHREAD_ONCE_INIT;

static void index_rows(void) {
    _Static_assert(VX_COUNT(accepts) < 255, "rows fit a byte");
    for (size_t row = VX_COUNT(accepts); row-- > 0;)
        for (unsigned op = accepts[row].first; op <= accepts[row].last; op++)
            first_row[accepts[row].map][op] = (uint8_t)(row + 1);
}

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
    bool direct_seen;
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
    return target == gate_offset(w, GATE_MISS_RCX) || target == gate_offset(w, GATE_RESYNC) ||
           target == gate_offset(w, GATE_RESYNC_RCX) ||
           (target == gate_offset(w, GATE_REASON) && w->reason_in_r9);
}

static bool to_body(const walk *w, uint32_t target) {
    if (target == w->block->direct)
        return true;
    const vx_block *block = cache_find(w->cache, (uintptr_t)w->cache->run + target);
    return block != NULL && block->direct == target;
}

/* The rel32 of a branch.  What goes forward in the block has to be met as a stub. */
static bool branch(walk *w) {
    uint32_t site = w->at;
    w->at += 4;
    uint32_t target = branch_target(w, site);
    if (to_gate(w, target) || to_body(w, target))
        return true;
    if (target < w->at || target >= w->end || site % 4 != 0 || w->pending_count == VX_COUNT(w->pending))
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

/* movzx r9d, r8w; jmp or call [r15 + r9 * 8] */
static bool probe(walk *w) {
    if (!SKIP(w, 0x45, 0x0f, 0xb7, 0xc8))
        return false;
    bool jumps = SKIP(w, 0x43, 0xff, 0x24, 0xcf);
    if (!jumps && !SKIP(w, 0x43, 0xff, 0x14, 0xcf))
        return false;
    w->ended = jumps;
    return true;
}

/* mov r8, base; lea rsi, [rsi + r8]; lea rdi, [rdi + r8]; the instruction; mov esi, esi; mov edi, edi */
static bool string(walk *w) {
    if (!SKIP(w, 0x65, 0x4c, 0x8b, 0x04, 0x25) || !state_slot(w, ST_BASE))
        return false;
    bool source = SKIP(w, 0x4a, 0x8d, 0x34, 0x06), destination = SKIP(w, 0x4a, 0x8d, 0x3c, 0x07);
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

static bool general(unsigned reg) { return (reg <= RDI && reg != RSP) || reg == R12; }

/* pushfq; movsx r9, reg; mov r10d, r9d; and r10d, 31; sar r9, 5; lea r8d, [r8 + r9 * 4]; with 16-bit addresses
 * movzx r8d, r8w; popfq; then the one bt, bts, btr or btc of [r8], r10 (15, 4 and 2 with words). */
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
    if (!split || !SKIP(w, 0x9d))
        return false;
    (void)SKIP(w, 0xf0);
    if (word != SKIP(w, 0x66) || !SKIP(w, 0x65, 0x67, 0x45, 0x0f))
        return false;
    return (next_byte(w) & 0xe7) == 0xa3 && SKIP(w, 0x10);
}

/* fnstenv or fnsave at [r8], then zeros over the pointers it stored */
static bool environment(walk *w) {
    if (!SKIP(w, 0x65, 0x67, 0x41, 0xd9, 0x30) && !SKIP(w, 0x65, 0x67, 0x41, 0xdd, 0x30))
        return false;
    for (uint8_t offset = 12; offset <= 24; offset += 4)
        if (!SKIP(w, 0x65, 0x67, 0x41, 0xc7, 0x40, offset, 0, 0, 0, 0))
            return false;
    return true;
}

/* maskmovq and maskmovdqu store at rdi, which the prefixes confine. */
static bool masked_store(walk *w) {
    return SKIP(w, 0x65, 0x67) && (SKIP(w, 0x66, 0x0f, 0xf7) || SKIP(w, 0x0f, 0xf7)) && next_byte(w) >= 0xc0;
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

static bool thread_base(walk *w) { return SKIP(w, 0x65, 0x44, 0x8b, 0x0c, 0x25) && state_slot(w, ST_TLS_BASE); }

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

/* --- single instructions ------------------------------------------------------------------------- */

typedef struct insn {
    bool lock, word, gs, address32;
    uint8_t rep, rex, map, op;
    bool mem;
    uint8_t reg, rm;
} insn;

static bool named(unsigned reg) { return general(reg) || (reg >= R8 && reg <= R10); }

/* With REX, 4 to 7 are spl to dil, which no one emits. */
static bool named_byte(const insn *in, unsigned reg) {
    return in->rex == 0 ? reg <= 7 : reg <= RBX || (reg >= R8 && reg <= R10);
}

static bool address(walk *w, const insn *in, uint8_t modrm) {
    unsigned mod = modrm >> 6, base = modrm & 7, high = (in->rex & 1u) << 3;
    if (base == 5 && mod == 0)
        return false; /* relative to rip */
    if (base == 4) {
        uint8_t sib = next_byte(w);
        unsigned index = (sib >> 3 & 7) | (in->rex & 2u) << 2;
        if (index != 4 && !named(index))
            return false;
        base = sib & 7;
        if (base == 5 && mod == 0) {
            w->at += 4;
            return true;
        }
    }
    w->at += mod == 0 ? 0 : mod == 1 ? 1 : 4;
    return named(base | high);
}

static bool read_modrm(walk *w, insn *in) {
    uint8_t modrm = next_byte(w);
    in->reg = (uint8_t)((modrm >> 3 & 7) | (in->rex & 4) << 1);
    in->rm = (uint8_t)((modrm & 7) | (in->rex & 1) << 3);
    in->mem = modrm < 0xc0;
    return !in->mem || address(w, in, modrm);
}

/* Prefixes in the one order that is emitted, by their place in it; 0 is no prefix. */
static const uint8_t prefix_order[256] = {
    [0xf0] = 1, [0x66] = 2, [0xf2] = 3, [0xf3] = 3, [0x65] = 4, [0x67] = 5, [0x40] = 6, [0x41] = 6, [0x42] = 6,
    [0x43] = 6, [0x44] = 6, [0x45] = 6, [0x46] = 6, [0x47] = 6};

static void read_opcode(walk *w, insn *in) {
    const uint8_t *p = w->code + w->at;
    unsigned seen = 0;
    in->rep = in->rex = in->map = 0;
    for (unsigned last = 0, order; (order = prefix_order[*p]) > last; last = order, p++) {
        seen |= 1u << order;
        in->rep = order == 3 ? *p : in->rep;
        in->rex = order == 6 ? *p : in->rex;
    }
    in->lock = seen >> 1 & 1, in->word = seen >> 2 & 1, in->gs = seen >> 4 & 1, in->address32 = seen >> 5 & 1;
    if (*p == 0x0f) {
        in->map = p[1] == 0x38 ? 2 : p[1] == 0x3a ? 3 : 1;
        p += in->map == 1 ? 1 : 2;
    }
    in->op = *p++;
    in->mem = false;
    w->at = (uint32_t)(p - w->code);
}

static bool registers_ok(const insn *in, const accept *a) {
    bool reg = a->regs & G ? named(in->reg) : a->regs & GB ? named_byte(in, in->reg) : in->reg <= 7;
    bool rm = in->mem || (a->regs & E ? named(in->rm) : a->regs & EB ? named_byte(in, in->rm) : in->rm <= 7);
    return reg && rm;
}

static bool prefix_ok(const insn *in, const accept *a) {
    unsigned prefix = in->rep == 0xf2 ? F2 : in->rep == 0xf3 ? F3 : in->word ? P : N;
    bool both = in->rep != 0 && in->word;
    return (a->prefixes & prefix) && (!both || (a->prefixes & X)) && (!in->lock || (in->mem && (a->regs & LOCK)));
}

static bool row_ok(const insn *in, const accept *a, bool has_modrm) {
    if (a->map != in->map || in->op < a->first || in->op > a->last || !prefix_ok(in, a))
        return false;
    if (has_modrm)
        return (a->ext >> (in->reg & 7) & 1) && (a->forms & (in->mem ? M : R)) && registers_ok(in, a) &&
               in->mem == in->gs;
    unsigned reg = (in->op & 7) | (in->rex & 1u) << 3;
    return !in->gs && (in->rex & ~0x41u) == 0 &&
           (a->forms == OPREG ? named(reg) : a->forms == OPREGB ? named_byte(in, reg) : in->rex == 0);
}

/* lea computes, and touches no memory. */
static bool lea(walk *w, insn *in) {
    return read_modrm(w, in) && in->mem && !in->gs && !in->lock && in->rep == 0 && named(in->reg);
}

static bool single(walk *w) {
    insn in;
    const uint8_t *start = w->code + w->at;
    read_opcode(w, &in);
    if (in.gs != in.address32)
        return false;
    if (in.map == 0 && in.op == 0x8d)
        return lea(w, &in);
    unsigned first = first_row[in.map][in.op];
    if (first == 0)
        return false;
    const accept *a = &accepts[first - 1], *end = accepts + VX_COUNT(accepts);
    bool has_modrm = a->forms & RM;
    if (has_modrm && !read_modrm(w, &in))
        return false;
    while (a < end && !row_ok(&in, a, has_modrm))
        a++;
    if (a == end)
        return false;
    w->reason_in_r9 = start[0] == 0x41 && start[1] == 0xb9;
    w->at += a->imm == IMM_OPERAND ? (in.word ? 2 : 4) : a->imm;
    return true;
}

/* --- a block ------------------------------------------------------------------------------------- */

/* Each form has its own first bytes: one reading is tried, but where a sequence starts like an
 * ordinary instruction. */
static bool either(walk *w, bool (*sequence)(walk *)) {
    uint32_t at = w->at;
    if (sequence(w))
        return true;
    w->at = at;
    return single(w);
}

static bool through_gs(walk *w, const uint8_t *p) {
    if (p[1] == 0x67)
        return p[2] == 0x0f || p[2] == 0x66 ? either(w, masked_store)
               : p[3] == 0xd9 || p[3] == 0xdd ? either(w, environment) : single(w);
    return p[1] == 0x44 ? thread_base(w) : string(w);
}

static bool read_form(walk *w) {
    const uint8_t *p = w->code + w->at;
    switch (p[0]) {
    case 0xc3: return ret(w);
    case 0xe8: return call(w);
    case 0xe9: return jump(w);
    case 0x0f: return (p[1] & 0xf0) == 0x80 ? conditional(w) : p[1] == 0x1f ? long_nop(w) : single(w);
    case 0x41: return p[1] == 0x81 && p[2] == 0xe0 ? either(w, flags_in) : single(w);
    case 0x45: return p[1] == 0x0f && p[2] == 0xb7 && p[3] == 0xc8 ? either(w, probe) : single(w);
    case 0x65: return through_gs(w, p);
    case 0x67: case 0xe3: return counted(w);
    case 0x9c: return p[1] == 0x41 ? flags_out(w) : bit_string(w);
    default: return single(w);
    }
}

static bool step(walk *w) {
    bool reason = w->reason_in_r9;
    w->ended = false;
    bool ok = read_form(w);
    w->reason_in_r9 = w->reason_in_r9 && !reason;
    return ok && w->at <= w->end;
}

bool verify_block(const vx_cache *cache, const vx_block *block) {
    pthread_once(&first_row_once, index_rows);
    VX_CHECK(block->end + LONGEST <= cache->size);
    walk w;
    w.cache = cache, w.block = block, w.code = cache->edit, w.at = block->start, w.end = block->end;
    w.pending_count = w.stubs = 0;
    w.ended = w.reason_in_r9 = w.direct_seen = false;
    while (w.at < w.end) {
        if (w.ended && w.pending_count != 0 && PEEK(&w, 0x4c, 0x8d, 0x0d))
            break;
        w.direct_seen |= w.at == block->direct;
        if (!step(&w))
            return false;
    }
    while (w.at < w.end)
        if (!stub(&w))
            return false;
    return w.ended && w.direct_seen && w.stubs == w.pending_count;
}
