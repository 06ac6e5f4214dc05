/* zlib, from upstream's source in the dlib package. */
#include <zlib.h>
#include "bench.h"

static bytes pack(bytes input, uint32_t level) {
    uLongf made = compressBound(input.len);
    unsigned char *out = bench_room(made);
    bench_check(compress2(out, &made, input.ptr, input.len, (int)level) == Z_OK, "zlib: compress");
    return (bytes){out, made};
}

#define MOST (8u << 20)

static bytes unpack(bytes input, uint32_t level) {
    uLongf made = MOST;
    unsigned char *out = bench_room(made);
    (void)level;
    bench_check(uncompress(out, &made, input.ptr, input.len) == Z_OK, "zlib: uncompress");
    return (bytes){out, made};
}

static bytes crc(bytes input, uint32_t rounds) {
    uLong value = 0;
    while (rounds--) value = crc32(value, input.ptr, (uInt)input.len);
    return bench_number((uint32_t)value);
}

static bytes adler(bytes input, uint32_t rounds) {
    uLong value = 1;
    while (rounds--) value = adler32(value, input.ptr, (uInt)input.len);
    return bench_number((uint32_t)value);
}

const bench_task bench_tasks[] = {
    {"compress", NULL, pack, NULL}, {"decompress", pack, unpack, NULL},
    {"crc32", NULL, crc, NULL},     {"adler32", NULL, adler, NULL},      {0}};
