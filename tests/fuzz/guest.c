/* The guest of the marshalling and loader harnesses: `behave` does what the script says that the host loaded, in
 * the place of whatever function the interface claims it is.  Built with the SDK, debug information included. */
#include <stdlib.h>
#include <string.h>
#include <vxplug.h>

VX_MODULE_DOC("A plugin that does as it is told.");

enum { SCRIPT_MAX = 4096, BUFFER = 4096 };
static unsigned char script[SCRIPT_MAX];
static size_t script_size, at;
static unsigned char buffer[BUFFER];
static void *allocated;
static uint32_t last; /* result of the last call out */

/* What the function returns, in every register a result may be in. */
uint32_t behave_eax, behave_edx, behave_pop;
double behave_st0;

/* Stubs of imports of whatever type the harness says in the note. */
VX_IMPORT(void, lent_first, (void));
VX_IMPORT(void, lent_second, (void));

static uint32_t byte(void) { return at < script_size ? script[at++] : 0; }

static uint32_t word(void) {
    uint32_t value = byte();
    value |= byte() << 8;
    value |= byte() << 16;
    return value | byte() << 24;
}

/* A number: small, whole, or near something that the host or the guest owns. */
static uint32_t number(const uint32_t *frame) {
    uint32_t kind = byte();
    switch (kind & 15) {
    case 0: return byte();
    case 1: return word();
    case 2: return (uint32_t)-(int32_t)byte();
    case 3: return frame[1 + (kind >> 4)];
    case 4: return frame[1 + (kind >> 4)] + byte();
    case 5: return frame[1 + (kind >> 4)] - byte();
    case 6: return (uint32_t)buffer + byte();
    case 7: return (uint32_t)(buffer + BUFFER) - byte();
    case 8: return (uint32_t)allocated;
    case 9: return last;
    case 10: return (uint32_t)&frame[1 + (kind >> 4)];
    case 11: return 0xfffe0000u - byte(); /* the end of the guest's space */
    case 12: return (uint32_t)script;
    case 13: return 1u << (kind >> 4) << (byte() & 16);
    case 14: return kind & 16 ? (uint32_t)lent_first : (uint32_t)behave_eax;
    default: return (frame[1 + (kind >> 4)] + 0xfff) & ~0xfffu;
    }
}

static void call_out(const uint32_t *frame, int host) {
    uint32_t a = host ? byte() % 4 : byte(), b = number(frame), c = number(frame), d = number(frame), s = number(frame);
    uint32_t result, e = number(frame);
    if (host)
        __asm__ volatile("int $0x30" : "=a"(result) : "0"(a), "b"(b), "c"(c), "d"(d), "S"(s), "D"(e) : "memory");
    else
        __asm__ volatile("int $0x80" : "=a"(result) : "0"(a), "b"(b), "c"(c), "d"(d), "S"(s), "D"(e) : "memory");
    last = result;
}

/* A function that is likely one of the host's, with any arguments; whoever pops them, the stack is as before. */
static void call_lent(const uint32_t *frame) {
    uint32_t kind = byte(), function = kind & 1 ? frame[1 + (kind >> 1 & 3)] : number(frame), words[6], result;
    if (kind & 8) function = (uint32_t)(kind & 16 ? lent_first : lent_second);
    for (unsigned i = 0; i < 6; i++) words[i] = number(frame);
    __asm__ volatile("mov %%esp, %%edi\n push 20(%1)\n push 16(%1)\n push 12(%1)\n push 8(%1)\n push 4(%1)\n push (%1)\n"
                     "call *%2\n mov %%edi, %%esp"
                     : "=a"(result) : "b"(words), "S"(function) : "ecx", "edx", "edi", "memory");
    last = result;
}

static void store(const uint32_t *frame) {
    uint32_t *to = (uint32_t *)number(frame);
    *to = number(frame);
}

static void fill(const uint32_t *frame) {
    void *to = (void *)number(frame);
    int value = (int)byte();
    memset(to, value, number(frame) & 0xffff);
}

/* vx_bytes through the hidden pointer. */
static void result_bytes(const uint32_t *frame) {
    uint32_t *to = (uint32_t *)frame[1];
    to[0] = number(frame);
    to[1] = number(frame);
    to[2] = number(frame);
}

/* A name that the host looks up, then any text. */
static void raise_named(const uint32_t *frame) {
    static const char *const names[] = {"ValueError", "KeyError", "UnicodeDecodeError", "SystemExit", "KeyboardInterrupt",
                                        "StopIteration", "ExceptionGroup", "OSError", "MemoryError", "__import__", ""};
    const char *name = names[byte() % (sizeof names / sizeof *names)];
    uint32_t text = number(frame), size = number(frame);
    __asm__ volatile("int $0x30" : : "a"(1), "b"(name), "c"(strlen(name)), "d"(text), "S"(size) : "memory");
}

static void allocate(void) {
    free(allocated);
    allocated = malloc(byte() << (byte() & 15));
}

static void misbehave(void) {
    switch (byte() & 7) {
    case 0: *(volatile int *)0 = 1; break;
    case 1: __builtin_trap();
    case 2: for (;;) __asm__ volatile("");
    case 3: abort();
    case 4: exit((int)byte());
    case 5: __asm__ volatile("mov %%esp, %%ebp; and $0xffff, %%esp; push %%eax" : : : "memory"); break;
    case 6: __asm__ volatile("std; fldz; fldz; fldz; fldz; fldz; fldz; fldz; fldz; fldz"); break;
    default: __asm__ volatile("ldmxcsr %0; fldcw %1" : : "m"((uint32_t){0x9fc0}), "m"((uint16_t){0x40})); break;
    }
}

/* frame[0] is the return address, then come what may be arguments. */
void behave(uint32_t *frame) {
    behave_pop = 0;
    for (unsigned step = 0; step < 64; step++)
        switch (byte() % 15) {
        case 0: return;
        case 1: behave_eax = number(frame); break;
        case 2: behave_edx = number(frame); break;
        case 3: store(frame); break;
        case 4: call_out(frame, 0); break;
        case 5: call_out(frame, 1); break;
        case 6: fill(frame); break;
        case 7: behave_pop = byte() & 1; break;
        case 8: { uint32_t bits[2] = {number(frame), number(frame)}; memcpy(&behave_st0, bits, 8); break; }
        case 9: misbehave(); break;
        case 10: result_bytes(frame); behave_pop = 1; break;
        case 11: raise_named(frame); break;
        case 12: allocate(); break;
        case 13: call_lent(frame); break;
        default: frame[byte() & 15] = number(frame);
        }
}

/* Stands for a function of any signature: with a result through a hidden pointer it pops that. */
VX_EXPORT __attribute__((naked)) void target(void) {
    __asm__ volatile("push %ebx\n push %esi\n push %edi\n push %ebp\n lea 16(%esp), %eax\n push %eax\n call behave\n"
                     "add $4, %esp\n pop %ebp\n pop %edi\n pop %esi\n pop %ebx\n fldl behave_st0\n"
                     "mov behave_eax, %eax\n mov behave_edx, %edx\n cmpl $0, behave_pop\n jne 1f\n ret\n1: ret $4");
}

VX_EXPORT void load(vx_view text) {
    script_size = text.len < SCRIPT_MAX ? text.len : SCRIPT_MAX;
    memcpy(script, text.ptr, script_size);
    at = 0;
}

VX_DOC(add, "Add two numbers: the health check.");
VX_EXPORT int32_t add(int32_t a, int32_t b) { return (int32_t)((uint32_t)a + (uint32_t)b); }
