/* Unit tests of the core's parts, without Python.  Each check names what it would lose. */
#include "check.h"
#include "core/internal.h"

/* --- decoder: lengths from the Intel SDM's formats ---------------------------------------------- */

static int length_of(const char *bytes, size_t size) {
    vx_insn in;
    return vx_decode((const uint8_t *)bytes, size, &in) == DECODE_OK ? in.length : -1;
}
#define LENGTH(bytes) length_of(bytes, sizeof(bytes) - 1)

static void test_decoder(void) {
    CHECK(LENGTH("\x90") == 1);
    CHECK(LENGTH("\x8b\x44\x24\x08") == 4);
    CHECK(LENGTH("\x8b\x04\x25\x78\x56\x34\x12") == 7);
    CHECK(LENGTH("\x67\x8b\x46\x08") == 4);
    CHECK(LENGTH("\x66\xb8\x34\x12") == 4);
    CHECK(LENGTH("\xc8\x10\x00\x01") == 4);
    CHECK(LENGTH("\x66\x0f\x3a\x0f\xc1\x04") == 6);
    CHECK(LENGTH("\xf3\x0f\x1e\xfa") == 4);
    CHECK(LENGTH("\xf6\xc0\x01") == 3 && LENGTH("\xf6\xd0") == 2); /* test has an immediate, not has none */
    CHECK(LENGTH("\x8b\x44\x24") == -1);                             /* runs out */
    CHECK(LENGTH("\xf0\x01\xc0") == -1);                             /* lock on a register */
    CHECK(LENGTH("\xf2\xf3\xa4") == -1);                             /* conflicting prefixes */
    CHECK(LENGTH("\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90") == -1);
}

/* --- a sandbox of raw code ----------------------------------------------------------------------- */

static const uint8_t code[] = {
    0xb8, 5, 0, 0, 0,             /* 10000 mov eax, 5 */
    0xe8, 2, 0, 0, 0,             /* 10005 call 1000c */
    0xcc,                         /* 1000a int3 */
    0x90,                         /* 1000b */
    0x01, 0xc0,                   /* 1000c add eax, eax */
    0xc3,                         /* 1000e ret */
    0xb9, 7, 0, 0, 0,             /* 1000f mov ecx, 7 */
    0x8b, 0x15, 0, 0, 0, 0,       /* 10014 mov edx, [0] */
    0x50,                         /* 1001a push eax */
    0x83, 0xec, 0x10,             /* 1001b sub esp, 16 */
    0x8b, 0x15, 0, 0, 0, 0,       /* 1001e mov edx, [0] */
    0x31, 0xc0,                   /* 10024 xor eax, eax */
    0xcc,                         /* 10026 int3 */
    0x83, 0xec, 0x10,             /* 10027 sub esp, 16 */
    0x8b, 0x15, 0, 0, 0, 0,       /* 1002a mov edx, [0] */
    0x74, 0x00,                   /* 10030 jz */
};

/* A direct branch from integer code to x87 and SSE code: the cache is replaced twice while the branch
 * waits to be linked, and the last one may lie where the first one lay. */
