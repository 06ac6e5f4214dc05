/* Runs each instruction that the verifier takes alone, and looks at the general registers after it.  It knows no
 * instruction: encodings are enumerated, and verify_insn says which. */
#include "core/base.h"
#include "core/verify.h"

#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>

enum { RBX = 3, RSP = 4, ROOM = 1 << 20, LONGEST = 64 };
/* As bits: the guest's, r13 and r8, whose upper halves are zero; r9 and r10, which may hold anything.  The others are
 * nobody's to change. */
enum { CLEAN = 0x21ef, SCRATCH = 0x0600 };

uint64_t upper_before[16], upper_after[16], upper_rsp;
const void *upper_code;
void upper_run(void), upper_back(void);

/* Some vector registers are all ones. */
__asm__(".intel_syntax noprefix\n"
        "upper_run:\n"
        "push rbx; push rbp; push r12; push r13; push r14; push r15\n"
        "mov upper_rsp[rip], rsp\n"
        "fninit\n"
        "pcmpeqd xmm0, xmm0; pcmpeqd xmm1, xmm1; pxor xmm2, xmm2; movaps xmm3, xmm0; psrlq xmm3, 3; movaps xmm7, xmm1\n"
        "lea rdi, upper_before[rip]\n"
        "mov rax, [rdi]; mov rcx, [rdi + 8]; mov rdx, [rdi + 16]; mov rbx, [rdi + 24]; mov rbp, [rdi + 40]\n"
        "mov rsi, [rdi + 48]; mov r8, [rdi + 64]; mov r9, [rdi + 72]; mov r10, [rdi + 80]; mov r11, [rdi + 88]\n"
        "mov r12, [rdi + 96]; mov r13, [rdi + 104]; mov r14, [rdi + 112]; mov r15, [rdi + 120]; mov rdi, [rdi + 56]\n"
        "jmp upper_code[rip]\n"
        "upper_back:\n"
        "mov upper_after[rip + 56], rdi\n"
        "lea rdi, upper_after[rip]\n"
        "mov [rdi], rax; mov [rdi + 8], rcx; mov [rdi + 16], rdx; mov [rdi + 24], rbx; mov [rdi + 32], rsp\n"
        "mov [rdi + 40], rbp; mov [rdi + 48], rsi; mov [rdi + 64], r8; mov [rdi + 72], r9; mov [rdi + 80], r10\n"
        "mov [rdi + 88], r11; mov [rdi + 96], r12; mov [rdi + 104], r13; mov [rdi + 112], r14; mov [rdi + 120], r15\n"
        "mov rsp, upper_rsp[rip]\n"
        "cld; fninit\n"
        "pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx\n"
        "ret\n"
        ".att_syntax prefix\n");

static uint8_t *code, *memory; /* where instructions run, and what rbx points at */
static size_t at;
static sigjmp_buf faulted;
static uint64_t accepted, ran, changes[16], bad;
static uint8_t filler; /* each byte behind ModRM */

static void on_fault(int signal) { siglongjmp(faulted, signal); }

/* False: it faults. */
static bool run(const uint8_t *insn, uint32_t length) {
    static const uint8_t jump[] = {0xff, 0x25, 0, 0, 0, 0};
    void (*back)(void) = upper_back;
    if (at + LONGEST > ROOM)
        at = 0;
    memcpy(code + at, insn, length);
    memcpy(code + at + length, jump, sizeof jump);
    memcpy(code + at + length + sizeof jump, &back, sizeof back);
    upper_code = code + at;
    at += LONGEST;
    if (sigsetjmp(faulted, 0) != 0)
        return false;
    upper_run();
    return true;
}

static void report(const uint8_t *insn, uint32_t length, unsigned reg) {
    if (bad++ >= 20)
        return;
    printf("bad ");
    for (uint32_t i = 0; i < length; i++)
        printf("%02x", insn[i]);
    printf(" leaves %#llx in register %u\n", (unsigned long long)upper_after[reg], reg);
}

static void look(const uint8_t *insn, uint32_t length) {
    for (unsigned reg = 0; reg < 16; reg++) {
        uint64_t before = reg == RSP ? upper_rsp : upper_before[reg];
        bool good = CLEAN >> reg & 1 ? upper_after[reg] >> 32 == 0 : SCRATCH >> reg & 1 || upper_after[reg] == before;
        changes[reg] += upper_after[reg] != before;
        if (!good)
            report(insn, length, reg);
    }
}

/* All zero, all ones, and others. */
static const uint32_t values[] = {0, UINT32_MAX, 0x81234567};

static void try(const uint8_t *insn) {
    uint32_t length = verify_insn(insn);
    if (length == 0)
        return;
    accepted++;
    bool once = false;
    for (unsigned v = 0; v < VX_COUNT(values); v++) {
        for (unsigned reg = 0; reg < 16; reg++)
            upper_before[reg] = values[v] + (CLEAN >> reg & 1 ? 0 : 0xdeadbeef00000000);
        upper_before[RBX] = (uint32_t)(uintptr_t)memory;
        if (run(insn, length)) {
            look(insn, length);
            once = true;
        }
    }
    ran += once;
}

