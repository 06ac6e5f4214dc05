/* Brotli, from upstream's source in the Brotli package. */
#include <brotli/decode.h>
#include <brotli/encode.h>
#include "bench.h"

#define MOST (8u << 20)

static bytes pack(bytes input, uint32_t quality) {
    size_t made = MOST;
    unsigned char *out = bench_room(made);
    bench_check(BrotliEncoderCompress((int)quality, BROTLI_DEFAULT_WINDOW, BROTLI_MODE_GENERIC, input.len, input.ptr,
                                      &made, out), "brotli: compress");
    return (bytes){out, made};
}

static bytes unpack(bytes input, uint32_t quality) {
    size_t made = MOST;
    unsigned char *out = bench_room(made);
    (void)quality;
    bench_check(BrotliDecoderDecompress(input.len, input.ptr, &made, out) == BROTLI_DECODER_RESULT_SUCCESS,
                "brotli: decompress");
    return (bytes){out, made};
}

const bench_task bench_tasks[] = {{"compress", NULL, pack, NULL}, {"decompress", pack, unpack, NULL}, {0}};
