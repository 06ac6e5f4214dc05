/* A guest's signal at every instruction of translated code (invariant 24).
 *
 * The trap flag stops a guest at every host instruction that was translated for it; there, once a place, a
 * timer of the guest's is made due and a tick sent.  The core may deliver only where a guest instruction begins:
 * anywhere else part of one is done, or done again after the handler, and registers, flags or memory at the end
 * differ from those of an undisturbed run.  The guest goes through what takes several host instructions. */
#include "core/internal.h"

#include <stdio.h>
#include <ucontext.h>

#define CODE 0x20000u
#define DATA 0x30000u
#define COUNTER 0x30400u /* of the handler; not compared */
#define COMPARED 0x200u  /* bytes of data; frames lie above when esp is there */
#define ALARM 14u
#define TRAP_FLAG 0x100

/* i386 code, there twice, 0x20000 bytes apart.  The handler
 * ruins what it may; the restorer is what libc's is. */
__asm__(".pushsection .rodata\n .code32\n"
        ".globl guest_start, guest_end, guest_handler, guest_restorer\n"
        ".macro at label, register\n  mov $\\label - guest_start + 0x20000, %\\register\n .endm\n"
        "guest_start:\n"
        "  mov $20, %eax\n  int $0x80\n  mov $3, %ecx\n  xor %ebx, %ebx\n"
        "round:\n"
        /* the stack, and what of esp is pending */
        "  pushl %ecx\n  pushl 0x30000\n  popl 0x30004\n  incl 0x30000\n"
        "  push %esp\n  pop %edx\n  sub %esp, %edx\n  add %edx, %ebx\n"
        "  push $5\n  push %ebx\n  pushw $3\n  popw %ax\n  popl %edx\n  popl 0x30008\n  add %edx, %ebx\n"
        "  lea -64(%esp), %esp\n  movl $5, (%esp)\n  addl $3, (%esp)\n  add (%esp), %ebx\n  lea 64(%esp), %esp\n"
        "  sub $16, %esp\n  mov %esp, %ebp\n  pushl (%esp)\n  popl 4(%esp)\n  mov %ebp, %esp\n  add $16, %esp\n"
        "  mov %esp, %edx\n  push $0x30f00\n  pop %esp\n  push $9\n  pop %eax\n  mov %edx, %esp\n  add %eax, %ebx\n"
        "  movl $0x30f00, 0x3000c\n  mov %esp, %edx\n  pushl 0x3000c\n  popl %esp\n  mov %edx, %esp\n"
        "  enter $16, $0\n  push %ebx\n  leave\n  pusha\n  popa\n"
        /* flags */
        "  push $0xcd7\n  popf\n  pushf\n  pop %eax\n  add %eax, %ebx\n  push $0x8c1\n  popfw\n  popw %ax\n"
        "  push $0x246\n  popf\n  mov $77, %eax\n  btsl %eax, 0x30010\n  pushf\n  btcl %eax, 0x30010\n  pushf\n"
        "  pop %edx\n  add %edx, %ebx\n  pop %edx\n  add %edx, %ebx\n"
        /* high bytes beside esp, table and string instructions */
        "  push %ebx\n  mov $0x1234, %eax\n  add %ah, 3(%esp)\n  xchg %ch, (%esp)\n  mov %bh, 1(%esp)\n"
        "  cmpxchg %ah, (%esp)\n  cmpxchg %ch, 2(%esp)\n  pop %edx\n  add %edx, %ebx\n"
        "  mov $0x30000, %esi\n  mov $0x30020, %edi\n  mov $5, %ecx\n  stc\n  rep movsl\n  adc $0, %ebx\n"
        "  mov $0x30000, %esi\n  lodsl\n  add %eax, %ebx\n  mov $0x30060, %edi\n  stosl\n  scasb\n  adc %edi, %ebx\n"
        "  push %ebx\n  mov $0x30000, %ebx\n  mov $8, %al\n  xlat\n  pop %ebx\n  add %al, %bl\n"
        "  fld1\n  fnstenv 0x30080\n  fldpi\n  fistpl 0x300b0\n  fstpl 0x300b8\n"
        /* calls, returns and jumps; carry is alive across some */
        "  stc\n  call leaf\n  adc $0, %ebx\n  call leaf\n  xor %eax, %eax\n  at leaf, eax\n  stc\n  call *%eax\n  adc $0, %ebx\n"
        "  push $4\n  push $4\n  call drops\n  call next\nnext:\n  pop %eax\n  add %eax, %ebx\n"
        "  at 2f, eax\n  clc\n  jmp *%eax\n  int3\n2: adc $0, %ebx\n  push $3f - guest_start + 0x20000\n  ret\n  int3\n3: call outer\n"
        "  at collides, esi\n  lea 0x20000(%esi), %edi\n"
        "  call *%esi\n  call *%edi\n  call *%esi\n  call *%edi\n"
        "  mov $3, %ecx\n4: inc %ebx\n  loop 4b\n  jecxz 5f\n  int3\n5:\n"
        "  pop %ecx\n  dec %ecx\n  jnz round\n"
        "  pushf\n  pop %edx\n  int3\n"
        "outer: call inner\n  int3\n"
        "inner: add $4, %esp\n  ret\n"
        "drops: add 4(%esp), %ebx\n  ret $8\n"
        "collides: call 6f\n6: pop %eax\n  rol $3, %ebx\n  add %eax, %ebx\n  ret\n"
        "leaf: lea 1(%ebx), %ebx\n  ret\n"
        "guest_handler:\n"
        "  incl 0x30400\n  fninit\n  fldpi\n  or $-1, %eax\n  mov %eax, %ecx\n  mov %eax, %edx\n  mov %eax, %ebx\n  mov %eax, %ebp\n"
        "  mov %eax, %esi\n  mov %eax, %edi\n  push %eax\n  xor %eax, %eax\n  pop %eax\n  ret\n"
        "guest_restorer:\n"
        "  pop %eax\n  mov $119, %eax\n  int $0x80\n"
        "guest_end:\n .code64\n .popsection\n");