static void test_link_across_replacement(void) {
    static const uint8_t jump[] = {0xb8, 1, 0, 0, 0,        /* 10000 mov eax, 1 */
                                   0xeb, 1,                 /* 10005 jmp 10008 */
                                   0xcc,                    /* 10007 */
                                   0xd9, 0xe8, 0xdd, 0xd8,  /* 10008 fld1; fstp st0 */
                                   0x0f, 0x58, 0xc0,        /* 1000c addps xmm0, xmm0 */
                                   0x01, 0xc0, 0xcc};       /* 1000f add eax, eax; int3 */
    vx_segment segment = {0x10000, 0x1000, sizeof jump, VX_PROT_READ | VX_PROT_EXEC, jump, 0};
    vx_image image = {.segments = &segment, .count = 1, .entry = 0x10000};
    vx_options options = {.memory = 1 << 20, .stack = 1 << 16, .raw = true};
    for (int round = 0; round < 20; round++) {
        vx_plugin *plugin;
        vx_sandbox *box;
        vx_trap trap;
        vx_cpu cpu = {.registers.eip = 0x10000};
        memcpy(cpu.fx, "\x7f\x03", 2);
        memcpy(cpu.fx + 24, "\x80\x1f", 2);
        CHECK(vx_plugin_create(&image, &plugin) == VX_OK);
        CHECK(vx_sandbox_create(plugin, &options, &box, &trap) == VX_OK);
        CHECK(vx_run(box, &cpu, &trap) == VX_TRAP && trap.kind == VX_TRAP_BREAKPOINT);
        CHECK(cpu.registers.gpr[0] == 2);
        for (uint32_t i = 0; i < box->cache->block_count; i++)
            CHECK(verify_block(box->cache, &box->cache->blocks[i]));
        vx_sandbox_free(box);
        vx_plugin_unref(plugin);
    }
}

/* A block of nothing but the beginning of an instruction has no guest bytes. */
static void test_unfinished_block(void) {
    static const uint8_t start[] = {0x90, 0x0a};
    vx_segment segment = {0x10000, sizeof start, sizeof start, VX_PROT_READ | VX_PROT_EXEC, start, 0};
    vx_image image = {.segments = &segment, .count = 1, .entry = 0x10000};
    vx_options options = {.memory = 1 << 20, .stack = 1 << 16, .raw = true};
    vx_plugin *plugin;
    vx_sandbox *box;
    vx_trap trap;
    vx_cpu cpu = {.registers.eip = 0x10001};
    memcpy(cpu.fx, "\x7f\x03", 2);
    memcpy(cpu.fx + 24, "\x80\x1f", 2);
    CHECK(vx_plugin_create(&image, &plugin) == VX_OK);
    CHECK(vx_sandbox_create(plugin, &options, &box, &trap) == VX_OK);
    CHECK(vx_run(box, &cpu, &trap) == VX_TRAP && trap.kind == VX_TRAP_EXECUTE);
    CHECK(box->cache->block_count == 1 && box->cache->blocks[0].guest_size == 0);
    vx_sandbox_free(box);
    vx_plugin_unref(plugin);
}

/* Entries for blocks all over the address space take a bounded amount of memory. */
static void test_table_bound(void) {
    vx_cache *cache = cache_create(0x1000, 0);
    CHECK(cache != NULL);
    vx_block block = {.start = 256};
    for (uint32_t i = 0; i <= VX_TABLE_PAGES_MAX; i++) {
        block.eip = VX_GUEST_MIN + i * 1024;
        cache_set_table(cache, &block);
        CHECK(table_get(&cache->table, block.eip) == (i < VX_TABLE_PAGES_MAX ? 256 : 0));
    }
    block.eip = VX_GUEST_MIN + 1023; /* its page is taken already */
    cache_set_table(cache, &block);
    CHECK(table_get(&cache->table, block.eip) == 256);
    cache_unref(cache);
}

static vx_sandbox *raw_sandbox(vx_plugin **plugin) {
    vx_segment segment = {0x10000, 0x1000, sizeof code, VX_PROT_READ | VX_PROT_EXEC, code, 0};
    vx_image image = {.segments = &segment, .count = 1, .entry = 0x10000};
    vx_options options = {.memory = 1 << 20, .stack = 1 << 16, .raw = true};
    vx_sandbox *box = NULL;
    vx_trap trap;
    CHECK(vx_plugin_create(&image, plugin) == VX_OK);
    CHECK(vx_sandbox_create(*plugin, &options, &box, &trap) == VX_OK);
    return box;
}

static vx_trap run_at(vx_sandbox *box, vx_cpu *cpu, uint32_t eip) {
    vx_trap trap = {0};
    *cpu = (vx_cpu){.fx = {[0] = 0x7f, [1] = 3, [24] = 0x80, [25] = 0x1f}};
    cpu->registers.eip = eip;
    cpu->registers.gpr[4] = 0xfffdff00;
    CHECK(vx_run(box, cpu, &trap) == VX_TRAP);
    return trap;
}

