/* The core's private functions, under the file that defines them: the map of csrc/core. */
#ifndef VX_INTERNAL_H
#define VX_INTERNAL_H

#include "../vx.h"
#include "../../sdk/include/vx_abi.h"
#include "base.h"
#include "cache.h"
#include "decode.h"
#include "limits.h"
#include "os.h"
#include "signals.h"
#include "state.h"
#include "watchdog.h"

/* A byte of the page map: VX_PROT_* of a mapped page, and who owns it. */
enum { PAGE_MAPPED = 0x20, /* set on every mapped page, so that one without access is not free */
       PAGE_FIXED = 0x40, /* part of the image: the guest cannot unmap or remap it */
       PAGE_HOST = 0x80, /* argument arena: the same, nor protect it */
       PAGE_FILE = 0x10, /* the kernel maps a file here, also when the guest has unmapped the page */
       PAGE_GUARDED = 8, /* code that the guest may write was translated: the host may not (owncode.c) */
       /* The whole byte of a page of a mapping (mapping.c): the guest may read it, the host has no right to. */
       PAGE_OUTSIDE = PAGE_MAPPED | PAGE_HOST | PAGE_FILE };

/* The page map's rights for those asked for: on an i386 what may be executed or written may be read. */
static inline uint8_t page_prot(unsigned prot) {
    return (uint8_t)((prot & 7) | (prot & (VX_PROT_WRITE | VX_PROT_EXEC) ? VX_PROT_READ : 0));
}

/* Executable bytes of a plugin: its image's own pages, mapped to be read; nobody can change them. */
typedef struct vx_code {
    uint32_t vaddr, size;
    const uint8_t *bytes;
} vx_code;

/* Pages of an image or snapshot, one run with one protection. */
typedef struct vx_run_of_pages {
    uint32_t address;
    uint32_t size;
    uint8_t page;      /* page map byte */
    int fd;            /* of the file that has them, borrowed; -1: they are zero */
    uint64_t offset;   /* in the file */
} vx_run_of_pages;

typedef struct vx_pages {
    int fd; /* of a file of their own; -1 none */
    vx_run_of_pages *runs;
    size_t count;
    uint8_t *top; /* the last run's bytes, where that is a little of a stack as any has; else NULL */
} vx_pages;

/* Selectors as the guest sees them. */
enum { SELECTOR_CODE = 0x23, SELECTOR_DATA = 0x2b, SELECTOR_TLS = 0x33 };

typedef struct vx_signal_action {
    uint32_t handler, flags, restorer;
    uint64_t mask;
} vx_signal_action;

/* Signals of a guest under a policy; bit n - 1 of a mask is signal n. */
typedef struct vx_signals {
    vx_signal_action actions[VX_SIGNALS];
    uint64_t blocked, pending, saved; /* saved: what `blocked` was before sigsuspend */
    int16_t codes[VX_SIGNALS];        /* si_code of what is pending */
    bool suspended;
    uint32_t stack_base, stack_size;  /* the alternate stack; no size: none */
} vx_signals;

/* What of the sandbox's bookkeeping belongs to the guest's state and returns on reset. */
typedef struct vx_kernel {
    uint32_t brk_start, brk;
    uint32_t mmap_hint; /* where the next search for free pages starts, downwards */
    uint32_t tls_base;
    uint32_t esp;       /* of export calls */
    bool own_code;      /* executable pages are not just the image's as it was; see owncode.c */
    uint32_t mxcsr;
    uint16_t fcw;
    vx_signals signals;
} vx_kernel;

typedef struct vx_slab vx_slab; /* slab.c */

/* The reservation of a sandbox that is gone, as new; see reserve.c. */
typedef struct vx_idle {
    vx_slab *slab;
    uint64_t base;
    uint32_t stack_low;
    uint64_t pages, borders;
} vx_idle;

