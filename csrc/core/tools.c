/* What tools ask of a sandbox: a translation to show, and where a running guest is. */
#include "internal.h"

static vx_status copy_block(const vx_cache *cache, const vx_block *block, vx_translation *out) {
    size_t size = block->end - block->start;
    out->host = malloc(size);
    out->marks = calloc(block->marks, sizeof *out->marks);
    if (out->host == NULL || out->marks == NULL) {
        vx_translation_free(out);
        return VX_NO_MEMORY;
    }
    memcpy(out->host, cache->run + block->start, size);
    out->host_size = size;
    out->guest_size = block->guest_size;
    out->place = (uintptr_t)cache->run + block->start;
    out->mark_count = block->marks;
    for (size_t i = 0; i < block->marks; i++) {
        const vx_mark *mark = &cache->marks[block->first_mark + i];
        out->marks[i] = (vx_translation_mark){mark->host, mark->guest};
    }
    return VX_OK;
}

vx_status vx_sandbox_translation(vx_sandbox *box, vx_gaddr address, vx_translation *out) {
    const vx_block *block = NULL;
    vx_trap_kind why = VX_TRAP_NONE;
    *out = (vx_translation){0};
    if (box->unusable && sandbox_wake(box) != VX_OK)
        return VX_UNUSABLE;
    if (box->depth != 0 || box->in_tick)
        return VX_BUSY;
    box->state->eip = address.value;
    vx_translate_lock();
    vx_status status = run_find_block(box, &block, &why);
    if (status == VX_OK)
        status = copy_block(box->cache, block, out);
    vx_translate_unlock();
    return status;
}

void vx_translation_free(vx_translation *translation) {
    free(translation->host);
    free(translation->marks);
    *translation = (vx_translation){0};
}

size_t vx_plugin_places(vx_plugin *plugin, vx_place *out, size_t max) {
    vx_translate_lock();
    const vx_cache *cache = plugin->cache;
    size_t count = cache == NULL ? 0 : atomic_load(&cache->block_count);
    for (size_t i = 0; i < count && i < max; i++) {
        const vx_block *block = &cache->blocks[i];
        out[i] = (vx_place){{block->eip}, (uintptr_t)cache->run + block->start,
                            block->end - block->start};
    }
    vx_translate_unlock();
    return count;
}

/* The interrupted code goes on afterwards, and it may have been about to use what is written here. */
bool vx_sandbox_where(vx_sandbox *box, vx_registers *out) {
    vx_state *s = box->state;
    uint32_t gpr[8], eip = s->eip, eflags = s->eflags;
    bool flags_lost = box->flags_lost;
    if (!box->in_tick)
        return false;
    memcpy(gpr, s->gpr, sizeof gpr);
    if (!box->tick_in_c)
        trap_recover(box, s->tick_rip, s->tick_gpr, s->tick_flags);
    memcpy(out->gpr, s->gpr, sizeof out->gpr);
    out->eip = s->eip;
    out->eflags = s->eflags;
    memcpy(s->gpr, gpr, sizeof gpr);
    s->eip = eip;
    s->eflags = eflags;
    box->flags_lost = flags_lost;
    return true;
}
