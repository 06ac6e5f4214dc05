/* Entering and leaving guest code on x86-64.  The only assembly of the project.
 *
 * Inside: gs base = guest window; eax ecx edx ebx ebp esi edi = the guest's, upper halves zero;
 * r13d = guest esp; r14 = code cache, r15 = its lookup table; rsp = host-side stack; r8-r12 = the translator's.
 * On every way out of translated code r8d is the guest eip. */

#include "state.h"
#include "../../sdk/include/vx_abi.h"

    .intel_syntax noprefix
    .text

#define SLOT(offset) gs:[ST_DISP + offset]

    .macro entry name
    .globl \name
    .hidden \name
    .type \name, @function
    .p2align 4
\name:
    .endm

    .macro load_guest
    mov eax, [rdi + ST_GPR]
    mov ecx, [rdi + ST_GPR + 4]
    mov edx, [rdi + ST_GPR + 8]
    mov ebx, [rdi + ST_GPR + 12]
    mov r13d, [rdi + ST_GPR + 16]
    mov ebp, [rdi + ST_GPR + 20]
    mov esi, [rdi + ST_GPR + 24]
    mov r14, [rdi + ST_RUN]
    mov r15, [rdi + ST_TABLE]
    mov r8d, [rdi + ST_EIP]
    mov r11, [rdi + ST_CODE]
    mov edi, [rdi + ST_GPR + 28]
    .endm

/* A guest's DF would misdirect the host, its ID flag would tell the next guest; the other flags that it can
 * set are dead at a call's end.  POPF alone sets ID, and no code that has it is entered but by ENTER_FULL. */
    .macro clean_flags
    cld
    pushfq
    and dword ptr [rsp], EFLAGS_ID
    pop r10
    jz 9f
    pushfq
    and dword ptr [rsp], ~EFLAGS_ID
    popfq
9:
    .endm

/* Control words of the host that vx_enter left in place, since no code could change them, are still
 * there.  State at rdi. */
    .macro note_controls
    cmp dword ptr [rdi + ST_HOW], ENTER_FULL
    je 9f
    fnstcw [rdi + ST_HOST_FCW]
    cmp dword ptr [rdi + ST_HOW], ENTER_INTEGER
    jne 9f
    stmxcsr [rdi + ST_HOST_MXCSR]
9:
    .endm

/* Floating point and vectors to and from an area of the state at rdi.  Changes eax, edx and flags; FXSAVE
 * leaves the header of the area alone, which says that x87 and SSE are present. */
    .macro save_fp area
    mov eax, [rdi + ST_XSAVE]
    xor edx, edx
    test eax, eax
    jz 8f
    xsave64 [rdi + \area]
    or dword ptr [rdi + \area + ST_FX_PRESENT], XSAVE_X87 | XSAVE_SSE
    vzeroupper
    jmp 9f
8:  fxsave64 [rdi + \area]
9:
    .endm

    .macro restore_fp area
    mov eax, [rdi + ST_XSAVE]
    xor edx, edx
    test eax, eax
    jz 8f
    xrstor64 [rdi + \area]
    jmp 9f
8:  fxrstor64 [rdi + \area]
9:
    .endm

/* uint32_t vx_enter(vx_state *rdi, uint32_t esi)
 * Requires gs base = window, guest_rsp inside the host-side stack. */
entry vx_enter
    push rbp
    push rbx
    push r12
    push r13
    push r14
    push r15
    sub rsp, 8
    mov [rdi + ST_HOST_RSP], rsp
    mov [rdi + ST_HOW], esi
    test esi, esi
    jz enter_fresh
    stmxcsr [rdi + ST_HOST_MXCSR]
    cmp esi, ENTER_SSE
    jne enter_more
    xorps xmm0, xmm0
    xorps xmm1, xmm1
    xorps xmm2, xmm2
    xorps xmm3, xmm3
    xorps xmm4, xmm4
    xorps xmm5, xmm5
    xorps xmm6, xmm6
    xorps xmm7, xmm7
    ldmxcsr [rdi + ST_GUEST_MXCSR]

/* A fresh call: the host-side stack is empty, and its sentinel is the return address of this very
 * call, so that the processor predicts the guest's last return, and every return after it. */
