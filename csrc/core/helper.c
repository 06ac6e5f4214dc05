/* Instructions done in C on the saved state: what 64-bit mode lost and what must be virtual.
 * Semantics follow the Intel SDM's pseudocode; status flags it leaves undefined are computed from
 * the result, as the processors at hand do. */
#include "internal.h"

enum { EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI };
enum { FX_MXCSR = 24, FX_MXCSR_MASK = 28, FX_ST0 = 32, FX_XMM0 = 160, FX_LEGACY_END = 288 };

typedef struct job {
    vx_sandbox *box;
    vx_state *s;
    vx_insn in;
    vx_trap *trap;
} job;

static bool fail(job *j, vx_trap_kind kind) {
    j->trap->kind = kind;
    return false;
}

static bool memory_fault(job *j, uint32_t address, uint32_t size, unsigned prot) {
    uint32_t bad = guest_first_bad(j->box, address, size, prot);
    j->trap->has_address = true;
    j->trap->address = bad;
    return fail(j, trap_memory_kind(j->box, bad));
}

static bool load(job *j, uint32_t address, void *to, uint32_t size) {
    return guest_read(j->box, address, to, size) || memory_fault(j, address, size, VX_PROT_READ);
}

static bool store(job *j, uint32_t address, const void *from, uint32_t size) {
    return guest_write(j->box, address, from, size) ||
           memory_fault(j, address, size, VX_PROT_READ | VX_PROT_WRITE);
}

static uint32_t effective_address(const job *j) {
    const vx_insn *in = &j->in;
    uint32_t address = (uint32_t)in->disp;
    if (in->base >= 0)
        address += j->s->gpr[in->base];
    if (in->index >= 0)
        address += j->s->gpr[in->index] << in->scale;
    if (in->address16)
        address &= 0xffff;
    return in->segment == SEG_GS ? address + (uint32_t)j->s->tls_base : address;
}

static uint32_t operand_size(const job *j) { return j->in.operand16 ? 2 : 4; }

static void set_low(uint32_t *reg, uint32_t value, uint32_t size) {
    *reg = size == 4 ? value : (*reg & 0xffff0000) | (value & 0xffff);
}

/* --- decimal arithmetic --------------------------------------------------------------------------- */

static uint8_t al(const job *j) { return (uint8_t)j->s->gpr[EAX]; }

static void set_al(job *j, uint8_t value) { j->s->gpr[EAX] = (j->s->gpr[EAX] & ~0xffu) | value; }

static void set_ax(job *j, uint16_t value) { j->s->gpr[EAX] = (j->s->gpr[EAX] & ~0xffffu) | value; }

static bool flag(const job *j, uint32_t bit) { return j->s->eflags & bit; }

static void set_flags(job *j, uint32_t mask, uint32_t value) {
    j->s->eflags = (j->s->eflags & ~mask) | (value & mask);
}

/* SF, ZF and PF of a byte. */
static uint32_t result_flags(uint8_t value) {
    uint32_t parity = __builtin_parity(value) ? 0 : FLAG_PF;
    return parity | (value == 0 ? FLAG_ZF : 0) | (value & 0x80 ? FLAG_SF : 0);
}

static bool decimal_adjust(job *j, bool subtract) {
    uint8_t old = al(j), value = old;
    bool low = (old & 15) > 9 || flag(j, FLAG_AF);
    bool high = old > 0x99 || flag(j, FLAG_CF);
    bool carry = high;
    if (low) {
        value = (uint8_t)(subtract ? value - 6 : value + 6);
        carry = high || (subtract && old < 6);
    }
    if (high)
        value = (uint8_t)(subtract ? value - 0x60 : value + 0x60);
    set_al(j, value);
    set_flags(j, FLAGS_ALL, result_flags(value) | (low ? FLAG_AF : 0) | (carry ? FLAG_CF : 0));
    return true;
}

static bool ascii_adjust(job *j, bool subtract) {
    uint16_t ax = (uint16_t)j->s->gpr[EAX];
    bool adjust = (ax & 15) > 9 || flag(j, FLAG_AF);
    if (adjust)
        ax = (uint16_t)(subtract ? ax - 0x106 : ax + 0x106);
    set_ax(j, ax & 0xff0f);
    set_flags(j, FLAGS_ALL, result_flags((uint8_t)(ax & 15)) | (adjust ? FLAG_AF | FLAG_CF : 0));
    return true;
}

static bool multiply_adjust(job *j) {
    uint8_t divisor = (uint8_t)j->in.imm;
    if (divisor == 0)
        return fail(j, VX_TRAP_DIVIDE);
    set_ax(j, (uint16_t)((al(j) / divisor) << 8 | al(j) % divisor));
    set_flags(j, FLAGS_ALL, result_flags(al(j)));
    return true;
}

