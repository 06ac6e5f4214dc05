/* The CPU state of a sandbox and where it lives.
 *
 *   base - 4M           guard
 *   base - 2112K        host-side stack (return predictions only), grows down into the guard: 1M less
 *   base - 1088K - 3648 vx_state                       gs:[VX_STATE_DISP + offset], 64-bit addressing
 *   base - 1088K        page map, one byte a guest page: 1M
 *   base - 64K          guard, and on to the first address that a guest may have pages at
 *   base                guest window, 4 GiB            gs:[any 32-bit address]
 *   base + 4G           guard
 *
 * The stack's first page, which every call uses, is the state's too: a sandbox touches one page less, and nothing is
 * popped from above the stack, since the sentinel at its top stays in place.
 *
 * What the host writes below the window is one mapping up to where the image begins, with the guards
 * marked inside it where the kernel can (os_guard): a process has few mappings.
 *
 * base is a multiple of 4 GiB, so the low half of a host address in the window is the guest
 * address.  Emitted code reaches the state by a negative displacement without the address-size
 * prefix.  Guest operands without it have a 32-bit register and a displacement that ends in the guards. */
#ifndef VX_STATE_H
#define VX_STATE_H

#define ST_DISP (-0x110e40)   /* of the state from the base */

/* Offsets used by assembly and by emitted code; pinned below for C. */
#define ST_GPR 0
#define ST_EIP 32
#define ST_EFLAGS 36
#define ST_GUEST_RSP 40
#define ST_HOST_RSP 48
#define ST_SELF 56
#define ST_BASE 64
#define ST_TABLE 72
#define ST_LINK_SITE 80
#define ST_CODE 88
#define ST_STACK_TOP 96
#define ST_TLS_BASE 104
#define ST_HOST_MXCSR 112
#define ST_GUEST_MXCSR 116
#define ST_HOST_FCW 120
#define ST_XSAVE 124
#define ST_TICK_GPR 128
#define ST_TICK_RIP 256
#define ST_TICK_FLAGS 264
#define ST_RUN 272
#define ST_HOW 280
#define ST_FX 320
#define ST_FX_MXCSR (ST_FX + 24) /* FXSAVE image: Intel SDM volume 1, table 10-2 */
#define ST_FX_XMM (ST_FX + 160)
#define ST_TICK_FX 1984

/* Components of XSAVE's mask (Intel SDM volume 1, 13.1), and bytes of its standard format up to the
 * upper halves of zmm0-15: more than any processor's layout needs (checked in cpu.c). */
#define XSAVE_X87 1
#define XSAVE_SSE 2
#define XSAVE_AVX 4
#define XSAVE_MASKS 0x20
#define XSAVE_ZMM 0x40
#define ST_FX_SIZE 1664
#define ST_FX_PRESENT 512 /* of the area: XSTATE_BV */

/* The flag that programs toggle to see whether there is a cpuid: the guest's inside, clear outside. */
#define EFLAGS_ID 0x200000

/* How vx_enter sets up floating point. */
#define ENTER_INTEGER 0  /* nothing: no code of the cache touches it */
#define ENTER_SSE 1      /* clean vector registers, the guest's MXCSR */
#define ENTER_FULL 2     /* everything from the state's image */
#define ENTER_AVX 3      /* as SSE, whole vector and mask registers */
#define ENTER_RESUME 4   /* added to INTEGER and SSE: where the guest left, with what it left in the state */

/* Why vx_enter came back: the low byte; the rest is the argument. */
#define LEAVE_RETURN 1   /* the export call returned; eax and edx are in the state */
#define LEAVE_MISS 2     /* eip has no entry in the lookup table */
#define LEAVE_LINK 3     /* the same, reached by the direct branch at link_site */
#define LEAVE_FAULT 4    /* a signal handler ended it; the run's trap is set */
#define LEAVE_TRAP 5     /* the instruction at eip traps; argument: vx_trap_kind | code << 8 */
#define LEAVE_HELPER 6   /* the instruction at eip is done in C; argument: vx_helper */
#define LEAVE_HOSTCALL 7 /* eip is after int $0x30 */
#define LEAVE_LINUX 8    /* eip is after int $0x80 */

