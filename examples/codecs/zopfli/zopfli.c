/* Zopfli, the slow and small DEFLATE encoder, from the upstream source in the zopfli package. */
#include <stdlib.h>
#include <vxplug.h>
#include <zopfli.h>

VX_MODULE_DOC("Zopfli: zlib, gzip and raw DEFLATE streams, as small as they get.");

#define MOST_ITERATIONS 1000u

static vx_bytes encode(ZopfliFormat format, vx_view data, uint32_t iterations) {
    if (iterations < 1 || iterations > MOST_ITERATIONS)
        return vx_raise(VX_ValueError, "zopfli: %u iterations are not in 1..%u",
                        (unsigned)iterations, MOST_ITERATIONS);
    ZopfliOptions options;
    ZopfliInitOptions(&options);
    options.numiterations = (int)iterations;
    unsigned char *out = NULL;
    size_t size = 0;
    ZopfliCompress(&options, format, data.ptr, data.len, &out, &size);
    return vx_take(out, size);
}

VX_DOC(compress, "Compress data to a zlib stream.");
VX_EXPORT vx_bytes compress(vx_view data, uint32_t iterations) {
    return encode(ZOPFLI_FORMAT_ZLIB, data, iterations);
}

VX_DOC(gzip, "Compress data to a gzip file.");
VX_EXPORT vx_bytes gzip(vx_view data, uint32_t iterations) {
    return encode(ZOPFLI_FORMAT_GZIP, data, iterations);
}
