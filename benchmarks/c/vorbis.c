/* stb_vorbis, as miniaudio carries it. */
#define STB_VORBIS_NO_STDIO
#define STB_VORBIS_NO_PUSHDATA_API
#include <stb_vorbis.c>
#include "bench.h"

#define MOST (16u << 20)

static bytes unpack(bytes input, uint32_t unused) {
    short *out = (short *)(void *)bench_room(MOST);
    stb_vorbis *decoder = stb_vorbis_open_memory(input.ptr, (int)input.len, NULL, NULL);
    size_t made = 0;
    int frames;
    (void)unused;
    bench_check(decoder != NULL, "vorbis: not a stream");
    while ((frames = stb_vorbis_get_frame_short_interleaved(decoder, 2, out + made, (int)(MOST / 2 - made))) > 0)
        made += (size_t)frames * 2;
    stb_vorbis_close(decoder);
    return (bytes){(unsigned char *)out, made * 2};
}

const bench_task bench_tasks[] = {{"decode", NULL, unpack, NULL}, {0}};
