/* LZ4 frames, from the upstream source in the lz4 package. */
#include <lz4frame.h>
#include "sink.h"

VX_MODULE_DOC("LZ4 compression, frame format.");

static bool fail(size_t code) {
    return vx_raise(VX_ValueError, "lz4: %s", LZ4F_getErrorName(code)), false;
}

static bool truncated(void) {
    return vx_raise(VX_EOFError, "lz4: input ends inside a frame"), false;
}

/* Decodes one frame and moves `rest` past it.  Upstream's `hint` is 0 exactly at a frame's end;
 * a step with room to write that neither reads nor writes has run out of input. */
static bool decode_frame(LZ4F_dctx *context, vx_view *rest, sink *out) {
    size_t hint, used, made;
    do {
        if (!sink_reserve(out, 1)) return false;
        used = rest->len;
        made = sink_room(out);
        hint = LZ4F_decompress(context, sink_tail(out), &made, rest->ptr, &used, NULL);
        if (LZ4F_isError(hint)) return fail(hint);
        rest->ptr = (const char *)rest->ptr + used;
        rest->len -= used;
        out->len += made;
    } while (hint && (used || made));
    return hint == 0 || truncated();
}

static bool decode(LZ4F_dctx *context, vx_view data, sink *out) {
    bool ok;
    do ok = decode_frame(context, &data, out);
    while (ok && data.len);
    return ok;
}

VX_DOC(decompress, "Decompress all frames of data; ValueError if corrupt or over max_size bytes.");
VX_EXPORT vx_bytes decompress(vx_view data, uint32_t max_size) {
    LZ4F_dctx *context;
    size_t code = LZ4F_createDecompressionContext(&context, LZ4F_VERSION);
    sink out = sink_new(max_size);
    if (LZ4F_isError(code)) return sink_finish(&out, fail(code));
    bool ok = decode(context, data, &out);
    LZ4F_freeDecompressionContext(context);
    return sink_finish(&out, ok);
}

VX_DOC(compress, "Compress data into one frame that states its size; level 0 (fast) to 12 (small).");
VX_EXPORT vx_bytes compress(vx_view data, int32_t level) {
    LZ4F_preferences_t preferences = LZ4F_INIT_PREFERENCES;
    preferences.compressionLevel = level;
    preferences.frameInfo.contentSize = data.len;
    size_t room = LZ4F_compressFrameBound(data.len, &preferences);
    void *buffer = malloc(room);
    if (!buffer) return vx_raise(VX_MemoryError, "lz4: no memory for %zu bytes", room);
    size_t made = LZ4F_compressFrame(buffer, room, data.ptr, data.len, &preferences);
    if (!LZ4F_isError(made)) return vx_take(buffer, made);
    free(buffer);
    return fail(made), vx_take(NULL, 0);
}
