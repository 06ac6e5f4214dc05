/* Hostile guests: one export per attack, named after it; corpus.py says how each must end. */
#include <vxplug.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAKED(name, code) \
    VX_EXPORT __attribute__((naked)) void name(void) { __asm__ volatile(code); }

/* --- decoding --- */
NAKED(too_long, ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90; ret")
NAKED(both_reps, ".byte 0xf2,0xf3,0xa4; ret")
NAKED(lock_register, ".byte 0xf0,0x01,0xc0; ret")
NAKED(lock_unlockable, ".byte 0xf0,0x89,0x04,0x24; ret")
/* les and lds when a memory operand follows, VEX when not; bound and EVEX likewise. */
NAKED(vex_lds, ".byte 0xc5,0x78,0x77; ret")
NAKED(vex_map, ".byte 0xc4,0xe7,0x7b,0xf8,0xc0,1,0,0,0; ret")   /* map 7: urdmsr */
NAKED(vex_amx, ".byte 0xc4,0xe2,0x78,0x49,0xc0; ret")           /* tilerelease */
NAKED(vex_prefixed, ".byte 0x66,0xc5,0xf8,0x28,0xc1; ret")
NAKED(vex_wide, ".byte 0xc4,0xe1,0xf9,0x6e,0xc0; ret")          /* vmovq xmm0, rax of 64-bit mode */
NAKED(evex_map, ".byte 0x62,0xf4,0x7c,0x18,0x58,0xc0; ret")     /* map 4: APX */
NAKED(evex_reserved, ".byte 0x62,0xf9,0x7c,0x48,0x58,0xc0; ret")
NAKED(xop, ".byte 0x8f,0xe9,0x78,0xe1,0xc0; ret")
NAKED(ret16, ".byte 0x66,0xc3")
NAKED(jmp16, ".byte 0x66,0xe9,0x00,0x00; ret")
NAKED(ud2, "ud2")
NAKED(ud0, ".byte 0x0f,0xff,0xc0")
/* 0x40 is inc eax here and a REX prefix in 64-bit mode: rex.w add would be a 64-bit add. */
VX_EXPORT __attribute__((naked)) uint32_t rex_bytes(void) {
    __asm__ volatile("xor %eax,%eax; .byte 0x48,0x05,0x01,0x00,0x00,0x00; ret"); /* dec eax; add eax,1 */
}
/* jumps into the middle of `mov eax, 0x90c3f4b0`: b0 f4 is mov al, 0xf4; c3 is ret */
VX_EXPORT __attribute__((naked)) uint32_t middle_of_instruction(void) {
    __asm__ volatile("xor %eax,%eax; jmp 1f+1; 1: .byte 0xb8,0xb0,0x2a,0xc3,0x90; ret");
}

/* --- addresses --- */
VX_EXPORT uint32_t read_at(uint32_t address) { return *(volatile uint8_t *)address; }
VX_EXPORT void write_at(uint32_t address) { *(volatile uint8_t *)address = 1; }
VX_EXPORT uint32_t read_wide(uint32_t address) { return (uint32_t) * (volatile uint64_t *)address; }
VX_EXPORT uint32_t read_indexed(uint32_t base, uint32_t index) {
    uint32_t value;
    __asm__ volatile("movzbl 0x7fffffff(%1,%2,8), %0" : "=r"(value) : "r"(base), "r"(index));
    return value;
}
/* A register and a displacement, up and down: the largest that are near, the smallest and the largest that are not. */
#define NEAR(name, displacement) \
    VX_EXPORT uint32_t read_##name(uint32_t address) { \
        uint32_t value; \
        __asm__ volatile("movzbl " displacement "(%1), %0" : "=r"(value) : "r"(address)); \
        return value; \
    }
