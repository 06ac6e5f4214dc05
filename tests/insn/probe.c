/* A window into the core for tests: its decoder, its table, and blocks before they run. */
#include "core/internal.h"
#include "core/verify.h"

#include <time.h>

#pragma GCC visibility push(default)

typedef struct probe_insn {
    int32_t row; /* of the table, or -1 */
    uint8_t length, is_mem, imm_size, result;
} probe_insn;

void probe_decode(const uint8_t *bytes, uint32_t size, probe_insn *out) {
    size_t count;
    vx_insn in;
    out->result = (uint8_t)vx_decode(bytes, size, &in);
    out->row = in.op == NULL ? -1 : (int32_t)(in.op - vx_op_table(&count));
    out->length = in.length;
    out->is_mem = in.is_mem;
    out->imm_size = in.imm_size;
}

const vx_op *probe_table(uint32_t *count) {
    size_t rows;
    const vx_op *table = vx_op_table(&rows);
    *count = (uint32_t)rows;
    return table;
}

/* One segment of code at 0x10000 and its cache. */
typedef struct probe {
    vx_plugin *plugin;
    vx_cache *cache;
} probe;

probe *probe_open(const uint8_t *code, uint32_t size) {
    vx_segment segment = {0x10000, size, size, VX_PROT_READ | VX_PROT_EXEC, code, 0};
    vx_image image = {.segments = &segment, .count = 1, .entry = 0x10000};
    probe *p = calloc(1, sizeof *p);
    if (p == NULL || vx_plugin_create(&image, &p->plugin) != VX_OK)
        return NULL;
    p->cache = cache_create(size, cpu_offers());
    return p->cache == NULL ? NULL : p;
}

void probe_close(probe *p) {
    cache_unref(p->cache);
    vx_plugin_unref(p->plugin);
    free(p);
}

/* 0: translated now or before, and verified. */
int probe_translate(probe *p, uint32_t eip) {
    const vx_block *block = cache_lookup(p->cache, eip);
    unsigned needs = 0;
    return block != NULL ? TRANSLATE_OK : (int)translate_block(p->cache, p->plugin, eip, &block, &needs);
}

uint32_t probe_count(const probe *p) { return p->cache->block_count; }
uint64_t probe_used(const probe *p) { return p->cache->used; }
const vx_block *probe_block(const probe *p, uint32_t number) { return &p->cache->blocks[number]; }
const uint8_t *probe_code(const probe *p) { return p->cache->edit; }

uint32_t probe_gate(const probe *p, uint32_t gate) {
    return (uint32_t)(cache_gate(p->cache, (vx_gate)gate) - (uintptr_t)p->cache->run);
}

int probe_verify(const probe *p, uint32_t number) { return verify_block(p->cache, &p->cache->blocks[number]); }

/* Length of an instruction that may stand alone, else 0; `code` has VERIFY_INSN_MAX bytes. */
uint32_t probe_accepts(const uint8_t *code) {
    verify_insn_prepare();
    return verify_insn(code);
}

/* Flips each bit of the block in turn; `accepted` gets one byte a bit.  How many were accepted. */
uint32_t probe_flip(probe *p, uint32_t number, uint8_t *accepted) {
    const vx_block *block = &p->cache->blocks[number];
    uint32_t count = 0;
    for (uint32_t bit = 0; bit < 8 * (block->end - block->start); bit++) {
        uint8_t *byte = &p->cache->edit[block->start + bit / 8], mask = (uint8_t)(1u << bit % 8);
        *byte ^= mask;
        accepted[bit] = verify_block(p->cache, block);
        count += accepted[bit];
        *byte ^= mask;
    }
    return count;
}

/* Nanoseconds of this thread's own, so that what else the machine does is not counted. */
static uint64_t own_time(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Nanoseconds to translate every block anew, verifier included, and to verify every block once. */
void probe_times(probe *p, uint64_t *translating, uint64_t *verifying) {
    uint32_t count = p->cache->block_count;
    vx_cache *fresh = cache_create(p->plugin->code_bytes, p->cache->uses);
    if (fresh == NULL)
        abort();
    uint64_t start = own_time();
    for (uint32_t i = 0; i < count; i++) {
        const vx_block *block;
        unsigned needs = 0;
        if (cache_lookup(fresh, p->cache->blocks[i].eip) == NULL)
            (void)translate_block(fresh, p->plugin, p->cache->blocks[i].eip, &block, &needs);
    }
    *translating = own_time() - start;
    start = own_time();
    for (uint32_t i = 0; i < fresh->block_count; i++)
        if (!verify_block(fresh, &fresh->blocks[i]))
            abort();
    *verifying = own_time() - start;
    cache_unref(fresh);
}

#pragma GCC visibility pop
