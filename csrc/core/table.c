/* The lookup table of a code cache: for every guest address where its block is, or 0, which is GATE_MISS.
 *
 * Four times the guest's address space are reserved, and accessible piece by piece as blocks are entered.
 * Emitted code looks up whatever a guest asks for: what is not accessible faults, and is a miss too (trap.c).
 * In C only entries whose page is marked `written` are touched. */
#include "../vx.h"
#include "cache.h"
#include "limits.h"
#include "os.h"

#define TABLE_SIZE (VX_WINDOW * sizeof(uint32_t))
/* Guest addresses whose entries share a page, and whose entries become accessible together. */
#define SPAN (VX_PAGE_SIZE / sizeof(uint32_t))
#define PIECE ((uint32_t)4 << 20)
_Static_assert(VX_WINDOW / PIECE == 8 * sizeof ((vx_table *)NULL)->open, "a bit for each piece");

#define WRITTEN_SIZE (VX_WINDOW / SPAN / 8)

static bool get_bit(const uint8_t *bits, size_t number) { return bits[number / 8] >> number % 8 & 1; }
static void set_bit(uint8_t *bits, size_t number) { bits[number / 8] |= (uint8_t)(1u << number % 8); }

static bool open_piece(vx_table *t, uint32_t eip) {
    size_t piece = eip / PIECE;
    if (get_bit(t->open, piece))
        return true;
    if (!os_protect((void *)(t->entries + piece * PIECE), PIECE * sizeof(uint32_t), VX_PROT_READ | VX_PROT_WRITE))
        return false;
    set_bit(t->open, piece);
    return true;
}

/* Where export calls and callbacks return to no block can be, and a fault each time would be slow. */
bool table_create(vx_table *t) {
    t->entries = os_reserve(TABLE_SIZE, VX_PAGE_SIZE, 0);
    t->written = os_private(WRITTEN_SIZE);
    return t->entries != NULL && t->written != NULL && open_piece(t, VX_CALLBACK_MIN);
}

void table_free(vx_table *t) {
    if (t->entries != NULL)
        os_release((void *)t->entries, TABLE_SIZE);
    if (t->written != NULL)
        os_release(t->written, WRITTEN_SIZE);
}

bool table_holds(const vx_table *t, uintptr_t address) { return address - (uintptr_t)t->entries < TABLE_SIZE; }

static bool take_page(vx_table *t, uint32_t eip) {
    if (get_bit(t->written, eip / SPAN))
        return true;
    if (t->page_count == VX_TABLE_PAGES_MAX || !open_piece(t, eip))
        return false;
    set_bit(t->written, eip / SPAN);
    t->page_count++;
    return true;
}

void table_set(vx_table *t, uint32_t eip, uint32_t offset) {
    if (take_page(t, eip))
        atomic_store_explicit(&t->entries[eip], offset, memory_order_release);
}

uint32_t table_get(const vx_table *t, uint32_t eip) {
    return get_bit(t->written, eip / SPAN) ? atomic_load_explicit(&t->entries[eip], memory_order_relaxed) : 0;
}