NEAR(near_up, "0xffc0")
NEAR(far_up, "0xffc1")
NEAR(near_down, "-0x10000")
NEAR(far_down, "-0x10001")
NEAR(farthest_up, "0x7fffffff")
NEAR(farthest_down, "-0x80000000")
VX_EXPORT void bit_string(uint32_t address, uint32_t bit) {
    __asm__ volatile("btsl %1, (%0)" : : "r"(address), "r"(bit) : "memory", "cc");
}
VX_EXPORT void copy_down(uint32_t to, uint32_t from, uint32_t count) {
    __asm__ volatile("std; rep movsb; cld" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}
VX_EXPORT void fill_up(uint32_t to, uint32_t count) {
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(0) : "memory");
}
VX_EXPORT void scan(uint32_t at, uint32_t count) {
    __asm__ volatile("repne scasb" : "+D"(at), "+c"(count) : "a"(0x1234) : "memory", "cc");
}
/* One after the other: what the first leaves in edi is the second's. */
VX_EXPORT uint32_t strings_in_turn(void) {
    static uint8_t out[8];
    uint8_t *to = out;
    __asm__ volatile("stosb; stosb; stosw; stosl" : "+D"(to) : "a"(0x01010101) : "memory");
    return (uint32_t)(to - out) + out[0] + out[7];
}
VX_EXPORT void masked_move(uint32_t at) {
    __asm__ volatile("pcmpeqb %%xmm0, %%xmm0; maskmovdqu %%xmm0, %%xmm0" : : "D"(at) : "memory", "xmm0");
}
VX_EXPORT void translate_byte(uint32_t table) {
    __asm__ volatile("xlatb" : : "b"(table), "a"(0) : "memory");
}
VX_EXPORT void exchange8(uint32_t at) {
    __asm__ volatile("lock cmpxchg8b (%0)" : : "r"(at), "a"(0), "d"(0), "S"(0) : "memory", "cc", "ebx", "ecx");
}
VX_EXPORT void fs_access(void) { __asm__ volatile("movl %fs:0, %eax"); }
NAKED(esp_null, "xor %esp,%esp; push %eax; ret")
NAKED(esp_top, "mov $0xfffffffc,%esp; pop %eax; pop %eax; ret")
NAKED(pusha_null, "mov $8,%esp; pusha; ret")
NAKED(enter_wild, "mov $0x12345678,%ebp; enter $16,$31; ret")
NAKED(leave_wild, "mov $0xdead0000,%ebp; leave; ret")

/* --- privilege --- */
#define REFUSED(name, bytes) NAKED(name, ".byte " bytes "; ret")
REFUSED(far_call, "0x9a,0,0,0,0,0x33,0")
REFUSED(far_jump, "0xea,0,0,0,0,0x33,0")
REFUSED(far_return, "0xcb")
REFUSED(iret, "0xcf")
REFUSED(push_cs, "0x0e")
REFUSED(load_ds, "0x1f")
REFUSED(les, "0xc4,0x00")
REFUSED(hlt, "0xf4")
REFUSED(cli, "0xfa")
REFUSED(in_port, "0xec")
REFUSED(outs_port, "0xf3,0x6e")
REFUSED(sysenter, "0x0f,0x34")
REFUSED(syscall_insn, "0x0f,0x05")
REFUSED(rdmsr, "0x0f,0x32")
REFUSED(rdtsc, "0x0f,0x31")
REFUSED(rdtscp, "0x0f,0x01,0xf9")
REFUSED(sgdt, "0x0f,0x01,0x04,0x24")
REFUSED(xsetbv, "0x0f,0x01,0xd1")
REFUSED(wrpkru, "0x0f,0x01,0xef")
REFUSED(sldt, "0x0f,0x00,0xc0")
REFUSED(lar, "0x0f,0x02,0xc0")
REFUSED(mov_cr, "0x0f,0x20,0xc0")
REFUSED(clflush, "0x0f,0xae,0x38")
REFUSED(xsave, "0x0f,0xae,0x20")
REFUSED(rdfsbase, "0xf3,0x0f,0xae,0xc0")
REFUSED(wrgsbase, "0xf3,0x0f,0xae,0xd8")
REFUSED(rdrand, "0x0f,0xc7,0xf0")
REFUSED(int1, "0xf1")
NAKED(mov_gs, "mov $0x2b,%eax; mov %eax,%gs; ret")
NAKED(int3, "int3; ret")
NAKED(int_any, "int $0x2e; ret")
NAKED(into_set, "mov $0x7fffffff,%eax; inc %eax; into; ret")
VX_EXPORT uint32_t hostcall_unknown(uint32_t n) {
    uint32_t result;
    __asm__ volatile("int $0x30" : "=a"(result) : "0"(n) : "memory");
    return result;
}

