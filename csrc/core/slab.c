/* Address space for windows, by the slab: to reserve it costs as much for many as for one, and the guards
 * between windows of one slab are one mapping.
 *
 * A window that is free is not mapped, as on its first day.  All under the translation lock. */
#include "internal.h"

#define RESERVATION (VX_BELOW + VX_WINDOW + VX_ABOVE)

struct vx_slab {
    uint8_t *low;
    unsigned windows;
    uint32_t free; /* bit n: window n */
    vx_slab *next; /* of those that have a free one */
};

static vx_slab *roomy;
static unsigned slabs;

static size_t size_of(unsigned windows) { return (windows - 1) * VX_STRIDE + RESERVATION; }

static uint32_t all_of(unsigned windows) { return (uint32_t)(((uint64_t)1 << windows) - 1); }

/* Each slab is as large as all before it: a process with one sandbox reserves one window. */
static unsigned next_size(void) {
    _Static_assert(VX_SLAB_WINDOWS <= 32, "the free windows of a slab are bits of a word");
    unsigned doubled = slabs == 0 ? 1 : slabs > 5 ? VX_SLAB_WINDOWS : 1u << (slabs - 1);
    return doubled < VX_SLAB_WINDOWS ? doubled : VX_SLAB_WINDOWS;
}

/* As many as there is address space for. */
static bool reserve(vx_slab *slab) {
    for (unsigned windows = next_size(); windows != 0; windows /= 2) {
        slab->low = os_reserve(size_of(windows), VX_WINDOW, VX_BELOW);
        slab->windows = windows;
        slab->free = all_of(windows);
        if (slab->low != NULL)
            return true;
    }
    return false;
}

static bool add_slab(void) {
    vx_slab *slab = calloc(1, sizeof *slab);
    if (slab == NULL || !reserve(slab)) {
        free(slab);
        return false;
    }
    slabs++;
    roomy = slab;
    return true;
}

static uint8_t *window_of(const vx_slab *slab, unsigned number) { return slab->low + number * VX_STRIDE; }

static uint8_t *take(vx_slab **out) {
    if (roomy == NULL && !add_slab())
        return NULL;
    vx_slab *slab = *out = roomy;
    unsigned number = (unsigned)__builtin_ctz(slab->free);
    slab->free &= slab->free - 1;
    if (slab->free == 0)
        roomy = slab->next;
    return window_of(slab, number);
}

uint8_t *slab_take(vx_slab **out) {
    vx_translate_lock();
    uint8_t *low = take(out);
    vx_translate_unlock();
    return low;
}

static void release(vx_slab *slab) {
    vx_slab **link = &roomy;
    while (*link != slab)
        link = &(*link)->next;
    *link = slab->next;
    slabs--;
    os_release(slab->low, size_of(slab->windows));
    free(slab);
}

static void give(vx_slab *slab, const uint8_t *low) {
    if (slab->free == 0) {
        slab->next = roomy;
        roomy = slab;
    }
    slab->free |= 1u << (unsigned)((size_t)(low - slab->low) / VX_STRIDE);
    bool only = roomy == slab && slab->next == NULL;
    if (slab->free == all_of(slab->windows) && !only)
        release(slab);
}

/* Where the process has all mappings that it may have, the kernel maps nothing, not even less than before.  To take
 * all rights away needs none: both ends have no rights already, so nothing is split, and what is not a file's becomes
 * one with them. */
static bool clear(uint8_t *low) {
    return os_unmap(low, RESERVATION) || (os_protect(low, RESERVATION, 0) && os_unmap(low, RESERVATION));
}

/* What cannot be cleared stays taken. */
void slab_give(vx_slab *slab, uint8_t *low) {
    vx_translate_lock();
    if (clear(low))
        give(slab, low);
    else
        (void)os_discard(low, RESERVATION);
    vx_translate_unlock();
}
