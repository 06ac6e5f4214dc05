/* LZ4 blocks and xxHash, from upstream's source in the lz4 package. */
#include <lz4.h>
#include <lz4hc.h>
#include <xxhash.h>
#include "bench.h"

#define MOST (8 << 20)

static bytes pack(bytes input, uint32_t rounds) {
    int room = LZ4_compressBound((int)input.len), made = 0;
    unsigned char *out = bench_room((size_t)room);
    while (rounds--) made = LZ4_compress_default((const char *)input.ptr, (char *)out, (int)input.len, room);
    bench_check(made > 0, "lz4: compress");
    return (bytes){out, (size_t)made};
}

static bytes pack_small(bytes input, uint32_t level) {
    int room = LZ4_compressBound((int)input.len);
    unsigned char *out = bench_room((size_t)room);
    int made = LZ4_compress_HC((const char *)input.ptr, (char *)out, (int)input.len, room, (int)level);
    bench_check(made > 0, "lz4: compress HC");
    return (bytes){out, (size_t)made};
}

static bytes unpack(bytes input, uint32_t rounds) {
    unsigned char *out = bench_room(MOST);
    int made = 0;
    while (rounds--) made = LZ4_decompress_safe((const char *)input.ptr, (char *)out, (int)input.len, MOST);
    bench_check(made >= 0, "lz4: decompress");
    return (bytes){out, (size_t)made};
}

static bytes hash32(bytes input, uint32_t rounds) {
    uint32_t value = 0;
    while (rounds--) value = XXH32(input.ptr, input.len, value);
    return bench_number(value);
}

static bytes hash64(bytes input, uint32_t rounds) {
    uint64_t value = 0;
    while (rounds--) value = XXH64(input.ptr, input.len, value);
    return bench_number((uint32_t)(value ^ value >> 32));
}

const bench_task bench_tasks[] = {
    {"compress", NULL, pack, unpack},        {"compress_hc", NULL, pack_small, unpack},
    {"decompress", pack, unpack, NULL},      {"xxh32", NULL, hash32, NULL},
    {"xxh64", NULL, hash64, NULL},           {0}};