/* --- state --- */
NAKED(align_check, "pushl $0x40202; popfl; mov %esp,%eax; movl 1(%eax),%ecx; ret")
NAKED(trap_flag, "pushl $0x302; popfl; nop; nop; ret")
VX_EXPORT __attribute__((naked)) uint32_t flags_after_popf(void) {
    __asm__ volatile("pushl $-1; popfl; pushfl; popl %eax; cld; ret");
}
NAKED(direction_left_set, "std; ret")
NAKED(id_left_set, "pushfl; orl $0x200000,(%esp); popfl; xor %eax,%eax; ret")
NAKED(id_left_at_fault, "pushfl; orl $0x200000,(%esp); popfl; ud2")
NAKED(id_left_at_timeout, "pushfl; orl $0x200000,(%esp); popfl; 1: jmp 1b")
VX_EXPORT __attribute__((naked)) uint32_t id_seen(void) { __asm__ volatile("pushfl; popl %eax; ret"); }
NAKED(x87_left_full, "fld1; fld1; fld1; fld1; fld1; fld1; fld1; fld1; ret")
NAKED(mmx_left_on, "pcmpeqb %mm0,%mm0; ret")
VX_EXPORT void control_words(void) {
    uint16_t cw = 0x0c7f & ~0x300;
    uint32_t mxcsr = 0xff80;
    __asm__ volatile("fldcw %0; ldmxcsr %1" : : "m"(cw), "m"(mxcsr));
}
VX_EXPORT void unmasked_sse(void) {
    uint32_t mxcsr = 0x1f80 & ~0x200;
    __asm__ volatile("ldmxcsr %0; xorps %%xmm0,%%xmm0; pcmpeqd %%xmm1,%%xmm1; psrld $25,%%xmm1; pslld $23,%%xmm1;"
                     "divss %%xmm0,%%xmm1" : : "m"(mxcsr) : "xmm0", "xmm1");
}
VX_EXPORT void unmasked_x87(void) {
    uint16_t cw = 0x37f & ~4;
    __asm__ volatile("fldcw %0; fld1; fldz; fdivrp; fwait" : : "m"(cw));
}
VX_EXPORT vx_bytes environment(void) {
    static uint8_t out[512 + 28 + 16];
    uint8_t *fx = (uint8_t *)(((uintptr_t)out + 15) & ~15u);
    __asm__ volatile("fld1; fstp %%st(0); fnstenv %0; fxsave %1" : "=m"(*(char(*)[28])(fx + 512)), "=m"(*(char(*)[512])fx));
    return vx_borrow(fx, 512 + 28);
}
VX_EXPORT void fill_vectors(void) {
    static const uint8_t in[16] = {0xa5, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    __asm__ volatile("movups (%0),%%xmm0; movups (%0),%%xmm1; movups (%0),%%xmm2; movups (%0),%%xmm3;"
                     "movups (%0),%%xmm4; movups (%0),%%xmm5; movups (%0),%%xmm6; movups (%0),%%xmm7"
                     : : "r"(in) : "memory");
}
VX_EXPORT vx_bytes stale_vectors(void) {
    static uint8_t out[128];
    __asm__ volatile("movups %%xmm0,(%0); movups %%xmm1,16(%0); movups %%xmm2,32(%0); movups %%xmm3,48(%0);"
                     "movups %%xmm4,64(%0); movups %%xmm5,80(%0); movups %%xmm6,96(%0); movups %%xmm7,112(%0)"
                     : : "r"(out) : "memory");
    return vx_borrow(out, sizeof out);
}

/* --- code --- */
VX_EXPORT void jump_to(uint32_t address) { ((void (*)(void))address)(); }
VX_EXPORT void jump_to_data(void) { static uint8_t code[] = {0xc3}; ((void (*)(void))code)(); }
VX_EXPORT void write_code(void) { *(volatile uint8_t *)write_code = 0xc3; }
NAKED(forged_return, "movl $0x10, (%esp); ret")
VX_EXPORT __attribute__((naked)) uint32_t unbalanced_returns(void) {
    __asm__ volatile("pushl $1f; pushl $1f; pushl $1f; ret; 1: inc %edx; cmp $3,%edx; jb 2f; mov %edx,%eax; ret; 2: ret");
}
/* Returns to elsewhere than to behind the call, where all flags are read, the carry alone, and none. */
#define ELSEWHERE(behind, there) \
    "xor %eax,%eax; stc; call 1f; " behind "; add $10,%eax; ret; 1: movl $2f,(%esp); mov %ecx,%ecx; ret; 2: " there "; ret"
VX_EXPORT __attribute__((naked)) uint32_t elsewhere_all_flags(void) { __asm__ volatile(ELSEWHERE("cmovbe %ecx,%ecx", "adc $20,%eax")); }
VX_EXPORT __attribute__((naked)) uint32_t elsewhere_carry(void) { __asm__ volatile(ELSEWHERE("adc $0,%eax", "adc $20,%eax")); }
VX_EXPORT __attribute__((naked)) uint32_t elsewhere_no_flags(void) { __asm__ volatile(ELSEWHERE("xor %eax,%eax", "add $21,%eax")); }
VX_EXPORT uint32_t calls_without_return(uint32_t n) {
    uint32_t count = 0;
    __asm__ volatile("1: call 2f; 2: addl $4,%%esp; jmp 3f; 3: call 4f; nop; 4: addl $4,%%esp; incl %0; cmpl %1,%0; jb 1b"
                     : "+r"(count) : "r"(n) : "memory", "cc");
    return count;
}
/* What would be popped above the host-side stack is the state: the nops keep the translator from taking `ret` for a jump. */
VX_EXPORT uint32_t returns_without_call(uint32_t n) {
    uint32_t count = 0;
    __asm__ volatile("1: push $2f; nop; nop; ret; 2: incl %0; cmpl %1,%0; jb 1b" : "+r"(count) : "r"(n) : "memory", "cc");
    return count;
}
static jmp_buf target;
static __attribute__((noinline)) void leap(uint32_t depth) { depth ? leap(depth - 1) : longjmp(target, 1); __asm__ volatile(""); }
VX_EXPORT uint32_t longjmp_storm(uint32_t n) {
    volatile uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++)
        if (setjmp(target) == 0)
            leap(7);
        else
            count++;
    return count;
}
static __attribute__((noinline)) uint32_t deeper(uint32_t n) {
    uint32_t below = n == 0 ? 0 : deeper(n - 1);
    __asm__ volatile("" : "+r"(below));
    return below + 1;
}
VX_EXPORT uint32_t recursion(uint32_t depth) { return deeper(depth); }
/* An entry at every byte of the text: overlapping code without end.  Each faults or returns. */
VX_EXPORT uint32_t text_start(void) { return (uint32_t)text_start; }

