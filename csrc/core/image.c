/* Pages of an image or snapshot: from a sandbox to a memory file, and from it to sandboxes. */
#include "internal.h"

/* Executable pages are mapped without execution: the processor runs only translations. */
static bool map_run(vx_sandbox *box, int fd, const vx_run_of_pages *run) {
    return region_map_file(box, run->address, run->size, run->page, fd, run->offset);
}

bool pages_map(vx_sandbox *box, const vx_pages *pages) {
    for (size_t i = 0; i < pages->count; i++)
        if (!map_run(box, pages->fd, &pages->runs[i]))
            return false;
    return true;
}

void pages_free(vx_pages *pages) {
    if (pages->fd >= 0)
        os_close(pages->fd);
    free(pages->runs);
    *pages = (vx_pages){.fd = -1};
}

static uint8_t *page_at(const vx_sandbox *box, uint32_t page) {
    return (uint8_t *)(uintptr_t)(box->base + (uint64_t)page * VX_PAGE_SIZE);
}

static bool is_zero(const uint8_t *page) {
    return page[0] == 0 && memcmp(page, page + 1, VX_PAGE_SIZE - 1) == 0;
}

/* Pages a snapshot holds: not the arena.  Every sandbox brings a stack of its own, so of the stack
 * only what is in use and what is not as a fresh one. */
static bool in_snapshot(const vx_sandbox *box, uint32_t page) {
    uint8_t bits = box->page_map[page];
    if (!(bits & PAGE_MAPPED) || (bits & PAGE_HOST))
        return false;
    bool fresh = bits == (PAGE_MAPPED | VX_PROT_READ | VX_PROT_WRITE);
    return page < box->stack_low / VX_PAGE_SIZE || !fresh ||
           page >= (box->kernel.esp - VX_RED_ZONE) / VX_PAGE_SIZE;
}

/* The guest may have taken its own right to read the page. */
static bool write_page(const vx_sandbox *box, int fd, uint32_t page, uint64_t offset) {
    uint8_t bits = box->page_map[page];
    bool readable = bits & VX_PROT_READ;
    if (!readable && !os_protect(page_at(box, page), VX_PAGE_SIZE, VX_PROT_READ))
        return false;
    bool ok = is_zero(page_at(box, page)) || os_write_at(fd, page_at(box, page), VX_PAGE_SIZE, offset);
    return (readable || os_protect(page_at(box, page), VX_PAGE_SIZE, bits)) && ok;
}

static bool add_page(vx_sandbox *box, vx_pages *out, uint32_t page, uint64_t *offset) {
    uint8_t bits = box->page_map[page] & (uint8_t)~(PAGE_FILE | PAGE_GUARDED);
    vx_run_of_pages *last = out->count == 0 ? NULL : &out->runs[out->count - 1];
    if (last == NULL || last->page != bits || last->address + last->size != page * VX_PAGE_SIZE) {
        vx_run_of_pages *runs = realloc(out->runs, (out->count + 1) * sizeof *runs);
        if (runs == NULL)
            return false;
        out->runs = runs;
        last = &runs[out->count++];
        *last = (vx_run_of_pages){page * VX_PAGE_SIZE, 0, bits, *offset};
    }
    last->size += VX_PAGE_SIZE;
    *offset += VX_PAGE_SIZE;
    return write_page(box, out->fd, page, *offset - VX_PAGE_SIZE);
}

/* --- back to the snapshot ------------------------------------------------------------------------- */

/* One call for everything below the stack from the first page that the guest may write to the last: what
 * lies between is a file's, or not mapped, and comes back as it is. */
static bool forget_writes(vx_sandbox *box, const vx_pages *pages) {
    uint64_t low = 0, high = 0;
    for (size_t i = 0; i < pages->count; i++) {
        const vx_run_of_pages *run = &pages->runs[i];
        if (!(run->page & VX_PROT_WRITE) || run->address >= box->stack_low)
            continue;
        low = high == 0 ? run->address : low;
        high = run->address + (uint64_t)run->size;
    }
    if (high > box->stack_low)
        high = box->stack_low;
    return (high == 0 || region_forget(box, (uint32_t)low, high - low)) &&
           region_forget(box, box->stack_low, VX_STACK_TOP - box->stack_low);
}

bool snapshot_restore(vx_sandbox *box) {
    return box->as_snapshot && box->own == NULL && region_shrink(box) &&
           forget_writes(box, &box->plugin->snapshot);
}

/* --- taking one ------------------------------------------------------------------------------------- */

/* The next page that is mapped, or the last one's successor.  The map is mostly empty: eight pages at a look. */
static uint32_t next_mapped(const vx_sandbox *box, uint32_t page) {
    const uint32_t end = VX_GUEST_MAX / VX_PAGE_SIZE;
    _Static_assert(VX_GUEST_MAX / VX_PAGE_SIZE % 8 == 0, "no look goes beyond the last page");
    while (page < end) {
        uint64_t eight;
        memcpy(&eight, box->page_map + page, 8);
        if (page % 8 == 0 && eight == 0)
            page += 8;
        else if (box->page_map[page] & PAGE_MAPPED)
            return page;
        else
            page++;
    }
    return end;
}

bool snapshot_take(vx_sandbox *box, vx_pages *out) {
    uint64_t offset = 0;
    out->fd = os_memory_file("vxplug-snapshot", box->pages * VX_PAGE_SIZE);
    if (out->fd < 0)
        return false;
    for (uint32_t page = next_mapped(box, 0); page < VX_GUEST_MAX / VX_PAGE_SIZE; page = next_mapped(box, page + 1))
        if (in_snapshot(box, page) && !add_page(box, out, page, &offset)) {
            pages_free(out);
            return false;
        }
    return true;
}
