/* Guest code, run for a bounded time, twice: once while it is translated, and once in a second sandbox that
 * finds the blocks made and linked.  Both have to end alike, leave the host's processor as it was, and stay in
 * the window; what does not arrives here as a signal that nobody in the core takes.
 *
 * Input: HEADER bytes choose flags, floating-point control and registers; the rest is code. */
#include "fuzz.h"

enum { HEADER = 12, CODE_MAX = 1024, IN_FLAGS = 0, IN_FPU = 1, IN_SEED = 2, IN_REGISTERS = 4 };
enum { CODE = 0x400000, DATA = 0x500000, DATA_SIZE = 0x2000, CONSTANT = 0x503000, STACK_SIZE = 0x2000 };
enum { ESP = 4, FX_FOP = 6, FX_MXCSR = 24, FX_RESERVED = 416 };

/* How a run ended, as far as the guest or the embedder can tell. */
typedef struct outcome {
    vx_status status;
    vx_trap trap;
    vx_cpu cpu;
    uint64_t memory;
} outcome;

/* --- the guest's first state --------------------------------------------------------------------- */

static uint32_t register_from(uint8_t choice) {
    uint32_t offset = choice & 31;
    switch (choice >> 5) {
    case 0: return DATA + 4 * offset;
    case 1: return DATA + DATA_SIZE - offset;
    case 2: return CONSTANT + 0x1000 - 8 * offset;
    case 3: return VX_STACK_TOP - 4 * offset;
    case 4: return CODE + 4 * offset;
    case 5: return fuzz_edge(offset);
    case 6: return offset - 8;
    default: return DATA + 0x1000 - offset;
    }
}

static vx_cpu first_state(const uint8_t *in) {
    static const uint16_t controls[4] = {0x37f, 0x340, 0xf7f, 0x27a};
    static const uint32_t mxcsrs[4] = {0x1f80, 0x0000, 0x7f80, 0x9fc0};
    vx_cpu cpu = {.registers = {.eip = CODE, .eflags = (in[IN_FLAGS] & 0xd5u) | (in[IN_FLAGS] & 2u) << 9}};
    fuzz_random r = fuzz_seeded(in[IN_SEED]);
    for (unsigned i = 0; i < 8; i++)
        cpu.registers.gpr[i] = register_from(in[IN_REGISTERS + i]);
    if (in[IN_REGISTERS + ESP] < 0xc0)
        cpu.registers.gpr[ESP] = VX_STACK_TOP - STACK_SIZE / 2;
    for (unsigned i = 32; i < FX_RESERVED - 128; i += 4) {
        uint32_t word = fuzz_next(&r);
        memcpy(cpu.fx + i, &word, 4);
    }
    memcpy(cpu.fx, &controls[in[IN_FPU] & 3], 2);
    cpu.fx[4] = in[IN_FPU] & 0x10 ? 0xff : 0; /* x87 registers full or empty */
    memcpy(cpu.fx + FX_MXCSR, &mxcsrs[in[IN_FPU] >> 2 & 3], 4);
    return cpu;
}

static vx_plugin *make_plugin(const uint8_t *code, uint32_t size) {
    static uint8_t words[DATA_SIZE];
    for (uint32_t i = 0; i < DATA_SIZE; i++)
        words[i] = (uint8_t)(i * 37 + (i >> 8));
    vx_segment segments[] = {{CODE, size, size, VX_PROT_READ | VX_PROT_EXEC, code, 0},
                             {DATA, DATA_SIZE, DATA_SIZE, VX_PROT_READ | VX_PROT_WRITE, words, 0},
                             {CONSTANT, 0x1000, 0x1000, VX_PROT_READ, words, 0}};
    vx_image image = {.segments = segments, .count = VX_COUNT(segments), .entry = CODE};
    vx_plugin *plugin = NULL;
    REQUIRE(vx_plugin_create(&image, &plugin) == VX_OK);
    return plugin;
}

/* --- the host's processor ------------------------------------------------------------------------ */

static void check_host_state(void) {
    uint64_t flags;
    uint32_t mxcsr;
    uint16_t environment[14]; /* 32-bit layout: control, -, status, -, tag */
    __asm__ volatile("pushfq; popq %0" : "=r"(flags));
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    __asm__ volatile("fnstenv %0; fldenv %0" : "=m"(environment));
    REQUIRE((flags & 0x7fd500 & ~0x200u) == 0); /* TF DF IOPL NT RF VM AC and what is above */
    REQUIRE((mxcsr & 0xffc0) == 0x1f80);
    REQUIRE(environment[0] == 0x37f && environment[4] == 0xffff);
}