/* --- time and memory --- */
VX_EXPORT void endless(void) { for (;;) __asm__ volatile(""); }
NAKED(endless_self, "1: jmp 1b")
NAKED(endless_indirect, "call 1f; 1: pop %eax; push %eax; jmp *%eax")
VX_EXPORT void endless_string(void) {
    static uint8_t block[1 << 20];
    for (;;)
        memset(block, 1, sizeof block);
}
VX_EXPORT void endless_output(void) { for (;;) puts("flood"); }
VX_EXPORT uint32_t memory_bomb(void) {
    uint32_t total = 0;
    for (char *block; (block = malloc(1 << 20)) != NULL; total++) {
        memset(block, 1, 1 << 20);
        __asm__ volatile("" : : "r"(block) : "memory"); /* the compiler may drop unused blocks */
    }
    return total;
}

/* --- system calls --- */
VX_EXPORT int32_t linux_call(uint32_t n, uint32_t b, uint32_t c, uint32_t d, uint32_t s, uint32_t di) {
    int32_t result;
    __asm__ volatile("int $0x80" : "=a"(result) : "0"(n), "b"(b), "c"(c), "d"(d), "S"(s), "D"(di) : "memory");
    return result;
}
VX_EXPORT void quit(int32_t code) { exit(code); }
VX_EXPORT void give_up(void) { abort(); }
VX_EXPORT uint32_t here(void) { return (uint32_t)here; }
VX_EXPORT uint32_t stack_here(void) { uint32_t x; return (uint32_t)&x & ~4095u; }

