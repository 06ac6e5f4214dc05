/* Unit tests of owncode.c, and of attach in run.c: which cache a sandbox uses, what is guarded, and what is dropped when. */
#include "check.h"
#include "core/internal.h"
#include "trap_flag.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* 10000 mov, 10010 fld1; the guest's own code goes to DATA, two pages that it may write and execute. */
#define TEXT 0x10000u
#define DATA 0x20000u
#define RWX (VX_PROT_READ | VX_PROT_WRITE | VX_PROT_EXEC)

static bool (*tick_hook)(void *);
static bool on_tick(void *context) { return tick_hook == NULL || tick_hook(context); }

typedef struct world {
    vx_plugin *plugin;
    vx_sandbox *box;
} world;

static world open_world(void) {
    static const uint8_t text[] = {0xb8, 1, 0, 0, 0, 0xcc, [16] = 0xd9, 0xe8, 0xcc}; /* mov eax, 1; int3; fld1; int3 */
    vx_segment segments[] = {{TEXT, 0x1000, sizeof text, VX_PROT_READ | VX_PROT_EXEC, text, 0},
                             {DATA, 0x2000, 0, VX_PROT_READ | VX_PROT_WRITE, "", 0}};
    vx_image image = {.segments = segments, .count = 2, .entry = TEXT};
    vx_options options = {.memory = 16 << 20, .stack = 1 << 16, .raw = true, .hooks = {.tick = on_tick}};
    world w = {0};
    vx_trap trap;
    CHECK(vx_plugin_create(&image, &w.plugin) == VX_OK);
    CHECK(vx_sandbox_create(w.plugin, &options, &w.box, &trap) == VX_OK);
    return w;
}

static void close_world(world w) {
    vx_sandbox_free(w.box);
    vx_plugin_unref(w.plugin);
}

static vx_trap run_at(vx_sandbox *box, uint32_t eip) {
    vx_trap trap = {0};
    vx_cpu cpu = {.registers.eip = eip, .fx = {[0] = 0x7f, [1] = 3, [24] = 0x80, [25] = 0x1f}};
    cpu.registers.gpr[4] = VX_STACK_TOP - 256;
    CHECK(vx_run(box, &cpu, &trap) == VX_TRAP);
    return trap;
}

static uint32_t value_at(vx_sandbox *box, uint32_t eip) {
    vx_trap trap = run_at(box, eip);
    CHECK(trap.kind == VX_TRAP_BREAKPOINT);
    return trap.registers.gpr[0];
}

/* mov eax, value; int3 */
static bool put(vx_sandbox *box, uint32_t at, uint32_t value) {
    uint8_t code[6] = {0xb8, 0, 0, 0, 0, 0xcc};
    memcpy(code + 1, &value, 4);
    return guest_write(box, at, code, sizeof code);
}

static bool is_guarded(const vx_sandbox *box, uint32_t at) { return box->page_map[at / VX_PAGE_SIZE] & PAGE_GUARDED; }

static const vx_block *block_of(const vx_sandbox *box, uint32_t eip) { return cache_lookup(box->own->cache, eip); }

static void test_which_cache(void) {
    world w = open_world();
    CHECK(value_at(w.box, TEXT) == 1 && w.box->cache == w.plugin->cache && w.box->own == NULL);
    CHECK(run_at(w.box, DATA).kind == VX_TRAP_EXECUTE && w.box->own == NULL);
    CHECK(region_protect(w.box, DATA, 0x2000, RWX));
    CHECK(put(w.box, DATA, 7) && value_at(w.box, DATA) == 7);
    CHECK(w.box->own != NULL && w.box->cache == w.box->own->cache && w.box->cache != w.plugin->cache);
    CHECK(value_at(w.box, TEXT) == 1 && block_of(w.box, TEXT) != NULL);
    CHECK(vx_sandbox_reset(w.box) == VX_OK && w.box->own == NULL);
    CHECK(value_at(w.box, TEXT) == 1 && w.box->cache == w.plugin->cache && w.box->own == NULL);
    close_world(w);
}