static bool divide_adjust(job *j) {
    uint8_t high = (uint8_t)(j->s->gpr[EAX] >> 8);
    set_ax(j, (uint8_t)(al(j) + high * (uint8_t)j->in.imm));
    set_flags(j, FLAGS_ALL, result_flags(al(j)));
    return true;
}

static bool set_al_from_carry(job *j) {
    set_al(j, flag(j, FLAG_CF) ? 0xff : 0);
    return true;
}

/* --- many registers at once ----------------------------------------------------------------------- */

static bool push_all(job *j) {
    uint32_t size = operand_size(j), esp = j->s->gpr[ESP];
    for (uint32_t i = 0; i < 8; i++) /* eax first and highest */
        if (!store(j, esp - (i + 1) * size, &j->s->gpr[i], size))
            return false;
    j->s->gpr[ESP] = esp - 8 * size;
    return true;
}

static bool pop_all(job *j) {
    uint32_t size = operand_size(j), esp = j->s->gpr[ESP];
    uint8_t frame[32];
    if (!load(j, esp, frame, 8 * size))
        return false;
    for (unsigned i = 0; i < 8; i++) {
        uint32_t value = 0;
        memcpy(&value, frame + i * size, size);
        if (7 - i != ESP)
            set_low(&j->s->gpr[7 - i], value, size);
    }
    j->s->gpr[ESP] = esp + 8 * size;
    return true;
}

/* Frame pointers of the enclosing levels are copied down, as ENTER's pseudocode does; the final stack
 * pointer must be one that could be written. */
static bool enter_frame(job *j) {
    uint32_t size = operand_size(j), level = j->in.imm2 & 31, count = level == 0 ? 1 : level + 1;
    uint32_t esp = j->s->gpr[ESP], frame_at = esp - size, word = j->s->gpr[EBP];
    uint32_t final = esp - count * size - (j->in.imm & 0xffff);
    if (!store(j, frame_at, &word, size))
        return false;
    for (uint32_t i = 1; i < level; i++) /* one by one: the frames may overlap */
        if (!load(j, j->s->gpr[EBP] - i * size, &word, size) || !store(j, frame_at - i * size, &word, size))
            return false;
    if (level != 0 && !store(j, frame_at - level * size, &frame_at, size))
        return false;
    if (guest_first_bad(j->box, final, size, VX_PROT_READ | VX_PROT_WRITE) != final + size)
        return memory_fault(j, final, size, VX_PROT_READ | VX_PROT_WRITE);
    set_low(&j->s->gpr[EBP], frame_at, size);
    j->s->gpr[ESP] = final;
    return true;
}

/* --- traps on a condition ------------------------------------------------------------------------- */

static bool trap_if_overflow(job *j) { return !flag(j, FLAG_OF) || fail(j, VX_TRAP_OVERFLOW); }

static int32_t sign_extend(uint32_t value, uint32_t size) {
    return size == 2 ? (int16_t)value : (int32_t)value;
}

static bool check_bounds(job *j) {
    uint32_t size = operand_size(j), low = 0, high = 0;
    uint8_t bounds[8];
    if (!load(j, effective_address(j), bounds, 2 * size))
        return false;
    memcpy(&low, bounds, size);
    memcpy(&high, bounds + size, size);
    int32_t index = sign_extend(j->s->gpr[j->in.reg], size);
    if (index < sign_extend(low, size) || index > sign_extend(high, size))
        return fail(j, VX_TRAP_BOUND);
    return true;
}

/* loopne, loope, loop and jcxz that count in cx. */
static bool count_down(job *j) {
    bool jcxz = j->in.opcode == 0xe3, wants_zero = j->in.opcode == 0xe1;
    uint16_t count = (uint16_t)(j->s->gpr[ECX] - !jcxz);
    set_low(&j->s->gpr[ECX], count, 2);
    bool taken = jcxz ? count == 0 : count != 0 && (j->in.opcode == 0xe2 || flag(j, FLAG_ZF) == wants_zero);
    if (taken)
        j->s->eip += j->in.imm;
    return true;
}

/* --- segments ------------------------------------------------------------------------------------- */

/* The selectors of a 32-bit Linux process: es cs ss ds fs gs. */
static bool from_segment(job *j) {
    static const uint16_t selectors[6] = {SELECTOR_DATA, SELECTOR_CODE, SELECTOR_DATA, SELECTOR_DATA, 0, 0};
    if (j->in.reg > 5)
        return fail(j, VX_TRAP_ILLEGAL);
    uint16_t selector = j->in.reg == 5 && j->s->tls_base != 0 ? SELECTOR_TLS : selectors[j->in.reg];
    set_low(&j->s->gpr[j->in.rm], selector, operand_size(j));
    return true;
}

