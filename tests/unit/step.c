/* A signal at every instruction of the switch code and of translated code.
 *
 * The trap flag stops two guests, and the core around them, at every instruction.  Wherever that is in vx_enter,
 * on one of the ways out, or in translated code, the trap's handler leaves a signal pending that arrives before
 * the instruction is executed: the watchdog's own, which becomes a tick, or one whose handler destroys what
 * it may.  The guests' results must not change. */
#include "core/internal.h"
#include "trap_flag.h"

#include <stdio.h>
#include <ucontext.h>

#define CODE 0x20000u
#define DATA 0x30000u

/* i386 code; the labels become guest addresses by AT.  It goes through calls, helpers, system calls, changed
 * code, returns that no call made and one whose call was forgotten, x87 and SSE. */
__asm__(".pushsection .rodata\n .code32\n"
        ".globl guest_start, guest_end, guest_leaf\n"
        "guest_start:\n"
        "  mov $2, %ecx\n  xor %ebx, %ebx\n  fld1\n  movl $3, 0x30000\n  cvtsi2ss 0x30000, %xmm1\n"
        "1: push %ecx\n  call leaf\n  pop %ecx\n"
        "  mov $99, %al\n  aam\n  add %eax, %ebx\n"
        "  push %ebx\n  mov $20, %eax\n  int $0x80\n  pop %ebx\n  add %eax, %ebx\n"
        "  mov $leaf - guest_start + 0x20000, %eax\n  call *%eax\n"
        "  incl changed + 2 - guest_start + 0x20000\n"
        "  push $2f - guest_start + 0x20000\n  ret\n"
        "2: call outer\n"
        "  fadd %st(0), %st(0)\n  addss %xmm1, %xmm1\n"
        "  dec %ecx\n  jnz 1b\n"
        "  fistpl 0x30004\n  add 0x30004, %ebx\n  cvtss2si %xmm1, %eax\n  add %eax, %ebx\n"
        "  pushf\n  pop %edx\n  movb $1, changed + 2 - guest_start + 0x20000\n  int3\n"
        "outer: call inner\n  int3\n"
        "inner: add $4, %esp\n  ret\n" /* to the caller's caller */
        "leaf:\n"
        "changed: add $1, %ebx\n  ret\n"
        "guest_leaf: mov 4(%esp), %eax\n  lea 1(%eax,%eax), %eax\n  call 3f\n  ret\n 3: dec %eax\n  ret\n"
        "guest_end:\n .code64\n .popsection\n");
extern const uint8_t guest_start[], guest_end[], guest_leaf[];

static unsigned ticks;

static bool on_tick(void *context) {
    (void)context;
    ticks++;
    return true;
}

/* Ruins every register a handler may. */
static void on_other(int signal) {
    (void)signal;
    __asm__ volatile("std\n cld\n fninit\n fldz\n pcmpeqd %%xmm0, %%xmm0\n movaps %%xmm0, %%xmm1\n movaps %%xmm0, %%xmm7\n"
                     "mov $-1, %%r8\n mov %%r8, %%r9\n mov %%r8, %%r10\n mov %%r8, %%r11"
                     : : : "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm7", "memory", "cc");
}

static vx_sandbox *open_box(uint32_t prot) {
    vx_segment segments[] = {{CODE, 0x1000, (uint32_t)(guest_end - guest_start), prot | VX_PROT_WRITABLE_CODE, guest_start, 0},
                             {DATA, 0x1000, 0, VX_PROT_READ | VX_PROT_WRITE, "", 0}};
    vx_image image = {.segments = segments, .count = 2, .entry = CODE};
    vx_options options = {.memory = 1 << 20, .stack = 1 << 16, .raw = true, .hooks = {.tick = on_tick}};
    vx_plugin *plugin;
    vx_sandbox *box;
    vx_trap trap;
    if (vx_plugin_create(&image, &plugin) != VX_OK || vx_sandbox_create(plugin, &options, &box, &trap) != VX_OK)
        exit(90);
    box->kernel.esp = VX_STACK_TOP - 256;
    return box;
}

/* What the guest that changes itself leaves in ebx, mixed with its flags and what its floating point became. */
static uint32_t run_changing(vx_sandbox *box) {
    vx_trap trap = {0};
    vx_cpu cpu = {.registers.eip = CODE, .fx = {[0] = 0x7f, [1] = 3, [24] = 0x80, [25] = 0x1f}};
    cpu.registers.gpr[4] = VX_STACK_TOP - 256;
    if (vx_run(box, &cpu, &trap) != VX_TRAP || trap.kind != VX_TRAP_BREAKPOINT)
        exit(91);
    uint32_t last;
    memcpy(&last, cpu.fx + 160 + 16, 4); /* xmm1 */
    return cpu.registers.gpr[3] ^ cpu.registers.gpr[2] << 16 ^ last ^ (cpu.registers.gpr[4] != VX_STACK_TOP - 256);
}