enter_fresh:
    mov rsp, [rdi + ST_GUEST_RSP]
    lea rsp, [rsp + 8]
    mov r13d, [rdi + ST_GPR + 16]
    mov r14, [rdi + ST_RUN]
    mov r15, [rdi + ST_TABLE]
    mov r8d, [rdi + ST_EIP]
    mov r11, [rdi + ST_CODE]
    xor eax, eax
    xor ecx, ecx
    xor edx, edx
    xor ebx, ebx
    xor ebp, ebp
    xor esi, esi
    xor edi, edi
    call r11

/* Bottom of the host-side stack: a guest return found no prediction.  Stays in place; vx_enter's
 * call falls in from above. */
entry vx_sentinel
    lea rsp, [rsp - 8]
    mov r9d, ecx
    lea ecx, [r8 - VX_EXIT_EIP]
    jrcxz leave_return
    mov ecx, r9d
    jmp vx_probe

/* A return came back to the wrong place: every older prediction is doubtful.  r9 may hold 64 bits of anything: the
 * verifier does not say what a block leaves there. */
entry vx_resync_rcx
    mov ecx, r9d
entry vx_resync
    mov rsp, SLOT(ST_STACK_TOP)
entry vx_probe
    mov r9d, [r15 + r8 * 4]
    lea r9, [r14 + r9]
    jmp r9

/* The export call returned.  Its flags, vector registers and other registers die here. */
leave_return:
    mov SLOT(ST_GPR), eax
    mov SLOT(ST_GPR + 8), edx
    mov rsp, SLOT(ST_HOST_RSP)
    cld
    test dword ptr SLOT(ST_XSAVE), XSAVE_AVX
    jz 1f
    vzeroupper
1:  mov eax, LEAVE_RETURN
    jmp restore_host

/* More than SSE: the whole state, or whole vector and mask registers. */
enter_more:
    cmp esi, ENTER_AVX
    je 1f
    ja resume
    fnstcw [rdi + ST_HOST_FCW]
    restore_fp ST_FX
enter_left:
    mov eax, [rdi + ST_EFLAGS]
    push rax
    popfq
    mov rsp, [rdi + ST_GUEST_RSP]
    load_guest
    jmp r11
1:  vzeroall
    ldmxcsr [rdi + ST_GUEST_MXCSR]
    test dword ptr [rdi + ST_XSAVE], XSAVE_MASKS
    jz enter_fresh
    kxorw k0, k0, k0
    kxorw k1, k1, k1
    kxorw k2, k2, k2
    kxorw k3, k3, k3
    kxorw k4, k4, k4
    kxorw k5, k5, k5
    kxorw k6, k6, k6
    kxorw k7, k7, k7
    jmp enter_fresh

/* What the cache's code can use, as the guest left it. */
resume:
    sub esi, ENTER_RESUME
    mov [rdi + ST_HOW], esi
    jz enter_left
    movaps xmm0, [rdi + ST_FX_XMM + 0]
    movaps xmm1, [rdi + ST_FX_XMM + 16]
    movaps xmm2, [rdi + ST_FX_XMM + 32]
    movaps xmm3, [rdi + ST_FX_XMM + 48]
    movaps xmm4, [rdi + ST_FX_XMM + 64]
    movaps xmm5, [rdi + ST_FX_XMM + 80]
    movaps xmm6, [rdi + ST_FX_XMM + 96]
    movaps xmm7, [rdi + ST_FX_XMM + 112]
    ldmxcsr [rdi + ST_FX_MXCSR]
    jmp enter_left

entry vx_exit_miss
    mov r9d, LEAVE_MISS
    jmp vx_exit_reason

/* r9 = host address of the branch to patch. */
entry vx_exit_link
    mov SLOT(ST_LINK_SITE), r9
    mov r9d, LEAVE_LINK

/* r9d = reason.  Only moves until the flags are saved. */
entry vx_exit_reason
    mov SLOT(ST_GPR), eax
    mov SLOT(ST_GPR + 4), ecx
    mov SLOT(ST_GPR + 8), edx
    mov SLOT(ST_GPR + 12), ebx
    mov SLOT(ST_GPR + 16), r13d
    mov SLOT(ST_GPR + 20), ebp
    mov SLOT(ST_GPR + 24), esi
    mov SLOT(ST_GPR + 28), edi
    mov SLOT(ST_EIP), r8d
    mov SLOT(ST_GUEST_RSP), rsp
    mov rsp, SLOT(ST_HOST_RSP)
    pushfq
    pop rax
    mov SLOT(ST_EFLAGS), eax
    jmp leave_full

