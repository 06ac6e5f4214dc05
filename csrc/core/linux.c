/* The i386 Linux system calls that a static musl needs to live: memory, output, exit.  Everything
 * else is a refusal (VX_TRAP_SYSCALL).  Registers: eax number and result, ebx ecx edx esi edi. */
#include "internal.h"

#include <errno.h>

enum { EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI };

/* Linux's values, which the guest uses; the host's own are not assumed to be equal. */
enum { GUEST_PROT_MASK = 7, GUEST_MAP_FIXED = 0x10, GUEST_MAP_ANONYMOUS = 0x20, GUEST_SIGABRT = 6,
       GUEST_FUTEX_WAIT = 0, GUEST_FUTEX_WAKE = 1, GUEST_FUTEX_COMMAND = 0x7f };

typedef struct call {
    vx_sandbox *box;
    uint32_t *gpr;
    vx_trap *trap;
    vx_trap_kind output_end; /* why output ended the call */
} call;

static bool done(call *c, int64_t result) {
    c->gpr[EAX] = (uint32_t)result;
    return true;
}

static bool end(call *c, vx_trap_kind kind, uint32_t code) {
    c->trap->kind = kind;
    c->trap->code = code;
    return false;
}

static bool refuse(call *c) { return end(c, VX_TRAP_SYSCALL, c->gpr[EAX]); }

static bool call_nothing(call *c) { return done(c, 0); }
static bool call_self_id(call *c) { return done(c, 1); }
static bool call_close(call *c) { return done(c, c->gpr[EBX] <= 2 ? 0 : -EBADF); }
static bool call_ioctl(call *c) { return done(c, -ENOTTY); }
static bool call_exit_group(call *c) { return end(c, VX_TRAP_EXIT, c->gpr[EBX] & 0xff); }

/* --- signals to itself --------------------------------------------------------------------------- */

static bool kill_itself(call *c, uint32_t signal) {
    return signal == GUEST_SIGABRT ? end(c, VX_TRAP_ABORT, signal) : refuse(c);
}

static bool call_kill(call *c) { return kill_itself(c, c->gpr[ECX]); }
static bool call_tgkill(call *c) { return kill_itself(c, c->gpr[EDX]); }

/* No signal is ever delivered: the old action and mask read as empty. */
static bool zero_old(call *c, uint32_t address, uint32_t size) {
    static const uint8_t zeros[140];
    if (size > sizeof zeros)
        return done(c, -EINVAL);
    return done(c, address == 0 || guest_write(c->box, address, zeros, size) ? 0 : -EFAULT);
}

static bool call_sigaction(call *c) { return zero_old(c, c->gpr[EDX], 20); }
static bool call_sigprocmask(call *c) { return zero_old(c, c->gpr[EDX], c->gpr[ESI]); }

/* --- output --------------------------------------------------------------------------------------- */

/* How much of `size` bytes the output limit still allows; 0 ends the call. */
static uint32_t output_room(call *c, uint32_t size) {
    uint64_t limit = c->box->options.output;
    if (limit == 0 || size <= limit - c->box->written)
        return size;
    c->output_end = VX_TRAP_OUTPUT;
    return (uint32_t)(limit - c->box->written);
}

static bool give_out(call *c, uint32_t fd, const void *data, uint32_t size) {
    const vx_hooks *hooks = &c->box->options.hooks;
    c->box->written += size;
    return size != 0 &&
           (hooks->output == NULL || hooks->output(c->box->options.context, (int)fd, data, size));
}

/* In chunks, each checked and copied when its turn comes: the hook may run the guest, and the guest
 * may unmap what is left. */
static int64_t put_out(call *c, uint32_t fd, uint32_t address, uint32_t size, bool *go_on) {
    uint8_t chunk[VX_OUTPUT_CHUNK];
    for (uint32_t at = 0; at < size;) {
        uint32_t part = size - at < sizeof chunk ? size - at : (uint32_t)sizeof chunk;
        if (!guest_read(c->box, address + at, chunk, part))
            return at != 0 ? (int64_t)at : -EFAULT;
        part = output_room(c, part);
        if (!give_out(c, fd, chunk, part)) {
            *go_on = false;
            return 0;
        }
        at += part;
    }
    return size;
}

static bool is_output(uint32_t fd) { return fd == 1 || fd == 2; }

static bool call_write(call *c) {
    bool go_on = true;
    uint32_t fd = c->gpr[EBX], size = c->gpr[EDX] & 0x7fffffff;
    int64_t result = is_output(fd) ? put_out(c, fd, c->gpr[ECX], size, &go_on) : -EBADF;
    return go_on ? done(c, result) : end(c, c->output_end, 0);
}