static uint32_t run_call(vx_sandbox *box) {
    vx_trap trap = {0};
    vx_result result = {0};
    uint32_t word = 20;
    uint32_t at = CODE + (uint32_t)(guest_leaf - guest_start);
    return vx_call(box, (vx_gaddr){at}, &word, 1, &result, &trap) == VX_OK ? result.eax : 0;
}

/* --- stepping ------------------------------------------------------------------------------------------ */

static const struct { void (*code)(void); const char *name; } ways[] = {
    {(void (*)(void))(uintptr_t)vx_enter, "vx_enter"}, {vx_exit_reason, "vx_exit_reason"}, {vx_exit_link, "vx_exit_link"},
    {vx_exit_miss, "vx_exit_miss"}, {vx_fault_leave, "vx_fault_leave"}, {vx_tick_enter, "vx_tick_enter"},
    {vx_resync, "vx_resync"}, {vx_probe, "vx_probe"}, {vx_sentinel, "vx_sentinel"}};
static bool seen[VX_COUNT(ways)];

#define SWITCH_SIZE ((uintptr_t)vx_tick_enter + 256 - (uintptr_t)vx_enter)

static bool in_switch(uintptr_t rip) {
    for (size_t i = 0; i < VX_COUNT(ways); i++)
        seen[i] |= rip - (uintptr_t)ways[i].code < 12; /* a handler that leads here executes the first instruction */
    return rip - (uintptr_t)vx_enter < SWITCH_SIZE;
}


static vx_sandbox *running;

static bool in_code(uintptr_t rip) { return running->cache != NULL && cache_contains(running->cache, rip); }

/* Once a place: each tick in translated code goes through the switch code again. */
static unsigned char taken[2][1 << 16];

static bool wanted(uintptr_t rip) {
    return in_switch(rip) ? taken[0][rip - (uintptr_t)vx_enter]++ == 0 : in_code(rip) && taken[1][rip & 0xffff]++ == 0;
}

static int injected;
static volatile unsigned long steps, count;

/* Flags that vx_enter loads for a guest do not trap: where it is about to, they are made to. */
static void on_trap(int signal, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    uintptr_t rip = (uintptr_t)registers[REG_RIP];
    (void)signal, (void)info;
    steps++;
    if (in_switch(rip) && *(const uint8_t *)rip == 0x9d)
        *(uint64_t *)(uintptr_t)registers[REG_RSP] |= 0x100;
    if (!wanted(rip))
        return;
    count++;
    os_signal_thread(os_thread_id(), injected);
}

static bool step_through(uint32_t (*run)(vx_sandbox *), vx_sandbox *box, uint32_t expected) {
    running = box;
    count = 0;
    memset(taken, 0, sizeof taken);
    set_trap_flag();
    uint32_t result = run(box);
    clear_trap_flag();
    printf("step: %s, signal %d: %lu of them in %lu steps, result %08x\n", run == run_call ? "a call" : "changing code",
           injected, count, steps, result);
    return result == expected && count > (run == run_call ? 60 : 200);
}

int main(void) {
    vx_sandbox *changing = open_box(VX_PROT_READ | VX_PROT_WRITE | VX_PROT_EXEC), *calling = open_box(VX_PROT_READ | VX_PROT_EXEC);
    uint32_t changed = run_changing(changing), called = run_call(calling);
    struct sigaction other = {.sa_handler = on_other, .sa_flags = SA_ONSTACK | SA_RESTART};
    struct sigaction trap = {.sa_sigaction = on_trap, .sa_flags = SA_ONSTACK | SA_SIGINFO};
    sigaddset(&trap.sa_mask, SIGURG), sigaddset(&trap.sa_mask, SIGUSR1);
    bool ok = called == 40 && sigaction(SIGUSR1, &other, NULL) == 0 && sigaction(SIGTRAP, &trap, NULL) == 0;
    for (int round = 0; round < 2; round++) {
        injected = round == 0 ? SIGURG : SIGUSR1;
        ok &= step_through(run_changing, changing, changed);
        ok &= step_through(run_call, calling, called);
    }
    ok &= ticks > 150;
    for (size_t i = 0; i < VX_COUNT(ways); i++) {
        ok &= seen[i];
        if (!seen[i])
            printf("step: %s was not reached\n", ways[i].name);
    }
    printf("step: %u ticks: %s\n", ticks, ok ? "all checks passed" : "FAILED");
    return !ok;
}
