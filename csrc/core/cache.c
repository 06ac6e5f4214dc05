#include "../vx.h"
#include "cache.h"

#include "emit.h"
#include "limits.h"
#include "os.h"
#include "signals.h"
#include "state.h"

#define GATE_SIZE 8
#define FIRST_BLOCK 256

static void *metadata(size_t size) { return os_private(page_up(size)); }

static void drop_metadata(void *memory, size_t size) {
    if (memory != NULL)
        os_release(memory, page_up(size));
}

/* A gate is `jmp [rip + pointer]`: the cache may lie anywhere from the core's own code. */
static void write_gates(vx_cache *c) {
    void (*const targets[GATE_COUNT])(void) = {
        [GATE_MISS] = vx_exit_miss, [GATE_LINK] = vx_exit_link, [GATE_REASON] = vx_exit_reason,
        [GATE_RESYNC] = vx_resync, [GATE_RESYNC_RCX] = vx_resync_rcx};
    /* From the end of a gate to its pointer; the same for all, both are 8 bytes wide. */
    const int32_t distance = GATE_SIZE * GATE_COUNT - 6;
    for (unsigned gate = 0; gate < GATE_COUNT; gate++) {
        uint8_t *code = c->edit + gate * GATE_SIZE;
        memcpy(code + GATE_SIZE * GATE_COUNT, &targets[gate], 8);
        code[0] = 0xff, code[1] = 0x25;
        memcpy(code + 2, &distance, 4);
    }
}

/* The first index is a page.  The largest has twice as many places as there can be blocks; all together have less
 * than twice as many as it. */
#define INDEX_FIRST (VX_PAGE_SIZE / sizeof(uint32_t))

static size_t indexes_size(const vx_cache *c) {
    size_t largest = INDEX_FIRST;
    while (largest < 2 * c->block_max)
        largest *= 2;
    return 2 * largest * sizeof *c->indexes;
}

/* A bit for each byte of code there may be: `heads` repeats itself behind the code, never within it. */
static size_t head_bits(const vx_cache *c) {
    size_t bits = 8 * VX_PAGE_SIZE;
    while (bits < c->size / VX_CACHE_FACTOR)
        bits *= 2;
    return bits;
}

static void cache_free(vx_cache *c) {
    table_free(&c->table);
    drop_metadata(c->heads, head_bits(c) / 8);
    drop_metadata(c->indexes, indexes_size(c));
    drop_metadata(c->marks, c->mark_max * sizeof *c->marks);
    drop_metadata(c->blocks, c->block_max * sizeof *c->blocks);
    if (c->run != NULL) {
        os_release(c->run, c->size);
        os_release(c->edit, c->size);
    }
    free(c);
}

static size_t cache_size_for(size_t code_bytes) {
    size_t size = code_bytes > VX_CACHE_MAX / VX_CACHE_FACTOR ? VX_CACHE_MAX : code_bytes * VX_CACHE_FACTOR;
    return page_up(size < VX_CACHE_MIN ? VX_CACHE_MIN : size);
}

static uint64_t created; /* under the translation lock */

vx_cache *cache_create(size_t code_bytes, unsigned uses) {
    vx_cache *c = calloc(1, sizeof *c);
    if (c == NULL)
        return NULL;
    c->size = cache_size_for(code_bytes);
    c->block_max = c->size / VX_BLOCK_ALIGN;
    c->mark_max = c->size / 3;
    c->uses = uses;
    c->number = ++created;
    c->references = 1;
    c->fork_generation = vx_fork_generation();
    c->blocks = metadata(c->block_max * sizeof *c->blocks);
    c->marks = metadata(c->mark_max * sizeof *c->marks);
    c->indexes = c->index = metadata(indexes_size(c));
    c->index_mask = INDEX_FIRST - 1;
    c->heads = metadata(head_bits(c) / 8);
    c->head_mask = (uint32_t)head_bits(c) - 1;
    if (!c->blocks || !c->marks || !c->indexes || !c->heads || !table_create(&c->table) ||
        !os_map_twice(c->size, (void **)&c->run, (void **)&c->edit)) {
        c->run = NULL;
        cache_free(c);
        return NULL;
    }
    write_gates(c);
    atomic_init(&c->used, FIRST_BLOCK);
    return c;
}

