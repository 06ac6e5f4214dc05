/* Unit tests of slab.c and reserve.c: what may be touched around a window, whose it is, and how many of the
 * process's mappings it takes.  The judge is the kernel: what it copies for us, and /proc/self/maps. */
#include "check.h"
#include "core/internal.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEXT 0x10000u
#define DATA 0x11000u
#define MANY 64

static vx_plugin *open_plugin(void) {
    static const uint8_t text[] = {0xcc};
    static const vx_segment segments[] = {{TEXT, 0x1000, sizeof text, VX_PROT_READ | VX_PROT_EXEC, text, 0},
                                          {DATA, 0x2000, 0, VX_PROT_READ | VX_PROT_WRITE, "", 0}};
    vx_image image = {.segments = segments, .count = 2, .entry = TEXT};
    vx_plugin *plugin = NULL;
    CHECK(vx_plugin_create(&image, &plugin) == VX_OK);
    return plugin;
}

static vx_sandbox *open_box(vx_plugin *plugin) {
    vx_options options = {.memory = 16 << 20, .stack = 1 << 16, .raw = true};
    vx_sandbox *box = NULL;
    vx_trap trap;
    CHECK(vx_sandbox_create(plugin, &options, &box, &trap) == VX_OK);
    return box;
}

static bool readable(uint64_t address) {
    uint8_t byte;
    return os_copy(&byte, (const void *)(uintptr_t)address, 1);
}

