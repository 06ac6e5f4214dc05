/* Memory as Linux hands it out: the break, mappings, protection. */
#include "linux.h"

/* Linux's values, which the guest uses. */
enum { PROT_ALL = 7, MAP_SHARED = 1, MAP_TYPE = 0xf, MAP_FIXED = 0x10, MAP_ANONYMOUS = 0x20,
       MAP_FIXED_NOREPLACE = 0x100000, MREMAP_MAYMOVE = 1, MREMAP_ALL = 1, MADV_DONTNEED = 4,
       CALL_PREAD64 = 180, ERRNO_MAX = 4095 };

/* Linux's brk answers with the break as it is when it cannot do what it is asked. */
bool call_brk(linux_call *c) {
    vx_kernel *k = &c->box->kernel;
    uint64_t want = c->arguments[0], old_end = page_up(k->brk), new_end = page_up(want);
    if (want < k->brk_start || want > VX_GUEST_MAX)
        return done(c, k->brk);
    bool ok = true;
    if (new_end > old_end)
        ok = region_lacks(c->box, (uint32_t)old_end, new_end - old_end, PAGE_MAPPED) &&
             region_map(c->box, (uint32_t)old_end, new_end - old_end, VX_PROT_READ | VX_PROT_WRITE);
    else if (new_end < old_end)
        ok = region_lacks(c->box, (uint32_t)new_end, old_end - new_end, PAGE_FIXED | PAGE_HOST) &&
             region_unmap(c->box, (uint32_t)new_end, old_end - new_end);
    if (ok)
        k->brk = (uint32_t)want;
    return done(c, k->brk);
}

/* --- mmap ------------------------------------------------------------------------------------------ */

typedef struct mapping {
    uint32_t address, prot, flags, fd, page_offset; /* as the guest asks */
    uint64_t size;                                  /* whole pages */
} mapping;

/* The address to map at, or a negative errno. */
static int64_t place(vx_sandbox *box, const mapping *m) {
    bool fixed = m->flags & (MAP_FIXED | MAP_FIXED_NOREPLACE);
    if (fixed && m->address % VX_PAGE_SIZE != 0)
        return -EINVAL;
    if (fixed && (m->address > VX_GUEST_MAX || m->size > VX_GUEST_MAX - m->address))
        return -ENOMEM;
    if (m->flags & MAP_FIXED)
        return region_lacks(box, m->address, m->size, PAGE_FIXED | PAGE_HOST) ? (int64_t)m->address : -EINVAL;
    bool free = m->address != 0 && region_lacks(box, m->address, m->size, PAGE_MAPPED);
    if (m->flags & MAP_FIXED_NOREPLACE)
        return free ? (int64_t)m->address : -EEXIST;
    uint32_t address = free ? m->address : region_find(box, m->size);
    return address != 0 ? (int64_t)address : -ENOMEM;
}

/* pread64 by the embedder into guest memory; its result, or INT32_MIN: the guest's call ends. */
static int32_t read_file(linux_call *c, const mapping *m, uint32_t at, uint32_t size) {
    uint64_t offset = (uint64_t)m->page_offset * VX_PAGE_SIZE + at;
    uint32_t arguments[6] = {m->fd, m->address + at, size, (uint32_t)offset, (uint32_t)(offset >> 32), 0};
    int32_t result;
    if (!linux_ask(c, CALL_PREAD64, arguments, &result))
        return INT32_MIN;
    return result < -ERRNO_MAX ? -EIO : result; /* no errno that Linux has */
}

/* A private copy of the file's bytes: what the guest maps is not the host's page cache.  Past the
 * file's end pages are zero. */
static int32_t fill(linux_call *c, const mapping *m) {
    for (uint64_t at = 0; at < m->size;) {
        uint64_t part = m->size - at < VX_FILE_CHUNK ? m->size - at : VX_FILE_CHUNK;
        int32_t got = read_file(c, m, (uint32_t)at, (uint32_t)part);
        if (got <= 0)
            return got;
        at += (uint32_t)got;
    }
    return 0;
}

/* Only a private view can be had of a file, so a shared one may not be written. */
static int32_t check_file(linux_call *c, const mapping *m) {
    if ((m->flags & MAP_TYPE) == MAP_SHARED && (m->prot & VX_PROT_WRITE))
        return -ENODEV;
    int32_t result = read_file(c, m, 0, 0);
    return result == -EISDIR || result == -ESPIPE ? -ENODEV : result;
}

static bool map_file(linux_call *c, mapping *m) {
    int32_t error = check_file(c, m);
    if (error < 0)
        return error != INT32_MIN && done(c, error);
    int64_t address = place(c->box, m);
    if (address < 0)
        return done(c, address);
    m->address = (uint32_t)address;
    if (!region_map(c->box, m->address, m->size, VX_PROT_READ | VX_PROT_WRITE))
        return done(c, -ENOMEM);
    error = fill(c, m);
    if (error == INT32_MIN)
        return false;
    if (error < 0 || !region_protect(c->box, m->address, m->size, page_prot(m->prot))) {
        (void)region_unmap(c->box, m->address, m->size);
        return done(c, error < 0 ? error : -ENOMEM);
    }
    return done(c, m->address);
}

static bool map_anonymous(linux_call *c, const mapping *m) {
    int64_t address = place(c->box, m);
    if (address >= 0 && !region_map(c->box, (uint32_t)address, m->size, page_prot(m->prot)))
        address = -ENOMEM;
    return done(c, address);
}