static void test_running(vx_sandbox *box) {
    vx_cpu cpu;
    vx_trap trap = run_at(box, &cpu, 0x10000);
    CHECK(trap.kind == VX_TRAP_BREAKPOINT && trap.registers.eip == 0x1000a);
    CHECK(cpu.registers.gpr[0] == 10 && cpu.registers.gpr[4] == 0xfffdff00);
    trap = run_at(box, &cpu, 0x1000f);
    CHECK(trap.kind == VX_TRAP_MEMORY && trap.has_address && trap.address == 0);
    CHECK(trap.registers.eip == 0x10014 && trap.registers.gpr[1] == 7);
    CHECK(run_at(box, &cpu, 0x20000).kind == VX_TRAP_EXECUTE);
}

/* What the host has in registers that guests have no name for stays out of the guest's image. */
static void test_host_vectors(void) {
    static const uint8_t adds[] = {0x0f, 0x58, 0xc0, 0xcc}; /* addps xmm0, xmm0; int3 */
    vx_segment segment = {0x10000, 0x1000, sizeof adds, VX_PROT_READ | VX_PROT_EXEC, adds, 0};
    vx_image image = {.segments = &segment, .count = 1, .entry = 0x10000};
    vx_options options = {.memory = 1 << 20, .stack = 1 << 16, .raw = true};
    vx_plugin *plugin;
    vx_sandbox *box;
    vx_trap trap;
    vx_result result;
    CHECK(vx_plugin_create(&image, &plugin) == VX_OK && vx_sandbox_create(plugin, &options, &box, &trap) == VX_OK);
    box->kernel.esp = 0xfffdff00;
    for (int round = 0; round < 2; round++) { /* the second finds a cache that uses SSE alone */
        __asm__ volatile("pcmpeqd %%xmm8, %%xmm8\n movaps %%xmm8, %%xmm15" : : : "xmm8", "xmm15");
        CHECK(vx_call(box, (vx_gaddr){0x10000}, NULL, 0, &result, &trap) == VX_TRAP && trap.kind == VX_TRAP_BREAKPOINT);
    }
    for (unsigned i = 288; i < sizeof box->state->fx; i++)
        CHECK(box->state->fx[i] == 0);
    vx_sandbox_free(box);
    vx_plugin_unref(plugin);
}

/* A branch is patched only while it leads to its own stub: who met it too, in another thread, comes late. */
static void test_link_once(void) {
    static const uint8_t jumps[] = {0xeb, 1, 0xcc, 0x90, 0xcc}; /* 10000 jmp 10003; int3; 10003 nop; int3 */
    vx_segment segment = {0x10000, 0x1000, sizeof jumps, VX_PROT_READ | VX_PROT_EXEC, jumps, 0};
    vx_image image = {.segments = &segment, .count = 1, .entry = 0x10000};
    vx_plugin *plugin;
    const vx_block *from = NULL, *to = NULL, *other = NULL;
    unsigned needs = 0;
    uint32_t stub, offset = 0, distance;
    CHECK(vx_plugin_create(&image, &plugin) == VX_OK);
    vx_cache *cache = cache_create(sizeof jumps, 0);
    CHECK(cache != NULL);
    CHECK(translate_block(cache, plugin, 0x10000, &from, &needs) == TRANSLATE_OK);
    CHECK(translate_block(cache, plugin, 0x10003, &to, &needs) == TRANSLATE_OK);
    CHECK(translate_block(cache, plugin, 0x10002, &other, &needs) == TRANSLATE_OK);
    while (cache->edit[from->start + offset] != 0xe9)
        offset++;
    uintptr_t site = (uintptr_t)cache->run + from->start + offset + 1;
    CHECK(cache_link(cache, site, to, &stub));
    CHECK(!cache_link(cache, site, other, &stub));
    memcpy(&distance, cache->edit + from->start + offset + 1, 4);
    CHECK(from->start + offset + 5 + distance == to->start);
    cache_unref(cache);
    vx_plugin_unref(plugin);
}