static void test_guards(void) {
    world w = open_world();
    vx_sandbox *box = w.box;
    uint64_t borders = box->borders;
    CHECK(region_protect(box, DATA, 0x2000, RWX) && box->borders == borders);
    CHECK(put(box, DATA, 7) && !is_guarded(box, DATA) && value_at(box, DATA) == 7);
    CHECK(is_guarded(box, DATA) && !is_guarded(box, DATA + 0x1000) && !is_guarded(box, TEXT));
    CHECK(box->own->borders == 2 && box->borders == borders);
    CHECK(put(box, DATA + 0x1ff0, 8) && value_at(box, DATA + 0x1ff0) == 8 && box->own->borders == 2);
    CHECK(block_of(box, DATA) != NULL && block_of(box, DATA + 0x1ff0) != NULL);
    /* Reading leaves them, writing does not; an empty write is none. */
    CHECK(vx_guest_pointer(box, (vx_gaddr){DATA}, 0x2000, VX_PROT_READ) != NULL && is_guarded(box, DATA));
    CHECK(vx_guest_pointer(box, (vx_gaddr){DATA}, 0, VX_PROT_WRITE) != NULL && is_guarded(box, DATA));
    CHECK(vx_guest_pointer(box, (vx_gaddr){DATA + 0xfff}, 1, VX_PROT_WRITE) != NULL && !is_guarded(box, DATA));
    CHECK(block_of(box, DATA) == NULL && block_of(box, DATA + 0x1ff0) != NULL && box->own->borders == 2);
    /* A change of rights next to a guard counts borders as without it. */
    CHECK(region_protect(box, DATA, 0x1000, VX_PROT_READ) && box->borders == borders + 1);
    CHECK(region_protect(box, DATA, 0x1000, RWX) && box->borders == borders);
    CHECK(region_protect(box, DATA, 0x2000, VX_PROT_READ | VX_PROT_WRITE) && box->own->borders == 0);
    CHECK(box->borders == borders && run_at(box, DATA + 0x1ff0).kind == VX_TRAP_EXECUTE);
    close_world(w);
}

/* A block from the end of one page into the next goes with either. */
static void test_both_pages(void) {
    world w = open_world();
    CHECK(region_protect(w.box, DATA, 0x2000, RWX));
    for (uint32_t page = DATA; page <= DATA + 0x1000; page += 0x1000) {
        CHECK(put(w.box, DATA + 0xffd, page) && value_at(w.box, DATA + 0xffd) == page);
        CHECK(is_guarded(w.box, DATA) && is_guarded(w.box, DATA + 0x1000) && block_of(w.box, DATA + 0xffd) != NULL);
        CHECK(own_write(w.box, page + 0x800, 1) && block_of(w.box, DATA + 0xffd) == NULL);
    }
    close_world(w);
}

/* The next block of an address takes the dropped one's place; branches into the old one leave it. */
static void test_dropped_blocks(void) {
    world w = open_world();
    vx_sandbox *box = w.box;
    static const uint8_t jump[] = {0xe9, 0xfb, 0xf, 0, 0}; /* jmp to the next page */
    CHECK(region_protect(box, DATA, 0x2000, RWX) && guest_write(box, DATA, jump, sizeof jump));
    for (uint32_t value = 0; value < 200; value++) {
        CHECK(put(box, DATA + 0x1000, value));
        CHECK(value_at(box, DATA) == value && value_at(box, DATA) == value);
    }
    size_t filled = 0;
    for (size_t i = 0; i <= box->own->cache->index_mask; i++)
        filled += box->own->cache->index[i] != 0;
    CHECK(filled == 2 && atomic_load(&box->own->cache->block_count) == 201);
    uint32_t dropped = 0, linked = 0;
    for (uint32_t i = 0; i < 201; i++) {
        const vx_block *block = &box->own->cache->blocks[i];
        linked += box->own->links[i] != 0;
        dropped += block->marks == 0;
        CHECK(block->marks != 0 || verify_block(box->own->cache, block));
    }
    CHECK(dropped == 199 && linked == 1 && box->own->branch_count == 2);
    CHECK(box->own->links[block_of(box, DATA + 0x1000) - box->own->cache->blocks] != 0);
    close_world(w);
}

