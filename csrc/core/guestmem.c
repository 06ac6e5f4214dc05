/* The one file that turns a guest address into a host pointer, and the one range check. */
#include "internal.h"

/* Pages of [address, address + size) that have all of `prot`, counted from the start. */
static uint64_t good_bytes(const vx_sandbox *box, uint32_t address, uint64_t size, unsigned prot) {
    uint64_t at = address, end = address + size;
    while (at < end && (box->page_map[at / VX_PAGE_SIZE] & prot) == prot)
        at = (at / VX_PAGE_SIZE + 1) * VX_PAGE_SIZE;
    return (at < end ? at : end) - address;
}

void *vx_guest_pointer(vx_sandbox *box, vx_gaddr address, uint64_t size, unsigned prot) {
    if (VX_UNLIKELY(box->base == 0) && sandbox_wake(box) != VX_OK)
        return NULL;
    if (size > VX_WINDOW - address.value || good_bytes(box, address.value, size, prot) != size)
        return NULL;
    if ((prot & VX_PROT_WRITE) && box->own != NULL && !own_write(box, address.value, size))
        return NULL;
    return (void *)(uintptr_t)(box->base + address.value);
}

uint32_t guest_first_bad(vx_sandbox *box, uint32_t address, uint64_t size, unsigned prot) {
    uint64_t room = VX_WINDOW - address;
    return (uint32_t)(address + good_bytes(box, address, size < room ? size : room, prot));
}

size_t vx_guest_strlen(vx_sandbox *box, vx_gaddr address, size_t limit) {
    if (VX_UNLIKELY(box->base == 0) && sandbox_wake(box) != VX_OK)
        return SIZE_MAX;
    uint64_t room = VX_WINDOW - address.value;
    size_t size = good_bytes(box, address.value, limit < room ? limit : room, VX_PROT_READ);
    const char *start = (const char *)(uintptr_t)(box->base + address.value);
    const char *nul = size == 0 ? NULL : memchr(start, 0, size);
    return nul == NULL ? SIZE_MAX : (size_t)(nul - start);
}

bool guest_read(vx_sandbox *box, uint32_t address, void *to, uint64_t size) {
    const void *from = vx_guest_pointer(box, (vx_gaddr){address}, size, VX_PROT_READ);
    if (from != NULL)
        memcpy(to, from, size);
    return from != NULL;
}

bool guest_write(vx_sandbox *box, uint32_t address, const void *from, uint64_t size) {
    void *to = vx_guest_pointer(box, (vx_gaddr){address}, size, VX_PROT_READ | VX_PROT_WRITE);
    if (to != NULL)
        memcpy(to, from, size);
    return to != NULL;
}

const uint8_t *guest_code(const vx_sandbox *box, uint32_t eip, size_t *available) {
    uint64_t room = VX_WINDOW - eip;
    *available = good_bytes(box, eip, room < VX_INSN_MAX ? room : VX_INSN_MAX, VX_PROT_READ | VX_PROT_EXEC);
    return *available == 0 ? NULL : (const uint8_t *)(uintptr_t)(box->base + eip);
}

/* --- memory shared with the host ---------------------------------------------------------------- */

void *vx_shared_create(uint64_t size) { return os_shared(size); }

void vx_shared_free(void *memory, uint64_t size) { os_release(memory, size); }

vx_status vx_share(vx_sandbox *box, void *memory, uint64_t size, vx_gaddr *out) {
    if (VX_UNLIKELY(box->unusable) && sandbox_wake(box) != VX_OK)
        return VX_NO_MEMORY;
    out->value = region_find(box, size);
    return out->value != 0 && region_share(box, out->value, size, memory) ? VX_OK : VX_LIMIT;
}

/* Where the host cannot take the pages away they stay: nobody else has them any more. */
void vx_unshare(vx_sandbox *box, vx_gaddr address, uint64_t size) {
    (void)region_unshare(box, address.value, size);
}

/* --- the argument arena ------------------------------------------------------------------------- */

void arena_forget(vx_sandbox *box) { box->arena_count = 0; }

static bool add_chunk(vx_sandbox *box, uint64_t need) {
    uint64_t size = page_up(need);
    if (size < VX_ARENA_MIN)
        size = VX_ARENA_MIN;
    uint32_t address = box->arena_count == VX_ARENA_CHUNKS ? 0 : region_find(box, size);
    if (address == 0 || !region_map(box, address, size, VX_PROT_READ | VX_PROT_WRITE | PAGE_HOST))
        return false;
    box->arena[box->arena_count++] = (vx_arena_chunk){address, (uint32_t)size, 0};
    return true;
}

vx_status vx_arena_alloc(vx_sandbox *box, uint32_t size, vx_gaddr *out) {
    if (VX_UNLIKELY(box->base == 0) && sandbox_wake(box) != VX_OK)
        return VX_NO_MEMORY;
    uint64_t need = ((uint64_t)size + 15) & ~(uint64_t)15;
    vx_arena_chunk *last = box->arena_count == 0 ? NULL : &box->arena[box->arena_count - 1];
    if (last == NULL || last->size - last->used < need) {
        if (!add_chunk(box, need))
            return VX_LIMIT;
        last = &box->arena[box->arena_count - 1];
    }
    out->value = last->address + last->used;
    last->used += (uint32_t)need;
    return VX_OK;
}

/* What one call needed in pieces the next one gets in one. */
void vx_arena_reset(vx_sandbox *box) {
    if (box->arena_count > 1) {
        uint64_t total = 0;
        for (unsigned i = 0; i < box->arena_count; i++) {
            total += box->arena[i].size;
            VX_CHECK(region_unmap(box, box->arena[i].address, box->arena[i].size));
        }
        box->arena_count = 0;
        (void)add_chunk(box, total); /* if the limit refuses, the next call starts small again */
    }
    if (box->arena_count != 0)
        box->arena[0].used = 0;
}
