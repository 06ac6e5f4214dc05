/* Output that grows as a decoder produces it.
 *
 * No size in a stream is believed: storage doubles as bytes arrive, and stops at the caller's
 * limit.  A decoder may run past the limit by the one step that shows that there is more, so an
 * output of exactly `limit` bytes needs no special case. */
#ifndef EXAMPLES_SINK_H
#define EXAMPLES_SINK_H

#include <stdlib.h>
#include <vxplug.h>

#define SINK_FIRST 65536u       /* bytes of the first allocation */
#define SINK_MOST 0x3fffffffu   /* doubling it still fits in 32 bits */

typedef struct sink {
    unsigned char *ptr;
    size_t len, capacity, limit;
} sink;

static inline sink sink_new(size_t limit) {
    sink out = {NULL, 0, 0, limit < SINK_MOST ? limit : SINK_MOST};
    return out;
}

static inline size_t sink_least(size_t a, size_t b) { return a < b ? a : b; }

/* Makes room for `step` more bytes: at most SINK_FIRST, and the same at every call of one decoder,
 * or 0.  False after raising the error. */
static inline bool sink_reserve(sink *out, size_t step) {
    if (out->len > out->limit)
        return vx_raise(VX_ValueError, "output exceeds max_size (%zu bytes)", out->limit), false;
    if (out->capacity - out->len >= step) return true;
    size_t wish = out->capacity ? out->capacity * 2 : SINK_FIRST;
    size_t capacity = sink_least(wish, out->limit + step);
    unsigned char *grown = realloc(out->ptr, capacity);
    if (!grown) return vx_raise(VX_MemoryError, "no memory for %zu bytes", capacity), false;
    out->ptr = grown;
    out->capacity = capacity;
    return true;
}

static inline unsigned char *sink_tail(const sink *out) { return out->ptr + out->len; }
static inline size_t sink_room(const sink *out) { return out->capacity - out->len; }

/* The result of a call that succeeded if `ok`; an error has been raised if not. */
static inline vx_bytes sink_finish(sink *out, bool ok) {
    if (ok && sink_reserve(out, 0)) return vx_take(out->ptr, out->len);
    free(out->ptr);
    return vx_take(NULL, 0);
}

#endif