void cache_ref(vx_cache *c) {
    if (c != NULL)
        c->references++;
}

void cache_unref(vx_cache *c) {
    if (c != NULL && --c->references == 0)
        cache_free(c);
}

bool cache_has_room(const vx_cache *c) {
    return c->size - atomic_load(&c->used) > 2 * (size_t)VX_BLOCK_CODE_MAX &&
           atomic_load(&c->block_count) < c->block_max &&
           c->mark_max - c->mark_count > 5 * VX_BLOCK_INSNS;
}

uintptr_t cache_gate(const vx_cache *c, vx_gate gate) {
    return (uintptr_t)c->run + gate * GATE_SIZE;
}

/* The translator asks for instruction after instruction, so neighbours stay together; Fibonacci hashing spreads
 * groups of them: the golden ratio's bits. */
static size_t index_slot(const vx_cache *c, uint32_t eip) {
    enum { GROUP = 64 };
    return ((size_t)((eip / GROUP * 0x9e3779b97f4a7c15u) >> 32) * GROUP + eip % GROUP) & c->index_mask;
}

/* Where `eip` is, or belongs.  A dropped block holds the place for the next one of its address. */
static size_t find_slot(const vx_cache *c, uint32_t eip) {
    size_t slot = index_slot(c, eip);
    while (c->index[slot] != 0 && c->blocks[c->index[slot] - 1].eip != eip)
        slot = (slot + 1) & c->index_mask;
    return slot;
}

static uint8_t *head_byte(const vx_cache *c, uint32_t eip) { return &c->heads[(eip & c->head_mask) / 8]; }

/* The translator asks at every instruction, and few are there. */
const vx_block *cache_lookup(const vx_cache *c, uint32_t eip) {
    if (VX_LIKELY(!(*head_byte(c, eip) >> eip % 8 & 1)))
        return NULL;
    uint32_t number = c->index[find_slot(c, eip)];
    return number == 0 || c->blocks[number - 1].marks == 0 ? NULL : &c->blocks[number - 1];
}

vx_block *cache_append(vx_cache *c, const vx_block *block) {
    uint32_t number = atomic_load(&c->block_count);
    size_t least = block->start + VX_DROPPED_CODE;
    VX_CHECK(number < c->block_max && block->end <= c->size && block->start >= atomic_load(&c->used));
    c->blocks[number] = *block;
    c->guest_bytes += block->guest_size;
    atomic_store_explicit(&c->block_count, number + 1, memory_order_release);
    atomic_store_explicit(&c->used, block->end < least ? least : block->end, memory_order_release);
    return &c->blocks[number];
}

/* A plugin that runs little takes little: pages of the index are touched all over. */
static void grow_index(vx_cache *c) {
    const uint32_t *old = c->index;
    size_t size = c->index_mask + 1;
    c->index += size;
    c->index_mask = 2 * size - 1;
    for (size_t i = 0; i < size; i++)
        if (old[i] != 0)
            c->index[find_slot(c, c->blocks[old[i] - 1].eip)] = old[i];
    (void)os_discard((void *)(uintptr_t)old, size * sizeof *old);
}

vx_block *cache_publish(vx_cache *c, const vx_block *block) {
    vx_block *kept = cache_append(c, block);
    if (2 * c->index_count > c->index_mask)
        grow_index(c);
    uint32_t *place = &c->index[find_slot(c, block->eip)];
    c->index_count += *place == 0;
    *head_byte(c, block->eip) |= (uint8_t)(1u << block->eip % 8);
    *place = (uint32_t)(kept - c->blocks) + 1;
    return kept;
}

/* Whoever still comes to it leaves there.  The
 * processor sees the change: nobody is inside, and it compares physical addresses. */