struct vx_plugin {
    _Atomic unsigned references;
    vx_code code[VX_SEGMENTS_MAX];
    size_t code_count;
    size_t code_bytes;
    uint32_t entry, phdr, phent, phnum;
    uint32_t image_end; /* first page above the image */
    bool rewritable;    /* a segment, or the stack, is both writable and executable */
    uint32_t stack_prot;
    vx_pages image;
    /* Under the translation lock: */
    vx_cache *cache; /* read without it to compare */
    uint64_t flushes;
    bool has_snapshot;
    vx_pages snapshot;
    vx_kernel snapshot_kernel;
    vx_idle idle[VX_IDLE_MAX];
    unsigned idle_count;
};

/* The first chunk stays between calls; the others hold what did not fit and go at the next reset. */
typedef struct vx_arena_chunk {
    uint32_t address, size, used;
} vx_arena_chunk;

/* Guest addresses from low up to high. */
typedef struct vx_span {
    uint32_t low, high;
} vx_span;

/* A direct branch of one block that was linked to another. */
typedef struct vx_branch {
    uint32_t site, stub; /* offset in the cache, and where it leads when it is not linked */
    uint32_t next;       /* number of the next one of the same block */
} vx_branch;

/* What a sandbox translates when its executable pages are its own; see owncode.c. */
typedef struct vx_own {
    vx_cache *cache;
    uint32_t *first;     /* by guest page: the youngest block that depends on it, number + 1 */
    uint32_t (*next)[2]; /* by block: the next older one of its own page, and of the page behind */
    uint32_t *links;     /* by block: the youngest branch linked to it, number in `branches` */
    struct vx_branch *branches; /* number 0 heads the free ones */
    uint32_t branch_count;      /* ever used, number 0 included */
    unsigned borders;    /* between guarded pages and others */
} vx_own;

struct vx_sandbox {
    uint64_t base; /* of the guest window; multiple of 4 GiB.  0: asleep, no memory yet (sandbox_wake) */
    vx_slab *slab; /* that has the window */
    vx_state *state;
    uint8_t *page_map;
    vx_plugin *plugin;
    vx_cache *cache; /* attached */
    vx_own *own;     /* NULL: none yet, or the plugin's cache will do */
    uint32_t code_store; /* set by a signal handler: the guest stores into a guarded page here */
    unsigned needs;  /* NEEDS_* of every cache it was attached to: what of the processor is its own */
    uint32_t how;    /* ENTER_* that sets that up */
    vx_options options;
    uint64_t page_limit, pages; /* mapped guest pages, at most the limit */
    uint64_t borders;           /* between page map bytes that differ; see region.c */
    uint32_t stack_low;         /* the stack is [stack_low, VX_STACK_TOP) */
    bool as_snapshot;           /* mappings and rights are those of the snapshot, and what is in `grown` */
    vx_span grown[VX_GROWN_MAX]; /* where nothing is mapped in the snapshot; see region.c */
    unsigned grown_count;
    vx_kernel kernel;
    vx_arena_chunk arena[VX_ARENA_CHUNKS]; /* host-owned mappings for arguments */
    unsigned arena_count;
    void *copy;     /* of bytes that are not the host's to read, or NULL; see guestmem.c */
    uint64_t copy_room;
    unsigned depth; /* calls inside */
    uint64_t written; /* output bytes of the outermost call, and of those after it on its behalf: */
    bool more;        /* such a call begins, or runs */
    uint32_t life;  /* how often it began */
    uint64_t timer_at, timer_every; /* when SIGALRM is due, and every how many ns then; 0: never */
    vx_trap *trap;  /* of the running call: what a signal handler fills */
    bool flags_lost; /* where a signal stopped translated code: vx_trap.flags_lost */
    bool in_tick, initialising;
    bool tick_due;   /* set by a signal handler: a tick met the thread in C, on the call's behalf */
    bool tick_in_c;  /* in_tick, with the guest's registers all in the state */
    bool unusable; /* no call may enter: asleep, or without memory since a reset failed */
    _Atomic bool interrupt;
};

/* slab.c: address space for one window, from VX_BELOW below it to VX_ABOVE above.  NULL: the host has none. */
uint8_t *slab_take(vx_slab **out);
/* Back, with all that was mapped there. */
void slab_give(vx_slab *slab, uint8_t *low);