/* A signal handler sent us here: registers and flags are in the state already. */
entry vx_fault_leave
    mov rsp, SLOT(ST_HOST_RSP)
    mov r9d, LEAVE_FAULT
leave_full:
    mov rdi, SLOT(ST_SELF)
    cmp dword ptr [rdi + ST_HOW], ENTER_SSE
    ja leave_all
    jb 1f
    movaps [rdi + ST_FX_XMM + 0], xmm0
    movaps [rdi + ST_FX_XMM + 16], xmm1
    movaps [rdi + ST_FX_XMM + 32], xmm2
    movaps [rdi + ST_FX_XMM + 48], xmm3
    movaps [rdi + ST_FX_XMM + 64], xmm4
    movaps [rdi + ST_FX_XMM + 80], xmm5
    movaps [rdi + ST_FX_XMM + 96], xmm6
    movaps [rdi + ST_FX_XMM + 112], xmm7
    stmxcsr [rdi + ST_FX_MXCSR]
    ldmxcsr [rdi + ST_HOST_MXCSR]
1:  mov eax, r9d
    cld
    jmp restore_host
leave_all:
    save_fp ST_FX
    mov eax, r9d
    clean_flags
    note_controls
    fninit
    fldcw [rdi + ST_HOST_FCW]
    ldmxcsr [rdi + ST_HOST_MXCSR]
restore_host:
    add rsp, 8
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret

/* void vx_fp_leave(vx_state *rdi) */
entry vx_fp_leave
    fxsave64 [rdi + ST_FX]
    clean_flags
    fninit
    fldcw [rdi + ST_HOST_FCW]
    ldmxcsr [rdi + ST_HOST_MXCSR]
    ret

/* A tick interrupted translated code; its handler saved the general registers and flags and sent us here.
 * bool vx_on_tick(vx_state *) runs on the thread's own stack, outside any signal handler. */
entry vx_tick_enter
    mov rdi, SLOT(ST_SELF)
    mov rsp, [rdi + ST_HOST_RSP]
    save_fp ST_TICK_FX
    clean_flags
    note_controls
    fninit
    fldcw [rdi + ST_HOST_FCW]
    ldmxcsr [rdi + ST_HOST_MXCSR]
    mov rbx, rdi
    call vx_on_tick
    mov rdi, rbx
    test al, al
    jz 1f
    restore_fp ST_TICK_FX
    push qword ptr [rdi + ST_TICK_FLAGS]
    popfq
    mov rax, [rdi + ST_TICK_GPR]
    mov rcx, [rdi + ST_TICK_GPR + 8]
    mov rdx, [rdi + ST_TICK_GPR + 16]
    mov rbx, [rdi + ST_TICK_GPR + 24]
    mov rsp, [rdi + ST_TICK_GPR + 32]
    mov rbp, [rdi + ST_TICK_GPR + 40]
    mov rsi, [rdi + ST_TICK_GPR + 48]
    mov r8, [rdi + ST_TICK_GPR + 64]
    mov r9, [rdi + ST_TICK_GPR + 72]
    mov r10, [rdi + ST_TICK_GPR + 80]
    mov r11, [rdi + ST_TICK_GPR + 88]
    mov r12, [rdi + ST_TICK_GPR + 96]
    mov r13, [rdi + ST_TICK_GPR + 104]
    mov r14, [rdi + ST_TICK_GPR + 112]
    mov r15, [rdi + ST_TICK_GPR + 120]
    mov rdi, [rdi + ST_TICK_GPR + 56]
    jmp SLOT(ST_TICK_RIP)
1:  cmp dword ptr [rdi + ST_XSAVE], 0
    lea rsi, [rdi + ST_TICK_FX]
    lea rdi, [rdi + ST_FX]
    mov ecx, ST_FX_SIZE / 8
    mov eax, ST_FX_PRESENT / 8
    cmove ecx, eax
    rep movsq
    mov eax, LEAVE_FAULT
    jmp restore_host

    .section .note.GNU-stack, "", @progbits