void cache_drop(vx_cache *c, vx_block *block) {
    vx_emit e = {.at = c->edit + block->start, .delta = c->run - c->edit};
    emit_mov_imm(&e, R8, block->eip);
    emit_mov_imm(&e, R9, LEAVE_MISS);
    emit_branch(&e, OP_JMP, cache_gate(c, GATE_REASON));
    block->end = (uint32_t)(e.at - c->edit);
    VX_CHECK(block->end == block->start + VX_DROPPED_CODE);
    block->marks = 0;
    if (table_get(&c->table, block->eip) != 0)
        table_set(&c->table, block->eip, 0);
}

void cache_set_table(vx_cache *c, const vx_block *block) { table_set(&c->table, block->eip, block->start); }

const vx_block *cache_find(const vx_cache *c, uintptr_t address) {
    if (!cache_contains(c, address))
        return NULL;
    uint32_t offset = (uint32_t)(address - (uintptr_t)c->run);
    uint32_t low = 0, high = atomic_load_explicit(&c->block_count, memory_order_acquire);
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (c->blocks[middle].end <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == atomic_load(&c->block_count) || c->blocks[low].start > offset)
        return NULL;
    return &c->blocks[low];
}

/* The branch's target lies in its own block and is `lea r9, [rip -> site]` (see verify.c). */
static bool leads_to_its_stub(const vx_cache *c, uintptr_t site) {
    const vx_block *block = cache_find(c, site);
    uint32_t offset = (uint32_t)(site - (uintptr_t)c->run), distance, back;
    if (block == NULL || block->end - offset < 4)
        return false;
    memcpy(&distance, c->edit + offset, 4);
    uint32_t stub = offset + 4 + distance;
    if (stub < offset || stub >= block->end || block->end - stub < 7)
        return false;
    memcpy(&back, c->edit + stub + 3, 4);
    return memcmp(c->edit + stub, "\x4c\x8d\x0d", 3) == 0 && stub + 7 + back == offset;
}

/* One store of the aligned 8 bytes around the displacement; only holders of the translation lock store. */
static void patch(vx_cache *c, size_t offset, uint32_t distance) {
    _Atomic uint64_t *word = (_Atomic uint64_t *)(void *)(c->edit + (offset & ~(size_t)7));
    uint64_t bytes = atomic_load_explicit(word, memory_order_relaxed);
    memcpy((uint8_t *)&bytes + (offset & 7), &distance, 4);
    atomic_store_explicit(word, bytes, memory_order_release);
}

bool cache_link(vx_cache *c, uintptr_t site, const vx_block *block, uint32_t *stub) {
    size_t offset = site - (uintptr_t)c->run;
    VX_CHECK((offset & 7) <= 4 && offset >= FIRST_BLOCK && offset < atomic_load(&c->used));
    if (!leads_to_its_stub(c, site))
        return false;
    memcpy(stub, c->edit + offset, 4);
    patch(c, offset, block->start - (uint32_t)(offset + 4));
    return true;
}

void cache_unlink(vx_cache *c, uintptr_t site, uint32_t stub) {
    const vx_block *block = cache_find(c, site);
    if (block != NULL && block->marks != 0)
        patch(c, site - (uintptr_t)c->run, stub);
}

static unsigned last_mark(const vx_mark *marks, const vx_block *block, uint32_t offset) {
    unsigned last = 0;
    while (last + 1u < block->marks && marks[last + 1].host <= offset)
        last++;
    return last;
}

vx_mark cache_mark(const vx_cache *c, const vx_block *block, uintptr_t address) {
    uint32_t offset = (uint32_t)(address - (uintptr_t)c->run) - block->start;
    const vx_mark *marks = &c->marks[block->first_mark];
    return marks[last_mark(marks, block, offset)];
}

/* An instruction's first mark is where it starts; later ones of the same are inside, as is the last, of the
 * stubs. */
bool cache_exact(const vx_cache *c, uintptr_t address) {
    const vx_block *block = cache_contains(c, address) ? cache_find(c, address) : NULL;
    if (block == NULL)
        return false;
    uint32_t offset = (uint32_t)(address - (uintptr_t)c->run) - block->start;
    const vx_mark *marks = &c->marks[block->first_mark];
    unsigned i = last_mark(marks, block, offset);
    return marks[i].host == offset && (i == 0 || marks[i - 1].guest != marks[i].guest);
}
