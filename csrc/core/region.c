/* Mapping guest pages: the page map, the limits and the host's page tables move together here.
 *
 * Guests must not use up the host's mappings, of which a process has few (Linux: 65530).  The window
 * is one anonymous mapping from its reservation on; pages come and go by protection alone, so
 * neighbours with equal bits always merge and the page map's borders count the kernel's mappings.
 * Pages mapped from a file keep that mapping until the window is cleared, whatever the guest asks. */
#include "internal.h"

static bool range_valid(uint32_t address, uint64_t size) {
    return address % VX_PAGE_SIZE == 0 && size % VX_PAGE_SIZE == 0 && size != 0 &&
           address >= VX_GUEST_MIN && address <= VX_GUEST_MAX && size <= VX_GUEST_MAX - address;
}

static uint8_t *host(const vx_sandbox *box, uint32_t address) {
    return (uint8_t *)(uintptr_t)(box->base + address);
}

/* A change of every page map byte in a range: bits kept, bits set. */
typedef struct change {
    uint8_t keep, set;
} change;

/* Guards come and go on their own, and count on their own (owncode.c). */
static uint8_t unguarded(uint8_t page) { return page & (uint8_t)~PAGE_GUARDED; }

static uint8_t changed(uint8_t page, change c) { return unguarded((uint8_t)((page & c.keep) | c.set)); }

/* How many pages up to `end` have the first one's byte; eight at a look, for most ranges are of one kind. */
static uint64_t alike(const uint8_t *page, const uint8_t *end) {
    uint64_t count = 1, room = (uint64_t)(end - page), eight;
    const uint64_t wanted = *page * 0x0101010101010101u;
    for (; room - count >= 8; count += 8) {
        memcpy(&eight, page + count, 8);
        if (eight != wanted)
            break;
    }
    while (count < room && page[count] == *page)
        count++;
    return count;
}

/* What a range holds before and after a change.  Mappings by the host are few and not refused for
 * their borders. */
typedef struct survey {
    uint64_t mapped_before, mapped_after, borders_before, borders_after;
    bool in_file, by_host, code;
} survey;

/* Valid ranges have a page on either side, so both outer borders are counted. */
static survey look(const vx_sandbox *box, uint32_t address, uint64_t size, change c) {
    const uint8_t *page = box->page_map + address / VX_PAGE_SIZE, *end = page + size / VX_PAGE_SIZE;
    uint8_t before = unguarded(page[-1]), after = before, seen = 0;
    survey s = {0};
    for (uint64_t count; page < end; page += count) {
        uint8_t next = changed(*page, c);
        count = alike(page, end);
        s.mapped_before += *page & PAGE_MAPPED ? count : 0;
        s.mapped_after += next & PAGE_MAPPED ? count : 0;
        s.borders_before += unguarded(*page) != before;
        s.borders_after += next != after;
        seen |= *page;
        before = unguarded(*page), after = next;
    }
    s.borders_before += unguarded(*end) != before;
    s.borders_after += unguarded(*end) != after;
    s.code = (seen | c.set) & VX_PROT_EXEC;
    s.in_file = seen & PAGE_FILE;
    s.by_host = (seen | c.set) & PAGE_HOST || c.set & PAGE_FILE;
    return s;
}

static bool admit(const vx_sandbox *box, const survey *s) {
    uint64_t pages = box->pages - s->mapped_before + s->mapped_after;
    uint64_t borders = box->borders - s->borders_before + s->borders_after;
    return (pages <= box->page_limit || pages <= box->pages) &&
           (borders <= VX_BORDERS_MAX || borders <= box->borders || s->by_host);
}

/* True: the change may go on, and nothing translated depends on the range any more. */
static bool prepare(vx_sandbox *box, uint32_t address, uint64_t size, change c, survey *s) {
    if (!range_valid(address, size))
        return false;
    *s = look(box, address, size, c);
    return admit(box, s) && (!s->code || own_change(box, address, size));
}

/* What a reset has to know: pages that the guest got where none were are `grown`; with any other change
 * its mappings are not the snapshot's any more. */
static void note(vx_sandbox *box, uint32_t address, uint64_t size, change c, const survey *s) {
    uint32_t end = (uint32_t)(address + size);
    bool fresh = s->mapped_before == 0 && !s->in_file;
    if (c.set & PAGE_FILE)
        box->as_snapshot = false;
    if (!box->as_snapshot)
        return;
    for (unsigned i = 0; i < box->grown_count; i++) {
        vx_span *span = &box->grown[i];
        if (address >= span->low && end <= span->high)
            return;
        if (fresh && address <= span->high && end >= span->low) {
            span->low = address < span->low ? address : span->low;
            span->high = end > span->high ? end : span->high;
            return;
        }
    }
    if (fresh && box->grown_count < VX_GROWN_MAX)
        box->grown[box->grown_count++] = (vx_span){address, end};
    else
        box->as_snapshot = false;
}