extern const uint8_t guest_start[], guest_end[], guest_handler[], guest_restorer[];

static uint32_t at(const uint8_t *label) { return CODE + (uint32_t)(label - guest_start); }

static bool stepping;

enum { SETITIMER = 104 };

/* There to have signals delivered, and timers set. */
static bool no_call(void *context, vx_sandbox *box, uint32_t number, const uint32_t arguments[6], int32_t *result) {
    (void)context, (void)box, (void)arguments;
    *result = number == SETITIMER ? 0 : -38;
    return true;
}

/* The trap flag goes in with the flags that the guest has after its calls. */
static void after_call(void *context, vx_sandbox *box, uint32_t number, const uint32_t arguments[6], const int32_t *result) {
    (void)context, (void)number, (void)arguments, (void)result;
    if (stepping)
        box->state->eflags |= TRAP_FLAG;
}

static vx_sandbox *open_box(void) {
    vx_segment segments[] = {{CODE, 0x1000, (uint32_t)(guest_end - guest_start), VX_PROT_READ | VX_PROT_EXEC, guest_start, 0},
                             {DATA, 0x1000, 0, VX_PROT_READ | VX_PROT_WRITE, "", 0},
                             {CODE + 0x20000, 0x1000, (uint32_t)(guest_end - guest_start), VX_PROT_READ | VX_PROT_EXEC, guest_start, 0}};
    vx_image image = {.segments = segments, .count = VX_COUNT(segments), .entry = CODE};
    vx_options options = {.memory = 1 << 20, .stack = 1 << 16, .raw = true, .hooks = {.linux_call = no_call, .linux_trace = after_call}};
    vx_plugin *plugin;
    vx_sandbox *box;
    vx_trap trap;
    if (vx_plugin_create(&image, &plugin) != VX_OK || vx_sandbox_create(plugin, &options, &box, &trap) != VX_OK)
        exit(90);
    return box;
}

