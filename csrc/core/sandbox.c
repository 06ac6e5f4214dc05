/* Plugins and sandboxes: made, reset, freed. */
#include "internal.h"
#include "verify.h"

/* --- plugins ------------------------------------------------------------------------------------ */

const char *vx_status_text(vx_status status) {
    static const char *const texts[] = {
#define STATUS(name, text) text,
#include "status.def"
#undef STATUS
    };
    return texts[status];
}

void vx_prepare(void) {
    vx_decode_prepare();
    verify_insn_prepare();
    (void)cpu_offers();
    os_guard_prepare();
}

static bool is_rewritable(const vx_segment *s) {
    return (s->prot & VX_PROT_WRITE) && (s->prot & VX_PROT_EXEC);
}

static bool segment_valid(const vx_segment *s, uint64_t lowest) {
    return s->vaddr % VX_PAGE_SIZE == 0 && s->vaddr >= lowest && s->vaddr < VX_GUEST_MAX &&
           s->memsz != 0 && s->lead <= s->memsz && s->filesz <= s->memsz - s->lead &&
           page_up(s->memsz) <= VX_GUEST_MAX - (uint64_t)s->vaddr && (s->prot & ~15u) == 0 &&
           (!is_rewritable(s) || (s->prot & VX_PROT_WRITABLE_CODE));
}

/* Segments ascend and share no page. */
static bool image_valid(const vx_image *image) {
    uint64_t lowest = VX_GUEST_MIN;
    if (image->count == 0 || image->count > VX_SEGMENTS_MAX)
        return false;
    for (size_t i = 0; i < image->count; i++) {
        const vx_segment *s = &image->segments[i];
        if (!segment_valid(s, lowest))
            return false;
        lowest = s->vaddr + page_up(s->memsz);
    }
    return true;
}

static bool add_code(vx_plugin *plugin, const vx_segment *s, uint64_t offset) {
    vx_code *code = &plugin->code[plugin->code_count];
    code->bytes = os_share_file(plugin->image.fd, offset, page_up(s->memsz));
    if (code->bytes == NULL)
        return false;
    code->vaddr = s->vaddr;
    code->size = s->memsz;
    plugin->code_count++;
    plugin->code_bytes += s->memsz;
    return true;
}

static void add_run(vx_plugin *plugin, const vx_segment *s, uint64_t start, uint64_t end, int fd, uint64_t offset) {
    if (start != end)
        plugin->image.runs[plugin->image.count++] = (vx_run_of_pages){
            (uint32_t)(s->vaddr + start), (uint32_t)(end - start), page_prot(s->prot) | PAGE_FIXED, fd, offset};
}

/* Segments lie in the image's file as in memory, so that constants and code, which the host only reads, are one of its
 * mappings in every sandbox (in a plugin's own file they are a page apart, and would be two).
 * Whole pages of zeros behind the bytes are no file's: untouched they take no memory, and a snapshot knows them.
 * Code is the file's to its end, where the translator reads it. */
static bool add_segment(vx_plugin *plugin, const vx_segment *s, uint64_t *offset) {
    uint64_t size = page_up(s->memsz), stored = s->prot & VX_PROT_EXEC ? size : page_up((uint64_t)s->lead + s->filesz);
    int fd = plugin->image.fd;
    add_run(plugin, s, 0, stored, fd, *offset);
    add_run(plugin, s, stored, size, -1, 0);
    plugin->image_end = (uint32_t)(s->vaddr + size);
    plugin->rewritable |= is_rewritable(s);
    bool ok = os_write_at(fd, s->data, s->filesz, *offset + s->lead) &&
              (!(s->prot & VX_PROT_EXEC) || is_rewritable(s) || add_code(plugin, s, *offset));
    *offset += stored;
    return ok;
}

static bool add_segments(vx_plugin *plugin, const vx_image *image) {
    uint64_t total = 0, offset = 0;
    for (size_t i = 0; i < image->count; i++)
        total += page_up(image->segments[i].memsz);
    plugin->image.fd = os_memory_file("vxplug-image", total);
    plugin->image.runs = calloc(2 * image->count, sizeof *plugin->image.runs);
    if (plugin->image.fd < 0 || plugin->image.runs == NULL)
        return false;
    for (size_t i = 0; i < image->count; i++)
        if (!add_segment(plugin, &image->segments[i], &offset))
            return false;
    return true;
}

