/* Mapping guest pages: the page map, the limit and the host's page tables move together here. */
#include "internal.h"

static bool range_valid(uint32_t address, uint64_t size) {
    return address % VX_PAGE_SIZE == 0 && size % VX_PAGE_SIZE == 0 && size != 0 &&
           address >= VX_GUEST_MIN && address <= VX_GUEST_MAX && size <= VX_GUEST_MAX - address;
}

static uint8_t *host(const vx_sandbox *box, uint32_t address) {
    return (uint8_t *)(uintptr_t)(box->base + address);
}

static uint64_t count_mapped(const vx_sandbox *box, uint32_t address, uint64_t size) {
    uint64_t count = 0;
    for (uint64_t page = 0; page < size / VX_PAGE_SIZE; page++)
        count += box->page_map[address / VX_PAGE_SIZE + page] != 0;
    return count;
}

static void set_pages(vx_sandbox *box, uint32_t address, uint64_t size, uint8_t page) {
    memset(box->page_map + address / VX_PAGE_SIZE, page, size / VX_PAGE_SIZE);
}

static bool admit(const vx_sandbox *box, uint32_t address, uint64_t size) {
    if (!range_valid(address, size))
        return false;
    uint64_t after = box->pages - count_mapped(box, address, size) + size / VX_PAGE_SIZE;
    return after <= box->page_limit;
}

static void account(vx_sandbox *box, uint32_t address, uint64_t size, uint8_t page) {
    box->pages += size / VX_PAGE_SIZE - count_mapped(box, address, size);
    set_pages(box, address, size, page | PAGE_MAPPED);
}

bool region_map(vx_sandbox *box, uint32_t address, uint64_t size, uint8_t page) {
    if (!admit(box, address, size) || !os_map(host(box, address), size, page))
        return false;
    account(box, address, size, page);
    return true;
}

bool region_map_file(vx_sandbox *box, uint32_t address, uint64_t size, uint8_t page, int fd, uint64_t offset) {
    if (!admit(box, address, size) || !os_map_file(host(box, address), size, page, fd, offset))
        return false;
    account(box, address, size, page);
    return true;
}

bool region_unmap(vx_sandbox *box, uint32_t address, uint64_t size) {
    if (!range_valid(address, size) || !os_unmap(host(box, address), size))
        return false;
    box->pages -= count_mapped(box, address, size);
    set_pages(box, address, size, 0);
    return true;
}


bool region_protect(vx_sandbox *box, uint32_t address, uint64_t size, uint8_t prot) {
    if (!range_valid(address, size) || count_mapped(box, address, size) != size / VX_PAGE_SIZE ||
        !os_protect(host(box, address), size, prot))
        return false;
    for (uint64_t i = 0; i < size / VX_PAGE_SIZE; i++) {
        uint8_t *page = &box->page_map[address / VX_PAGE_SIZE + i];
        *page = (uint8_t)((*page & (PAGE_FIXED | PAGE_HOST)) | PAGE_MAPPED | prot);
    }
    return true;
}

bool region_clear(vx_sandbox *box) {
    if (!os_unmap(host(box, 0), VX_WINDOW) ||
        !os_map(box->page_map, VX_WINDOW / VX_PAGE_SIZE, 3))
        return false;
    box->pages = 0;
    return true;
}

/* Pages free below `top`, searched downwards; 0 if none down to the break. */
static uint32_t find_below(const vx_sandbox *box, uint32_t top, uint64_t size) {
    uint64_t need = size / VX_PAGE_SIZE, run = 0;
    uint32_t floor = (box->kernel.brk + VX_PAGE_SIZE - 1) / VX_PAGE_SIZE + 1;
    for (uint32_t page = top / VX_PAGE_SIZE; page-- > floor;) {
        run = box->page_map[page] == 0 ? run + 1 : 0;
        if (run == need)
            return page * VX_PAGE_SIZE;
    }
    return 0;
}

uint32_t region_find(vx_sandbox *box, uint64_t size) {
    uint32_t top = box->stack_low - VX_STACK_GUARD;
    uint32_t found = find_below(box, box->kernel.mmap_hint, size);
    if (found == 0 && box->kernel.mmap_hint != top)
        found = find_below(box, top, size);
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
