/* The translator and the verifier, without running anything: every byte of the input is taken as an entry,
 * as a guest that jumps wherever it likes would have it.
 *
 * Input: one byte that places the code, then the code. */
#include "fuzz.h"

enum { HEADER = 1, CODE_MAX = 1024 };

typedef struct target {
    vx_plugin *plugin;
    vx_cache *cache;
    uint32_t start, size;
} target;

/* At the start of the guest's space, across a page's end, or up to the last byte a guest may have. */
static uint32_t place(uint8_t choice, uint32_t size) {
    uint32_t pages = (uint32_t)page_up(size);
    switch (choice % 3) {
    case 0: return VX_GUEST_MIN;
    case 1: return 0x08048000;
    default: return VX_GUEST_MAX - pages;
    }
}

static void open_target(target *t, uint8_t choice, const uint8_t *code, uint32_t size) {
    t->start = place(choice, size);
    t->size = size;
    vx_segment segment = {t->start, size, size, VX_PROT_READ | VX_PROT_EXEC, code, 0};
    vx_image image = {.segments = &segment, .count = 1, .entry = t->start};
    REQUIRE(vx_plugin_create(&image, &t->plugin) == VX_OK);
    t->cache = cache_create(size, 0);
    REQUIRE(t->cache != NULL);
}

static void replace_cache(target *t, unsigned uses) {
    cache_unref(t->cache);
    t->cache = cache_create(t->size, uses);
    REQUIRE(t->cache != NULL);
}

/* Marks ascend from the block's start, so that a fault at any emitted byte finds its guest instruction. */
static void check_marks(const vx_cache *cache, const vx_block *block) {
    const vx_mark *marks = &cache->marks[block->first_mark];
    REQUIRE(block->marks >= 2 && marks[0].host == 0 && marks[0].guest == 0);
    for (unsigned i = 1; i < block->marks; i++) {
        REQUIRE(marks[i].host >= marks[i - 1].host && marks[i].guest >= marks[i - 1].guest);
        REQUIRE(marks[i].host <= block->end - block->start && marks[i].guest <= block->guest_size);
    }
}

static void check_block(const target *t, const vx_block *block, uint32_t eip) {
    const vx_cache *c = t->cache;
    REQUIRE(block->eip == eip && cache_lookup(c, eip) == block);
    REQUIRE(block->start < block->end && block->end <= atomic_load(&c->used));
    REQUIRE(block->guest_size <= VX_BLOCK_INSNS * VX_INSN_MAX);
    REQUIRE(block == c->blocks || block->start >= block[-1].end);
    for (uint32_t at = block->start; at < block->end; at++)
        REQUIRE(cache_find(c, (uintptr_t)c->run + at) == block);
    check_marks(c, block);
}

static void translate_at(target *t, uint32_t eip) {
    for (unsigned attempt = 0;; attempt++) {
        const vx_block *block = NULL;
        unsigned needs = 0;
        REQUIRE(attempt < 8); /* each attempt adds needs or empties the cache */
        switch (translate_block(t->cache, t->plugin, eip, &block, &needs)) {
        case TRANSLATE_OK: check_block(t, block, eip); return;
        case TRANSLATE_NEEDS: replace_cache(t, t->cache->uses | needs); break;
        case TRANSLATE_FULL: replace_cache(t, t->cache->uses); break;
        case TRANSLATE_UNGUARDED: REQUIRE(!"nothing here is written by the guest"); break;
        case TRANSLATE_NOT_CODE: REQUIRE(!"not code"); break;
        case TRANSLATE_REFUSED: REQUIRE(!"the verifier refused a translation"); break;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size <= HEADER || size > HEADER + CODE_MAX)
        return 0;
    target t;
    open_target(&t, data[0], data + HEADER, (uint32_t)(size - HEADER));
    vx_translate_lock();
    for (uint32_t at = 0; at < t.size; at++)
        if (cache_lookup(t.cache, t.start + at) == NULL)
            translate_at(&t, t.start + at);
    for (uint32_t i = 0; i < t.cache->block_count; i++)
        REQUIRE(verify_block(t.cache, &t.cache->blocks[i]));
    cache_unref(t.cache);
    vx_translate_unlock();
    vx_plugin_unref(t.plugin);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    return grammar_mutate(data, size, max_size, HEADER, seed);
}