#ifndef __ASSEMBLER__
#include "base.h"

typedef struct vx_state {
    uint32_t gpr[8]; /* encoding order */
    uint32_t eip, eflags;
    uint64_t guest_rsp; /* host-side stack pointer while outside */
    uint64_t host_rsp;  /* the thread's own stack while inside */
    struct vx_state *self;
    uint64_t base;
    const _Atomic uint32_t *table; /* lookup table of the attached code cache */
    uint64_t link_site;
    const void *code; /* where vx_enter jumps */
    uint64_t stack_top; /* empty host-side stack: points at the sentinel */
    uint64_t tls_base;  /* guest %gs base, below 2^32 */
    uint32_t host_mxcsr, guest_mxcsr;
    uint16_t host_fcw;
    uint16_t pad;
    uint32_t xsave; /* components the attached cache's code uses; 0: no more than FXSAVE has */
    uint64_t tick_gpr[16]; /* host registers where a tick interrupted translated code */
    uint64_t tick_rip, tick_flags;
    const uint8_t *run; /* of the attached code cache: see enter_x64.S */
    uint32_t how; /* ENTER_* by which this thread is inside */
    uint32_t pad2[9];
    /* An XSAVE area, standard format.  Components absent from `fx_present` are in their initial state;
     * x87 and SSE are always said to be present. */
    _Alignas(64) uint8_t fx[ST_FX_PRESENT];
    uint64_t fx_present, fx_header[7];
    uint8_t fx_extended[ST_FX_SIZE - ST_FX_PRESENT - 64];
    _Alignas(64) uint8_t tick_fx[ST_FX_SIZE];
} vx_state;

#define VX_PIN(field, offset) \
    _Static_assert(offsetof(vx_state, field) == (offset), "state.h offset of " #field)
VX_PIN(gpr, ST_GPR);
VX_PIN(eip, ST_EIP);
VX_PIN(eflags, ST_EFLAGS);
VX_PIN(guest_rsp, ST_GUEST_RSP);
VX_PIN(host_rsp, ST_HOST_RSP);
VX_PIN(self, ST_SELF);
VX_PIN(base, ST_BASE);
VX_PIN(table, ST_TABLE);
VX_PIN(link_site, ST_LINK_SITE);
VX_PIN(code, ST_CODE);
VX_PIN(stack_top, ST_STACK_TOP);
VX_PIN(tls_base, ST_TLS_BASE);
VX_PIN(host_mxcsr, ST_HOST_MXCSR);
VX_PIN(guest_mxcsr, ST_GUEST_MXCSR);
VX_PIN(host_fcw, ST_HOST_FCW);
VX_PIN(xsave, ST_XSAVE);
VX_PIN(fx_present, ST_FX + ST_FX_PRESENT);
VX_PIN(fx_extended, ST_FX + ST_FX_PRESENT + 64);
VX_PIN(tick_gpr, ST_TICK_GPR);
VX_PIN(tick_rip, ST_TICK_RIP);
VX_PIN(tick_flags, ST_TICK_FLAGS);
VX_PIN(run, ST_RUN);
VX_PIN(how, ST_HOW);
VX_PIN(fx, ST_FX);
VX_PIN(tick_fx, ST_TICK_FX);

/* enter_x64.S.  `how` is ENTER_*; the result is LEAVE_* and its argument. */
uint32_t vx_enter(vx_state *state, uint32_t how);
/* Saves the guest's floating point into the state and restores the host's, after LEAVE_RETURN. */
void vx_fp_leave(vx_state *state);
/* Code addresses, never called from C. */
void vx_exit_miss(void), vx_exit_link(void), vx_exit_reason(void);
void vx_resync(void), vx_resync_rcx(void), vx_sentinel(void), vx_probe(void);
void vx_fault_leave(void), vx_tick_enter(void);

#endif
#endif