/* Loads that change nothing are allowed: gs to the entry that set_thread_area gave. */
static bool to_segment(job *j) {
    uint16_t selector = (uint16_t)j->s->gpr[j->in.rm];
    bool flat = (j->in.reg == 0 || j->in.reg == 2 || j->in.reg == 3) && selector == SELECTOR_DATA;
    bool tls = j->in.reg == 5 && (selector | 3) == SELECTOR_TLS;
    bool null = j->in.reg == 4 && selector == 0;
    return flat || tls || null || fail(j, VX_TRAP_PRIVILEGED);
}

/* --- virtual processor ----------------------------------------------------------------------------- */

static bool identify(job *j) {
    uint32_t registers[4];
    cpu_identify(j->s->gpr[EAX], j->s->gpr[ECX], registers);
    j->s->gpr[EAX] = registers[0], j->s->gpr[EBX] = registers[1];
    j->s->gpr[ECX] = registers[2], j->s->gpr[EDX] = registers[3];
    return true;
}

/* XCR0 alone: which vector registers there are is all a guest may ask. */
static bool extended_control(job *j) {
    if (j->in.rm != 0)
        return fail(j, VX_TRAP_PRIVILEGED); /* xsetbv and its like */
    if (cpu_xcr0() == 0)
        return fail(j, VX_TRAP_ILLEGAL);
    if (j->s->gpr[ECX] != 0)
        return fail(j, VX_TRAP_PROTECTION);
    j->s->gpr[EAX] = cpu_xcr0(), j->s->gpr[EDX] = 0;
    return true;
}

/* --- the FXSAVE image ------------------------------------------------------------------------------ */

static bool save_image(job *j) {
    uint32_t address = effective_address(j);
    uint8_t image[FX_LEGACY_END];
    if (address & 15)
        return fail(j, VX_TRAP_PROTECTION);
    memcpy(image, j->s->fx, sizeof image);
    memset(image + 6, 0, FX_MXCSR - 6); /* opcode, instruction and operand pointers are the host's */
    return store(j, address, image, sizeof image);
}

static uint32_t mxcsr_mask(const vx_state *s) {
    uint32_t mask;
    memcpy(&mask, s->fx + FX_MXCSR_MASK, sizeof mask);
    return mask ? mask : 0xffbf; /* Intel SDM volume 1, 11.6.6 */
}

static bool restore_image(job *j) {
    uint32_t address = effective_address(j), mxcsr;
    uint8_t image[FX_LEGACY_END];
    if (address & 15)
        return fail(j, VX_TRAP_PROTECTION);
    if (!load(j, address, image, sizeof image))
        return false;
    memcpy(&mxcsr, image + FX_MXCSR, sizeof mxcsr);
    if (mxcsr & ~mxcsr_mask(j->s))
        return fail(j, VX_TRAP_PROTECTION);
    memset(image + 6, 0, FX_MXCSR - 6);
    memcpy(image + FX_MXCSR_MASK, j->s->fx + FX_MXCSR_MASK, 4);
    memcpy(j->s->fx, image, sizeof image);
    return true;
}

static bool perform(job *j, vx_helper helper) {
    switch (helper) {
    case HELPER_DAA: return decimal_adjust(j, false);
    case HELPER_DAS: return decimal_adjust(j, true);
    case HELPER_AAA: return ascii_adjust(j, false);
    case HELPER_AAS: return ascii_adjust(j, true);
    case HELPER_AAM: return multiply_adjust(j);
    case HELPER_AAD: return divide_adjust(j);
    case HELPER_SALC: return set_al_from_carry(j);
    case HELPER_PUSHA: return push_all(j);
    case HELPER_POPA: return pop_all(j);
    case HELPER_ENTER: return enter_frame(j);
    case HELPER_INTO: return trap_if_overflow(j);
    case HELPER_BOUND: return check_bounds(j);
    case HELPER_CPUID: return identify(j);
    case HELPER_XGETBV: return extended_control(j);
    case HELPER_FROM_SEGMENT: return from_segment(j);
    case HELPER_TO_SEGMENT: return to_segment(j);
    case HELPER_FXSAVE: return save_image(j);
    case HELPER_FXRSTOR: return restore_image(j);
    case HELPER_LOOP16: return count_down(j);
    }
    vx_panic("known helper", __FILE__, __LINE__);
}

static bool is_helper(const vx_insn *in) {
    return in->op->rule == RULE_HELPER || (in->op->rule == RULE_LOOP && in->address16);
}

bool helper_run(vx_sandbox *box, vx_helper helper, vx_trap *trap) {
    job j = {.box = box, .s = box->state, .trap = trap};
    size_t available;
    const uint8_t *bytes = own_code(box, box->state->eip, &available);
    VX_CHECK(bytes != NULL && vx_decode(bytes, available, &j.in) == DECODE_OK &&
             is_helper(&j.in) && j.in.op->arg == helper);
    if (!perform(&j, helper))
        return false;
    box->state->eip += j.in.length;
    return true;
}
