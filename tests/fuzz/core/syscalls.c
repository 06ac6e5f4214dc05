/* Host calls and Linux calls with every register chosen by the input, made by real guest code through the
 * dispatcher, between accesses that hold the page map against what the processor allows.
 *
 * Input: whether an embedder serves calls, then a program of operations, read byte by byte (struct script).  Each run has a sandbox of its own, from
 * the snapshot of one small plugin. */
#include "fuzz.h"

enum { CODE = 0x10000, DATA = 0x20000, CONSTANT = 0x30000, MEMORY = 2 << 20, STACK = 0x8000, RECENT = 8, DEPTH_MAX = 4 };

/* eax ebx ecx edx esi edi from the stack, then `int`, then ret. */
#define CALL_THUNK(vector) \
    0x8b, 0x44, 0x24, 4, 0x8b, 0x5c, 0x24, 8, 0x8b, 0x4c, 0x24, 12, 0x8b, 0x54, 0x24, 16, 0x8b, 0x74, 0x24, 20, \
    0x8b, 0x7c, 0x24, 24, 0xcd, vector, 0xc3, 0x90, 0x90, 0x90, 0x90, 0x90
enum { AT_LINUX = CODE + 8, AT_HOST = AT_LINUX + 32, AT_PEEK = AT_HOST + 32, AT_POKE = AT_PEEK + 8, AT_TLS = AT_POKE + 12 };
static const uint8_t code[] = {
    0xb8, VX_HC_READY, 0, 0, 0, 0xcd, VX_HOSTCALL_VECTOR, 0xcc,
    CALL_THUNK(VX_LINUX_VECTOR), CALL_THUNK(VX_HOSTCALL_VECTOR),
    0x8b, 0x44, 0x24, 4, 0x0f, 0xb6, 0x00, 0xc3,                         /* mov eax, [esp + 4]; movzx eax, byte [eax] */
    0x8b, 0x44, 0x24, 4, 0x8b, 0x4c, 0x24, 8, 0x88, 0x08, 0xc3, 0x90,    /* …; mov ecx, [esp + 8]; mov [eax], cl */
    0x65, 0xa1, 0, 0, 0, 0, 0xc3,                                        /* mov eax, gs:[0] */
};

typedef struct script {
    const uint8_t *at, *end;
    vx_sandbox *box;
    uint32_t recent[RECENT]; /* results of calls: addresses, mostly */
    unsigned recent_at, depth;
    uint64_t sum; /* of output, so that it is read */
} script;

static uint32_t next(script *s) { return s->at < s->end ? *s->at++ : 0; }

/* --- arguments ----------------------------------------------------------------------------------- */

static uint32_t address(script *s, uint32_t choice) {
    const vx_kernel *k = &s->box->kernel;
    switch (choice & 7) {
    case 0: return DATA;
    case 1: return CONSTANT;
    case 2: return CODE;
    case 3: return k->brk;
    case 4: return s->box->stack_low;
    case 5: return k->mmap_hint;
    default: return s->recent[(choice >> 3) % RECENT];
    }
}

static uint32_t value(script *s) {
    uint32_t choice = next(s), number = 0;
    switch (choice >> 6) {
    case 0: return fuzz_edge(choice);
    case 1: return address(s, choice) + fuzz_edge(next(s) % 20);
    case 2: return address(s, choice) - fuzz_edge(next(s) % 20);
    default:
        for (unsigned i = 0; i < 1 + (choice & 3); i++)
            number |= next(s) << 8 * i;
        return number;
    }
}

static uint32_t linux_number(script *s) {
    static const uint16_t memory[] = {4, 45, 90, 91, 125, 146, 163, 192, 219, 243};
    size_t count;
    const vx_linux_row *rows = vx_linux_rows(&count);
    uint32_t choice = next(s);
    return choice < 128   ? memory[choice % VX_COUNT(memory)]
           : choice < 240 ? rows[(choice << 8 | next(s)) % count].number
                          : value(s);
}

/* --- guest functions ----------------------------------------------------------------------------- */

static bool may_end(vx_trap_kind kind) {
    switch (kind) { /* the guest may have changed its code, or taken its right to be run */
    case VX_TRAP_NONE: case VX_TRAP_RETURN: case VX_TRAP_READY: case VX_TRAP_UNVERIFIED: return false;
    default: return true;
    }
}

