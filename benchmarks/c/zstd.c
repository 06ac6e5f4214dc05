/* Zstandard, from upstream's source in the zstandard package; contexts are kept, as its manual advises. */
#include <zstd.h>
#include "bench.h"

#define MOST (8u << 20)

static bytes made(unsigned char *out, size_t result) {
    bench_check(!ZSTD_isError(result), "zstd");
    return (bytes){out, result};
}

static bytes pack(bytes input, uint32_t level) {
    static ZSTD_CCtx *context;
    if (!context) context = ZSTD_createCCtx();
    size_t size = ZSTD_compressBound(input.len);
    unsigned char *out = bench_room(size);
    return made(out, ZSTD_compressCCtx(context, out, size, input.ptr, input.len, (int)level));
}

static bytes unpack(bytes input, uint32_t level) {
    static ZSTD_DCtx *context;
    if (!context) context = ZSTD_createDCtx();
    unsigned char *out = bench_room(MOST);
    (void)level;
    return made(out, ZSTD_decompressDCtx(context, out, MOST, input.ptr, input.len));
}

const bench_task bench_tasks[] = {{"compress", NULL, pack, NULL}, {"decompress", pack, unpack, NULL}, {0}};