static void account(vx_sandbox *box, uint32_t address, uint64_t size, change c, const survey *s) {
    note(box, address, size, c, s);
    box->pages += s->mapped_after - s->mapped_before;
    box->borders += s->borders_after - s->borders_before;
    uint8_t *page = box->page_map + address / VX_PAGE_SIZE, *end = page + size / VX_PAGE_SIZE;
    for (uint64_t count; page < end; page += count) {
        count = alike(page, end);
        memset(page, changed(*page, c), count);
    }
}

/* The kernel may stop half way, when the process is at its limit of mappings.  Then nobody touches
 * the range: a host that trusted the page map would fault. */
static bool give_up(vx_sandbox *box, uint32_t address, uint64_t size) {
    change c = {PAGE_MAPPED | PAGE_FIXED | PAGE_HOST | PAGE_FILE, 0};
    survey s = look(box, address, size, c);
    (void)os_protect(host(box, address), size, 0);
    account(box, address, size, c, &s);
    return false;
}

/* Pages of a file come back with the file's bytes: they are overwritten. */
static bool zero_file_pages(vx_sandbox *box, uint32_t address, uint64_t size) {
    box->as_snapshot = false; /* whether or not the guest may write them */
    for (uint64_t at = address; at < address + size; at += VX_PAGE_SIZE) {
        if (!(box->page_map[at / VX_PAGE_SIZE] & PAGE_FILE))
            continue;
        if (!os_protect(host(box, (uint32_t)at), VX_PAGE_SIZE, VX_PROT_READ | VX_PROT_WRITE))
            return false;
        memset(host(box, (uint32_t)at), 0, VX_PAGE_SIZE);
    }
    return true;
}

bool region_map(vx_sandbox *box, uint32_t address, uint64_t size, uint8_t page) {
    change c = {PAGE_FILE, page | PAGE_MAPPED};
    survey s;
    if (!prepare(box, address, size, c, &s))
        return false;
    if ((s.mapped_before != 0 && !os_discard(host(box, address), size)) ||
        (s.in_file && !zero_file_pages(box, address, size)) ||
        !os_protect(host(box, address), size, page))
        return give_up(box, address, size);
    account(box, address, size, c, &s);
    return true;
}

bool region_map_file(vx_sandbox *box, const vx_run_of_pages *run, uint64_t span) {
    change c = {0, run->page | PAGE_MAPPED | PAGE_FILE};
    survey s;
    if (!prepare(box, run->address, run->size, c, &s) ||
        (span != 0 && !os_map_file(host(box, run->address), span, run->page, run->fd, run->offset)))
        return false;
    account(box, run->address, run->size, c, &s);
    return true;
}

bool region_share(vx_sandbox *box, uint32_t address, uint64_t size, uint8_t page, void *shared) {
    change c = {0, page | PAGE_MAPPED | PAGE_HOST};
    survey s;
    if (!region_lacks(box, address, size, PAGE_MAPPED | PAGE_FILE) || !prepare(box, address, size, c, &s) ||
        !os_share(host(box, address), size, shared))
        return false;
    box->as_snapshot = false; /* taking rights away would leave the mapping: a reset has to replace it */
    account(box, address, size, c, &s);
    return true;
}

bool region_unshare(vx_sandbox *box, uint32_t address, uint64_t size) {
    change c = {0, 0};
    survey s;
    if (!prepare(box, address, size, c, &s) || !os_unmap(host(box, address), size))
        return false;
    account(box, address, size, c, &s);
    return true;
}

bool region_unmap(vx_sandbox *box, uint32_t address, uint64_t size) {
    change c = {PAGE_FILE, 0};
    survey s;
    if (!prepare(box, address, size, c, &s))
        return false;
    if (!os_protect(host(box, address), size, 0) || !os_discard(host(box, address), size))
        return give_up(box, address, size);
    account(box, address, size, c, &s);
    return true;
}

bool region_protect(vx_sandbox *box, uint32_t address, uint64_t size, uint8_t prot) {
    change c = {PAGE_FIXED | PAGE_HOST | PAGE_FILE, PAGE_MAPPED | prot};
    survey s;
    if (!prepare(box, address, size, c, &s) || s.mapped_before != size / VX_PAGE_SIZE)
        return false;
    if (!os_protect(host(box, address), size, prot))
        return give_up(box, address, size);
    account(box, address, size, c, &s);
    return true;
}