static void test_replacement(void) {
    world w = open_world();
    vx_sandbox *box = w.box;
    CHECK(region_protect(box, DATA, 0x2000, RWX) && put(box, DATA, 1) && value_at(box, DATA) == 1);
    const vx_cache *first = box->own->cache;
    uint32_t value = 0;
    while (box->own->cache == first && value < 1000000) {
        value++;
        if (!put(box, DATA, value) || value_at(box, DATA) != value)
            break;
    }
    CHECK(box->own->cache != first && box->cache == box->own->cache && value_at(box, DATA) == value);
    CHECK(is_guarded(box, DATA) && box->own->borders == 2);
    CHECK(own_renew(box, NEEDS_X87) && !is_guarded(box, DATA) && box->own->borders == 0);
    CHECK(block_of(box, DATA) == NULL && value_at(box, DATA) == value);
    close_world(w);
}

static void test_images(void) {
    vx_segment both = {TEXT, 0x1000, 1, RWX | VX_PROT_WRITABLE_CODE, "\xcc", 0};
    vx_image image = {.segments = &both, .count = 1, .entry = TEXT};
    vx_options options = {.memory = 1 << 20, .stack = 1 << 16, .raw = true};
    world w;
    vx_trap trap;
    CHECK(vx_plugin_create(&image, &w.plugin) == VX_OK);
    CHECK(vx_sandbox_create(w.plugin, &options, &w.box, &trap) == VX_OK);
    CHECK(run_at(w.box, TEXT).kind == VX_TRAP_BREAKPOINT && is_guarded(w.box, TEXT));
    CHECK(put(w.box, TEXT, 3) && value_at(w.box, TEXT) == 3);
    CHECK(vx_sandbox_reset(w.box) == VX_OK && run_at(w.box, TEXT).registers.gpr[0] == 0);
    close_world(w);
    both.prot = RWX;
    CHECK(vx_plugin_create(&image, &w.plugin) == VX_BAD_IMAGE);
}

/* --- in a tick, and forks ------------------------------------------------------------------------- */

static world ticking;
static int ticks;
static pid_t child;

static bool refuse_writes(void *context) {
    (void)context;
    CHECK(is_guarded(ticking.box, DATA));
    CHECK(vx_guest_pointer(ticking.box, (vx_gaddr){DATA}, 1, VX_PROT_WRITE) == NULL);
    CHECK(!region_protect(ticking.box, DATA, 0x2000, VX_PROT_READ) && is_guarded(ticking.box, DATA));
    CHECK(guest_write(ticking.box, DATA + 0x1000, "x", 1));
    return ++ticks < 3;
}

static bool fork_once(void *context) {
    (void)context;
    if (++ticks == 1)
        child = fork();
    return ticks < 3;
}

/* inc eax; jmp back: it runs until a hook ends it */
static void run_endless(bool (*hook)(void *)) {
    ticking = open_world();
    tick_hook = hook;
    ticks = 0;
    CHECK(region_protect(ticking.box, DATA, 0x2000, RWX) && guest_write(ticking.box, DATA, "\x40\xeb\xfd", 3));
    CHECK(run_at(ticking.box, DATA).kind == VX_TRAP_HOOK && ticks == 3);
    tick_hook = NULL;
}

static void test_ticks(void) {
    run_endless(refuse_writes);
    CHECK(guest_write(ticking.box, DATA, "\xcc", 1) && run_at(ticking.box, DATA).kind == VX_TRAP_BREAKPOINT);
    close_world(ticking);
}

