/* Hostile signal frames: what a guest hands back to sigreturn must not reach the host's state. */
#define _GNU_SOURCE
#include "check.h"

#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <ucontext.h>
#include <unistd.h>

static const char *what;
static volatile int runs;

static void spoil(int signal, siginfo_t *info, void *data) {
    ucontext_t *context = data;
    greg_t *r = context->uc_mcontext.gregs;
    uint8_t *fp = (uint8_t *)context->uc_mcontext.fpregs;
    (void)signal, (void)info;
    runs++;
    if (!strcmp(what, "flags"))
        r[REG_EFL] = -1;
    if (!strcmp(what, "selectors"))
        r[REG_CS] = 0x33, r[REG_SS] = 0, r[REG_DS] = r[REG_ES] = 0x1234, r[REG_GS] = r[REG_FS] = 0xffff;
    if (!strcmp(what, "fp") || !strcmp(what, "header"))
        memset(fp, 0xff, 112 + 512 - 48);
    if (!strcmp(what, "header")) {
        memset(fp + 112 + 464, 0xff, 48);
        memset(fp + 112 + 512, 0xff, 64);
    }
    if (!strcmp(what, "vectors")) {
        uint32_t magic;
        memcpy(&magic, fp + 112 + 464, 4);
        if (magic == 0x46505853) /* there are registers beyond FXSAVE's */
            memset(fp + 112 + 512, 0xff, 1664 - 512);
    }
    if (!strcmp(what, "nofp"))
        context->uc_mcontext.fpregs = NULL;
    if (!strcmp(what, "wildfp"))
        context->uc_mcontext.fpregs = (void *)0xfffff000;
    if (!strcmp(what, "mask"))
        memset(&context->uc_sigmask, 0xff, 8);
    if (!strcmp(what, "stack"))
        context->uc_stack = (stack_t){.ss_sp = (void *)16, .ss_size = 0xffffffff};
    if (!strcmp(what, "eip"))
        r[REG_EIP] = 0xffffffff;
    if (!strcmp(what, "frame"))
        __asm__ volatile("movl $0xffffff00, %esp\n movl $173, %eax\n int $0x80");
    if (!strcmp(what, "oldframe"))
        __asm__ volatile("movl $4, %esp\n movl $119, %eax\n int $0x80");
}

int main(int argc, char **argv) {
    uint32_t flags;
    what = argc > 1 ? argv[1] : "";
    struct sigaction action = {.sa_sigaction = spoil, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &action, NULL);
    if (__builtin_cpu_supports("avx"))
        __asm__ volatile("vzeroall" : : : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7");
    for (int i = 0; i < 50; i++)
        kill(getpid(), SIGUSR1);
    __asm__ volatile("pushfl\n popl %0" : "=r"(flags));
    printf("runs %d, forbidden flags %x\n", runs, flags & 0x1f7100 & ~0x200000u);
    fflush(stdout);
    kill(getpid(), SIGKILL);
    return 0;
}