static bool map(linux_call *c, mapping m) {
    if (!(m.flags & MAP_ANONYMOUS) && !under_policy(c->box))
        return refuse(c);
    if (m.size == 0 || (m.prot & ~(uint32_t)PROT_ALL))
        return done(c, -EINVAL);
    return m.flags & MAP_ANONYMOUS ? map_anonymous(c, &m) : map_file(c, &m);
}

bool call_mmap2(linux_call *c) {
    const uint32_t *a = c->arguments;
    return map(c, (mapping){a[0], a[2], a[3], a[4], a[5], page_up(a[1])});
}

/* The first i386 mmap took its arguments from memory, the offset in bytes. */
bool call_old_mmap(linux_call *c) {
    uint32_t a[6];
    if (!guest_read(c->box, c->arguments[0], a, sizeof a))
        return done(c, -EFAULT);
    if (a[5] % VX_PAGE_SIZE != 0)
        return done(c, -EINVAL);
    return map(c, (mapping){a[0], a[2], a[3], a[4], a[5] / VX_PAGE_SIZE, page_up(a[1])});
}

static void forget_hint(vx_sandbox *box, uint64_t end) {
    if (end > box->kernel.mmap_hint)
        box->kernel.mmap_hint = VX_MMAP_TOP;
}

bool call_munmap(linux_call *c) {
    uint32_t address = c->arguments[0];
    uint64_t size = page_up(c->arguments[1]);
    if (!region_lacks(c->box, address, size, PAGE_FIXED | PAGE_HOST) || !region_unmap(c->box, address, size))
        return done(c, -EINVAL);
    forget_hint(c->box, address + size);
    return done(c, 0);
}

bool call_mprotect(linux_call *c) {
    uint32_t address = c->arguments[0], prot = c->arguments[2];
    uint64_t size = page_up(c->arguments[1]);
    if (size == 0)
        return done(c, 0);
    if (prot & ~(uint32_t)PROT_ALL)
        return done(c, -EINVAL);
    if (!region_lacks(c->box, address, size, PAGE_HOST))
        return done(c, -EACCES);
    return done(c, region_protect(c->box, address, size, page_prot(prot)) ? 0 : -ENOMEM);
}

/* --- mremap ---------------------------------------------------------------------------------------- */

/* Protection shared by every page of the range, or a negative errno; image and arguments stay. */
static int range_prot(const vx_sandbox *box, uint32_t address, uint64_t size) {
    if (!region_lacks(box, address, size, PAGE_FIXED | PAGE_HOST))
        return -EINVAL;
    int prot = region_prot(box, address, size);
    return prot < 0 ? -EFAULT : prot;
}

/* The copy needs room for both; the kernel's own way, moving page tables, would cut the window into
 * host mappings that never merge again. */
static bool move(vx_sandbox *box, uint32_t from, uint64_t old_size, uint32_t to, uint64_t size, uint8_t prot) {
    const uint8_t both = VX_PROT_READ | VX_PROT_WRITE;
    if (!region_map(box, to, size, both))
        return false;
    bool ok = region_protect(box, from, old_size, both);
    const void *bytes = ok ? vx_guest_pointer(box, (vx_gaddr){from}, old_size, VX_PROT_READ) : NULL;
    ok = bytes != NULL && guest_write(box, to, bytes, old_size) && region_protect(box, to, size, prot) &&
         region_unmap(box, from, old_size);
    if (!ok)
        (void)region_unmap(box, to, size);
    return ok;
}

static bool grow(linux_call *c, uint32_t address, uint64_t old_size, uint64_t size, uint8_t prot, bool may_move) {
    uint64_t more = size - old_size, tail = address + old_size;
    if (tail + more <= VX_MMAP_TOP && region_lacks(c->box, (uint32_t)tail, more, PAGE_MAPPED) &&
        region_map(c->box, (uint32_t)tail, more, prot))
        return done(c, address);
    uint32_t to = may_move ? region_find(c->box, size) : 0;
    if (to == 0 || !move(c->box, address, old_size, to, size, prot))
        return done(c, -ENOMEM);
    forget_hint(c->box, tail);
    return done(c, to);
}

static bool shrink(linux_call *c, uint32_t address, uint64_t old_size, uint64_t size) {
    if (size != old_size && !region_unmap(c->box, (uint32_t)(address + size), old_size - size))
        return done(c, -ENOMEM);
    forget_hint(c->box, address + old_size);
    return done(c, address);
}

bool call_mremap(linux_call *c) {
    uint32_t address = c->arguments[0], flags = c->arguments[3];
    uint64_t old_size = page_up(c->arguments[1]), size = page_up(c->arguments[2]);
    if (size == 0 || old_size == 0 || (flags & ~(uint32_t)MREMAP_ALL))
        return done(c, -EINVAL);
    int prot = range_prot(c->box, address, old_size);
    if (prot < 0)
        return done(c, prot);
    return size <= old_size ? shrink(c, address, old_size, size)
                            : grow(c, address, old_size, size, (uint8_t)prot, flags & MREMAP_MAYMOVE);
}

/* Everything else madvise can ask for is advice. */
bool call_madvise(linux_call *c) {
    uint32_t address = c->arguments[0];
    uint64_t size = page_up(c->arguments[1]);
    if (c->arguments[2] != MADV_DONTNEED || size == 0)
        return done(c, 0);
    if (!region_lacks(c->box, address, size, PAGE_FIXED | PAGE_HOST))
        return done(c, -EINVAL);
    return done(c, region_discard(c->box, address, size) ? 0 : -ENOMEM);
}
