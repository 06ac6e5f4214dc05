/* The one file that turns a guest address into a host pointer, and the one range check. */
#include "internal.h"

/* Bytes of [address, address + size), whole pages counted from the start, that have all of `prot`. */
static uint64_t good_bytes(const vx_sandbox *box, uint32_t address, uint64_t size, unsigned prot) {
    uint64_t at = address, end = address + size;
    while (at < end && (box->page_map[at / VX_PAGE_SIZE] & prot) == prot)
        at = (at / VX_PAGE_SIZE + 1) * VX_PAGE_SIZE;
    return (at < end ? at : end) - address;
}

static void *host(const vx_sandbox *box, uint64_t address) { return (void *)(uintptr_t)(box->base + address); }

static void *find(vx_sandbox *box, uint32_t address, uint64_t size, unsigned prot) {
    if (size > VX_WINDOW - address || good_bytes(box, address, size, prot) != size)
        return NULL;
    if ((prot & VX_PROT_WRITE) && box->own != NULL && !own_write(box, address, size))
        return NULL;
    return host(box, address);
}

/* --- what the guest may read, but the host may not -------------------------------------------------- */

/* A mapping's file may be cut short at any time, by anybody: then a load from it is a SIGBUS.  In guest code
 * that is the guest's fault; the host looks at copies only, which the kernel makes. */

static bool readable(const vx_sandbox *box, uint64_t at) {
    uint8_t page = box->page_map[at / VX_PAGE_SIZE];
    return (page & VX_PROT_READ) || page == PAGE_OUTSIDE;
}

static bool all_readable(const vx_sandbox *box, uint32_t address, uint64_t size) {
    if (size > VX_WINDOW - address)
        return false;
    for (uint64_t at = address; at < address + size; at = (at / VX_PAGE_SIZE + 1) * VX_PAGE_SIZE)
        if (!readable(box, at))
            return false;
    return true;
}

static bool copy_out(const vx_sandbox *box, uint32_t address, void *to, uint64_t size) {
    return all_readable(box, address, size) && os_copy(to, host(box, address), size);
}

void guest_forget_copy(vx_sandbox *box) {
    free(box->copy);
    box->copy = NULL;
    box->copy_room = 0;
}

static bool make_room(vx_sandbox *box, uint64_t size) {
    if (size <= box->copy_room)
        return true;
    guest_forget_copy(box);
    box->copy = malloc(size);
    box->copy_room = box->copy != NULL ? size : 0;
    return box->copy != NULL;
}

/* Room is made after the look at the rights: a forged size costs no memory. */
static void *copy_of(vx_sandbox *box, uint32_t address, uint64_t size) {
    bool ok = all_readable(box, address, size) && make_room(box, size) && os_copy(box->copy, host(box, address), size);
    return ok ? box->copy : NULL;
}

/* --- the range check -------------------------------------------------------------------------------- */

void *vx_guest_pointer(vx_sandbox *box, vx_gaddr address, uint64_t size, unsigned prot) {
    if (VX_UNLIKELY(box->base == 0) && sandbox_wake(box) != VX_OK)
        return NULL;
    void *found = find(box, address.value, size, prot);
    return VX_UNLIKELY(found == NULL) && prot == VX_PROT_READ ? copy_of(box, address.value, size) : found;
}

uint32_t guest_first_bad(vx_sandbox *box, uint32_t address, uint64_t size, unsigned prot) {
    uint64_t room = VX_WINDOW - address, at = address, end = address + (size < room ? size : room);
    uint8_t byte;
    while (at < end && ((box->page_map[at / VX_PAGE_SIZE] & prot) == prot ||
                        (prot == VX_PROT_READ && copy_out(box, (uint32_t)at, &byte, 1))))
        at = (at / VX_PAGE_SIZE + 1) * VX_PAGE_SIZE;
    return (uint32_t)(at < end ? at : end);
}

/* From `from` on through copies, page by page. */
static size_t strlen_of_copies(vx_sandbox *box, uint32_t address, uint64_t from, uint64_t limit) {
    uint8_t bytes[VX_PAGE_SIZE];
    while (from < limit) {
        uint64_t part = VX_PAGE_SIZE - (address + from) % VX_PAGE_SIZE;
        part = part < limit - from ? part : limit - from;
        if (!guest_read(box, (uint32_t)(address + from), bytes, part))
            return SIZE_MAX;
        const uint8_t *nul = memchr(bytes, 0, part);
        if (nul != NULL)
            return from + (size_t)(nul - bytes);
        from += part;
    }
    return SIZE_MAX;
}

size_t vx_guest_strlen(vx_sandbox *box, vx_gaddr address, size_t limit) {
    if (VX_UNLIKELY(box->base == 0) && sandbox_wake(box) != VX_OK)
        return SIZE_MAX;
    uint64_t room = VX_WINDOW - address.value, most = limit < room ? limit : room;
    size_t size = good_bytes(box, address.value, most, VX_PROT_READ);
    const char *start = host(box, address.value);
    const char *nul = size == 0 ? NULL : memchr(start, 0, size);
    return nul == NULL ? strlen_of_copies(box, address.value, size, most) : (size_t)(nul - start);
}

bool guest_read(vx_sandbox *box, uint32_t address, void *to, uint64_t size) {
    if (VX_UNLIKELY(box->base == 0) && sandbox_wake(box) != VX_OK)
        return false;
    const void *from = find(box, address, size, VX_PROT_READ);
    if (VX_UNLIKELY(from == NULL))
        return copy_out(box, address, to, size);
    memcpy(to, from, size);
    return true;
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
    return *available == 0 ? NULL : host(box, eip);
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

/* What one call needed in pieces the next one gets in one.  A piece that the host cannot take away, since the process
 * has all mappings that it may have, is nobody's until the guest's memory is cleared. */
void vx_arena_reset(vx_sandbox *box) {
    if (box->arena_count > 1) {
        uint64_t total = 0;
        for (unsigned i = 0; i < box->arena_count; i++) {
            total += box->arena[i].size;
            (void)region_unmap(box, box->arena[i].address, box->arena[i].size);
        }
        box->arena_count = 0;
        (void)add_chunk(box, total); /* if the limit refuses, the next call starts small again */
    }
    if (box->arena_count != 0)
        box->arena[0].used = 0;
    if (box->copy_room > VX_COPY_KEPT)
        guest_forget_copy(box);
}