/* Through gs where the operand is memory, and both ways where lea may be meant; once where ModRM is an immediate. */
static void try_modrm(const uint8_t *prefixes, unsigned before, const uint8_t *opcode, unsigned size, uint8_t modrm) {
    uint8_t insn[LONGEST];
    bool memory = modrm < 0xc0;
    memcpy(insn, prefixes, before);
    insn[before] = 0x65;
    memcpy(insn + before + memory, opcode, size);
    insn[before + memory + size] = modrm;
    memset(insn + before + memory + size + 1, filler, sizeof insn - before - memory - size - 1);
    try(insn);
    if (size > 1 || opcode[0] != 0x8d || !memory)
        return;
    memmove(insn + before, insn + before + 1, sizeof insn - before - 1);
    try(insn);
}

static void legacy(void) {
    static const char *const prefixes[] = {"", "\x66", "\xf3", "\xf2", "\x66\xf3", "\x66\xf2", "\xf0", "\xf0\x66", "\x67"};
    static const char *const maps[] = {"", "\x0f", "\x0f\x38", "\x0f\x3a"};
    for (unsigned p = 0; p < VX_COUNT(prefixes); p++)
        for (unsigned rex = 0x3f; rex < 0x50; rex++)
            for (unsigned number = 0; number < 256 * VX_COUNT(maps); number++) {
                unsigned size = rex >= 0x40, op = number & 255;
                uint8_t opcode[4] = {(uint8_t)rex};
                size += (unsigned)strlen(strcpy((char *)opcode + size, maps[number >> 8]));
                opcode[size++] = (uint8_t)op;
                if (number < 256 && (op == 0x62 || op == 0xc4 || op == 0xc5))
                    continue; /* those below */
                for (unsigned modrm = 0; modrm < 72; modrm++)
                    try_modrm((const uint8_t *)prefixes[p], (unsigned)strlen(prefixes[p]), opcode, size,
                              (uint8_t)(modrm < 64 ? 0xc0 + modrm : (modrm - 64) << 3 | 3));
            }
}

/* Each register once as reg, as rm, and [rbx]. */
static const uint8_t some[] = {0xc1, 0xcf, 0xd0, 0xda, 0xed, 0xf5, 0xfe, 0x03, 0x33};

static void try_some(const uint8_t *opcode, unsigned size) {
    for (unsigned i = 0; i < VX_COUNT(some); i++)
        try_modrm(NULL, 0, opcode, size, some[i]);
}

static void vex(void) {
    for (unsigned bits = 0; bits < 1u << 24; bits++) {
        uint8_t opcode[] = {0xc4, (uint8_t)(bits >> 16), (uint8_t)(bits >> 8), (uint8_t)bits};
        if ((opcode[1] & 31) <= 3)
            try_some(opcode, sizeof opcode);
        if (bits < 1u << 16)
            try_some((const uint8_t[]){0xc5, opcode[2], opcode[3]}, 3);
    }
}

/* Vector lengths, a mask, roundings, a broadcast; vvvv none, rcx, rbp, r15. */
static void evex(void) {
    static const uint8_t thirds[] = {0x08, 0x28, 0x48, 0x09, 0x18, 0x78, 0x89, 0x00};
    static const uint8_t vvvv[] = {15, 14, 10, 0};
    for (unsigned bits = 0; bits < 1u << 24; bits++) {
        uint8_t second = (uint8_t)((bits >> 15 & 1) << 7 | vvvv[bits >> 13 & 3] << 3 | 4 | (bits >> 11 & 3));
        uint8_t opcode[] = {0x62, (uint8_t)(bits >> 16), second, thirds[bits >> 8 & 7], (uint8_t)bits};
        if (!(opcode[1] & 8))
            try_some(opcode, sizeof opcode);
    }
}

int main(void) {
    static uint8_t stack[1 << 16];
    stack_t other = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_handler = on_fault, .sa_flags = SA_NODEFER | SA_ONSTACK};
    static const int signals[] = {SIGILL, SIGSEGV, SIGFPE, SIGBUS, SIGTRAP};
    sigaltstack(&other, NULL);
    for (unsigned i = 0; i < VX_COUNT(signals); i++)
        sigaction(signals[i], &action, NULL);
    code = mmap(NULL, ROOM, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memory = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (code == MAP_FAILED || memory == MAP_FAILED)
        return 2;
    verify_insn_prepare();
    static void (*const kinds[])(void) = {legacy, vex, evex};
    static const uint8_t fillers[] = {0x21, 0};
    for (unsigned kind = 0; kind < VX_COUNT(kinds); kind++) {
        accepted = ran = 0;
        for (unsigned f = 0; f < (kind == 0 ? VX_COUNT(fillers) : 1); f++) {
            filler = fillers[f];
            kinds[kind]();
        }
        printf("kind %llu %llu\n", (unsigned long long)accepted, (unsigned long long)ran);
    }
    for (unsigned reg = 0; reg < 16; reg++)
        printf("register %u %llu\n", reg, (unsigned long long)changes[reg]);
    return bad != 0;
}
