/* The code cache: translated blocks, found by guest address.
 *
 * Invariants
 * C1  Emitted bytes are executable through `run` and writable through `edit`, never both at one
 *     address; after publication only 4-byte branch displacements change (chaining), each inside an
 *     aligned word of 8 bytes, which is stored at once.
 * C2  Blocks are appended in address order and their room is never used again: a cache is replaced as
 *     a whole, and freed when no sandbox is attached.  A dropped block keeps its place, but can no
 *     longer be found, and whoever still branches to it leaves at once.  Only a cache that one
 *     sandbox uses (owncode.c) drops blocks, while its thread is outside.
 * C3  An entry of the table is the block of its very address, or 0: see table.c.
 * C4  No block of the cache touches state outside `uses`, which is fixed once guests may run its code by it:
 *     it grows while the plugin initialises, of whose one sandbox the thread is outside, nowhere deeper in.
 * C5  A process that inherited a cache by fork never writes to it (the mapping is shared); nor does
 *     the parent, if the child will go on in the middle of it.
 *
 * Writers hold the translation lock; find_block and the table are read without it. */
#ifndef VX_CACHE_H
#define VX_CACHE_H

#include "base.h"
#include "signals.h"

/* Which host bytes belong to which guest instruction; sorted by host offset in a block. */
typedef struct vx_mark {
    uint16_t host;        /* offset from the block's start */
    uint16_t guest : 12;  /* offset from the block's eip */
    uint16_t fix : 3;     /* FIX_*: what to undo to get the guest's registers */
    uint16_t flags_lost : 1; /* status flags are not the guest's: it overwrites them unread */
    int16_t esp;          /* guest esp is r13d plus this */
} vx_mark;

/* FIX_SWAP + r: the low two bytes of host register r (eax to ebx) are exchanged.  FIX_EDI: the guest's is in
 * r8d.  FIX_ESI: the base of its gs was added. */
enum { FIX_NONE, FIX_SWAP, FIX_EDI = FIX_SWAP + 4, FIX_ESI };

typedef struct vx_block {
    uint32_t eip;
    uint32_t start, end; /* offsets in the cache */
    uint32_t first_mark;
    uint16_t marks;      /* 0: dropped */
    uint16_t guest_size;
} vx_block;

/* Bytes of what takes the place of a dropped block's body. */
#define VX_DROPPED_CODE 17

/* Fixed branches out of the cache, at its start, so that GATE_MISS has offset 0. */
typedef enum vx_gate { GATE_MISS, GATE_LINK, GATE_REASON, GATE_RESYNC, GATE_RESYNC_RCX,
                       GATE_COUNT } vx_gate;

/* table.c */
typedef struct vx_table {
    _Atomic uint32_t *entries; /* offset in the cache by guest address */
    uint8_t *written;          /* a bit for each page of them */
    unsigned page_count;       /* of those */
    uint8_t open[128];         /* a bit for each piece of them: accessible */
} vx_table;

bool table_create(vx_table *table); /* false: no memory; to be freed all the same */
void table_free(vx_table *table);
/* From now on indirect branches to `eip` go to `offset`; but it takes at most VX_TABLE_PAGES_MAX pages, then
 * they go on missing. */
void table_set(vx_table *table, uint32_t eip, uint32_t offset);
uint32_t table_get(const vx_table *table, uint32_t eip);
/* signal-safe */
bool table_holds(const vx_table *table, uintptr_t address);

typedef struct vx_cache {
    uint8_t *run, *edit;
    size_t size;
    _Atomic size_t used;
    vx_block *blocks;
    size_t block_max;
    _Atomic uint32_t block_count;
    vx_mark *marks;
    size_t mark_max, mark_count;
    uint32_t *indexes; /* room for one behind the other, each twice as large */
    uint32_t *index;   /* the last: open addressing by eip; block number + 1 */
    size_t index_mask;
    size_t index_count; /* places taken, at most half of them */
    uint8_t *heads;     /* bits by eip & head_mask: a block may begin there; else none does */
    uint32_t head_mask;
    vx_table table;
    unsigned uses;      /* NEEDS_* */
    uint32_t fork_generation;
    uint64_t number; /* no other cache of this process has, or had, it */
    unsigned references;
    uint64_t guest_bytes;
} vx_cache;

vx_cache *cache_create(size_t code_bytes, unsigned uses);
void cache_ref(vx_cache *cache);   /* NULL is allowed */
void cache_unref(vx_cache *cache);
/* Was it made before a fork that it shall not outlive here? */
static inline bool cache_inherited(const vx_cache *cache) {
    return cache->fork_generation != vx_fork_generation();
}
/* Room for one more block of any size? */
bool cache_has_room(const vx_cache *cache);
uintptr_t cache_gate(const vx_cache *cache, vx_gate gate);
const vx_block *cache_lookup(const vx_cache *cache, uint32_t eip);
/* Takes in a block whose bytes and marks are written: faults in it are known, no lookup finds it. */
vx_block *cache_append(vx_cache *cache, const vx_block *block);
/* The same, and lookups find it. */
vx_block *cache_publish(vx_cache *cache, const vx_block *block);
void cache_drop(vx_cache *cache, vx_block *block);
/* Indirect branches find the block from now on. */
void cache_set_table(vx_cache *cache, const vx_block *block);
/* Points the rel32 at host address `site` of the cache to the body of `block`, if it still leads to its
 * own stub (another thread may have been quicker); *stub is what it was then. */
bool cache_link(vx_cache *cache, uintptr_t site, const vx_block *block, uint32_t *stub);
/* Back to its stub, if the block it stands in was not dropped. */
void cache_unlink(vx_cache *cache, uintptr_t site, uint32_t stub);

/* signal-safe */
static inline bool cache_contains(const vx_cache *cache, uintptr_t address) {
    return address - (uintptr_t)cache->run < atomic_load_explicit(&cache->used, memory_order_acquire);
}
/* The block that holds `address`, or NULL between blocks.  signal-safe */
const vx_block *cache_find(const vx_cache *cache, uintptr_t address);
/* The last mark at or before `address` in `block`.  signal-safe */
vx_mark cache_mark(const vx_cache *cache, const vx_block *block, uintptr_t address);
/* Whether `address` is where a guest instruction starts: all before it are done, nothing of it is. */
bool cache_exact(const vx_cache *cache, uintptr_t address);

#endif
