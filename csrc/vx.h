/* vxplug core: the whole C API.
 *
 * A vx_plugin is checked code and data that many sandboxes share; a vx_sandbox is one private
 * 4 GiB guest address space with its CPU state.  The core parses no files and knows no Python:
 * it is handed checked, numeric segments, and talks back through vx_hooks.
 *
 * Threads: a vx_plugin may be used from any thread.  A vx_sandbox is used by one thread at a
 * time (the caller locks); only vx_sandbox_interrupt may be called from any thread at any time.
 *
 * Errors: functions return vx_status.  VX_TRAP means that guest code ended the call; vx_trap then
 * says how.  Every other failure is the host's: nothing was run, or the sandbox is unchanged. */
#ifndef VX_H
#define VX_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct vx_plugin vx_plugin;
typedef struct vx_sandbox vx_sandbox;

/* A guest address is not a number to be added to host pointers by hand: guestmem turns it into one. */
typedef struct vx_gaddr { uint32_t value; } vx_gaddr;

typedef enum vx_status {
#define STATUS(name, text) VX_##name,
#include "core/status.def"
#undef STATUS
} vx_status;

/* One English sentence fragment per status; static storage. */
const char *vx_status_text(vx_status status);

/* Makes now, once in a process, what the first guest would wait for else.  May be left out. */
void vx_prepare(void);

enum { VX_PROT_READ = 1, VX_PROT_WRITE = 2, VX_PROT_EXEC = 4,
       VX_PROT_WRITABLE_CODE = 8 /* of a segment: it may be both writable and executable */ };

/* Initialised pages of a plugin: `lead` zeros, then filesz bytes of `data`, and zeros up to memsz. */
typedef struct vx_segment {
    uint32_t vaddr, memsz, filesz;
    uint32_t prot;
    const void *data;
    uint32_t lead;
} vx_segment;

typedef struct vx_image {
    const vx_segment *segments;   /* no two share a page */
    size_t count;
    uint32_t entry;               /* ELF entry point */
    uint32_t phdr, phent, phnum;  /* program headers as mapped, for the guest's libc; 0 if none */
    bool exec_stack;              /* the program wants to run code on its stack */
} vx_image;

/* Copies everything it needs from `image`.  VX_BAD_IMAGE, VX_NO_MEMORY, VX_UNSUPPORTED_HOST. */
vx_status vx_plugin_create(const vx_image *image, vx_plugin **out);
vx_plugin *vx_plugin_ref(vx_plugin *plugin);
void vx_plugin_unref(vx_plugin *plugin);   /* NULL is allowed */

/* How guest code ended.  Names and Python kinds live in trap.def. */
typedef enum vx_trap_kind {
#define TRAP(name, kind, text) VX_TRAP_##name,
#include "core/trap.def"
#undef TRAP
    VX_TRAP_COUNT_
} vx_trap_kind;

/* "memory", "illegal-instruction", … : GuestFault.kind. */
const char *vx_trap_kind_name(vx_trap_kind kind);
const char *vx_trap_kind_text(vx_trap_kind kind);

/* General registers in encoding order: eax ecx edx ebx esp ebp esi edi. */
typedef struct vx_registers {
    uint32_t gpr[8];
    uint32_t eip, eflags;
} vx_registers;

typedef struct vx_trap {
    vx_trap_kind kind;
    vx_registers registers;  /* precise: the state before the faulting instruction */
    bool flags_lost;         /* but for the status flags, zero or old: guest code goes on to overwrite
                              * them unread */
    bool has_address;
    uint32_t address;        /* the guest address that could not be accessed */
    uint32_t code;           /* exit status, signal, or the number of the refused system call or interrupt; of
                              * a memory fault the processor's bit for a write (2) */
    uint32_t signal;         /* the Linux signal that the end is, for a guest under a policy; or 0 */
    uint8_t bytes[15];       /* of the instruction at eip, as far as readable */
    uint8_t byte_count;
} vx_trap;

typedef struct vx_result {
    uint32_t eax, edx;
    double st0;      /* the x87 top of stack, 0 if it was empty */
} vx_result;

