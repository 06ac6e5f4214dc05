/* Zopfli, the slow and small DEFLATE encoder, from upstream's source in the zopfli package. */
#include <stdlib.h>
#include <zopfli.h>
#include "bench.h"

static bytes pack(bytes input, uint32_t iterations) {
    static unsigned char *out;
    size_t made = 0;
    ZopfliOptions options;
    ZopfliInitOptions(&options);
    options.numiterations = (int)iterations;
    free(out);
    out = NULL;
    ZopfliCompress(&options, ZOPFLI_FORMAT_ZLIB, input.ptr, input.len, &out, &made);
    return (bytes){out, made};
}

const bench_task bench_tasks[] = {{"compress", NULL, pack, NULL}, {0}};