static vx_status call_guest(script *s, uint32_t function, const uint32_t *words, size_t count, vx_result *result,
                            vx_trap *trap) {
    s->depth++;
    vx_status status = vx_call(s->box, (vx_gaddr){function}, words, count, result, trap);
    s->depth--;
    REQUIRE(status == VX_OK || status == VX_LIMIT || status == VX_TRAP);
    REQUIRE(status != VX_TRAP || may_end(trap->kind));
    return status;
}

static void op_call(script *s, bool linux) {
    uint32_t words[6] = {linux ? linux_number(s) : next(s) % 8 ? VX_HC_RAISE : value(s)};
    vx_result result = {0};
    vx_trap trap;
    for (unsigned i = 1; i < 6; i++)
        words[i] = value(s);
    if (call_guest(s, linux ? AT_LINUX : AT_HOST, words, 6, &result, &trap) == VX_OK)
        s->recent[s->recent_at++ % RECENT] = result.eax;
}

/* The processor lets a guest do exactly what the page map says. */
static void op_access(script *s, bool write) {
    uint32_t words[2] = {value(s), next(s)};
    vx_result result;
    vx_trap trap;
    unsigned prot = write ? VX_PROT_READ | VX_PROT_WRITE : VX_PROT_READ;
    bool mapped = vx_guest_pointer(s->box, (vx_gaddr){words[0]}, 1, prot) != NULL;
    uint8_t page = s->box->page_map[words[0] / VX_PAGE_SIZE];
    vx_status status = call_guest(s, write ? AT_POKE : AT_PEEK, words, 2, &result, &trap);
    if (status == VX_LIMIT) /* no stack to call on */
        return;
    if (!write && !mapped && (page & VX_PROT_WRITE))
        return; /* writable pages can be read on this processor */
    if (status == VX_TRAP && trap.has_address && trap.address != words[0])
        return; /* the call itself met the stack's end */
    REQUIRE(mapped == (status == VX_OK) || (write && (page & VX_PROT_WRITE)));
}

static void op_tls(script *s) {
    vx_result result;
    vx_trap trap;
    (void)call_guest(s, AT_TLS, NULL, 0, &result, &trap);
}

/* --- what the host does -------------------------------------------------------------------------- */

static void op_fill(script *s) {
    uint32_t at = value(s), words[4] = {value(s), value(s), value(s), value(s)};
    (void)guest_write(s->box, at, words, sizeof words);
}

static void op_arena(script *s) {
    vx_gaddr at;
    uint32_t size = value(s);
    if (next(s) & 1)
        vx_arena_reset(s->box);
    if (vx_arena_alloc(s->box, size, &at) == VX_OK) {
        REQUIRE(vx_guest_pointer(s->box, at, size, VX_PROT_READ | VX_PROT_WRITE) != NULL);
        s->recent[s->recent_at++ % RECENT] = at.value;
    }
}

static void op_length(script *s) {
    vx_gaddr at = {value(s)};
    size_t limit = value(s), length = vx_guest_strlen(s->box, at, limit);
    REQUIRE(length == SIZE_MAX || (length < limit && vx_guest_pointer(s->box, at, length + 1, VX_PROT_READ) != NULL));
}

static void operate(script *s);

static bool on_output(void *context, int fd, const void *data, size_t size) {
    script *s = context;
    REQUIRE((fd == 1 || fd == 2) && size <= VX_OUTPUT_CHUNK);
    for (size_t i = 0; i < size; i++)
        s->sum += ((const uint8_t *)data)[i];
    uint32_t choice = next(s);
    if (choice >= 0xc0 && s->depth < DEPTH_MAX)
        operate(s);
    return choice != 1;
}

/* The embedder's side of a policy: any result, and guest memory written as read() would. */
static bool on_linux(void *context, vx_sandbox *box, uint32_t number, const uint32_t arguments[6], int32_t *result) {
    script *s = context;
    uint32_t choice = next(s), words[4] = {number, arguments[0], arguments[1], arguments[2]};
    REQUIRE(box == s->box);
    if (choice & 1)
        (void)guest_write(box, arguments[1], words, sizeof words);
    if (choice >= 0xc0 && s->depth < DEPTH_MAX)
        operate(s);
    *result = choice & 2 ? (int32_t)value(s) : choice & 4 ? (int32_t)(arguments[2] & 0x7fffffff) : -(int32_t)(choice >> 3);
    return choice != 8;
}