/* Guest code has called a host function. */
typedef struct vx_callback {
    uint32_t function;     /* VX_CALLBACK_MIN up to VX_CALLBACK_MAX, or the address of an import's stub */
    vx_gaddr arguments;    /* its words on the guest's stack */
    vx_result result;      /* for the hook to fill */
    bool has_st0;          /* a floating-point result */
    uint32_t pop;          /* bytes of arguments to pop: 4 with a hidden result pointer, else 0 */
    uint32_t bad_address;  /* for VX_CALLBACK_BAD_MEMORY */
} vx_callback;

typedef enum vx_callback_end {
    VX_CALLBACK_DONE,       /* back to the guest with the result */
    VX_CALLBACK_HOOK,       /* the guest call ends with VX_TRAP_HOOK */
    VX_CALLBACK_BAD_MEMORY, /* it ends with VX_TRAP_MEMORY at bad_address */
    VX_CALLBACK_UNKNOWN,    /* it ends with VX_TRAP_EXECUTE: there is no such function */
} vx_callback_end;

/* What the embedder provides.  `context` is vx_options.context.  All may be NULL. */
typedef struct vx_hooks {
    /* Guest output to fd 1 or 2; `data` is host memory and may be read only during the hook.
     * Runs outside guest code.  False ends the guest call with VX_TRAP_HOOK. */
    bool (*output)(void *context, int fd, const void *data, size_t size);
    /* Guest error (VX_HC_RAISE); strings are host copies, not terminated.  The call goes on. */
    void (*raise)(void *context, const char *name, size_t name_size, const char *text, size_t size);
    /* The guest has run for at least one tick.  Runs on the thread that called, where translated code was
     * interrupted or before it is entered again: no lock of ours or of libc's is held.
     * False ends the guest call with VX_TRAP_HOOK. */
    bool (*tick)(void *context);
    /* Before guest code is entered by a thread whose calls have taken long of late: the time to let go of
     * a lock that others wait for, without waiting for a tick.  Runs outside guest code. */
    void (*linger)(void *context);
    /* Runs outside guest code, and may make calls into the sandbox. */
    vx_callback_end (*callback)(void *context, vx_callback *call);
    /* Guest code ended in another way than returning.  Its memory is as it left it, to be read through
     * vx_guest_pointer; nothing else of the sandbox may be used. */
    void (*ended)(void *context, vx_sandbox *box, const vx_trap *trap);
    /* A Linux system call that the core does not serve (linuxcalls.def: HOST, EITHER); arguments are
     * ebx ecx edx esi edi ebp.  *result goes to the guest, an errno is negative.  Runs outside guest
     * code and may use the memory of `box`; -512 is EINTR, but the call may be made again after a handler.  False ends
     * the guest call with VX_TRAP_HOOK.  Without this hook, and in a plugin's initialisation, such a call ends with
     * VX_TRAP_SYSCALL. */
    bool (*linux_call)(void *context, vx_sandbox *box, uint32_t number, const uint32_t arguments[6],
                       int32_t *result);
    /* Any Linux system call after it was served; `result` is NULL when it ended the guest call. */
    void (*linux_trace)(void *context, vx_sandbox *box, uint32_t number, const uint32_t arguments[6],
                        const int32_t *result);
    /* The call has to end, but its thread is in a hook: asked every tick until it returns.  Runs in a
     * signal handler on that thread, which may be anywhere: async-signal-safe functions only.  True gives
     * the tick (SIGURG) to the handler that was there before ours, which may know how to end a wait; it then
     * interrupts `*wakes` too, which is this thread unless the hook says another. */
    bool (*overdue)(void *context, vx_trap_kind why, pthread_t *wakes);
} vx_hooks;

/* A row of linuxcalls.def.  `server` is "core", "policy-core", "both", "policy", "either", or the errno that denies. */
typedef struct vx_linux_row {
    uint16_t number;
    const char *name, *server, *arguments;
} vx_linux_row;
const vx_linux_row *vx_linux_rows(size_t *count);