static bool kernel_guards(void) {
    void *page = mmap(NULL, VX_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool yes = madvise(page, VX_PAGE_SIZE, 102) == 0; /* MADV_GUARD_INSTALL */
    munmap(page, VX_PAGE_SIZE);
    return yes;
}

static int mappings(void) {
    FILE *maps = fopen("/proc/self/maps", "r");
    int lines = 0;
    for (int c; (c = getc(maps)) != EOF;)
        lines += c == '\n';
    fclose(maps);
    return lines;
}

/* --- the guards of state.h's drawing ------------------------------------------------------------------ */

static void check_around(const vx_sandbox *box) {
    const uint64_t base = box->base, state = (uint64_t)(uintptr_t)box->state, map = (uint64_t)(uintptr_t)box->page_map;
    CHECK(readable(box->state->stack_top) && readable(state) && readable(map) && readable(map + (1 << 20) - 1));
    CHECK(box->state->stack_top == state - 16);
    CHECK(!readable(map + (1 << 20)) && !readable(base - 1));
    CHECK(!readable(base) && !readable(base + VX_GUEST_MIN - 1) && readable(base + VX_GUEST_MIN));
    CHECK(readable(base + VX_STACK_TOP - 1) && !readable(base + VX_STACK_TOP));
    CHECK(!readable(base + VX_WINDOW - 1) && !readable(base + VX_WINDOW + VX_ABOVE - 1));
    CHECK(!readable(base + (uint64_t)VX_HOST_STACK_LOW - 1) && readable(base + (uint64_t)VX_HOST_STACK_LOW));
}

/* A child's mappings are its own: the marks have to come with them. */
static void test_guards(void) {
    vx_plugin *plugin = open_plugin();
    vx_sandbox *box = open_box(plugin);
    check_around(box);
    CHECK(vx_sandbox_reset(box) == VX_OK);
    check_around(box);
    pid_t child = fork();
    if (child == 0) {
        check_around(box);
        _exit(failures != 0);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    vx_sandbox_free(box);
    vx_plugin_unref(plugin);
}

/* Locked pages take no marks, as those of older kernels: their rights go instead. */
static void test_guard_without_marks(void) {
    uint8_t *pages = mmap(NULL, 3 * VX_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(syscall(SYS_mlock, pages, 3 * VX_PAGE_SIZE) == 0 && madvise(pages, VX_PAGE_SIZE, 102) != 0);
    CHECK(os_guard(pages + VX_PAGE_SIZE, VX_PAGE_SIZE));
    uint64_t at = (uint64_t)(uintptr_t)pages;
    CHECK(readable(at) && !readable(at + VX_PAGE_SIZE) && readable(at + 2 * VX_PAGE_SIZE));
    munmap(pages, 3 * VX_PAGE_SIZE);
}

/* --- mappings, of which a process has 65530 ----------------------------------------------------------- */

/* Nothing, the host's part, text, data, nothing, stack; without marks the guard between it and text. */
static void test_mappings(void) {
    vx_plugin *plugin = open_plugin();
    vx_sandbox *boxes[MANY];
    int before = mappings();
    for (int i = 0; i < MANY; i++)
        boxes[i] = open_box(plugin);
    int each = (mappings() - before) / MANY, allowed = kernel_guards() ? 6 : 7;
    if (each > allowed)
        printf("space.c: %d mappings a sandbox, not %d\n", each, allowed);
    CHECK(each <= allowed);
    for (int i = 0; i < MANY; i++)
        vx_sandbox_free(boxes[i]);
    vx_plugin_unref(plugin);
    CHECK(mappings() - before <= 2);
}

/* --- slabs ------------------------------------------------------------------------------------------ */

typedef struct window {
    vx_slab *slab;
    uint8_t *low, *text; /* the whole, and where a guest's code would be */
} window;

static window take(void) {
    window w;
    w.low = slab_take(&w.slab);
    w.text = w.low + VX_BELOW + TEXT;
    CHECK(w.low != NULL && ((uintptr_t)w.low + VX_BELOW) % VX_WINDOW == 0);
    return w;
}

static bool apart(const window *all, int i) {
    for (int j = 0; j < i; j++) {
        uintptr_t a = (uintptr_t)all[i].low, b = (uintptr_t)all[j].low;
        if ((a < b ? b - a : a - b) < VX_BELOW + VX_WINDOW + VX_ABOVE)
            return false;
    }
    return true;
}

static bool is_unmapped(const window *w) { return !readable((uint64_t)(uintptr_t)w->text); }

static bool open_page(const window *w) { return os_protect(w->text, VX_PAGE_SIZE, VX_PROT_READ | VX_PROT_WRITE); }

/* What one tenant leaves in its window the next one does not find. */
static void test_slabs(void) {
    window all[MANY];
    int before = mappings();
    for (int i = 0; i < MANY; i++) {
        all[i] = take();
        CHECK(apart(all, i) && is_unmapped(&all[i]) && open_page(&all[i]));
        *all[i].text = 1;
    }
    for (int i = 0; i < MANY; i++) { /* neither first nor last first: 37 and 64 share no factor */
        const window *w = &all[(i * 37 + 5) % MANY];
        slab_give(w->slab, w->low);
    }
    CHECK(mappings() - before <= 2); /* all slabs but one are gone, or merged */
    window again = take();
    CHECK(is_unmapped(&again) && open_page(&again) && *again.text == 0);
    slab_give(again.slab, again.low);
}

enum { STRIPED = 150000 };

/* All mappings that the process may have, the last ones included that only a new one takes. */
static uint8_t *use_up_mappings(void) {
    uint8_t *pages = mmap(NULL, (size_t)STRIPED * VX_PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int stripes = 0;
    while (stripes < STRIPED / 2 && os_protect(pages + (size_t)stripes * 2 * VX_PAGE_SIZE, VX_PAGE_SIZE, VX_PROT_READ))
        stripes++;
    void *last;
    do
        last = mmap(NULL, VX_PAGE_SIZE, stripes % 2 ? PROT_READ : PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    while (stripes++ < STRIPED / 2 && last != MAP_FAILED);
    if (last != MAP_FAILED)
        printf("space: this kernel's limit of mappings is not reached\n");
    return pages;
}

static void give_back_mappings(uint8_t *pages) { munmap(pages, (size_t)STRIPED * VX_PAGE_SIZE); }

/* A process that has all mappings it may have gives windows back all the same: else it would lose them for good. */
static void test_slab_without_mappings(void) {
    window w = take();
    CHECK(open_page(&w));
    uint8_t *pages = use_up_mappings();
    slab_give(w.slab, w.low);
    give_back_mappings(pages);
    window again = take();
    CHECK(again.low == w.low && is_unmapped(&again));
    slab_give(again.slab, again.low);
}

/* Nor does it end, when a guest is to get memory or to lose some: guests of many sandboxes can bring it there. */
static void test_sandbox_without_mappings(void) {
    vx_plugin *plugin = open_plugin();
    vx_sandbox *box = open_box(plugin);
    vx_gaddr at, shared_at;
    void *shared = vx_shared_create(VX_PAGE_SIZE);
    CHECK(vx_arena_alloc(box, VX_PAGE_SIZE, &at) == VX_OK && vx_arena_alloc(box, 1 << 18, &at) == VX_OK);
    /* Pages of the guest's own on both sides are one mapping with the arena's. */
    uint32_t below = at.value - VX_PAGE_SIZE, above = box->arena[0].address + box->arena[0].size;
    CHECK(box->arena_count == 2 && region_map(box, below, VX_PAGE_SIZE, VX_PROT_READ | VX_PROT_WRITE) &&
          region_map(box, above, VX_PAGE_SIZE, VX_PROT_READ | VX_PROT_WRITE));
    uint8_t *pages = use_up_mappings();
    CHECK(vx_share(box, shared, VX_PAGE_SIZE, &shared_at) == VX_LIMIT);
    vx_arena_reset(box);
    CHECK(vx_guest_pointer(box, at, 1, VX_PROT_READ) == NULL);
    give_back_mappings(pages);
    CHECK(vx_share(box, shared, VX_PAGE_SIZE, &shared_at) == VX_OK);
    CHECK(vx_arena_alloc(box, 1 << 18, &at) == VX_OK && guest_write(box, at.value, "a", 1));
    CHECK(vx_sandbox_reset(box) == VX_OK && !readable(box->base + below) && !readable(box->base + at.value));
    vx_sandbox_free(box);
    vx_shared_free(shared, VX_PAGE_SIZE);
    vx_plugin_unref(plugin);
}

int main(void) {
    test_guards();
    test_guard_without_marks();
    test_slabs();
    test_mappings();
    test_slab_without_mappings();
    test_sandbox_without_mappings();
    return checked("space");
}