static void on_raise(void *context, const char *name, size_t name_size, const char *text, size_t text_size) {
    script *s = context;
    REQUIRE(name_size <= VX_RAISE_NAME_MAX && text_size <= VX_RAISE_TEXT_MAX);
    for (size_t i = 0; i < name_size; i++)
        s->sum += (uint8_t)name[i];
    for (size_t i = 0; i < text_size; i++)
        s->sum += (uint8_t)text[i];
}

static void operate(script *s) {
    switch (next(s) % 12) {
    case 0: case 1: case 2: case 3: case 4: op_call(s, true); break;
    case 5: op_call(s, false); break;
    case 6: op_access(s, false); break;
    case 7: op_access(s, true); break;
    case 8: op_fill(s); break;
    case 9: op_arena(s); break;
    case 10: op_length(s); break;
    default:
        if (next(s) & 1)
            op_tls(s);
        else
            REQUIRE(vx_sandbox_reset(s->box) == (s->depth == 0 ? VX_OK : VX_BUSY));
    }
}

/* --- what holds after every run ------------------------------------------------------------------ */

/* One pass over the page map: what region.c keeps count of. */
__attribute__((no_sanitize("address", "undefined", "coverage"))) static void count_pages(const vx_sandbox *box,
                                                                                      uint64_t *pages, uint64_t *borders) {
    const uint64_t *words = (const uint64_t *)(const void *)box->page_map;
    uint8_t before = 0;
    *pages = *borders = 0;
    for (size_t word = 0; word < VX_WINDOW / VX_PAGE_SIZE / 8; word++) {
        if (words[word] == before * 0x0101010101010101u) {
            *pages += before & PAGE_MAPPED ? 8 : 0;
            continue;
        }
        for (size_t i = 8 * word; i < 8 * word + 8; i++) {
            *borders += box->page_map[i] != before;
            before = box->page_map[i];
            *pages += (before & PAGE_MAPPED) != 0;
        }
    }
}

static void check_box(vx_sandbox *box) {
    uint64_t pages, borders;
    /* What nothing was asked of yet has no memory, but counts the pages that it will have. */
    REQUIRE(box->base != 0 || sandbox_wake(box) == VX_OK);
    count_pages(box, &pages, &borders);
    REQUIRE(pages == box->pages && borders == box->borders);
    REQUIRE(box->pages <= box->page_limit && vx_sandbox_memory(box) <= MEMORY);
    REQUIRE(box->kernel.brk >= box->kernel.brk_start && box->kernel.brk <= VX_GUEST_MAX);
    REQUIRE(box->depth == 0);
    REQUIRE(box->page_map[CODE / VX_PAGE_SIZE] & PAGE_FIXED);
}

static vx_plugin *shared_plugin(void) {
    static vx_plugin *plugin;
    static const char text[] = "constant";
    vx_segment segments[] = {{CODE, sizeof code, sizeof code, VX_PROT_READ | VX_PROT_EXEC, code, 0},
                             {DATA, 0x3000, sizeof text, VX_PROT_READ | VX_PROT_WRITE, text, 0},
                             {CONSTANT, 0x1000, sizeof text, VX_PROT_READ, text, 0}};
    vx_image image = {.segments = segments, .count = VX_COUNT(segments), .entry = CODE};
    if (plugin == NULL)
        REQUIRE(vx_plugin_create(&image, &plugin) == VX_OK);
    return plugin;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    script s = {.at = data, .end = data + size};
    vx_options options = {.memory = MEMORY, .stack = STACK, .hooks = {.output = on_output, .raise = on_raise},
                          .context = &s};
    vx_trap trap;
    if (next(&s) & 1)
        options.hooks.linux_call = on_linux;
    REQUIRE(vx_sandbox_create(shared_plugin(), &options, &s.box, &trap) == VX_OK);
    while (s.at < s.end)
        operate(&s);
    check_box(s.box);
    REQUIRE(vx_sandbox_reset(s.box) == VX_OK);
    check_box(s.box);
    const void *text = vx_guest_pointer(s.box, (vx_gaddr){CODE}, sizeof code, VX_PROT_READ | VX_PROT_EXEC);
    REQUIRE(text != NULL && memcmp(text, code, sizeof code) == 0);
    REQUIRE(vx_guest_pointer(s.box, (vx_gaddr){CODE}, 1, VX_PROT_WRITE) == NULL);
    vx_sandbox_free(s.box);
    return 0;
}