/* reserve.c: where a sandbox lives. */
bool reserve_new(vx_sandbox *box);
void reserve_free(vx_sandbox *box);
/* For another sandbox of its plugin, restored; true: this one has none any more. */
bool reserve_keep(vx_sandbox *box);
/* True: one that was kept, with the snapshot mapped. */
bool reserve_reuse(vx_sandbox *box);
void reserve_drop_idle(vx_plugin *plugin);

/* sandbox.c: memory for a sandbox that is asleep.  VX_UNUSABLE: it is not, but has to be reset. */
vx_status sandbox_wake(vx_sandbox *box);

/* region.c: mapping guest pages.  All addresses and sizes are page multiples, checked here.
 * False: the range is not [VX_GUEST_MIN, VX_GUEST_MAX), the limit does not allow it, or the host
 * refused. */
bool region_map(vx_sandbox *box, uint32_t address, uint64_t size, uint8_t page);
/* The kernel maps `span` bytes for it and for neighbours that follow; 0: one before it did. */
bool region_map_file(vx_sandbox *box, const vx_run_of_pages *run, uint64_t span);
/* Pages of the host's, with the rights they have there; and back to what the window is else. */
bool region_share(vx_sandbox *box, uint32_t address, uint64_t size, uint8_t page, void *shared);
bool region_unshare(vx_sandbox *box, uint32_t address, uint64_t size);
bool region_unmap(vx_sandbox *box, uint32_t address, uint64_t size);
bool region_protect(vx_sandbox *box, uint32_t address, uint64_t size, uint8_t prot);
/* Every page unmapped, map and count zero. */
bool region_clear(vx_sandbox *box);
/* The snapshot has been mapped: changes count from here. */
void region_settled(vx_sandbox *box);
/* What has grown since is unmapped.  False: the host refused. */
bool region_shrink(vx_sandbox *box);
/* Whatever was written to the range is gone: pages are their file's again, or zero. */
bool region_forget(vx_sandbox *box, uint32_t address, uint64_t size);
/* Highest free range of `size` bytes between the break and the stack, or 0. */
uint32_t region_find(vx_sandbox *box, uint64_t size);
/* Takes away, or gives back, the host's right to write a page that the guest may write. */
bool region_guard(vx_sandbox *box, uint32_t page, bool on);
/* True when no page of the range has any of the PAGE_* bits in `mask`. */
bool region_lacks(const vx_sandbox *box, uint32_t address, uint64_t size, uint8_t mask);
/* VX_PROT_* that all pages of the range share; -1 if they differ or one is not mapped. */
int region_prot(const vx_sandbox *box, uint32_t address, uint64_t size);
/* Mapped pages are zero again.  False: one is not mapped, or the host refused. */
bool region_discard(vx_sandbox *box, uint32_t address, uint64_t size);

/* guestmem.c: the one range check (vx_guest_pointer of vx.h), and copies through it. */
/* In line for what lies within a page. */
static inline void *guest_pointer(vx_sandbox *box, uint32_t address, uint64_t size, unsigned prot) {
    bool one_page = address % VX_PAGE_SIZE + size <= VX_PAGE_SIZE && size != 0;
    bool good = (box->page_map[address / VX_PAGE_SIZE] & prot) == prot;
    if (VX_LIKELY(one_page && good && box->own == NULL))
        return (void *)(uintptr_t)(box->base + address);
    return vx_guest_pointer(box, (vx_gaddr){address}, size, prot);
}
bool guest_read(vx_sandbox *box, uint32_t address, void *to, uint64_t size);
bool guest_write(vx_sandbox *box, uint32_t address, const void *from, uint64_t size);
/* The bytes of the instruction at `eip`, as far as they are executable; NULL if none is. */
const uint8_t *guest_code(const vx_sandbox *box, uint32_t eip, size_t *available);
/* Nobody needs the copy any more that vx_guest_pointer made last. */
void guest_forget_copy(vx_sandbox *box);
/* Every arena mapping is gone with the guest's memory. */
void arena_forget(vx_sandbox *box);
/* First byte of the range that is not mapped with `prot`; for fault reports. */
uint32_t guest_first_bad(vx_sandbox *box, uint32_t address, uint64_t size, unsigned prot);