static int64_t put_vectors(call *c, bool *go_on) {
    uint32_t fd = c->gpr[EBX], at = c->gpr[ECX], count = c->gpr[EDX];
    int64_t total = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t vector[2]; /* base, length */
        if (!guest_read(c->box, at + 8 * i, vector, sizeof vector))
            return total != 0 ? total : -EFAULT;
        int64_t put = put_out(c, fd, vector[0], vector[1] & 0x7fffffff, go_on);
        if (put < 0 || !*go_on)
            return total != 0 ? total : put;
        total += put;
        if (total > INT32_MAX)
            return -EINVAL;
    }
    return total;
}

static bool call_writev(call *c) {
    bool go_on = true;
    int64_t result = !is_output(c->gpr[EBX]) ? -EBADF
                     : c->gpr[EDX] > VX_IOV_MAX ? -EINVAL
                                                : put_vectors(c, &go_on);
    return go_on ? done(c, result) : end(c, c->output_end, 0);
}

/* --- memory --------------------------------------------------------------------------------------- */

/* Linux's brk answers with the break as it is when it cannot do what it is asked. */
static bool call_brk(call *c) {
    vx_kernel *k = &c->box->kernel;
    uint64_t want = c->gpr[EBX], old_end = page_up(k->brk), new_end = page_up(want);
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

static bool call_mmap2(call *c) {
    uint32_t address = c->gpr[EBX], prot = c->gpr[EDX], flags = c->gpr[ESI];
    uint64_t size = page_up(c->gpr[ECX]);
    if (!(flags & GUEST_MAP_ANONYMOUS))
        return refuse(c);
    if (size == 0 || (prot & ~(uint32_t)GUEST_PROT_MASK))
        return done(c, -EINVAL);
    if (!(flags & GUEST_MAP_FIXED))
        address = region_find(c->box, size);
    else if (!region_lacks(c->box, address, size, PAGE_FIXED | PAGE_HOST))
        return done(c, -EINVAL);
    if (address == 0 || !region_map(c->box, address, size, page_prot(prot)))
        return done(c, -ENOMEM);
    return done(c, address);
}

static bool call_munmap(call *c) {
    uint64_t size = page_up(c->gpr[ECX]);
    if (!region_lacks(c->box, c->gpr[EBX], size, PAGE_FIXED | PAGE_HOST))
        return done(c, -EINVAL);
    if (!region_unmap(c->box, c->gpr[EBX], size))
        return done(c, -EINVAL);
    if (c->gpr[EBX] + size > c->box->kernel.mmap_hint)
        c->box->kernel.mmap_hint = VX_MMAP_TOP;
    return done(c, 0);
}

static bool call_mprotect(call *c) {
    uint64_t size = page_up(c->gpr[ECX]);
    uint32_t prot = c->gpr[EDX];
    if (size == 0)
        return done(c, 0);
    if (prot & ~(uint32_t)GUEST_PROT_MASK)
        return done(c, -EINVAL);
    if (!region_lacks(c->box, c->gpr[EBX], size, PAGE_HOST))
        return done(c, -EACCES);
    return done(c, region_protect(c->box, c->gpr[EBX], size, page_prot(prot)) ? 0 : -ENOMEM);
}

/* Growing in place or moving is the allocator's job: with this answer musl copies. */
static bool call_mremap(call *c) { return done(c, -ENOMEM); }

/* --- one thread ------------------------------------------------------------------------------------ */

static bool call_futex(call *c) {
    uint32_t command = c->gpr[ECX] & GUEST_FUTEX_COMMAND;
    if (command == GUEST_FUTEX_WAKE)
        return done(c, 0);
    return command == GUEST_FUTEX_WAIT ? done(c, -EAGAIN) : refuse(c);
}

/* An allocator sizes its arenas by this: one processor. */
static bool call_sched_getaffinity(call *c) {
    static const uint32_t mask = 1;
    if (c->gpr[ECX] < sizeof mask)
        return done(c, -EINVAL);
    return done(c, guest_write(c->box, c->gpr[EDX], &mask, sizeof mask) ? (int)sizeof mask : -EFAULT);
}

#define TLS_ENTRY 6 /* the first of the three descriptors Linux gives a thread */

static bool call_set_thread_area(call *c) {
    uint32_t descriptor[4]; /* struct user_desc: entry, base, limit, flags */
    if (!guest_read(c->box, c->gpr[EBX], descriptor, sizeof descriptor))
        return done(c, -EFAULT);
    if (descriptor[0] != UINT32_MAX && descriptor[0] != TLS_ENTRY)
        return done(c, -EINVAL);
    descriptor[0] = TLS_ENTRY;
    if (!guest_write(c->box, c->gpr[EBX], descriptor, sizeof descriptor[0]))
        return done(c, -EFAULT);
    c->box->kernel.tls_base = descriptor[1];
    c->box->state->tls_base = descriptor[1];
    return done(c, 0);
}

bool linux_run(vx_sandbox *box, vx_trap *trap) {
    call c = {box, box->state->gpr, trap, VX_TRAP_HOOK};
    switch (c.gpr[EAX]) {
#define LINUX(number, function) case number: return call_##function(&c);
#include "linuxcalls.def"
#undef LINUX
    default: return refuse(&c);
    }
}