typedef struct vx_options {
    uint64_t memory;            /* bytes of guest memory, everything counted */
    uint32_t stack;             /* bytes of guest stack, part of memory */
    uint64_t timeout_ns;        /* a call; 0 is none */
    uint64_t init_timeout_ns;   /* the plugin's initialisation; 0 is none */
    uint64_t output;            /* bytes a call, or the initialisation, may write; 0 is no limit */
    bool raw;                   /* run no initialisation: the guest starts in vx_run (tests) */
    vx_hooks hooks;
    void *context;
} vx_options;

/* Makes a sandbox in its post-initialisation state: the first one of a plugin runs the guest's
 * initialisation and leaves a snapshot that the next ones map copy-on-write.
 * VX_TRAP (and *trap), VX_LIMIT, VX_NO_MEMORY. */
vx_status vx_sandbox_create(vx_plugin *plugin, const vx_options *options, vx_sandbox **out,
                            vx_trap *trap);
/* Back to the post-initialisation state.  VX_BUSY inside a call; VX_NO_MEMORY leaves it unusable. */
vx_status vx_sandbox_reset(vx_sandbox *box);
void vx_sandbox_free(vx_sandbox *box);      /* NULL is allowed; never inside a call */
void vx_sandbox_interrupt(vx_sandbox *box); /* the running call, if any, ends with VX_TRAP_INTERRUPT */
/* vx_options.context of the outermost call of this thread that has to end, and why; NULL for none. */
void *vx_overdue(vx_trap_kind *why);
/* How long the lock was free for others, and how long it took to get it back.  A thread that waits more than
 * it ran hears nothing of lingering for half a second or so. */
void vx_lingered(uint64_t ran_ns, uint64_t waited_ns);
/* In a hook: whether the running call is to end, or a signal waits that the guest handles, so that the
 * hook does not wait any longer. */
bool vx_sandbox_stopping(vx_sandbox *box);
/* In linux_call: how many of `size` bytes of output the running call may write; all of them count.  When it may not
 * write all, it ends with VX_TRAP_OUTPUT as soon as the hook is done. */
uint32_t vx_output_room(vx_sandbox *box, uint32_t size);
/* How often the sandbox began anew: what an embedder keeps for the guest belongs to one life. */
uint32_t vx_sandbox_life(const vx_sandbox *box);
uint64_t vx_sandbox_memory(const vx_sandbox *box); /* bytes mapped now, counted against the limit */

/* Calls a guest function, cdecl: `words` go on the guest stack in order, words[0] nearest to the
 * return address.  VX_TRAP (and *trap), VX_BUSY, VX_LIMIT (the stack does not hold the words), VX_TOO_DEEP. */
vx_status vx_call(vx_sandbox *box, vx_gaddr function, const uint32_t *words, size_t count,
                  vx_result *result, vx_trap *trap);
/* What vx_call_more does from here on is on behalf of a new call; inside one it stays that one's. */
void vx_call_anew(vx_sandbox *box);
/* Another call on behalf of the last one, for `timeout_ns` (0 is no limit): what it writes is counted on. */
vx_status vx_call_more(vx_sandbox *box, vx_gaddr function, const uint32_t *words, size_t count,
                       uint64_t timeout_ns, vx_result *result, vx_trap *trap);

/* Guest memory for arguments, valid until the next vx_arena_reset; zero-sized is allowed.
 * VX_LIMIT when the memory limit does not allow it. */
vx_status vx_arena_alloc(vx_sandbox *box, uint32_t size, vx_gaddr *out);
void vx_arena_reset(vx_sandbox *box);

/* Memory that the host and a sandbox share.  The host's mapping is its own: nothing that becomes of the sandbox
 * changes it.  It is whole pages of the host's, whatever the size.  NULL: no memory. */
void *vx_shared_create(uint64_t size);
void vx_shared_free(void *memory, uint64_t size);
/* A second mapping, in the guest, counted against its limit; the guest may read and write it, and cannot unmap,
 * protect or move it.  A reset takes it away.  VX_LIMIT. */