bool region_guard(vx_sandbox *box, uint32_t page, bool on) {
    uint8_t bits = box->page_map[page];
    unsigned prot = on ? bits & ~(unsigned)VX_PROT_WRITE : bits;
    if (!os_protect(host(box, page * VX_PAGE_SIZE), VX_PAGE_SIZE, prot))
        return false;
    box->page_map[page] = on ? bits | PAGE_GUARDED : unguarded(bits);
    return true;
}

bool region_clear(vx_sandbox *box) {
    own_free(box);
    box->as_snapshot = false;
    if (!os_unmap(host(box, VX_GUEST_MIN), VX_WINDOW - VX_GUEST_MIN) ||
        !os_discard(box->page_map, VX_WINDOW / VX_PAGE_SIZE))
        return false;
    box->pages = box->borders = 0;
    return true;
}

void region_settled(vx_sandbox *box) {
    box->as_snapshot = true;
    box->grown_count = 0;
}

/* The limits are not asked: this only takes away. */
bool region_shrink(vx_sandbox *box) {
    for (; box->grown_count != 0; box->grown_count--) {
        const vx_span *span = &box->grown[box->grown_count - 1];
        uint32_t address = span->low, size = span->high - span->low;
        change c = {0, 0};
        survey s = look(box, address, size, c);
        if (!os_protect(host(box, address), size, 0) || !os_discard(host(box, address), size))
            return false;
        account(box, address, size, c, &s);
    }
    return true;
}

bool region_forget(vx_sandbox *box, uint32_t address, uint64_t size) {
    return os_discard(host(box, address), size);
}

/* Pages free below `top`, searched downwards; 0 if none down to the break. */
static uint32_t find_below(const vx_sandbox *box, uint32_t top, uint64_t size) {
    uint64_t need = size / VX_PAGE_SIZE, run = 0;
    uint32_t floor = (box->kernel.brk + VX_PAGE_SIZE - 1) / VX_PAGE_SIZE + 1;
    for (uint32_t page = top / VX_PAGE_SIZE; page-- > floor;) {
        run = box->page_map[page] & PAGE_MAPPED ? 0 : run + 1;
        if (run == need)
            return page * VX_PAGE_SIZE;
    }
    return 0;
}

uint32_t region_find(vx_sandbox *box, uint64_t size) {
    uint32_t found = find_below(box, box->kernel.mmap_hint, size);
    if (found == 0 && box->kernel.mmap_hint != VX_MMAP_TOP)
        found = find_below(box, VX_MMAP_TOP, size);
    if (found != 0)
        box->kernel.mmap_hint = found;
    return found;
}

bool region_lacks(const vx_sandbox *box, uint32_t address, uint64_t size, uint8_t mask) {
    if (!range_valid(address, size))
        return false;
    for (uint64_t i = 0; i < size / VX_PAGE_SIZE; i++)
        if (box->page_map[address / VX_PAGE_SIZE + i] & mask)
            return false;
    return true;
}

int region_prot(const vx_sandbox *box, uint32_t address, uint64_t size) {
    if (!range_valid(address, size))
        return -1;
    const uint8_t *page = box->page_map + address / VX_PAGE_SIZE;
    for (uint64_t i = 0; i < size / VX_PAGE_SIZE; i++)
        if (!(page[i] & PAGE_MAPPED) || ((page[i] ^ page[0]) & 7))
            return -1;
    return page[0] & 7;
}

/* Pages of a file would come back with the file's bytes. */
static bool discard_page(vx_sandbox *box, uint32_t address) {
    uint8_t page = box->page_map[address / VX_PAGE_SIZE];
    if (!(page & PAGE_FILE))
        return os_discard(host(box, address), VX_PAGE_SIZE);
    return zero_file_pages(box, address, VX_PAGE_SIZE) && os_protect(host(box, address), VX_PAGE_SIZE, page);
}

bool region_discard(vx_sandbox *box, uint32_t address, uint64_t size) {
    change none = {UINT8_MAX, 0};
    survey s;
    if (!prepare(box, address, size, none, &s) || s.mapped_before != size / VX_PAGE_SIZE)
        return false;
    if (!s.in_file)
        return os_discard(host(box, address), size);
    for (uint64_t at = address; at < address + size; at += VX_PAGE_SIZE)
        if (!discard_page(box, (uint32_t)at))
            return give_up(box, address, size);
    return true;
}
