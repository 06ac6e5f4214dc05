/* Where sandboxes live: the window and what lies below it (drawing in state.h).
 *
 * Of sandboxes that ended, a plugin keeps a few reservations with its snapshot mapped in them, as new.
 * snapshot_restore made them so: what it does for the next life of one sandbox it does for the next one. */
#include "internal.h"

static uint8_t *at(uint64_t base, int64_t displacement) {
    return (uint8_t *)(uintptr_t)(base + (uint64_t)displacement);
}

static void release(vx_slab *slab, uint64_t base) { slab_give(slab, at(base, -(int64_t)VX_BELOW)); }

static bool open_below(uint64_t base) {
    _Static_assert(VX_PAGE_MAP_DISP == -VX_LOW_GUARD - (int64_t)(VX_WINDOW / VX_PAGE_SIZE), "the low guard is the next");
    return os_protect(at(base, VX_HOST_STACK_LOW), (size_t)(VX_GUEST_MIN - VX_HOST_STACK_LOW),
                      VX_PROT_READ | VX_PROT_WRITE) &&
           os_guard(at(base, -VX_LOW_GUARD), (size_t)(VX_LOW_GUARD + VX_GUEST_MIN));
}

static void init_state(vx_sandbox *box) {
    _Static_assert(VX_STATE_DISP + (int64_t)sizeof(vx_state) == VX_PAGE_MAP_DISP && sizeof(vx_state) < VX_PAGE_SIZE,
                   "the state ends the page before the page map");
    _Static_assert(VX_STATE_DISP == ST_DISP, "limits.h and state.h agree");
    box->state = (vx_state *)(void *)at(box->base, VX_STATE_DISP);
    box->page_map = at(box->base, VX_PAGE_MAP_DISP);
    box->state->self = box->state;
    box->state->base = box->base;
    box->state->stack_top = (uint64_t)(uintptr_t)at(box->base, VX_HOST_STACK_HIGH - 16);
    *(void (**)(void))(uintptr_t)box->state->stack_top = vx_sentinel;
    box->state->guest_rsp = box->state->stack_top;
}

/* What every sandbox's page map has: image and stack.  Pages that are read first cost two faults, the first for
 * the kernel's page of zeros. */
static void touch_map(uint8_t *page_map) {
    page_map[VX_GUEST_MIN / VX_PAGE_SIZE] = 0;
    page_map[VX_STACK_TOP / VX_PAGE_SIZE] = 0;
}

bool reserve_new(vx_sandbox *box) {
    uint8_t *low = slab_take(&box->slab);
    if (low == NULL)
        return false;
    uint64_t base = (uint64_t)(uintptr_t)low + VX_BELOW;
    if (!open_below(base)) {
        slab_give(box->slab, low);
        return false;
    }
    box->base = base;
    box->pages = box->borders = 0;
    init_state(box);
    touch_map(box->page_map);
    return true;
}

void reserve_free(vx_sandbox *box) {
    if (box->base != 0)
        release(box->slab, box->base);
    box->base = 0;
    box->state = NULL;
    box->page_map = NULL;
}

/* --- those that are kept ---------------------------------------------------------------------------- */

/* What the host-side stack grew to is given back, but for its last page: every call uses that. */
static bool tidy(vx_sandbox *box) {
    memset(box->state, 0, sizeof *box->state);
    return os_discard(at(box->base, VX_HOST_STACK_LOW),
                      (size_t)(VX_PAGE_MAP_DISP - VX_HOST_STACK_LOW) - VX_PAGE_SIZE);
}

static bool has_room(vx_plugin *plugin) {
    vx_translate_lock();
    bool room = plugin->idle_count < VX_IDLE_MAX;
    vx_translate_unlock();
    return room;
}

static bool put(vx_plugin *plugin, const vx_idle *idle) {
    vx_translate_lock();
    bool room = plugin->idle_count < VX_IDLE_MAX;
    if (room)
        plugin->idle[plugin->idle_count++] = *idle;
    vx_translate_unlock();
    return room;
}

/* A plugin that nobody else uses is about to go. */
bool reserve_keep(vx_sandbox *box) {
    if (box->base == 0 || box->plugin->references == 1 || !has_room(box->plugin) ||
        !snapshot_restore(box) || !tidy(box) ||
        !put(box->plugin, &(vx_idle){box->slab, box->base, box->stack_low, box->pages, box->borders}))
        return false;
    box->base = 0;
    return true;
}

/* The youngest that has as large a stack. */
static bool take(vx_plugin *plugin, uint32_t stack_low, vx_idle *out) {
    vx_translate_lock();
    unsigned i = plugin->idle_count;
    while (i != 0 && plugin->idle[i - 1].stack_low != stack_low)
        i--;
    if (i != 0) {
        *out = plugin->idle[i - 1];
        plugin->idle[i - 1] = plugin->idle[--plugin->idle_count];
    }
    vx_translate_unlock();
    return i != 0;
}

bool reserve_reuse(vx_sandbox *box) {
    vx_idle idle;
    if (!take(box->plugin, box->stack_low, &idle))
        return false;
    box->slab = idle.slab;
    box->base = idle.base;
    box->pages = idle.pages;
    box->borders = idle.borders;
    init_state(box);
    region_settled(box);
    return true;
}

void reserve_drop_idle(vx_plugin *plugin) {
    while (plugin->idle_count != 0) {
        const vx_idle *idle = &plugin->idle[--plugin->idle_count];
        release(idle->slab, idle->base);
    }
}
