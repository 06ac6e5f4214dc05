/* The i386 Linux system calls: dispatch, and the small ones that need no host.  A plugin without a
 * policy has those that a static musl needs to live; everything else is a refusal
 * (VX_TRAP_SYSCALL).  Under a policy the embedder serves files, streams and time. */
#include "linux.h"

/* Linux's values, which the guest uses; the host's own are not assumed to be equal. */
enum { GUEST_SIGPIPE = 13, RESTART = -512, GUEST_CLONE_THREAD = 0x10000, GUEST_FUTEX_WAIT = 0, GUEST_FUTEX_WAKE = 1, GUEST_FUTEX_COMMAND = 0x7f };

bool call_nothing(linux_call *c) { return done(c, 0); }
bool call_self_id(linux_call *c) { return done(c, 1); }
bool call_close(linux_call *c) { return done(c, c->arguments[0] <= 2 ? 0 : -EBADF); }
bool call_ioctl(linux_call *c) { return done(c, -ENOTTY); }

/* A thread would need a process of its own to run in; a process could not be shown to be the guest's. */
bool call_clone(linux_call *c) { return done(c, c->arguments[0] & GUEST_CLONE_THREAD ? -EAGAIN : -ENOSYS); }

bool call_exit_group(linux_call *c) { return end(c, VX_TRAP_EXIT, c->arguments[0] & 0xff); }

/* --- output ---------------------------------------------------------------------------------------- */

static bool output_over(const vx_sandbox *box) { return box->options.output != 0 && box->written > box->options.output; }

/* What was asked for counts, so that too much of it is still seen when the system call is over. */
uint32_t vx_output_room(vx_sandbox *box, uint32_t size) {
    uint64_t limit = box->options.output, before = box->written;
    box->written += size;
    if (!output_over(box))
        return size;
    return before < limit ? (uint32_t)(limit - before) : 0;
}

static vx_trap_kind output_end(const vx_sandbox *box) { return output_over(box) ? VX_TRAP_OUTPUT : VX_TRAP_HOOK; }

static bool give_out(linux_call *c, uint32_t fd, const void *data, uint32_t size) {
    const vx_hooks *hooks = &c->box->options.hooks;
    return size != 0 &&
           (hooks->output == NULL || hooks->output(c->box->options.context, (int)fd, data, size));
}

/* In chunks, each checked and copied when its turn comes: the hook may run the guest, and the guest
 * may unmap what is left. */
static int64_t put_out(linux_call *c, uint32_t fd, uint32_t address, uint32_t size, bool *go_on) {
    uint8_t chunk[VX_OUTPUT_CHUNK];
    for (uint32_t at = 0; at < size;) {
        uint32_t part = size - at < sizeof chunk ? size - at : (uint32_t)sizeof chunk;
        if (!guest_read(c->box, address + at, chunk, part))
            return at != 0 ? (int64_t)at : -EFAULT;
        part = vx_output_room(c->box, part);
        if (!give_out(c, fd, chunk, part)) {
            *go_on = false;
            return 0;
        }
        at += part;
    }
    return size;
}

static bool is_output(uint32_t fd) { return fd == 1 || fd == 2; }

bool call_write(linux_call *c) {
    bool go_on = true;
    uint32_t fd = c->arguments[0], size = c->arguments[2] & 0x7fffffff;
    int64_t result = is_output(fd) ? put_out(c, fd, c->arguments[1], size, &go_on) : -EBADF;
    return go_on ? done(c, result) : end(c, output_end(c->box), 0);
}

