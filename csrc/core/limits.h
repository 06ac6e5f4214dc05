/* Every limit of the core, with its unit and the reason for the number. */
#ifndef VX_LIMITS_H
#define VX_LIMITS_H

#include "../../sdk/include/vx_abi.h"
#include "base.h"

static inline uint64_t page_up(uint64_t size) { return (size + VX_PAGE_SIZE - 1) & ~(uint64_t)(VX_PAGE_SIZE - 1); }

/* Bytes reserved below the guest window: host-side stack, state, page map and their guards. */
#define VX_BELOW ((uint64_t)4 << 20)
/* Bytes never mapped above the window: wider than the widest access that starts inside it. */
#define VX_ABOVE ((uint64_t)1 << 20)
#define VX_WINDOW ((uint64_t)1 << 32)

/* Reservations of ended sandboxes that a plugin keeps for new ones: enough for a few that come and go at a
 * time; each holds some ten of the host's mappings and a few pages. */
#define VX_IDLE_MAX 8

/* Windows of one slab (slab.c), at most: what is done once a slab costs as much as a third of a new sandbox. */
#define VX_SLAB_WINDOWS 16
/* From window to window: each is aligned to its size, and the host's part lies below it. */
#define VX_STRIDE (2 * VX_WINDOW)
/* Bytes of the stack in use in a snapshot that are copied rather than mapped: copying a page costs as much as the
 * fault that would be next, and the stack stays one mapping. */
#define VX_STACK_COPY ((uint32_t)16 << 10)

/* Places that a guest may grow into and a reset still clears one by one: heap, mappings, arena, spare. */
#define VX_GROWN_MAX 8

/* Displacements from the window's base (see state.h for the drawing). */
#define VX_LOW_GUARD ((int64_t)64 << 10)
#define VX_PAGE_MAP_DISP (-VX_LOW_GUARD - ((int64_t)1 << 20))
#define VX_STATE_DISP (VX_PAGE_MAP_DISP - 3648) /* ST_DISP: the state ends its page, where the stack begins */
#define VX_HOST_STACK_HIGH VX_STATE_DISP
#define VX_HOST_STACK_LOW (VX_PAGE_MAP_DISP - ((int64_t)1 << 20))

/* Guest instructions in one block: long enough for the body of a loop, short enough that a
 * block's translation fits in VX_BLOCK_CODE_MAX. */
#define VX_BLOCK_INSNS 64
/* Bytes of emitted code one guest instruction can need, side exit included (checked). */
#define VX_INSN_CODE_MAX 256
#define VX_BLOCK_CODE_MAX (VX_BLOCK_INSNS * VX_INSN_CODE_MAX)

/* Bytes of code cache: a multiple of the plugin's executable bytes, within these bounds.
 * A full cache is replaced, so a small one costs time, never correctness. */
#define VX_CACHE_MIN ((size_t)1 << 20)
#define VX_CACHE_MAX ((size_t)64 << 20)
#define VX_CACHE_FACTOR 12
/* Pages of a lookup table that blocks may be entered in: each serves 1 KiB of guest addresses. */
#define VX_TABLE_PAGES_MAX 8192
/* Bytes of the code cache of a sandbox with code of its own; its tables, but for the lookup table, are at most
 * seven times that, and of all only what is used takes memory. */
#define VX_OWN_CACHE ((size_t)8 << 20)
/* Borders between guarded pages and others (owncode.c): each can cost the host a mapping. */
#define VX_GUARD_BORDERS_MAX 2048
/* Blocks begin at multiples of this: a branch to late in a cache line costs the processor a fetch more.  Recursive
 * fib took 1.12 of native's time with its blocks 0 to 12 bytes into a line, 1.25 at 16, 1.4 at 32, 1.5 from 44 on. */
#define VX_BLOCK_ALIGN 64

#define VX_TEXT_OF(number) #number
#define VX_TEXT(number) VX_TEXT_OF(number)

/* Calls a thread may nest: guest, host hook, guest again. */
#define VX_MAX_NESTING 16

/* Watchdog period: a call is interrupted after one to two of these. */
#define VX_TICK_NS ((uint64_t)5000000)
/* Calls that take as long on the average linger.  Letting go of CPython's lock and taking it again
 * is half a percent of that. */
#define VX_LINGER_NS ((uint64_t)20000)
/* Nanoseconds that a thread may have waited for the lock beyond what it ran without it: eight of CPython's switch
 * intervals, more than two threads that both linger lose before the ticks have met them. */
#define VX_LINGER_LOSS_NS ((uint64_t)40000000)
/* Ticks that such a thread then keeps the lock: long beside what the next try may lose. */
#define VX_LINGER_HOLD_TICKS 100
/* Nanoseconds after the last tick of an overdue call from which system calls restart again: some of its next ticks. */
#define VX_CUT_NS (4 * VX_TICK_NS)
/* Ticks without a running call after which the watchdog sleeps. */
#define VX_IDLE_TICKS 200

/* Bytes of the alternate signal stack of a thread that enters guests: the kernel's frame with
 * AVX-512 state is under 4 KiB, and other people's handlers may run on it too. */
#define VX_ALTSTACK ((size_t)64 << 10)

/* Bytes of guest output handed to the hook at once; also bounds what is copied to the C stack. */
#define VX_OUTPUT_CHUNK ((size_t)16 << 10)
/* Vectors one writev may name (IOV_MAX of Linux). */
#define VX_IOV_MAX 1024
/* Bytes of a file read at once for a mapping: bounds the embedder's copy. */
#define VX_FILE_CHUNK ((uint32_t)1 << 20)
/* Signals of Linux. */
#define VX_SIGNALS 64
/* Bytes of an exception's name and text that a guest may send. */
#define VX_RAISE_NAME_MAX 64
#define VX_RAISE_TEXT_MAX 4096

/* Mappings the arguments of one call may need: each is twice what was missing. */
#define VX_ARENA_CHUNKS 32
/* Least bytes of one. */
#define VX_ARENA_MIN ((uint64_t)64 << 10)
/* Bytes of the host's copy of a mapping's that may stay between calls, as the first of those does: to take them from
 * the system anew costs ten times the copy. */
#define VX_COPY_KEPT ((uint64_t)1 << 20)

/* Bytes of the largest stack: the room kept for it, so that a snapshot fits every stack size. */
#define VX_STACK_MAX ((uint32_t)512 << 20)
/* Mappings without an address of their own choice end here. */
#define VX_MMAP_TOP (VX_STACK_TOP - VX_STACK_MAX - VX_STACK_GUARD)
/* Bytes below esp that a guest may use without moving it (we allow what the amd64 ABI does). */
#define VX_RED_ZONE 128

/* Borders between unlike pages a guest may make: each can cost the host one of its 65530 mappings. */
#define VX_BORDERS_MAX 1024

/* Segments of one image. */
#define VX_SEGMENTS_MAX 64

#endif
