/* Pages of an image or snapshot: from a sandbox to a memory file, and from it to sandboxes. */
#include "internal.h"

enum { PAGE_FRESH_STACK = PAGE_MAPPED | VX_PROT_READ | VX_PROT_WRITE };

static uint8_t *page_at(const vx_sandbox *box, uint32_t page) {
    return (uint8_t *)(uintptr_t)(box->base + (uint64_t)page * VX_PAGE_SIZE);
}

/* Into the sandbox's own stack, where that has room for it. */
static bool is_copied(const vx_sandbox *box, const vx_pages *pages, size_t i) {
    return pages->top != NULL && i == pages->count - 1 && pages->runs[i].address >= box->stack_low;
}

static void copy_top(vx_sandbox *box, const vx_pages *pages) {
    if (pages->top == NULL || !is_copied(box, pages, pages->count - 1))
        return;
    const vx_run_of_pages *last = &pages->runs[pages->count - 1];
    memcpy(page_at(box, last->address / VX_PAGE_SIZE), pages->top, last->size);
}

/* Executable pages are mapped without execution, the processor runs only translations: so they can be of one
 * mapping with those behind them. */
static bool joins(const vx_run_of_pages *a, const vx_run_of_pages *b) {
    return a->fd >= 0 && a->fd == b->fd && a->address + a->size == b->address && a->offset + a->size == b->offset &&
           !((a->page ^ b->page) & (VX_PROT_READ | VX_PROT_WRITE));
}

static bool is_joined(const vx_sandbox *box, const vx_pages *pages, size_t i) {
    return i != 0 && i < pages->count && joins(&pages->runs[i - 1], &pages->runs[i]) && !is_copied(box, pages, i);
}

/* Bytes of the mapping that begins with the run. */
static uint64_t span_from(const vx_sandbox *box, const vx_pages *pages, size_t i) {
    uint64_t span = pages->runs[i].size;
    while (is_joined(box, pages, ++i))
        span += pages->runs[i].size;
    return span;
}

static bool map_run(vx_sandbox *box, const vx_pages *pages, size_t i) {
    const vx_run_of_pages *run = &pages->runs[i];
    if (run->fd < 0)
        return region_map(box, run->address, run->size, run->page);
    return region_map_file(box, run, is_joined(box, pages, i) ? 0 : span_from(box, pages, i));
}

bool pages_map(vx_sandbox *box, const vx_pages *pages) {
    for (size_t i = 0; i < pages->count; i++)
        if (!is_copied(box, pages, i) && !map_run(box, pages, i))
            return false;
    copy_top(box, pages);
    return true;
}

void pages_free(vx_pages *pages) {
    if (pages->fd >= 0)
        os_close(pages->fd);
    free(pages->runs);
    free(pages->top);
    *pages = (vx_pages){.fd = -1};
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
    return page < box->stack_low / VX_PAGE_SIZE || bits != PAGE_FRESH_STACK ||
           page >= (box->kernel.esp - VX_RED_ZONE) / VX_PAGE_SIZE;
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
    const vx_pages *pages = &box->plugin->snapshot;
    if (!box->as_snapshot || box->own != NULL || !region_shrink(box) || !forget_writes(box, pages))
        return false;
    copy_top(box, pages);
    return true;
}

/* --- taking one ------------------------------------------------------------------------------------- */

/* Runs of equal pages; those that are stored lie behind each other in the file. */
typedef struct taking {
    vx_sandbox *box;
    vx_pages *out;
    uint64_t offset; /* in the file: where the next run goes */
    int pagemap;
    uint8_t *changed; /* a byte for each page of a run: see os_find_changed */
} taking;

static bool add_run(vx_pages *out, vx_run_of_pages run) {
    vx_run_of_pages *runs = realloc(out->runs, (out->count + 1) * sizeof *runs);
    if (runs == NULL)
        return false;
    out->runs = runs;
    runs[out->count++] = run;
    return true;
}

/* The file is zero where nothing is written, and so is what nobody has touched, if it is not a file's. */
static bool worth_writing(const taking *t, uint32_t first, uint32_t page) {
    bool zero = t->changed[page - first] == 0 && !(t->box->page_map[page] & PAGE_FILE);
    return !zero && !is_zero(page_at(t->box, page));
}

static bool write_pages(const taking *t, uint32_t first, uint32_t end) {
    for (uint32_t page = first; page < end; page++) {
        uint32_t start = page;
        while (page < end && worth_writing(t, first, page))
            page++;
        size_t size = (size_t)(page - start) * VX_PAGE_SIZE;
        if (size != 0 && !os_write_at(t->out->fd, page_at(t->box, start), size,
                                      t->offset + (uint64_t)(start - first) * VX_PAGE_SIZE))
            return false;
    }
    return true;
}