/* cpu.c: what the host's processor has, and what of it a guest is told. */
unsigned cpu_offers(void); /* NEEDS_* that code can run here */
uint32_t cpu_xsave_mask(unsigned uses); /* for vx_state.xsave */
/* Offset in an XSAVE area of one of XSAVE_AVX, MASKS, ZMM; 0 when cpu_offers() lacks it. */
uint32_t cpu_xsave_offset(uint32_t component);
void cpu_identify(uint32_t leaf, uint32_t subleaf, uint32_t registers[4]); /* eax ebx ecx edx */
uint32_t cpu_xcr0(void);

/* translate.c */
typedef enum vx_translate_result {
    TRANSLATE_OK,
    TRANSLATE_NOT_CODE, /* eip is not in executable memory */
    TRANSLATE_FULL,     /* the cache has no room: replace it */
    TRANSLATE_REFUSED,  /* by the verifier */
    TRANSLATE_NEEDS,    /* *needs is not in cache->uses: replace it */
    TRANSLATE_UNGUARDED, /* the host refused to guard a page */
} vx_translate_result;
/* Under the translation lock. */
vx_translate_result translate_block(vx_cache *cache, const vx_plugin *plugin, uint32_t eip,
                                    const vx_block **out, unsigned *needs);
/* The same from guest memory, into the sandbox's own cache.  `alone`: the one instruction, not to be found
 * by its address, and nothing keeps it up to date: it is entered once. */
vx_translate_result translate_own(vx_sandbox *box, uint32_t eip, bool alone, const vx_block **out,
                                  unsigned *needs);
/* Executable bytes at `eip`, up to the end of their segment; NULL if none. */
const uint8_t *plugin_code(const vx_plugin *plugin, uint32_t eip, size_t *available);

/* owncode.c: code that the guest makes or changes. */
/* A fresh cache; whatever was translated or guarded before is forgotten. */
bool own_renew(vx_sandbox *box, unsigned uses);
/* Frees it; pages stay guarded, so the guest's memory is about to go. */
void own_free(vx_sandbox *box);
/* Before a block is published: guards the pages it was read from.  `reach` counts bytes from its eip. */
vx_translate_result own_guard(vx_sandbox *box, uint32_t eip, uint32_t reach);
/* After: its pages know the block. */
void own_note(vx_sandbox *box, const vx_block *block, uint32_t reach);
/* A branch was linked to a block; dropping the block takes it back. */
void own_link(vx_sandbox *box, uintptr_t site, const vx_block *block, uint32_t stub);
/* Pages change their mapping or rights, or, own_write, their bytes: what was translated from them is
 * dropped and they are not guarded.  False: the host refused, or this is no time to (in a tick). */
bool own_change(vx_sandbox *box, uint32_t address, uint64_t size);
bool own_write(vx_sandbox *box, uint32_t address, uint64_t size);
/* The executable bytes at `eip`, wherever this sandbox's instructions come from. */
const uint8_t *own_code(const vx_sandbox *box, uint32_t eip, size_t *available);

/* verify.c.  True: the block, not yet published, holds to the rules there. */
bool verify_block(const vx_cache *cache, const vx_block *block);

/* helper.c: instructions done in C on the saved state.  eip is at the instruction; on success it
 * is moved behind it, else *trap says why (registers filled by the caller). */
bool helper_run(vx_sandbox *box, vx_helper helper, vx_trap *trap);

/* hostcall.c, linux.c (whose own map is linux.h): `int $0x30` and `int $0x80`.  Numbers and arguments in state->gpr, result
 * to eax.  False: the call ends, *trap has kind and code. */
bool hostcall_run(vx_sandbox *box, vx_trap *trap);
bool linux_run(vx_sandbox *box, vx_trap *trap);

/* linux_signal.c */
/* Whether a signal waits that the guest would take now.  Not in a signal handler of the host. */
bool signal_due(vx_sandbox *box);
/* Takes what is due.  False: it kills. */
bool signal_take(vx_sandbox *box, vx_trap *trap);
/* A fault that a handler of the guest's takes: true, the state is that of the handler's start.  Else the
 * trap stands, with the signal it is. */
