/* What the native runner (32-bit) and the driver (64-bit) share: guest addresses, and the file
 * both have open.  Only fixed-width members, so that both see one layout.
 *
 *   guest address   what                              protection
 *   00400000        code of a batch, one slot a case  read, execute
 *   00500000        data, two pages                   read, write
 *   00502000        data, one page                    read
 *   00600000        stack, one page                   read, write
 *
 * Everything around these is unmapped in both worlds, so an access that runs over an edge
 * faults at the same address.  The runner itself lives at 10000000; it uses system calls, not
 * mappings, to reach its inputs, so that a wild address of a case hits it once in 2^17. */
#ifndef INSN_LAYOUT_H
#define INSN_LAYOUT_H

#include <stdint.h>

#define PAGE 0x1000u
#define CODE_BASE 0x00400000u
#define DATA_BASE 0x00500000u
#define DATA_SIZE 0x2000u
#define RO_BASE 0x00502000u
#define RO_SIZE 0x1000u
#define STACK_BASE 0x00600000u
#define STACK_SIZE 0x1000u
/* Base of gs: 16-bit addresses reach the data from there. */
#define TLS_BASE (DATA_BASE - 0x8000u)
#define RUNNER_BASE 0x10000000u
#define RUNNER_SIZE 0x00020000u

/* A slot is no divisor of the page size: some cases straddle two code pages. */
#define SLOT_SIZE 272u
#define BATCH 960u
#define CODE_SIZE 0x40000u          /* at least BATCH * SLOT_SIZE */

#define EFLAGS_CF 0x001u
#define EFLAGS_PF 0x004u
#define EFLAGS_AF 0x010u
#define EFLAGS_ZF 0x040u
#define EFLAGS_SF 0x080u
#define EFLAGS_TF 0x100u
#define EFLAGS_DF 0x400u
#define EFLAGS_OF 0x800u
#define EFLAGS_ARITH 0x8d5u         /* the six above but TF and DF */
#define EFLAGS_COMPARED 0xcd5u      /* what a guest may observe and change */

/* Components of XSAVE in the standard format (Intel SDM volume 1, 13.4); the driver asks cpuid where they lie. */
#define XSAVE_BYTES 1664u
#define XSAVE_PRESENT 512u          /* of the area: which components are not in their initial state */

/* Registers in encoding order: eax ecx edx ebx esp ebp esi edi; fx is an XSAVE area of the components in
 * `components`, or if that is zero an FXSAVE image. */
struct cpu {
    uint32_t gpr[8];
    uint32_t eip, eflags;
    uint32_t components, unused[5];
    uint8_t fx[XSAVE_BYTES];
} __attribute__((aligned(64)));

/* Memory a case can change, in the order of the file. */
struct memory {
    uint8_t data[DATA_SIZE];
    uint8_t stack[STACK_SIZE];
};

/* How a case ended.  `vector` is the processor's exception number, or VECTOR_TIMEOUT. */
#define VECTOR_TIMEOUT 0x100u
struct outcome {
    struct cpu cpu;
    uint32_t vector, error, address, unused;
    struct memory memory;
};

/* The shared file.  `memory` and `ro` are what every case of the batch starts with. */
struct shared {
    uint8_t code[CODE_SIZE];
    uint8_t ro[RO_SIZE];
    struct memory memory;
    struct cpu input[BATCH];
    struct outcome native[BATCH];
};

/* Runner protocol: the driver writes this, the runner runs the cases and answers it unchanged. */
struct command {
    uint32_t first, count;
};
#define RUNNER_SHARED_FD 3

#endif
