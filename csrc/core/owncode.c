/* Code that a guest makes or changes: executable pages other than the image's as it was.
 *
 * A sandbox that has any leaves its plugin's shared cache, until it is reset, for one of its own that
 * reads guest memory.  The processor takes a store into the instruction stream into account from the
 * next instruction on; so do we:
 *
 * O1  Every byte that decided what a block does lies in the page of its eip or the one behind; both
 *     know the block, also if the byte decided by not being executable.
 * O2  Of these pages, those the guest may write are guarded: the host has them read-only.  A store by the
 *     guest faults, precisely before it; the run loop then drops the page's blocks, lifts the guard
 *     and has the one instruction translated alone, whose own bytes may lie in that page.
 * O3  Whoever changes a page in C comes through own_write (vx_guest_pointer with VX_PROT_WRITE) or
 *     own_change (region.c) first.
 * O4  Dropping empties the host-side stack: returns into a dropped block are looked up.
 *
 * One thread at a time uses a sandbox, so between reading bytes and guarding their page no one writes. */
#include "internal.h"

#define PAGES (VX_WINDOW / VX_PAGE_SIZE)

static uint32_t page_of(uint32_t address) { return address / VX_PAGE_SIZE; }

static bool guarded(const vx_sandbox *box, uint32_t page) { return box->page_map[page] & PAGE_GUARDED; }

const uint8_t *own_code(const vx_sandbox *box, uint32_t eip, size_t *available) {
    return box->kernel.own_code ? guest_code(box, eip, available) : plugin_code(box->plugin, eip, available);
}

/* --- guards --------------------------------------------------------------------------------------- */

/* Borders that appear (or, as a negative number, vanish) when the page's guard changes. */
static int borders_of(const vx_sandbox *box, uint32_t page) {
    int inner = guarded(box, page - 1) + guarded(box, page + 1);
    return guarded(box, page) ? 2 * inner - 2 : 2 - 2 * inner;
}

static bool set_guard(vx_sandbox *box, uint32_t page, bool on) {
    int borders = borders_of(box, page);
    if (!region_guard(box, page, on))
        return false;
    box->own->borders = (unsigned)((int)box->own->borders + borders);
    return true;
}

static vx_translate_result guard(vx_sandbox *box, uint32_t page) {
    const uint8_t both = VX_PROT_EXEC | VX_PROT_WRITE;
    if (guarded(box, page) || (box->page_map[page] & both) != both)
        return TRANSLATE_OK;
    if ((int)box->own->borders + borders_of(box, page) > VX_GUARD_BORDERS_MAX)
        return TRANSLATE_FULL;
    return set_guard(box, page, true) ? TRANSLATE_OK : TRANSLATE_UNGUARDED;
}

vx_translate_result own_guard(vx_sandbox *box, uint32_t eip, uint32_t reach) {
    vx_translate_result result = guard(box, page_of(eip));
    return result == TRANSLATE_OK && page_of(eip + reach) != page_of(eip) ? guard(box, page_of(eip) + 1) : result;
}

static bool lift_all(vx_sandbox *box) {
    for (uint32_t page = page_of(VX_GUEST_MIN); page < page_of(VX_GUEST_MAX); page++)
        if (guarded(box, page) && !set_guard(box, page, false))
            return false;
    return true;
}

/* --- which blocks depend on a page ----------------------------------------------------------------- */

static void link_to(vx_own *own, const vx_block *block, unsigned which) {
    uint32_t number = (uint32_t)(block - own->cache->blocks), page = page_of(block->eip) + which;
    own->next[number][which] = own->first[page];
    own->first[page] = number + 1;
}

void own_note(vx_sandbox *box, const vx_block *block, uint32_t reach) {
    VX_CHECK(reach < VX_PAGE_SIZE);
    link_to(box->own, block, 0);
    if (page_of(block->eip + reach) != page_of(block->eip))
        link_to(box->own, block, 1);
}

/* --- which branches were linked to a block ---------------------------------------------------------- */

/* Without room for the note the branch stays linked: the dropped block leads out, only slower. */
void own_link(vx_sandbox *box, uintptr_t site, const vx_block *block, uint32_t stub) {
    vx_own *own = box->own;
    uint32_t number = own->branches[0].next, *head = &own->links[block - own->cache->blocks];
    if (number == 0 && own->branch_count == own->cache->block_max)
        return;
    if (number == 0)
        number = own->branch_count++;
    else
        own->branches[0].next = own->branches[number].next;
    own->branches[number] = (vx_branch){(uint32_t)(site - (uintptr_t)own->cache->run), stub, *head};
    *head = number;
}