/* The guest may have taken its own right to read the pages; then it has none to them. */
static bool store(taking *t, uint32_t first, uint32_t end, uint8_t bits) {
    const size_t size = (size_t)(end - first) * VX_PAGE_SIZE;
    bool hidden = !(bits & VX_PROT_READ);
    if (hidden && !os_protect(page_at(t->box, first), size, VX_PROT_READ))
        return false;
    vx_run_of_pages run = {first * VX_PAGE_SIZE, (uint32_t)size, bits, t->out->fd, t->offset};
    bool ok = write_pages(t, first, end) && add_run(t->out, run);
    t->offset += size;
    return (!hidden || os_protect(page_at(t->box, first), size, 0)) && ok;
}

static uint8_t kind_of(const vx_sandbox *box, uint32_t page) {
    return box->page_map[page] & (uint8_t)~(PAGE_FILE | PAGE_GUARDED);
}

/* The run of the image that begins with the page, if all of it is as it was and no guest may write it: that is
 * mapped from the image, not copied.  Never a part of one, so that a guest cannot cut it into as many as it has
 * pages: each costs the host a mapping. */
static const vx_run_of_pages *unchanged_run(const taking *t, uint32_t first, uint32_t end) {
    const vx_pages *image = &t->box->plugin->image;
    for (size_t i = 0; i < image->count; i++) {
        const vx_run_of_pages *run = &image->runs[i];
        bool whole = run->address == first * VX_PAGE_SIZE && run->size == (end - first) * VX_PAGE_SIZE;
        if (whole && run->fd >= 0 && run->page == (kind_of(t->box, first) & ~PAGE_MAPPED) &&
            !(run->page & VX_PROT_WRITE) && memchr(t->changed, 1, end - first) == NULL)
            return run;
    }
    return NULL;
}

static bool take_run(taking *t, uint32_t first, uint32_t end) {
    os_find_changed(t->pagemap, page_at(t->box, first), end - first, t->changed);
    const vx_run_of_pages *run = unchanged_run(t, first, end);
    return run != NULL ? add_run(t->out, *run) : store(t, first, end, kind_of(t->box, first));
}

/* The first page behind `page` that is not of its kind, or that another run of the image begins with. */
static uint32_t run_end(const vx_sandbox *box, uint32_t page) {
    const vx_pages *image = &box->plugin->image;
    uint32_t end = VX_GUEST_MAX / VX_PAGE_SIZE, at = page + 1;
    for (size_t i = image->count; i-- != 0;)
        if (image->runs[i].address / VX_PAGE_SIZE > page && image->runs[i].fd >= 0)
            end = image->runs[i].address / VX_PAGE_SIZE;
    while (at < end && kind_of(box, at) == kind_of(box, page) && in_snapshot(box, at))
        at++;
    return at;
}

/* The page map of the whole window is mostly untouched, and then empty: only its touched pages are looked at. */
static uint32_t next_mapped(const vx_sandbox *box, const uint8_t *touched, uint32_t page) {
    const uint32_t end = VX_GUEST_MAX / VX_PAGE_SIZE;
    while (page < end) {
        if (!touched[page / VX_PAGE_SIZE])
            page = (page / VX_PAGE_SIZE + 1) * VX_PAGE_SIZE;
        else if (box->page_map[page] & PAGE_MAPPED)
            return page;
        else
            page++;
    }
    return end;
}

static bool take_runs(taking *t) {
    const uint32_t end = VX_GUEST_MAX / VX_PAGE_SIZE;
    uint8_t touched[VX_WINDOW / VX_PAGE_SIZE / VX_PAGE_SIZE];
    os_find_changed(t->pagemap, t->box->page_map, VX_COUNT(touched), touched);
    for (uint32_t page = next_mapped(t->box, touched, 0); page < end;) {
        uint32_t next = in_snapshot(t->box, page) ? run_end(t->box, page) : page;
        if (next != page && !take_run(t, page, next))
            return false;
        page = next_mapped(t->box, touched, next != page ? next : page + 1);
    }
    return true;
}

/* What of the stack is in use is a little, most often. */
static bool keep_top(vx_sandbox *box, vx_pages *out) {
    const vx_run_of_pages *last = out->count == 0 ? NULL : &out->runs[out->count - 1];
    if (last == NULL || last->address < box->stack_low || last->page != PAGE_FRESH_STACK || last->size > VX_STACK_COPY)
        return true;
    out->top = malloc(last->size);
    if (out->top != NULL)
        memcpy(out->top, page_at(box, last->address / VX_PAGE_SIZE), last->size);
    return out->top != NULL;
}

bool snapshot_take(vx_sandbox *box, vx_pages *out) {
    taking t = {.box = box, .out = out, .pagemap = os_open_pagemap(), .changed = malloc(box->pages)};
    out->fd = os_memory_file("vxplug-snapshot", box->pages * VX_PAGE_SIZE);
    bool ok = t.changed != NULL && out->fd >= 0 && take_runs(&t) && keep_top(box, out);
    free(t.changed);
    if (t.pagemap >= 0)
        os_close(t.pagemap);
    if (!ok)
        pages_free(out);
    return ok;
}