/* A fault reports esp whole while a part of it is pending, and flags only where they are kept. */
static void test_pending(vx_sandbox *box) {
    vx_cpu cpu;
    vx_trap trap = run_at(box, &cpu, 0x1001a);
    CHECK(trap.registers.eip == 0x1001e && trap.registers.gpr[4] == 0xfffdff00 - 20);
    CHECK(trap.flags_lost && (trap.registers.eflags & FLAGS_ALL) == 0);
    trap = run_at(box, &cpu, 0x10027);
    CHECK(trap.registers.eip == 0x1002a && trap.registers.gpr[4] == 0xfffdff00 - 16);
    CHECK(!trap.flags_lost && (trap.registers.eflags & FLAG_SF) != 0);
}

/* --- the range check ------------------------------------------------------------------------------ */

static bool readable(vx_sandbox *box, uint32_t address, uint64_t size) {
    return vx_guest_pointer(box, (vx_gaddr){address}, size, VX_PROT_READ) != NULL;
}

static void test_range_check(vx_sandbox *box) {
    CHECK(readable(box, 0x10000, 0x1000) && !readable(box, 0x10000, 0x1001));
    CHECK(!readable(box, 0xffff, 2) && !readable(box, 0, 1));
    CHECK(readable(box, VX_STACK_TOP - 1, 1) && !readable(box, VX_STACK_TOP - 1, 2));
    CHECK(!readable(box, 0xffffffff, 1) && !readable(box, 0xffffffff, UINT64_MAX));
    CHECK(vx_guest_pointer(box, (vx_gaddr){0x10000}, 1, VX_PROT_WRITE) == NULL);
    CHECK(vx_guest_strlen(box, (vx_gaddr){0x10ffe}, SIZE_MAX) == 0);
    CHECK(vx_guest_strlen(box, (vx_gaddr){0x80000000}, 10) == SIZE_MAX);
}

static void test_limits(vx_sandbox *box) {
    vx_gaddr at;
    CHECK(vx_arena_alloc(box, 100, &at) == VX_OK && readable(box, at.value, 100));
    CHECK(vx_arena_alloc(box, 2 << 20, &at) == VX_LIMIT);
    vx_arena_reset(box);
    CHECK(!region_map(box, 0xfffff000, 0x1000, VX_PROT_READ));
    CHECK(!region_map(box, 0x30000, (uint64_t)1 << 32, VX_PROT_READ));
    CHECK(vx_sandbox_memory(box) <= 1 << 20);
}

static void test_images(void) {
    vx_plugin *plugin;
    vx_segment both = {0x10000, 1, 1, VX_PROT_WRITE | VX_PROT_EXEC, "x", 0};
    vx_segment wraps = {0xfffff000, 0x2000, 0, VX_PROT_READ, NULL, 0};
    vx_segment low = {0, 0x1000, 0, VX_PROT_READ, NULL, 0};
    vx_image images[] = {{.segments = &both, .count = 1}, {.segments = &wraps, .count = 1}, {.segments = &low, .count = 1}, {.count = 0}};
    for (size_t i = 0; i < VX_COUNT(images); i++)
        CHECK(vx_plugin_create(&images[i], &plugin) == VX_BAD_IMAGE);
}

int main(void) {
    vx_plugin *plugin = NULL;
    test_decoder();
    test_link_across_replacement();
    test_unfinished_block();
    test_table_bound();
    test_host_vectors();
    test_link_once();
    vx_sandbox *box = raw_sandbox(&plugin);
    test_running(box);
    test_pending(box);
    test_range_check(box);
    test_limits(box);
    test_images();
    vx_sandbox_free(box);
    vx_plugin_unref(plugin);
    return checked("core");
}