static void unlink_branches(vx_own *own, uint32_t block) {
    for (uint32_t number = own->links[block], next; number != 0; number = next) {
        vx_branch *branch = &own->branches[number];
        next = branch->next;
        cache_unlink(own->cache, (uintptr_t)own->cache->run + branch->site, branch->stub);
        branch->next = own->branches[0].next;
        own->branches[0].next = number;
    }
    own->links[block] = 0;
}

static void drop_blocks(vx_sandbox *box, uint32_t page) {
    vx_own *own = box->own;
    for (uint32_t number = own->first[page], next; number != 0; number = next) {
        vx_block *block = &own->cache->blocks[number - 1];
        next = own->next[number - 1][page_of(block->eip) != page];
        if (block->marks == 0)
            continue;
        unlink_branches(own, number - 1);
        cache_drop(own->cache, block);
    }
    own->first[page] = 0;
    box->state->guest_rsp = box->state->stack_top;
}

/* --- changes --------------------------------------------------------------------------------------- */

/* After a fork the cache is not ours to write: it goes as a whole. */
static bool forget(vx_sandbox *box, uint32_t page) {
    if (box->own == NULL)
        return true;
    if (cache_inherited(box->own->cache)) {
        if (!lift_all(box))
            return false;
        own_free(box);
        return true;
    }
    drop_blocks(box, page);
    return !guarded(box, page) || set_guard(box, page, false);
}

static bool known(const vx_sandbox *box, uint32_t page) {
    return box->own != NULL && (box->own->first[page] != 0 || guarded(box, page));
}

bool own_change(vx_sandbox *box, uint32_t address, uint64_t size) {
    box->kernel.own_code = true;
    for (uint32_t page = page_of(address); page < (address + size) / VX_PAGE_SIZE; page++)
        if (known(box, page) && (box->in_tick || !forget(box, page)))
            return false;
    return true;
}

bool own_write(vx_sandbox *box, uint32_t address, uint64_t size) {
    uint64_t end = page_up(address + size) / VX_PAGE_SIZE;
    for (uint32_t page = page_of(address); size != 0 && page < end; page++)
        if (known(box, page) && guarded(box, page) && (box->in_tick || !forget(box, page)))
            return false;
    return true;
}

/* --- the cache ------------------------------------------------------------------------------------- */

/* Sizes in bytes of first, next, links, branches. */
static void sizes_of(const vx_own *own, size_t sizes[4]) {
    size_t blocks = own->cache->block_max;
    sizes[0] = PAGES * sizeof *own->first;
    sizes[1] = page_up(blocks * sizeof *own->next);
    sizes[2] = page_up(blocks * sizeof *own->links);
    sizes[3] = page_up(blocks * sizeof *own->branches);
}

static void *table_of(size_t size) {
    void *memory = os_reserve(size, VX_PAGE_SIZE, 0);
    if (memory == NULL || os_map(memory, size, VX_PROT_READ | VX_PROT_WRITE))
        return memory;
    os_release(memory, size);
    return NULL;
}

static void release(vx_own *own) {
    if (own->cache != NULL) {
        void *const tables[4] = {own->first, own->next, own->links, own->branches};
        size_t sizes[4];
        sizes_of(own, sizes);
        for (unsigned i = 0; i < 4; i++)
            if (tables[i] != NULL)
                os_release(tables[i], sizes[i]);
        cache_unref(own->cache);
    }
    free(own);
}

static bool make_tables(vx_own *own) {
    size_t sizes[4];
    sizes_of(own, sizes);
    own->first = table_of(sizes[0]);
    own->next = table_of(sizes[1]);
    own->links = table_of(sizes[2]);
    own->branches = table_of(sizes[3]);
    own->branch_count = 1;
    return own->first != NULL && own->next != NULL && own->links != NULL && own->branches != NULL;
}

/* Detached too: nobody is inside, and who comes next attaches what there is then. */
void own_free(vx_sandbox *box) {
    vx_own *own = box->own;
    if (own == NULL)
        return;
    if (box->cache == own->cache) {
        box->cache = NULL;
        atomic_signal_fence(memory_order_seq_cst); /* before it is gone: see attach in run.c */
        cache_unref(own->cache);
    }
    box->own = NULL;
    release(own);
}

bool own_renew(vx_sandbox *box, unsigned uses) {
    if (box->own != NULL && !lift_all(box))
        return false;
    own_free(box);
    vx_own *own = calloc(1, sizeof *own);
    if (own == NULL)
        return false;
    own->cache = cache_create(VX_OWN_CACHE / VX_CACHE_FACTOR, uses);
    if (own->cache == NULL || !make_tables(own)) {
        release(own);
        return false;
    }
    box->own = own;
    return true;
}