vx_status vx_share(vx_sandbox *box, void *memory, uint64_t size, vx_gaddr *out);
void vx_unshare(vx_sandbox *box, vx_gaddr address, uint64_t size);

/* A mapping of the host's own, to be read, of `size` bytes of a file from a page on, or of shared memory that begins
 * with a page: its whole pages as they are at any time, and a copy of what is left.  NULL and errno.  It can lose its
 * bytes at any time, so the host does not look at it; vx_mapping_copy is false where they are gone. */
void *vx_mapping_of_file(int fd, uint64_t offset, uint64_t size);
void *vx_mapping_of_memory(void *memory, uint64_t size);
bool vx_mapping_copy(void *to, const void *mapping, uint64_t size);
/* As vx_share, for the guest to read only.  It goes with vx_unshare and vx_shared_free. */
vx_status vx_map(vx_sandbox *box, void *mapping, uint64_t size, vx_gaddr *out);

/* The one range check.  Host pointer to `size` bytes at `address` if every byte of the range is
 * mapped with `prot`, else NULL.  Valid until guest code runs again; the guest may have changed
 * the bytes since any earlier look, so read them once.  To read from a mapping it leads to a copy, which the
 * next pointer to read with replaces. */
void *vx_guest_pointer(vx_sandbox *box, vx_gaddr address, uint64_t size, unsigned prot);
/* Length of the terminated string at `address`, or SIZE_MAX if no NUL within `limit` mapped bytes. */
size_t vx_guest_strlen(vx_sandbox *box, vx_gaddr address, size_t limit);

/* For tools.  A translation is a copy: marks, in order, say at which byte of `host` the instruction at
 * which byte of guest code begins. */
typedef struct vx_translation_mark { uint16_t host, guest; } vx_translation_mark;
typedef struct vx_translation {
    uint8_t *host;
    size_t host_size, mark_count;
    vx_translation_mark *marks;
    uint32_t guest_size;
    uintptr_t place;            /* where the original is, as long as the plugin's code is not replaced */
} vx_translation;
/* The block that begins at `address`, translated now if need be.  VX_TRAP: no code is there.  VX_BUSY inside
 * a call; VX_NO_MEMORY, VX_UNUSABLE. */
vx_status vx_sandbox_translation(vx_sandbox *box, vx_gaddr address, vx_translation *out);
void vx_translation_free(vx_translation *translation);
/* Where the blocks of the plugin's shared cache are: fills up to `max`, returns how many there are. */
typedef struct vx_place { vx_gaddr guest; uintptr_t host; size_t size; } vx_place;
size_t vx_plugin_places(vx_plugin *plugin, vx_place *out, size_t max);
/* In the tick hook: the guest's registers, and true. */
bool vx_sandbox_where(vx_sandbox *box, vx_registers *out);
/* While more callers said true than false, every tick interrupts calls however young: for profilers. */
void vx_sampling(bool on);

/* Everything a guest program can see of the CPU.  `fx` is an FXSAVE image (512 bytes); above its xmm
 * registers are the upper halves of ymm0-7 and of zmm0-7, and k0-7: all zero where the host has none. */
typedef struct vx_cpu {
    vx_registers registers;
    uint32_t reserved[2];
    uint8_t fx[512];
    uint8_t ymm_high[8][16], zmm_high[8][32];
    uint64_t mask[8];
} vx_cpu;

/* Runs a raw sandbox from cpu->registers.eip until it traps, and gives back the whole CPU state.
 * For tests and tools.  VX_TRAP always, unless the sandbox could not run. */
vx_status vx_run(vx_sandbox *box, vx_cpu *cpu, vx_trap *trap);

/* Translation statistics of a plugin. */
typedef struct vx_stats {
    uint64_t blocks, guest_bytes, code_bytes, flushes;
} vx_stats;
void vx_plugin_stats(vx_plugin *plugin, vx_stats *out);

/* Takes the fault signals again after someone else installed handlers; ours chain to theirs.
 * Async-signal-unsafe; cheap when nothing changed. */
void vx_signals_reclaim(void);

#endif