typedef struct outcome {
    vx_registers registers;
    uint8_t data[COMPARED];
    uint32_t handled;
} outcome;

static outcome run(vx_sandbox *box) {
    static const uint8_t zeros[COUNTER + 4 - DATA];
    outcome result = {0};
    vx_trap trap = {0};
    vx_cpu cpu = {.registers = {.eip = CODE, .gpr = {[4] = VX_STACK_TOP - 256}}, .fx = {[0] = 0x7f, [1] = 3, [24] = 0x80, [25] = 0x1f}};
    box->kernel.signals.actions[ALARM - 1] =
        (vx_signal_action){.handler = at(guest_handler), .flags = 0x04000000, .restorer = at(guest_restorer)};
    if (!guest_write(box, DATA, zeros, sizeof zeros) || vx_run(box, &cpu, &trap) != VX_TRAP)
        exit(91);
    if (trap.kind != VX_TRAP_BREAKPOINT)
        printf("exact: ended by %s at %08x\n", vx_trap_kind_name(trap.kind), trap.registers.eip);
    result.registers = cpu.registers;
    if (!guest_read(box, DATA, result.data, sizeof result.data) || !guest_read(box, COUNTER, &result.handled, 4))
        exit(92);
    return result;
}

/* --- stepping ------------------------------------------------------------------------------------------ */

static vx_sandbox *running;
static unsigned char taken[1 << 22]; /* by offset in the cache */
static volatile unsigned places;

/* On the way in and out the flag is kept; C need not be stepped through. */
static bool in_switch(uintptr_t rip) { return rip - (uintptr_t)vx_enter < (uintptr_t)vx_tick_enter + 384 - (uintptr_t)vx_enter; }

static void on_trap(int signal, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    uintptr_t rip = (uintptr_t)registers[REG_RIP];
    (void)signal, (void)info;
    bool inside = cache_contains(running->cache, rip);
    if (!inside && !in_switch(rip))
        registers[REG_EFL] &= ~TRAP_FLAG;
    if (inside && *(const uint8_t *)rip == 0x9d) /* popfq: the guest's popf has no trap flag */
        *(uint64_t *)(uintptr_t)registers[REG_RSP] |= TRAP_FLAG;
    if (!inside || taken[(rip - (uintptr_t)running->cache->run) % sizeof taken]++ != 0)
        return;
    places++;
    running->timer_at = 1;
    os_signal_thread(os_thread_id(), SIGURG);
}

static bool same(const outcome *a, const outcome *b) {
    bool ok = memcmp(a->data, b->data, sizeof a->data) == 0;
    for (unsigned i = 0; i < 8; i++)
        ok &= a->registers.gpr[i] == b->registers.gpr[i];
    return ok && a->registers.eip == b->registers.eip && ((a->registers.eflags ^ b->registers.eflags) & FLAGS_ALL) == 0;
}

int main(void) {
    running = open_box();
    outcome expected = run(running); /* and its blocks are made and linked */
    struct sigaction trap = {.sa_sigaction = on_trap, .sa_flags = SA_ONSTACK | SA_SIGINFO};
    sigaddset(&trap.sa_mask, SIGURG);
    if (sigaction(SIGTRAP, &trap, NULL) != 0)
        return 93;
    stepping = true;
    outcome stepped = run(running);
    bool ok = expected.handled == 0 && stepped.handled > 300 && places > 2 * stepped.handled && same(&expected, &stepped);
    printf("exact: %u places, %u signals handled, ebx %08x and %08x: %s\n", places, stepped.handled,
           expected.registers.gpr[3], stepped.registers.gpr[3], ok ? "all checks passed" : "FAILED");
    return !ok;
}