/* --- the boundary --- */
VX_EXPORT vx_bytes forged_bytes(uint32_t at, uint32_t size, uint32_t owner) {
    vx_bytes bytes = {(void *)at, size, owner};
    return bytes;
}
VX_EXPORT const char *forged_text(uint32_t at) { return (const char *)at; }
VX_EXPORT const char *bad_utf8(void) { return "\xff\xfe"; }
VX_EXPORT const char *no_text(void) { return NULL; }
VX_EXPORT int32_t forged_raise(uint32_t name, uint32_t name_size, uint32_t text, uint32_t size) {
    int32_t result;
    __asm__ volatile("int $0x30" : "=a"(result) : "0"(1), "b"(name), "c"(name_size), "d"(text), "S"(size) : "memory");
    return result;
}
/* All of it readable, and far longer than the host's buffer. */
VX_EXPORT int32_t long_name_raised(void) {
    static char name[1 << 16];
    memset(name, 'x', sizeof name);
    return forged_raise((uint32_t)name, sizeof name, (uint32_t)name, 1);
}
VX_EXPORT int32_t raise_named(const char *name) { vx_raise_(name, "%s", "text with %s and \x1b[2J"); return 0; }
VX_EXPORT uint32_t scribble(vx_view data) { memset((void *)data.ptr, 0xee, data.len); return (uint32_t)data.len; }
static char canary[64];
VX_EXPORT void leave_canary(void) { memcpy(canary, "secret of one tenant", 21); char *h = malloc(64); memcpy(h, "secret", 7); }
VX_EXPORT bool find_canary(void) { return canary[0] != 0; }
/* What the kernel keeps for a process: its break, and pages beyond those of a fresh one. */
static uint32_t kernel_call(uint32_t number, uint32_t a, uint32_t b, uint32_t c) {
    uint32_t result;
    __asm__ volatile("int $0x80" : "=a"(result) : "0"(number), "b"(a), "c"(b), "d"(c), "S"(0x32), "D"(-1) : "memory");
    return result;
}
VX_EXPORT uint32_t break_now(void) { return kernel_call(45, 0, 0, 0); }
VX_EXPORT uint32_t move_break(uint32_t to) { return kernel_call(45, to, 0, 0); }
/* mmap2, fixed; then a secret there. */
VX_EXPORT bool leave_page(uint32_t at) {
    uint32_t page = kernel_call(192, at, 0x1000, 3);
    if (page == at)
        memcpy((void *)page, "secret", 7);
    return page == at;
}
VX_EXPORT uint32_t checksum(vx_view data) {
    uint32_t crc = ~0u;
    for (size_t i = 0; i < data.len; i++) {
        crc ^= ((const uint8_t *)data.ptr)[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return ~crc;
}

/* --- more of the catalogue --- */
/* String instructions that wrap, or fault half way: registers tell how far they came. */
VX_EXPORT void move_into_guard(uint32_t to, uint32_t count) {
    static uint8_t from[4096];
    uint8_t *source = from;
    __asm__ volatile("rep movsl" : "+D"(to), "+S"(source), "+c"(count) : : "memory");
}
VX_EXPORT uint32_t compare_over_the_end(uint32_t at, uint32_t count) {
    uint32_t low = at; /* equal for ever */
    __asm__ volatile("repe cmpsb" : "+D"(low), "+S"(at), "+c"(count) : : "memory", "cc");
    return count;
}
VX_EXPORT void store_down(uint32_t at, uint32_t count) {
    __asm__ volatile("std; rep stosl; cld" : "+D"(at), "+c"(count) : "a"(0) : "memory");
}
/* The stack pointer as a plaything. */
NAKED(pop_esp, "pushl $0x1234; popl %esp; popl %eax; ret")
NAKED(push_word_null, "mov $1,%esp; pushw $5; ret")
NAKED(call_at_null, "mov $2,%esp; call 1f; 1: ret")
NAKED(enter_31_null, "mov $64,%esp; enter $0,$31; ret")
NAKED(leave_top, "mov $0xfffffffe,%ebp; leave; ret")
VX_EXPORT uint32_t esp_games(void) { /* all of it legal: the sum says it went as on the processor */
    uint32_t result;
    __asm__ volatile("mov %%esp,%%edx; lea -64(%%esp),%%esp; pushl %%esp; popl %%eax; lea 64(%%eax),%%eax;"
                     "sub %%edx,%%eax;"                                                /* push pushes the old value */
                     "pushw $7; pushw $0; popl %%ecx; add %%ecx,%%eax;"                /* 0x70000 */
                     "pushl %%edx; popl (%%esp); popl %%ecx; sub %%edx,%%ecx; add %%ecx,%%eax;" /* at the raised esp */
                     "mov %%edx,%%esp" : "=&a"(result) : : "ecx", "edx", "memory", "cc");
    return result;
}
/* A tick while esp points at memory that must stay as it is: no signal frame may land there. */
VX_EXPORT uint32_t stack_untouched_by_signals(uint32_t loops) {
    static uint8_t zeros[16384];
    uint32_t touched = 0;
    __asm__ volatile("mov %%esp,%%edx; mov %0,%%esp; 1: dec %1; jnz 1b; mov %%edx,%%esp"
                     : : "r"(zeros + 8192), "c"(loops) : "edx", "memory", "cc");
    for (uint32_t i = 0; i < sizeof zeros; i++)
        touched += zeros[i] != 0;
    return touched;
}
/* Paints what another sandbox could see, and looks for such paint. */
VX_EXPORT void paint(void) {
    static const uint32_t pattern[4] __attribute__((aligned(16))) = {0xbadc0de5, 0xbadc0de5, 0xbadc0de5, 0xbadc0de5};
    __asm__ volatile("movaps %0,%%xmm0; movaps %0,%%xmm1; movaps %0,%%xmm2; movaps %0,%%xmm3; movaps %0,%%xmm4; movaps %0,%%xmm5;"
                     "movaps %0,%%xmm6; movaps %0,%%xmm7; fninit; flds %0; flds %0; flds %0; flds %0; flds %0; flds %0; flds %0; flds %0;"
                     "movl %0,%%ecx; movl %0,%%edx; movl %0,%%eax" : : "m"(pattern[0]) : "ecx", "edx", "eax");
}
VX_EXPORT __attribute__((naked)) uint32_t registers_seen(void) { /* all general registers but esp, or-ed together */
    __asm__ volatile("or %ecx,%eax; or %edx,%eax; or %ebx,%eax; or %ebp,%eax; or %esi,%eax; or %edi,%eax; ret");
}
VX_EXPORT vx_bytes floats_seen(void) {
    static uint8_t out[512 + 16];
    uint8_t *fx = (uint8_t *)(((uintptr_t)out + 15) & ~15u);
    __asm__ volatile("fxsave %0" : "=m"(*(char(*)[512])fx));
    return vx_borrow(fx, 288);
}
/* An x87 exception is pending when the call ends: the host's next x87 instruction must not get it. */
VX_EXPORT void pending_x87(void) {
    uint16_t cw = 0x37f & ~4;
    __asm__ volatile("fldcw %0; fld1; fldz; fdivrp" : : "m"(cw));
}
VX_EXPORT void prefetch_wild(uint32_t at) { __asm__ volatile("prefetcht0 (%0); prefetchnta (%0)" : : "r"(at)); }
VX_EXPORT uint32_t processor_name(void) {
    uint32_t a = 0, b, c, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
    return b ^ d ^ c;
}
REFUSED(monitor, "0x0f,0x01,0xc8")
REFUSED(mwait, "0x0f,0x01,0xc9")
REFUSED(vmcall, "0x0f,0x01,0xc1")
REFUSED(smsw, "0x0f,0x01,0xe0")
REFUSED(verr, "0x0f,0x00,0xe0")
REFUSED(str, "0x0f,0x00,0xc8")
REFUSED(rdpmc, "0x0f,0x33")
REFUSED(xrstor, "0x0f,0xae,0x28")
REFUSED(xbegin, "0xc7,0xf8,0,0,0,0")
REFUSED(rdpid, "0xf3,0x0f,0xc7,0xf8")
REFUSED(invlpg, "0x0f,0x01,0x38")
/* Sizes that multiply or add past 2^32. */
VX_EXPORT int32_t vectors(uint32_t base, uint32_t size, uint32_t count) {
    uint32_t list[4][2] = {{base, size}, {base, size}, {base, size}, {base, size}};
    return linux_call(146, 1, (uint32_t)list, count, 0, 0);
}
