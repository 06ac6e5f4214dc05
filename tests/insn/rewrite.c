/* A freestanding i386 program that rewrites its own code in every way there is, and prints what came of
 * it.  It runs natively and in a sandbox (rewrite_run.c); the outputs must be equal.  The code under
 * `CASE` lies in the program's own text, which it makes writable first. */
#include <stdint.h>

enum { SYS_exit = 1, SYS_write = 4, SYS_brk = 45, SYS_munmap = 91, SYS_mprotect = 125, SYS_mremap = 163, SYS_madvise = 219, SYS_rt_sigprocmask = 175,
       SYS_mmap2 = 192 };
enum { RW = 3, RX = 5, RWX = 7, X = 4, PRIVATE_ANONYMOUS = 0x22, FIXED = 0x10, PAGE = 4096 };

static int32_t call6(int number, uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t e) {
    int32_t result;
    __asm__ volatile("push %%ebp\n xor %%ebp, %%ebp\n int $0x80\n pop %%ebp"
                     : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory", "cc");
    return result;
}

static void print(const char *name, uint32_t value) {
    char line[64];
    uint32_t n = 0;
    while (name[n] != 0)
        line[n] = name[n], n++;
    line[n++] = ' ';
    for (int shift = 28; shift >= 0; shift -= 4)
        line[n++] = "0123456789abcdef"[value >> shift & 15];
    line[n++] = '\n';
    call6(SYS_write, 1, (uint32_t)line, n, 0, 0);
}

static void need(int condition, uint32_t line) {
    if (condition)
        return;
    print("failed at line", line);
    call6(SYS_exit, 1, 0, 0, 0, 0);
}
#define NEED(x) need((x), __LINE__)

uint32_t scratch[64] __attribute__((aligned(16)));
const uint8_t eight_incs[16] __attribute__((aligned(16), used)) = {
    0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40};
const uint8_t twice_eight_incs[32] __attribute__((aligned(16), used)) = {
    0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40,
    0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40};
const uint8_t all_ones[16] __attribute__((aligned(16), used)) = {
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
const uint8_t mov_seven[8] __attribute__((used)) = {0xb8, 7, 0, 0, 0, 0x40, 0x40, 0x40};

/* Each case is entered with eax = ecx = edx = ebx = 0 and returns eax; it may change what it likes. */
#define CASE(name, code)                                                                               \
    uint32_t case_##name(void);                                                                        \
    __asm__(".section .rewrite,\"ax\",@progbits\n .p2align 6\n .globl case_" #name "\ncase_" #name ":\n" \
            code "\n ret\n .text\n");
#define NOPS16 ".fill 16, 1, 0x90\n"

/* --- one store, the very next instruction --- */
CASE(immediate, "movb $7, 1f+1\n 1: mov $1, %eax\n movb $1, 1b+1\n")
CASE(opcode, "mov $10, %eax\n xorb $8, 1f\n 1: inc %eax\n") /* inc and dec in turn */
CASE(prefix, "mov $0x12345678, %ecx\n xorb $0xf6, 1f\n 1: .byte 0x90, 0x89, 0xc8\n") /* nop, then 66 */
CASE(own_bytes, "xor %ebx, %ebx\n 1: movb $0x55, 1b+6\n movzbl 1b+6, %eax\n add %eax, %ebx\n"
                "incb 1b+6\n movzbl 1b+6, %eax\n lea (%eax,%ebx), %eax\n")
CASE(behind_a_jump, "movb $9, 1f+1\n jmp 2f\n .fill 20, 1, 0x90\n 2: jmp 1f\n 1: mov $1, %eax\n movb $1, 1b+1\n")
CASE(conditional, "xorb $1, 1f\n cmp %eax, %eax\n 1: je 2f\n mov $4, %eax\n ret\n 2: mov $5, %eax\n")
CASE(backwards, "xor %eax, %eax\n mov $5, %ecx\n 1: add $1, %eax\n incb 1b+2\n dec %ecx\n jnz 1b\n movb $1, 1b+2\n")
CASE(target, "incb 1f+1\n jmp 3f\n 3: jmp 2f\n 1: .byte 0xb8, 0, 0, 0, 0\n ret\n 2: incb 3b+1\n jmp 1b\n")

/* --- kinds of stores --- */
CASE(word, "movw $0x4040, 1f\n 1: nop\n nop\n nop\n movw $0x9090, 1b\n")
CASE(push, "mov %esp, %edx\n mov $1f+4, %esp\n push $0x40404040\n 1: nop\n nop\n nop\n nop\n"
           "mov %edx, %esp\n movl $0x90909090, 1b\n")
CASE(push_register, "mov %esp, %edx\n mov $0x40904090, %ecx\n mov $1f+4, %esp\n push %ecx\n 1: nop\n nop\n nop\n nop\n"
                    "mov %edx, %esp\n movl $0x90909090, 1b\n")
CASE(push_flags, "mov %esp, %edx\n cmp %eax, %eax\n mov $1f+5, %esp\n pushf\n 1: mov $0, %eax\n mov %edx, %esp\n")
CASE(pusha, "mov %esp, %ebp\n mov $0x901deb40, %edi\n mov $1f+32, %esp\n pusha\n 1: .fill 33, 1, 0x90\n mov %ebp, %esp\n")
CASE(enter, "mov %esp, %edx\n mov %ebp, %ecx\n mov $0x40409040, %ebp\n mov $1f+4, %esp\n enter $0, $0\n"
            "1: nop\n nop\n nop\n nop\n mov %edx, %esp\n mov %ecx, %ebp\n movl $0x90909090, 1b\n")
CASE(call, "mov %esp, %edx\n mov $1f+5, %esp\n call 1f\n 1: mov $0, %eax\n mov %edx, %esp\n")
CASE(call_away, "mov %esp, %edx\n mov $1f+5, %esp\n call 2f\n 1: mov $0, %eax\n mov %edx, %esp\n ret\n .fill 9, 1, 0x90\n 2: jmp 1b\n")
CASE(call_indirect, "mov %esp, %edx\n mov $1f, %ecx\n mov $1f+5, %esp\n call *%ecx\n 1: mov $0, %eax\n mov %edx, %esp\n")
CASE(pop_memory, "push $0x40409040\n popl 1f\n 1: nop\n nop\n nop\n nop\n movl $0x90909090, 1b\n")
CASE(exchange, "mov $0x40, %cl\n xchg %cl, 1f\n 1: nop\n movb $0x90, 1b\n")
CASE(high_byte, "mov $0x4000, %ebx\n mov %bh, 1f\n 1: nop\n movb $0x90, 1b\n")
CASE(locked_add, "lock addl $3, 1f+1\n 1: mov $1, %eax\n movb $1, 1b+1\n")
CASE(exchange_add, "mov $6, %ecx\n lock xaddl %ecx, 1f+1\n 1: mov $1, %eax\n add %ecx, %eax\n movb $1, 1b+1\n")
CASE(compare_exchange, "mov $1, %eax\n mov $8, %ecx\n cmpxchgl %ecx, 1f+1\n 1: mov $1, %eax\n movb $1, 1b+1\n")
CASE(compare_exchange8, "mov $0x90909090, %eax\n mov %eax, %edx\n mov $0x40404040, %ebx\n mov %ebx, %ecx\n"
                        "cmpxchg8b 1f\n mov $0, %eax\n 1: .fill 8, 1, 0x90\n movl $0x90909090, 1b\n movl $0x90909090, 1b+4\n")
CASE(bit_set, "btsl $4, 1f+1\n 1: mov $1, %eax\n movb $1, 1b+1\n")
CASE(bit_string, "mov $13, %ecx\n btsl %ecx, 1f+1\n 1: mov $1, %eax\n movl $1, 1b+1\n")
CASE(set_condition, "cmp %eax, %eax\n sete 1f+2\n 1: mov $0, %eax\n movb $0, 1b+2\n")
CASE(shift, "shll $3, 1f+1\n 1: mov $1, %eax\n movb $1, 1b+1\n")
CASE(double_shift, "mov $0xff000000, %ecx\n shldl $8, %ecx, 1f+1\n 1: mov $1, %eax\n movl $1, 1b+1\n")

/* --- string instructions --- */
CASE(movs, "cld\n mov $mov_seven, %esi\n mov $1f, %edi\n mov $8, %ecx\n rep movsb\n 1: .fill 8, 1, 0x90\n"
           "movl $0x90909090, 1b\n movl $0x90909090, 1b+4\n")
CASE(movs_down, "std\n mov $mov_seven+7, %esi\n mov $1f+7, %edi\n mov $8, %ecx\n rep movsb\n 1: .fill 8, 1, 0x90\n"
                "cld\n movl $0x90909090, 1b\n movl $0x90909090, 1b+4\n")
CASE(stos, "cld\n mov $0x40404040, %eax\n mov $1f, %edi\n mov $3, %ecx\n rep stosl\n 1: .fill 12, 1, 0x90\n"
           "movl $0x90909090, 1b\n movl $0x90909090, 1b+4\n movl $0x90909090, 1b+8\n")
CASE(stos_pages, "cld\n mov $0x40, %al\n mov $wide, %edi\n mov $8192, %ecx\n rep stosb\n xor %eax, %eax\n"
                 "call wide+8150\n movb $0xc3, wide+8192\n")

/* --- vector and floating-point stores --- */
CASE(movups, "movups eight_incs, %xmm0\n movups %xmm0, 1f\n 1: " NOPS16 "movaps 2f, %xmm1\n movups %xmm1, 1b\n"
             "ret\n .p2align 4\n 2: " NOPS16)
CASE(movaps, "movaps eight_incs, %xmm0\n movaps %xmm0, 1f\n jmp 1f\n .p2align 4\n 1: " NOPS16
             "movaps 2f, %xmm1\n movaps %xmm1, 1b\n ret\n .p2align 4\n 2: " NOPS16)
CASE(movnti, "mov $0x40404040, %ecx\n movnti %ecx, 1f\n 1: nop\n nop\n nop\n nop\n movl $0x90909090, 1b\n")
CASE(movq, "movq eight_incs, %mm0\n movq %mm0, 1f\n emms\n 1: .fill 8, 1, 0x90\n movl $0x90909090, 1b\n movl $0x90909090, 1b+4\n")
CASE(movss, "movss eight_incs, %xmm0\n movss %xmm0, 1f\n 1: nop\n nop\n nop\n nop\n movl $0x90909090, 1b\n")
CASE(masked, "movups eight_incs, %xmm0\n movups all_ones, %xmm1\n mov $1f, %edi\n maskmovdqu %xmm1, %xmm0\n 1: " NOPS16
             "movaps 2f, %xmm1\n movups %xmm1, 1b\n ret\n .p2align 4\n 2: " NOPS16)
CASE(fst, "flds eight_incs\n fstps 1f\n 1: nop\n nop\n nop\n nop\n movl $0x90909090, 1b\n")
CASE(fstt, "fldt eight_incs\n fstpt 1f\n 1: .fill 10, 1, 0x90\n movl $0x90909090, 1b\n movl $0x90909090, 1b+4\n movw $0x9090, 1b+8\n")
CASE(fist, "movl $0x40904040, scratch\n fildl scratch\n fistpl 1f\n 1: nop\n nop\n nop\n nop\n movl $0x90909090, 1b\n")
CASE(control_word, "fninit\n fnstcw 1f+1\n 1: mov $0, %eax\n movl $0, 1b+1\n")
CASE(environment, "fninit\n fnstenv 1f+5\n mov 1f+5, %eax\n add 1f+13, %eax\n 1: jmp 2f\n .fill 32, 1, 0x90\n 2: add $1, %eax\n")
CASE(state, "fninit\n fld1\n fnsave 1f+5\n mov 1f+5, %eax\n add 1f+13, %eax\n 1: jmp 2f\n .fill 130, 1, 0x90\n 2: add $1, %eax\n")

/* --- pages --- */
__asm__(".section .rewrite,\"ax\",@progbits\n .p2align 12\n .globl wide\nwide:\n .fill 8192, 1, 0x90\n ret\n .p2align 12\n"
        /* mov $imm32 starts two bytes before the page's end */
        ".fill 4094, 1, 0x90\n .globl straddle\nstraddle:\n mov $1, %eax\n ret\n"
        /* and a plain fall from one page into the next */
        ".p2align 12\n .fill 4088, 1, 0x90\n .globl fall\nfall:\n .fill 8, 1, 0x90\n .globl second\nsecond:\n mov $1, %eax\n ret\n"
        /* a call at the end of a page; flags are dead behind it until the next page's code changes */
        ".p2align 12\n .fill 4091, 1, 0x90\n .globl caller\ncaller:\n call setter\n .globl returned\nreturned:\n"
        " xor %eax, %eax\n ret\n .globl setter\nsetter: stc\n ret\n .p2align 12\n .text\n");
CASE(straddling, "movl $0x01020304, straddle+1\n call straddle\n movl $1, straddle+1\n add %eax, %ecx\n call straddle\n add %ecx, %eax\n")
CASE(second_half, "call straddle\n mov %eax, %ecx\n movb $3, straddle+3\n call straddle\n add %ecx, %eax\n movb $0, straddle+3\n")
CASE(first_half, "call straddle\n mov %eax, %ecx\n movb $6, straddle+1\n call straddle\n add %ecx, %eax\n movb $1, straddle+1\n")
CASE(falling, "call fall\n mov %eax, %ecx\n movb $9, second+1\n call fall\n lea (%eax,%ecx,8), %eax\n movb $1, second+1\n")
CASE(lookahead, "call caller\n mov %eax, %ecx\n movb $0x19, returned\n call caller\n movb $0x31, returned\n")

/* --- returns --- */
CASE(flags_across, "call setter\n movb $0x19, 1f\n 1: xor %eax, %eax\n movb $0x31, 1b\n")
CASE(return_site, "call 2f\n 1: mov $1, %eax\n movb $1, 1b+1\n ret\n 2: movb $8, 1b+1\n ret\n")
CASE(deep_returns, "call 2f\n 1: add $1, %eax\n movb $1, 1b+2\n ret\n 2: call 3f\n add $16, %eax\n ret\n"
                   "3: call 4f\n add $32, %eax\n ret\n 4: addb $2, 1b+2\n ret\n")

/* --- in the middle --- */
CASE(overlap, "movb $0x2a, 1f+2\n jmp 1f+1\n 1: .byte 0xb8, 0xb0, 1, 0xc3, 0x90\n")
CASE(both_ways, "call 1f\n mov %eax, %ecx\n movb $0x2b, 1f+2\n call 1f+1\n movzbl %al, %eax\n add %ecx, %eax\n movb $1, 1f+2\n ret\n"
                "1: .byte 0xb8, 0xb0, 1, 0xc3, 0x90\n ret\n")

/* --- code beside data that it writes --- */
CASE(counter, "mov $300, %ecx\n 1: incl 2f\n addl %ecx, 2f+4\n dec %ecx\n jnz 1b\n mov 2f, %eax\n add 2f+4, %eax\n"
              "movl $0, 2f\n movl $0, 2f+4\n ret\n 2: .long 0, 0\n")
CASE(decrypt, "mov $2f, %esi\n mov $3f-2f, %ecx\n 1: xorb $0x55, (%esi)\n inc %esi\n loop 1b\n jmp 2f\n"
              "2: .byte 0xb8^0x55, 0x21^0x55, 0x43^0x55, 0x65^0x55, 0x55, 0x90^0x55\n 3: mov $2b, %esi\n mov $3b-2b, %ecx\n"
              "4: xorb $0x55, (%esi)\n inc %esi\n loop 4b\n")

/* 32 bytes at once; the upper half of the register is still there afterwards. */
CASE(avx, "vmovups twice_eight_incs, %ymm0\n vmovups %ymm0, 1f\n 1: .fill 32, 1, 0x90\n vextractf128 $1, %ymm0, %xmm1\n"
          "vmovd %xmm1, %ecx\n add %ecx, %eax\n vmovups 2f, %ymm2\n vmovups %ymm2, 1b\n vzeroupper\n ret\n"
          ".p2align 5\n 2: .fill 32, 1, 0x90\n")

static int has_avx(void) { /* and the system keeps its registers */
    uint32_t a = 1, b, c, d;
    __asm__("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
    return (c >> 27 & 3) == 3;
}

/* The host writes 8 zero bytes (the old signal mask) over a displacement and an immediate. */
CASE(system_call, "movl $3, scratch\n mov $scratch, %ebp\n mov $175, %eax\n xor %ebx, %ebx\n xor %ecx, %ecx\n mov $1f+2, %edx\n"
                  "mov $8, %esi\n int $0x80\n 1: .byte 0x69, 0x85, 4, 0, 0, 0, 5, 0, 0, 0\n movb $4, 1b+2\n movb $5, 1b+6\n")

uint32_t enter_case(uint32_t (*code)(void));
__asm__(".globl enter_case\nenter_case:\n push %ebp\n push %ebx\n push %esi\n push %edi\n mov 20(%esp), %edi\n xor %eax, %eax\n"
        "xor %ecx, %ecx\n xor %edx, %edx\n xor %ebx, %ebx\n xor %ebp, %ebp\n call *%edi\n pop %edi\n pop %esi\n pop %ebx\n pop %ebp\n ret\n");

static const struct { const char *name; uint32_t (*code)(void); } cases[] = {
#define ROW(name) {#name, case_##name}
    ROW(immediate), ROW(opcode), ROW(prefix), ROW(own_bytes), ROW(behind_a_jump), ROW(conditional), ROW(backwards),
    ROW(target), ROW(word), ROW(push), ROW(push_register), ROW(push_flags), ROW(pusha), ROW(enter), ROW(call),
    ROW(call_away), ROW(call_indirect), ROW(pop_memory), ROW(exchange), ROW(high_byte), ROW(locked_add),
    ROW(exchange_add), ROW(compare_exchange), ROW(compare_exchange8), ROW(bit_set), ROW(bit_string),
    ROW(set_condition), ROW(shift), ROW(double_shift), ROW(movs), ROW(movs_down), ROW(stos), ROW(stos_pages),
    ROW(movups), ROW(movaps), ROW(movnti), ROW(movq), ROW(movss), ROW(masked), ROW(fst), ROW(fstt), ROW(fist),
    ROW(control_word), ROW(environment), ROW(state), ROW(straddling), ROW(second_half), ROW(first_half), ROW(falling),
    ROW(lookahead), ROW(flags_across), ROW(return_site), ROW(deep_returns), ROW(overlap), ROW(both_ways), ROW(counter), ROW(decrypt),
    ROW(system_call),
};

/* --- code at fresh addresses --------------------------------------------------------------------- */

static void put_mov(uint8_t *at, uint32_t value) {
    at[0] = 0xb8;
    *(volatile uint32_t *)(at + 1) = value;
    at[5] = 0xc3;
}

static uint32_t run(const uint8_t *at) { return enter_case((uint32_t (*)(void))(uintptr_t)at); }

static uint32_t run_put(uint8_t *at, uint32_t value) {
    put_mov(at, value);
    return run(at);
}

static uint8_t *pages(uint32_t count, uint32_t prot) {
    int32_t at = call6(SYS_mmap2, 0, count * PAGE, prot, PRIVATE_ANONYMOUS, (uint32_t)-1);
    NEED(at > 0 || at < -4095);
    return (uint8_t *)(uintptr_t)(uint32_t)at;
}

static void protect(const void *at, uint32_t prot) { NEED(call6(SYS_mprotect, (uint32_t)at, PAGE, prot, 0, 0) == 0); }

/* A just-in-time compiler's day: new code beside old, old code patched, rights taken and given. */
static void just_in_time(void) {
    uint8_t *code = pages(4, RWX);
    uint32_t sum = 0;
    for (uint32_t i = 0; i < 500; i++) {
        put_mov(code + 16 * i % (4 * PAGE - 16), i);
        sum += run(code + 16 * i % (4 * PAGE - 16)) + run(code + 16 * (i / 2));
    }
    for (uint32_t i = 0; i < 200; i++) {
        code[1] = (uint8_t)i;
        sum = sum * 3 + run(code);
    }
    print("written and run", sum);
    for (uint32_t i = 0; i < 50; i++) {
        protect(code, RW);
        put_mov(code, i * i);
        protect(code, i & 1 ? RX : X);
        sum = sum * 5 + run(code);
    }
    print("protected and run", sum);
}

static void mapped_over(void) {
    uint8_t *code = pages(2, RWX);
    uint32_t sum = 0;
    for (uint32_t i = 0; i < 20; i++) {
        put_mov(code + PAGE - 3, i); /* across both pages */
        sum = sum * 3 + run(code + PAGE - 3);
        int32_t at = call6(SYS_mmap2, (uint32_t)code + (i & 1) * PAGE, PAGE, RWX, PRIVATE_ANONYMOUS | FIXED, (uint32_t)-1);
        NEED((uint32_t)at == (uint32_t)code + (i & 1) * PAGE);
        if (i & 1)
            code[PAGE + 2] = 0xc3; /* mov $0x0000??, %eax; ret */
        else
            put_mov(code + PAGE - 3, i);
        sum = sum * 3 + run(code + PAGE - 3);
    }
    print("mapped over", sum);
    NEED(call6(SYS_munmap, (uint32_t)code, PAGE, 0, 0, 0) == 0);
    int32_t at = call6(SYS_mmap2, (uint32_t)code, PAGE, RWX, PRIVATE_ANONYMOUS | FIXED, (uint32_t)-1);
    NEED((uint32_t)at == (uint32_t)code);
    put_mov(code + 64, 77);
    print("unmapped and mapped", run(code + 64));
}

static void moved_and_emptied(void) {
    uint8_t *code = pages(2, RWX), *behind = pages(1, RWX);
    uint32_t sum = 0;
    for (uint32_t i = 0; i < 10; i++) {
        put_mov(code + 64, i);
        sum = sum * 3 + run(code + 64);
        int32_t at = call6(SYS_mremap, (uint32_t)code, 2 * PAGE, (i & 1 ? 1 : 64) * PAGE, 1, 0);
        NEED(at > 0 || at < -4095);
        code = (uint8_t *)(uintptr_t)(uint32_t)at;
        sum = sum * 3 + run(code + 64);
        code[65] = (uint8_t)(i + 50);
        sum = sum * 3 + run(code + 64);
        at = call6(SYS_mremap, (uint32_t)code, (i & 1 ? 1 : 64) * PAGE, 2 * PAGE, 1, 0);
        NEED(at > 0 || at < -4095);
        code = (uint8_t *)(uintptr_t)(uint32_t)at;
        NEED(call6(SYS_madvise, (uint32_t)code, PAGE, 4, 0, 0) == 0);
        code[69] = 0xc3, code[64] = 0x05; /* add $0, %eax */
        sum = sum * 3 + run(code + 64) + run_put(behind, i);
    }
    print("moved and emptied", sum);
}

static void at_the_break(void) {
    uint32_t start = ((uint32_t)call6(SYS_brk, 0, 0, 0, 0, 0) + PAGE - 1) & ~(PAGE - 1u), sum = 0;
    for (uint32_t i = 0; i < 10; i++) {
        NEED((uint32_t)call6(SYS_brk, start + PAGE, 0, 0, 0, 0) == start + PAGE);
        protect((void *)(uintptr_t)start, RWX);
        uint8_t *code = (uint8_t *)(uintptr_t)start;
        sum += code[0];
        code[1] = 0xc0, code[2] = 0xc3; /* add %al, %al; ret: where a mov stood */
        sum = sum * 3 + run(code);
        put_mov(code, i + 1);
        sum = sum * 3 + run(code);
        NEED((uint32_t)call6(SYS_brk, start, 0, 0, 0, 0) == start);
    }
    print("break", sum);
}

/* A call to itself whose return address, the bytes c3 c3 00 20, takes the place of the call. */
static void call_itself(void) {
    const uint32_t at = 0x2000c3be;
    NEED((uint32_t)call6(SYS_mmap2, at & ~(PAGE - 1u), PAGE, RWX, PRIVATE_ANONYMOUS | FIXED, (uint32_t)-1) == 0x2000c000);
    uint32_t result = 0;
    for (uint32_t i = 0; i < 5; i++) {
        static const uint8_t code[] = {0xe8, 0xfb, 0xff, 0xff, 0xff, 0x40, 0x89, 0xcc, 0xc3}; /* ...; inc eax; mov esp, ecx; ret */
        for (uint32_t j = 0; j < sizeof code; j++)
            ((volatile uint8_t *)(uintptr_t)at)[j] = code[j];
        __asm__ volatile("call 1f\n jmp 2f\n 1: mov %%esp, %%ecx\n mov %1, %%esp\n jmp *%2\n 2:\n"
                         : "+a"(result) : "r"(at + 4), "r"(at) : "ecx", "memory", "cc");
    }
    print("call itself", result);
}

static __attribute__((noinline)) uint32_t on_the_stack(uint32_t depth) {
    uint8_t code[32];
    put_mov(code, depth);
    uint32_t here = run(code), below = depth == 0 ? 0 : on_the_stack(depth - 1);
    put_mov(code, here + below);
    return run(code);
}

static void copies_of_a_loop(void) {
    uint8_t *code = pages(16, RWX);
    uint32_t sum = 0;
    for (uint32_t round = 0; round < 4; round++)
        for (uint32_t page = 0; page < 16; page++) {
            put_mov(code + page * PAGE + PAGE - 3 - (page == 15) * 8, round * 100 + page);
            for (uint32_t other = 0; other <= page; other++)
                sum = sum * 3 + run(code + other * PAGE + PAGE - 3 - (other == 15) * 8);
        }
    print("many pages", sum);
}

extern uint8_t rewrite_start[], rewrite_end[];
__asm__(".section .rewrite,\"ax\",@progbits\n .p2align 12\n .globl rewrite_start\nrewrite_start:\n .fill 64, 1, 0xcc\n .text\n");

void start(void) __attribute__((used, noreturn));
void start(void) {
    uint32_t first = (uint32_t)cases[0].code & ~(PAGE - 1u);
    uint32_t here; /* the stack becomes executable where it is used */
    NEED(call6(SYS_mprotect, first, (uint32_t)rewrite_start - first, RWX, 0, 0) == 0);
    NEED(call6(SYS_mprotect, ((uint32_t)&here & ~(PAGE - 1u)) - 3 * PAGE, 4 * PAGE, RWX, 0, 0) == 0);
    for (uint32_t round = 0; round < 3; round++)
        for (uint32_t i = 0; i < sizeof cases / sizeof *cases; i++)
            print(cases[i].name, enter_case(cases[i].code));
    if (has_avx())
        for (uint32_t round = 0; round < 3; round++)
            print("avx", enter_case(case_avx));
    just_in_time();
    mapped_over();
    moved_and_emptied();
    at_the_break();
    call_itself();
    print("on the stack", on_the_stack(20));
    copies_of_a_loop();
    for (;;)
        call6(SYS_exit, 0, 0, 0, 0, 0);
}
__asm__(".globl _start\n_start:\n and $-16, %esp\n call start\n");