static void plugin_free(vx_plugin *plugin) {
    vx_translate_lock();
    cache_unref(plugin->cache);
    vx_translate_unlock();
    reserve_drop_idle(plugin);
    for (size_t i = 0; i < plugin->code_count; i++)
        os_release((void *)(uintptr_t)plugin->code[i].bytes, page_up(plugin->code[i].size));
    pages_free(&plugin->snapshot);
    pages_free(&plugin->image);
    free(plugin);
}

vx_status vx_plugin_create(const vx_image *image, vx_plugin **out) {
    if (!vx_signals_init())
        return VX_UNSUPPORTED_HOST;
    if (!image_valid(image))
        return VX_BAD_IMAGE;
    vx_plugin *plugin = calloc(1, sizeof *plugin);
    if (plugin == NULL)
        return VX_NO_MEMORY;
    plugin->references = 1;
    plugin->image.fd = plugin->snapshot.fd = -1;
    plugin->entry = image->entry;
    plugin->phdr = image->phdr, plugin->phent = image->phent, plugin->phnum = image->phnum;
    plugin->rewritable = image->exec_stack;
    plugin->stack_prot = VX_PROT_READ | VX_PROT_WRITE | (image->exec_stack ? VX_PROT_EXEC : 0);
    if (!add_segments(plugin, image)) {
        plugin_free(plugin);
        return VX_NO_MEMORY;
    }
    *out = plugin;
    return VX_OK;
}

vx_plugin *vx_plugin_ref(vx_plugin *plugin) {
    plugin->references++;
    return plugin;
}

void vx_plugin_unref(vx_plugin *plugin) {
    if (plugin != NULL && --plugin->references == 0)
        plugin_free(plugin);
}

const uint8_t *plugin_code(const vx_plugin *plugin, uint32_t eip, size_t *available) {
    for (size_t i = 0; i < plugin->code_count; i++) {
        uint32_t offset = eip - plugin->code[i].vaddr;
        if (offset < plugin->code[i].size) {
            *available = plugin->code[i].size - offset;
            return plugin->code[i].bytes + offset;
        }
    }
    *available = 0;
    return NULL;
}

void vx_plugin_stats(vx_plugin *plugin, vx_stats *out) {
    vx_translate_lock();
    const vx_cache *cache = plugin->cache;
    *out = (vx_stats){.flushes = plugin->flushes};
    if (cache != NULL) {
        out->blocks = atomic_load(&cache->block_count);
        out->guest_bytes = cache->guest_bytes;
        out->code_bytes = atomic_load(&cache->used);
    }
    vx_translate_unlock();
}

/* --- the guest's first moments ------------------------------------------------------------------ */

static const vx_kernel fresh_kernel = {.mxcsr = 0x1f80, .fcw = 0x37f};

static bool map_stack(vx_sandbox *box) {
    return region_map(box, box->stack_low, VX_STACK_TOP - box->stack_low, (uint8_t)box->plugin->stack_prot);
}

static void new_life(vx_sandbox *box) {
    box->life++;
    box->timer_at = box->timer_every = 0;
}

/* The bookkeeping of a guest in the snapshot's state; it knows whether this code is the image's. */
static void start_over(vx_sandbox *box) {
    new_life(box);
    box->kernel = box->plugin->snapshot_kernel;
    if (box->state != NULL)
        box->state->tls_base = box->kernel.tls_base;
}

static bool map_fresh(vx_sandbox *box) {
    new_life(box);
    bool ok = pages_map(box, &box->plugin->image) && map_stack(box);
    box->kernel = fresh_kernel; /* mapping the image's code was no change to it */
    box->kernel.own_code = box->plugin->rewritable;
    box->kernel.brk_start = box->kernel.brk = box->plugin->image_end;
    box->kernel.mmap_hint = VX_MMAP_TOP;
    box->state->tls_base = 0;
    return ok;
}