static int status_of(pid_t pid) {
    int status = -1;
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* --- a cache that goes while a tick comes ---------------------------------------------------------- */

static vx_sandbox *watched;
static vx_cache *going; /* by the test's own reference still there */
static volatile unsigned steps, looked_at_nothing;

/* Where a tick could come: what would it look at? */
static void on_step(int signal) {
    (void)signal;
    steps++;
    looked_at_nothing += watched->cache == going && going->references == 1;
}

static void watch(vx_sandbox *box) {
    struct sigaction action = {.sa_handler = on_step, .sa_flags = SA_ONSTACK};
    CHECK(sigaction(SIGTRAP, &action, NULL) == 0);
    watched = box;
    going = box->cache;
    cache_ref(going);
    steps = looked_at_nothing = 0;
    set_trap_flag();
}

/* The cache did go, and was none of the box's by then.  Without it a tick at the wrong instruction reads freed memory. */
static void unwatch(void) {
    clear_trap_flag();
    CHECK(steps > 100 && going->references == 1 && looked_at_nothing == 0);
    cache_unref(going);
}

static void test_no_tick_sees_what_is_gone(void) {
    world w = open_world();
    const vx_block *block;
    vx_trap_kind why;
    CHECK(value_at(w.box, TEXT) == 1);
    w.box->state->eip = TEXT + 16; /* needs another cache, for floating point */
    watch(w.box);
    CHECK(run_find_block(w.box, &block, &why) == VX_OK);
    unwatch();
    CHECK(region_protect(w.box, DATA, 0x2000, RWX) && put(w.box, DATA, 7) && value_at(w.box, DATA) == 7);
    watch(w.box);
    own_free(w.box);
    unwatch();
    close_world(w);
}

/* Parent and child went on in the middle of one cache: neither writes to it again. */
static void test_fork_in_a_tick(void) {
    run_endless(fork_once);
    const vx_cache *shared = ticking.box->own->cache;
    CHECK(cache_inherited(shared));
    CHECK(put(ticking.box, DATA, 5) && ticking.box->own == NULL && !is_guarded(ticking.box, DATA));
    CHECK(value_at(ticking.box, DATA) == 5);
    close_world(ticking);
    if (child == 0)
        _exit(failures != 0);
    CHECK(child > 0 && status_of(child) == 0);
}

static void test_fork_between_calls(void) {
    world w = open_world();
    CHECK(region_protect(w.box, DATA, 0x2000, RWX) && put(w.box, DATA, 1) && value_at(w.box, DATA) == 1);
    const vx_cache *before = w.box->own->cache;
    const vx_block *block = block_of(w.box, DATA);
    uint8_t code[32], unused[64];
    CHECK(put(w.box, DATA + 0x1000, 7));
    memcpy(code, before->run + block->start, sizeof code);
    memcpy(unused, before->run + before->used, sizeof unused);
    pid_t forked = fork();
    if (forked == 0) { /* translates first what nobody did, then what changed */
        bool ok = value_at(w.box, DATA + 0x1000) == 7 && put(w.box, DATA, 2) && value_at(w.box, DATA) == 2;
        _exit(!ok || failures != 0);
    }
    CHECK(status_of(forked) == 0);
    CHECK(memcmp(code, before->run + block->start, sizeof code) == 0 && w.box->own->cache == before);
    CHECK(memcmp(unused, before->run + before->used, sizeof unused) == 0);
    CHECK(value_at(w.box, DATA) == 1 && put(w.box, DATA, 3) && value_at(w.box, DATA) == 3);
    close_world(w);
}

int main(void) {
    test_which_cache();
    test_guards();
    test_both_pages();
    test_dropped_blocks();
    test_replacement();
    test_images();
    test_ticks();
    test_fork_in_a_tick();
    test_fork_between_calls();
    test_no_tick_sees_what_is_gone();
    return checked("own");
}
