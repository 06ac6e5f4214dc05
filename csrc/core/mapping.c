/* Memory of the host's that a sandbox has too: shared, which both may write (vx_share), and mappings of files
 * and of shared memory, which the guest may read.
 *
 * Host and guest have a mapping each of the same pages.  What a mapping shows can change or vanish at any time, by
 * other processes' doing, so its pages are PAGE_OUTSIDE to the host, which reads them through guestmem.c alone. */
#include "internal.h"

#include <errno.h>

/* --- shared memory -------------------------------------------------------------------------------- */

void *vx_shared_create(uint64_t size) { return os_shared(page_up(size)); }

void vx_shared_free(void *memory, uint64_t size) { os_release(memory, page_up(size)); }

static bool awake(vx_sandbox *box) { return VX_LIKELY(!box->unusable) || sandbox_wake(box) == VX_OK; }

vx_status vx_share(vx_sandbox *box, void *memory, uint64_t size, vx_gaddr *out) {
    if (!awake(box))
        return VX_NO_MEMORY;
    size = page_up(size);
    out->value = region_find(box, size);
    return out->value != 0 && region_share(box, out->value, size, VX_PROT_READ | VX_PROT_WRITE, memory) ? VX_OK
                                                                                                     : VX_LIMIT;
}

/* Where the host cannot take the pages away they stay: nobody else has them any more. */
void vx_unshare(vx_sandbox *box, vx_gaddr address, uint64_t size) {
    (void)region_unshare(box, address.value, page_up(size));
}

/* --- mappings ------------------------------------------------------------------------------------- */

static uint64_t whole_pages(uint64_t size) { return size - size % VX_PAGE_SIZE; }

/* A last page that is not all asked for would show what follows, or what the file grows by.  A copy of what is
 * asked for takes its place.  The first byte is read in any case: where it cannot be, no host copy could. */
static bool cut_last_page(uint8_t *memory, uint64_t size) {
    uint8_t last[VX_PAGE_SIZE] = {0};
    uint64_t whole = whole_pages(size);
    if (!os_copy(last, memory + whole, size - whole) || !os_copy(&(uint8_t){0}, memory, 1))
        return false;
    return whole == size || os_share_copy(memory + whole, VX_PAGE_SIZE, last);
}

static void *cut(void *memory, uint64_t size) {
    if (memory == NULL || cut_last_page(memory, size))
        return memory;
    int error = errno;
    os_release(memory, page_up(size));
    errno = error;
    return NULL;
}

void *vx_mapping_of_file(int fd, uint64_t offset, uint64_t size) {
    return cut(os_share_file(fd, offset, page_up(size)), size);
}

void *vx_mapping_of_memory(void *memory, uint64_t size) { return cut(os_share_again(memory, page_up(size)), size); }

bool vx_mapping_copy(void *to, const void *mapping, uint64_t size) { return os_copy(to, mapping, size); }

/* Whole pages and the copy behind them are two mappings of the kernel's. */
vx_status vx_map(vx_sandbox *box, void *mapping, uint64_t size, vx_gaddr *out) {
    uint64_t whole = whole_pages(size), rest = page_up(size) - whole;
    if (!awake(box))
        return VX_NO_MEMORY;
    uint32_t at = region_find(box, whole + rest);
    if (at == 0 || (whole != 0 && !region_share(box, at, whole, PAGE_OUTSIDE, mapping)))
        return VX_LIMIT;
    if (rest != 0 && !region_share(box, (uint32_t)(at + whole), rest, PAGE_OUTSIDE, (uint8_t *)mapping + whole)) {
        if (whole != 0)
            vx_unshare(box, (vx_gaddr){at}, whole);
        return VX_LIMIT;
    }
    out->value = at;
    return VX_OK;
}