bool signal_fault(vx_sandbox *box, vx_trap *trap);

/* callback.c: the guest calls the host function at `function`; esp is at the return address.  As above;
 * eip is then where the function returned to. */
bool callback_run(vx_sandbox *box, uint32_t function, vx_trap *trap);
static inline bool callback_is(uint32_t eip) { return eip >= VX_CALLBACK_MIN && eip < VX_CALLBACK_MAX; }

/* call.c */
/* Runs from state->eip until a trap.  ENTER_FULL takes the state's whole image; else it is a fresh call, which
 * has esp and eip from the state, and all other registers zero. */
vx_status run_guest(vx_sandbox *box, uint32_t how, uint64_t timeout_ns, vx_trap *trap);
/* After LEAVE_RETURN: the guest's floating-point state, and the host's back. */
vx_status run_returned(vx_sandbox *box, uint32_t how, vx_trap *trap);

/* run.c */
void run_needs(vx_sandbox *box, unsigned needs);
/* The state names the attached cache. */
void run_use_cache(vx_sandbox *box);
/* Whether the attached code cache is the sandbox's still; and attaching the one that is. */
static inline bool run_ready(const vx_sandbox *box) {
    const vx_cache *cache = box->own == NULL ? NULL : box->own->cache;
    if (VX_LIKELY(!box->kernel.own_code))
        cache = __atomic_load_n(&box->plugin->cache, __ATOMIC_RELAXED);
    return VX_LIKELY(cache != NULL && cache == box->cache && !cache_inherited(cache));
}
bool run_attach(vx_sandbox *box);
/* Of a fresh call the whole state, for ENTER_FULL. */
void run_fresh(vx_sandbox *box);
/* What vx_enter came back for, LEAVE_RETURN apart, and on until a trap. */
vx_status run_on(vx_sandbox *box, uint32_t how, uint32_t reason, vx_trap *trap);
bool vx_on_tick(vx_state *state);
/* The block at state->eip, translated now if need be; VX_TRAP and why there is none.  Under the
 * translation lock. */
vx_status run_find_block(vx_sandbox *box, const vx_block **out, vx_trap_kind *why);

/* watchdog.c; what every call runs is in watchdog.h */
/* Why the calling thread's running call has to end, or VX_TRAP_NONE.  signal-safe */
vx_trap_kind watchdog_stop(void);
/* The sandbox of the outermost such call, or NULL.  signal-safe */
vx_sandbox *watchdog_overdue(vx_trap_kind *why);
/* The sandbox whose guest code the calling thread runs, or NULL.  signal-safe */
vx_sandbox *watchdog_current(void);
/* Does a call of this thread wait in its tick hook, in the middle of translated code? */
bool watchdog_in_tick(void);
void watchdog_after_fork(void);

void watchdog_before_fork(void), watchdog_after_fork_parent(void);

/* trap.c: from the place where translated code stopped to a trap with guest registers. */
void trap_fill(const vx_sandbox *box, vx_trap_kind kind, vx_trap *trap);
/* STACK for an address in the guard below the stack, else MEMORY.  signal-safe */
vx_trap_kind trap_memory_kind(const vx_sandbox *box, uint32_t address);
/* `gpr` are host registers by number; sets state->gpr, eip and eflags.  signal-safe */
void trap_recover(vx_sandbox *box, uintptr_t rip, const uint64_t gpr[16], uint64_t flags);
/* True: the signal was the guest's, and `context` now leads out of translated code.  signal-safe */
bool trap_fault(vx_sandbox *box, int signal, const siginfo_t *info, void *context);
bool trap_tick(vx_sandbox *box, void *context);

/* image.c: pages of an image or snapshot into a sandbox. */
bool pages_map(vx_sandbox *box, const vx_pages *pages);
void pages_free(vx_pages *pages);
bool snapshot_take(vx_sandbox *box, vx_pages *out);
/* The guest's memory as the snapshot has it again, without mapping it anew.  False: it has to be mapped. */
bool snapshot_restore(vx_sandbox *box);

#endif