/* --- one run ------------------------------------------------------------------------------------- */

static uint64_t hash_range(vx_sandbox *box, uint32_t address, uint32_t size, uint64_t hash) {
    const uint64_t *words = vx_guest_pointer(box, (vx_gaddr){address}, size, VX_PROT_READ);
    if (words == NULL)
        return hash * 31 + 1;
    for (uint32_t i = 0; i < size / 8; i++)
        hash = (hash ^ words[i]) * 0x100000001b3u;
    return hash;
}

static void check_trap(vx_sandbox *box, const vx_trap *trap) {
    size_t available;
    REQUIRE(trap->kind > VX_TRAP_NONE && trap->kind < VX_TRAP_COUNT_);
    REQUIRE(trap->kind != VX_TRAP_UNVERIFIED && trap->kind != VX_TRAP_READY && trap->kind != VX_TRAP_HOOK);
    const uint8_t *code = plugin_code(box->plugin, trap->registers.eip, &available);
    REQUIRE(trap->byte_count <= sizeof trap->bytes);
    if (code != NULL && trap->byte_count != 0)
        REQUIRE(trap->byte_count <= available && memcmp(trap->bytes, code, trap->byte_count) == 0);
    if (trap->kind == VX_TRAP_MEMORY && trap->has_address)
        REQUIRE(vx_guest_pointer(box, (vx_gaddr){trap->address}, 1, VX_PROT_READ | VX_PROT_WRITE) == NULL);
}

static void check_box(const vx_sandbox *box) {
    const vx_state *s = box->state;
    REQUIRE(s->self == s && s->base == box->base && s->table == box->cache->table.entries && s->run == box->cache->run);
    REQUIRE(box->depth == 0 && box->pages <= box->page_limit);
}

static outcome run_once(vx_plugin *plugin, const uint8_t *header) {
    vx_options options = {.memory = 1 << 20, .stack = STACK_SIZE, .timeout_ns = 1, .raw = true};
    outcome o = {.cpu = first_state(header)};
    vx_sandbox *box = NULL;
    REQUIRE(vx_sandbox_create(plugin, &options, &box, &o.trap) == VX_OK);
    o.status = vx_run(box, &o.cpu, &o.trap);
    check_host_state();
    REQUIRE(o.status == VX_TRAP);
    check_trap(box, &o.trap);
    check_box(box);
    o.memory = hash_range(box, DATA, DATA_SIZE, hash_range(box, VX_STACK_TOP - STACK_SIZE, STACK_SIZE, 1));
    vx_sandbox_free(box);
    return o;
}

/* A return that was not predicted may lose the status flags (docs/architecture.md), and what is predicted
 * depends on what was translated before; so flags are compared where no `ret` was. */
static bool has_return(const vx_plugin *plugin) {
    for (uint32_t i = 0; i < plugin->cache->block_count; i++) {
        const vx_block *block = &plugin->cache->blocks[i];
        for (uint32_t at = 0; at <= block->guest_size;) {
            size_t available;
            vx_insn in;
            const uint8_t *code = plugin_code(plugin, block->eip + at, &available);
            if (code == NULL || vx_decode(code, available, &in) != DECODE_OK)
                break;
            if (in.op->rule == RULE_RET)
                return true;
            at += in.length;
        }
    }
    return false;
}

static void compare(const outcome *a, const outcome *b) {
    REQUIRE(a->trap.kind == b->trap.kind && a->trap.code == b->trap.code);
    REQUIRE(a->trap.has_address == b->trap.has_address);
    REQUIRE(!a->trap.has_address || a->trap.address == b->trap.address);
    REQUIRE(memcmp(&a->cpu.registers, &b->cpu.registers, sizeof a->cpu.registers) == 0);
    REQUIRE(a->memory == b->memory);
    REQUIRE(memcmp(a->cpu.fx, b->cpu.fx, FX_FOP) == 0); /* then instruction and data pointers */
    REQUIRE(memcmp(a->cpu.fx + FX_MXCSR, b->cpu.fx + FX_MXCSR, FX_RESERVED - FX_MXCSR) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size <= HEADER || size > HEADER + CODE_MAX)
        return 0;
    vx_plugin *plugin = make_plugin(data + HEADER, (uint32_t)(size - HEADER));
    outcome cold = run_once(plugin, data);
    if (cold.trap.kind != VX_TRAP_TIMEOUT) {
        outcome warm = run_once(plugin, data);
        if (warm.trap.kind != VX_TRAP_TIMEOUT && !has_return(plugin))
            compare(&cold, &warm);
    }
    vx_plugin_unref(plugin);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    return grammar_mutate(data, size, max_size, HEADER, seed);
}