/* What the i386 System V ABI puts on a program's first stack (supplement, figure 3-31): argc, argv,
 * envp, auxiliary vector. */
static bool first_stack(vx_sandbox *box) {
    enum { AT_NULL, AT_PHDR = 3, AT_PHENT, AT_PHNUM, AT_PAGESZ, AT_ENTRY = 9, AT_SECURE = 23, AT_RANDOM = 25 };
    const vx_plugin *p = box->plugin;
    uint8_t seed[16];
    uint32_t seed_at = VX_STACK_TOP - 64, name_at = VX_STACK_TOP - 32;
    uint32_t words[] = {1, name_at, 0, 0,
                        AT_PHDR, p->phdr, AT_PHENT, p->phent, AT_PHNUM, p->phnum,
                        AT_PAGESZ, VX_PAGE_SIZE, AT_ENTRY, p->entry, AT_SECURE, 0,
                        AT_RANDOM, seed_at, AT_NULL, 0};
    uint32_t esp = (VX_STACK_TOP - 64 - (uint32_t)sizeof words) & ~15u;
    box->state->gpr[4] = esp;
    box->state->eip = p->entry;
    return os_random(seed, sizeof seed) && guest_write(box, seed_at, seed, sizeof seed) &&
           guest_write(box, name_at, "plugin", 7) && guest_write(box, esp, words, sizeof words);
}

/* The first sandbox to finish leaves the snapshot; a second one's is dropped. */
static bool publish_snapshot(vx_sandbox *box) {
    vx_pages pages = {.fd = -1};
    if (!snapshot_take(box, &pages))
        return false;
    vx_plugin *plugin = box->plugin;
    vx_translate_lock();
    bool first = !plugin->has_snapshot;
    if (first) {
        plugin->snapshot = pages;
        plugin->snapshot_kernel = box->kernel;
        plugin->has_snapshot = true;
    }
    vx_translate_unlock();
    if (!first)
        pages_free(&pages);
    return true;
}

static bool map_snapshot(vx_sandbox *box) {
    if (!map_stack(box) || !pages_map(box, &box->plugin->snapshot))
        return false;
    region_settled(box);
    return true;
}

static vx_status from_snapshot(vx_sandbox *box) {
    bool ok = map_snapshot(box);
    start_over(box); /* after mapping code, which counts as a change to it */
    return ok ? VX_OK : VX_LIMIT;
}

/* Pages that a sandbox begins with: those of the snapshot and a stack of its own size. */
static uint64_t first_pages(const vx_sandbox *box) {
    const vx_pages *snapshot = &box->plugin->snapshot;
    uint64_t bytes = VX_STACK_TOP - box->stack_low;
    for (size_t i = 0; i < snapshot->count; i++) {
        const vx_run_of_pages *run = &snapshot->runs[i];
        if (run->address < box->stack_low)
            bytes += run->size < box->stack_low - run->address ? run->size : box->stack_low - run->address;
    }
    return bytes / VX_PAGE_SIZE;
}

static vx_status fall_asleep(vx_sandbox *box) {
    start_over(box);
    box->unusable = true;
    box->pages = first_pages(box);
    return box->pages <= box->page_limit ? VX_OK : VX_LIMIT;
}

vx_status sandbox_wake(vx_sandbox *box) {
    if (box->base != 0)
        return VX_UNUSABLE;
    uint64_t pages = box->pages;
    vx_kernel kernel = box->kernel;
    if (!reserve_reuse(box) && !(reserve_new(box) && map_snapshot(box))) {
        reserve_free(box);
        box->pages = pages;
        box->kernel = kernel;
        return VX_NO_MEMORY;
    }
    box->kernel = kernel; /* mapping code counts as a change to it */
    box->state->tls_base = kernel.tls_base;
    box->unusable = false;
    return VX_OK;
}

/* The first sandbox starts over from its own snapshot: all begin in one state, whatever the plugin did
 * to pages that a snapshot does not hold. */
