/* Numbers shared by the core, the binding and the guest SDK: constants only, so that
 * C of any mode and assembly may include it.  The one source of every ABI number. */
#ifndef VX_ABI_H
#define VX_ABI_H

#define VX_ABI_VERSION 1

/* Guest address space.  Addresses are 32-bit; a page is 4096 bytes. */
#define VX_PAGE_SIZE 0x1000
#define VX_GUEST_MIN 0x10000        /* nothing is ever mapped below: null pointers with offsets fault */
#define VX_GUEST_MAX 0xFFFE0000     /* nothing is ever mapped at or above */
#define VX_STACK_TOP VX_GUEST_MAX   /* the initial stack ends here and grows down */
#define VX_STACK_GUARD 0x10000      /* bytes below the stack that are never mapped */
#define VX_EXIT_EIP 0xFFFFF000      /* return address of an export call: reaching it leaves the sandbox */
/* Function pointers that the host lends: a call to one of these addresses calls a host function. */
#define VX_CALLBACK_MIN 0xFFFE0000
#define VX_CALLBACK_MAX 0xFFFF0000

/* Host calls: `int $VX_HOSTCALL_VECTOR`, number in eax, arguments in ebx, ecx, edx, esi,
 * result in eax (a negative errno on failure). */
#define VX_HOSTCALL_VECTOR 0x30
#define VX_LINUX_VECTOR 0x80
#define VX_HC_READY 0               /* initialisation is over: the host may take its snapshot */
#define VX_HC_RAISE 1               /* ebx, ecx: exception name and length; edx, esi: message and length */
#define VX_HC_IMPORT 2              /* ecx: address of the import's stub, which is being called */

/* vx_bytes.owner: who frees vx_bytes.ptr after the host has copied it. */
#define VX_BORROWED 0               /* nobody: static storage, or storage the plugin keeps */
#define VX_MALLOCED 1               /* the host calls the plugin's vx_release_ */

#endif
