/* Zstandard, from the amalgamated upstream source in the zstandard package. */
#include <stdlib.h>
#include <vxplug.h>

#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>
#include <zstd_errors.h>

VX_MODULE_DOC("Zstandard compression.");

static vx_bytes fail(void *buffer, size_t code) {
    free(buffer);
    return vx_raise(VX_ValueError, "zstd: %s", ZSTD_getErrorName(code));
}

static vx_bytes finish(void *buffer, size_t result) {
    return ZSTD_isError(result) ? fail(buffer, result) : vx_take(buffer, result);
}

/* The frames' own claim, or the caller's limit if that is less: a lying header costs at most
 * max_size, and a frame longer than its room is an error of the decoder. */
static size_t decompressed_room(vx_view data, uint32_t max_size) {
    unsigned long long claim = ZSTD_decompressBound(data.ptr, data.len);
    return claim < max_size ? (size_t)claim : max_size;
}

VX_DOC(decompress, "Decompress all frames of data; ValueError if corrupt or over max_size bytes.");
VX_EXPORT vx_bytes decompress(vx_view data, uint32_t max_size) {
    if (data.len == 0) return vx_raise(VX_EOFError, "zstd: empty input");
    size_t room = decompressed_room(data, max_size);
    void *buffer = malloc(room ? room : 1);
    if (!buffer) return vx_raise(VX_MemoryError, "zstd: no memory for %zu bytes", room);
    size_t result = ZSTD_decompress(buffer, room, data.ptr, data.len);
    if (ZSTD_getErrorCode(result) != ZSTD_error_dstSize_tooSmall) return finish(buffer, result);
    free(buffer);
    return vx_raise(VX_ValueError, "zstd: output exceeds max_size (%u bytes)", (unsigned)max_size);
}

VX_DOC(compress, "Compress data into one frame that states its size.");
VX_EXPORT vx_bytes compress(vx_view data, int32_t level) {
    if (level < ZSTD_minCLevel() || level > ZSTD_maxCLevel())
        return vx_raise(VX_ValueError, "zstd: level %d is not in %d..%d", (int)level,
                        ZSTD_minCLevel(), ZSTD_maxCLevel());
    size_t room = ZSTD_compressBound(data.len);
    if (ZSTD_isError(room)) return fail(NULL, room);
    void *buffer = malloc(room);
    if (!buffer) return vx_raise(VX_MemoryError, "zstd: no memory for %zu bytes", room);
    return finish(buffer, ZSTD_compress(buffer, room, data.ptr, data.len, level));
}
