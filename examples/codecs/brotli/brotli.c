/* Brotli, from the upstream source in the Brotli package. */
#include <brotli/decode.h>
#include <brotli/encode.h>
#include "sink.h"

VX_MODULE_DOC("Brotli compression.");

static bool fail(const BrotliDecoderState *state) {
    const char *text = BrotliDecoderErrorString(BrotliDecoderGetErrorCode(state));
    return vx_raise(VX_ValueError, "brotli: %s", text), false;
}

static bool truncated(void) {
    return vx_raise(VX_EOFError, "brotli: input ends inside the stream"), false;
}

static bool trailing(size_t count) {
    return vx_raise(VX_ValueError, "brotli: %zu bytes after the stream", count), false;
}

static bool decode(BrotliDecoderState *state, vx_view data, sink *out) {
    const uint8_t *next = data.ptr;
    size_t left = data.len;
    BrotliDecoderResult result;
    do {
        if (!sink_reserve(out, 1)) return false;
        size_t room = sink_room(out);
        uint8_t *tail = sink_tail(out);
        result = BrotliDecoderDecompressStream(state, &left, &next, &room, &tail, NULL);
        out->len = out->capacity - room;
    } while (result == BROTLI_DECODER_RESULT_NEEDS_MORE_OUTPUT);
    if (result == BROTLI_DECODER_RESULT_ERROR) return fail(state);
    if (result == BROTLI_DECODER_RESULT_NEEDS_MORE_INPUT) return truncated();
    return left == 0 || trailing(left);
}

VX_DOC(decompress, "Decompress one stream; ValueError if corrupt or over max_size bytes.");
VX_EXPORT vx_bytes decompress(vx_view data, uint32_t max_size) {
    BrotliDecoderState *state = BrotliDecoderCreateInstance(NULL, NULL, NULL);
    if (!state) return vx_raise(VX_MemoryError, "brotli: no memory for the decoder");
    sink out = sink_new(max_size);
    bool ok = decode(state, data, &out);
    BrotliDecoderDestroyInstance(state);
    return sink_finish(&out, ok);
}

static bool encode_step(BrotliEncoderState *state, BrotliEncoderOperation operation, vx_view data,
                        sink *out) {
    const uint8_t *next = data.ptr;
    size_t left = data.len;
    do {
        if (!sink_reserve(out, 1)) return false;
        size_t room = sink_room(out);
        uint8_t *tail = sink_tail(out);
        if (!BrotliEncoderCompressStream(state, operation, &left, &next, &room, &tail, NULL))
            return vx_raise(VX_RuntimeError, "brotli: the encoder failed"), false;
        out->len = out->capacity - room;
    } while (left || BrotliEncoderHasMoreOutput(state));
    return true;
}

/* In two steps, as upstream's own Python binding does: an encoder told at once that the input
 * ends may choose other blocks, and then the output would differ from the host library's. */
static bool encode(BrotliEncoderState *state, vx_view data, sink *out) {
    vx_view nothing = {data.ptr, 0};
    return encode_step(state, BROTLI_OPERATION_PROCESS, data, out) &&
           encode_step(state, BROTLI_OPERATION_FINISH, nothing, out);
}

VX_DOC(compress, "Compress data at quality 0 (fast) to 11 (small).");
VX_EXPORT vx_bytes compress(vx_view data, uint32_t quality) {
    if (quality > BROTLI_MAX_QUALITY)
        return vx_raise(VX_ValueError, "brotli: quality %u is not in 0..%d", (unsigned)quality,
                        BROTLI_MAX_QUALITY);
    BrotliEncoderState *state = BrotliEncoderCreateInstance(NULL, NULL, NULL);
    if (!state) return vx_raise(VX_MemoryError, "brotli: no memory for the encoder");
    BrotliEncoderSetParameter(state, BROTLI_PARAM_QUALITY, quality);
    sink out = sink_new(SINK_MOST);
    bool ok = encode(state, data, &out);
    BrotliEncoderDestroyInstance(state);
    return sink_finish(&out, ok);
}