static vx_status initialise(vx_sandbox *box, vx_trap *trap) {
    if (!map_fresh(box) || !first_stack(box))
        return VX_LIMIT;
    box->initialising = true;
    vx_status status = run_guest(box, ENTER_INTEGER, box->options.init_timeout_ns, trap);
    box->initialising = false;
    if (status != VX_TRAP || trap->kind != VX_TRAP_READY)
        return status;
    box->kernel.esp = box->state->gpr[4];
    box->kernel.tls_base = (uint32_t)box->state->tls_base;
    return publish_snapshot(box) && region_clear(box) ? from_snapshot(box) : VX_NO_MEMORY;
}

static bool has_snapshot(vx_plugin *plugin) {
    vx_translate_lock();
    bool has = plugin->has_snapshot;
    vx_translate_unlock();
    return has;
}

/* A sandbox that has a snapshot to begin with takes no memory until it is used. */
static vx_status begin(vx_sandbox *box, vx_trap *trap) {
    if (!box->options.raw && has_snapshot(box->plugin))
        return fall_asleep(box);
    if (!reserve_new(box))
        return VX_NO_MEMORY;
    if (box->options.raw)
        return map_fresh(box) ? VX_OK : VX_LIMIT;
    return initialise(box, trap);
}

/* --- sandboxes ---------------------------------------------------------------------------------- */

static bool options_valid(const vx_options *options, const vx_plugin *plugin) {
    uint64_t stack = page_up(options->stack);
    return stack >= VX_PAGE_SIZE && stack <= VX_STACK_MAX && stack <= options->memory &&
           plugin->image_end + stack + VX_STACK_GUARD <= VX_STACK_TOP;
}

vx_status vx_sandbox_create(vx_plugin *plugin, const vx_options *options, vx_sandbox **out, vx_trap *trap) {
    memset(trap, 0, sizeof *trap);
    if (!options_valid(options, plugin))
        return VX_LIMIT;
    vx_sandbox *box = calloc(1, sizeof *box);
    if (box == NULL)
        return VX_NO_MEMORY;
    box->plugin = vx_plugin_ref(plugin);
    box->options = *options;
    box->page_limit = options->memory / VX_PAGE_SIZE;
    box->stack_low = (uint32_t)(VX_STACK_TOP - page_up(options->stack));
    vx_status status = begin(box, trap);
    if (status != VX_OK) {
        vx_sandbox_free(box);
        return status;
    }
    *out = box;
    return VX_OK;
}

static bool begin_again(vx_sandbox *box) {
    if (box->options.raw)
        return region_clear(box) && map_fresh(box);
    if (!snapshot_restore(box))
        return region_clear(box) && from_snapshot(box) == VX_OK;
    start_over(box);
    return true;
}

vx_status vx_sandbox_reset(vx_sandbox *box) {
    if (box->depth != 0 || box->in_tick)
        return VX_BUSY;
    arena_forget(box);
    guest_forget_copy(box);
    if (box->base == 0) {
        start_over(box);
        return VX_OK;
    }
    box->unusable = true;
    if (!begin_again(box))
        return VX_NO_MEMORY;
    box->unusable = false;
    return VX_OK;
}

void vx_sandbox_free(vx_sandbox *box) {
    if (box == NULL)
        return;
    VX_CHECK(box->depth == 0);
    if (!reserve_keep(box))
        reserve_free(box);
    own_free(box);
    vx_translate_lock();
    cache_unref(box->cache);
    vx_translate_unlock();
    arena_forget(box);
    guest_forget_copy(box);
    vx_plugin_unref(box->plugin);
    free(box);
}

void vx_sandbox_interrupt(vx_sandbox *box) { atomic_store(&box->interrupt, true); }

bool vx_sandbox_stopping(vx_sandbox *box) {
    return box->depth != 0 && (watchdog_stop() != VX_TRAP_NONE || signal_due(box));
}

uint32_t vx_sandbox_life(const vx_sandbox *box) { return box->life; }

uint64_t vx_sandbox_memory(const vx_sandbox *box) { return box->pages * VX_PAGE_SIZE; }