static int64_t put_vectors(linux_call *c, bool *go_on) {
    uint32_t fd = c->arguments[0], at = c->arguments[1], count = c->arguments[2];
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

bool call_writev(linux_call *c) {
    bool go_on = true;
    int64_t result = !is_output(c->arguments[0])       ? -EBADF
                     : c->arguments[2] > VX_IOV_MAX ? -EINVAL
                                                    : put_vectors(c, &go_on);
    return go_on ? done(c, result) : end(c, output_end(c->box), 0);
}

/* --- one thread ------------------------------------------------------------------------------------ */

bool call_futex(linux_call *c) {
    uint32_t command = c->arguments[1] & GUEST_FUTEX_COMMAND;
    if (command == GUEST_FUTEX_WAKE)
        return done(c, 0);
    return command == GUEST_FUTEX_WAIT ? done(c, -EAGAIN) : refuse(c);
}

/* An allocator sizes its arenas by this: one processor. */
bool call_sched_getaffinity(linux_call *c) {
    static const uint32_t mask = 1;
    if (c->arguments[1] < sizeof mask)
        return done(c, -EINVAL);
    return done(c, guest_write(c->box, c->arguments[2], &mask, sizeof mask) ? (int)sizeof mask : -EFAULT);
}

#define TLS_ENTRY 6 /* the first of the three descriptors Linux gives a thread */

bool call_set_thread_area(linux_call *c) {
    uint32_t descriptor[4], address = c->arguments[0]; /* struct user_desc: entry, base, limit, flags */
    if (!guest_read(c->box, address, descriptor, sizeof descriptor))
        return done(c, -EFAULT);
    if (descriptor[0] != UINT32_MAX && descriptor[0] != TLS_ENTRY)
        return done(c, -EINVAL);
    descriptor[0] = TLS_ENTRY;
    if (!guest_write(c->box, address, descriptor, sizeof descriptor[0]))
        return done(c, -EFAULT);
    c->box->kernel.tls_base = descriptor[1];
    c->box->state->tls_base = descriptor[1];
    return done(c, 0);
}

/* --- dispatch -------------------------------------------------------------------------------------- */

bool linux_ask(linux_call *c, uint32_t number, const uint32_t arguments[6], int32_t *result) {
    const vx_options *options = &c->box->options;
    *result = -ENOSYS;
    return options->hooks.linux_call(options->context, c->box, number, arguments, result) ||
           end(c, VX_TRAP_HOOK, 0);
}

static bool serve_by_host(linux_call *c) {
    int32_t result;
    if (!under_policy(c->box))
        return refuse(c);
    if (!linux_ask(c, c->number, c->arguments, &result))
        return false;
    if (output_over(c->box))
        return end(c, VX_TRAP_OUTPUT, 0);
    c->interrupted = result == RESTART;
    if (result == -EPIPE)
        signal_send(c->box, GUEST_SIGPIPE, 0);
    return done(c, c->interrupted ? -EINTR : result);
}

static bool deny(linux_call *c, int error) { return under_policy(c->box) ? done(c, -error) : refuse(c); }

static bool dispatch(linux_call *c) {
    switch (c->number) {
#define CORE(function) return call_##function(c)
#define WITH(function) return under_policy(c->box) ? call_##function(c) : refuse(c)
#define BOTH(function) WITH(function)
#define HOST return serve_by_host(c)
#define EITHER(function) return under_policy(c->box) ? serve_by_host(c) : call_##function(c)
#define DENY(error) return deny(c, error)
#define LINUX(number, name, server, arguments) case number: server;
#include "linuxcalls.def"
#undef CORE
#undef WITH
#undef BOTH
#undef HOST
#undef EITHER
#undef DENY
#undef LINUX
    default: return deny(c, ENOSYS);
    }
}

static void trace(const linux_call *c, bool go_on) {
    const vx_options *options = &c->box->options;
    int32_t result = (int32_t)c->gpr[EAX];
    if (options->hooks.linux_trace != NULL)
        options->hooks.linux_trace(options->context, c->box, c->number, c->arguments, go_on ? &result : NULL);
}

bool linux_run(vx_sandbox *box, vx_trap *trap) {
    uint32_t *gpr = box->state->gpr;
    linux_call c = {box, gpr, trap, gpr[EAX], {gpr[EBX], gpr[ECX], gpr[EDX], gpr[ESI], gpr[EDI], gpr[EBP]},
                    false};
    bool go_on = dispatch(&c);
    trace(&c, go_on);
    return go_on && (!under_policy(box) || signal_deliver(box, &c, trap));
}

const vx_linux_row *vx_linux_rows(size_t *count) {
    static const vx_linux_row rows[] = {
#define CORE(function) "core"
#define WITH(function) "policy-core"
#define BOTH(function) "both"
#define HOST "policy"
#define EITHER(function) "either"
#define DENY(error) #error
#define LINUX(number, name, server, arguments) {number, #name, server, arguments},
#include "linuxcalls.def"
#undef CORE
#undef WITH
#undef BOTH
#undef HOST
#undef EITHER
#undef DENY
#undef LINUX
    };
    *count = VX_COUNT(rows);
    return rows;
}
