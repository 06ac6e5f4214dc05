/* bzip2, from upstream's source in the hdf5plugin package. */
#include <bzlib.h>
#include "bench.h"

#define MOST (8u << 20)

/* What bzlib asks of programs that leave its standard input and output out. */
void bz_internal_error(int code) {
    (void)code;
    bench_fail("bzip2: internal error");
}

static bytes pack(bytes input, uint32_t level) {
    unsigned made = MOST;
    unsigned char *out = bench_room(made);
    int status = BZ2_bzBuffToBuffCompress((char *)out, &made, (char *)input.ptr, (unsigned)input.len, (int)level, 0, 0);
    bench_check(status == BZ_OK, "bzip2: compress");
    return (bytes){out, made};
}

static bytes unpack(bytes input, uint32_t level) {
    unsigned made = MOST;
    unsigned char *out = bench_room(made);
    (void)level;
    int status = BZ2_bzBuffToBuffDecompress((char *)out, &made, (char *)input.ptr, (unsigned)input.len, 0, 0);
    bench_check(status == BZ_OK, "bzip2: decompress");
    return (bytes){out, made};
}

const bench_task bench_tasks[] = {{"compress", NULL, pack, NULL}, {"decompress", pack, unpack, NULL}, {0}};
