/* The Independent JPEG Group's library, from upstream's source in the dlib package: 8-bit RGB, in memory.
 * The input is the width in 4 little-endian bytes, then the pixels' rows. */
#include <stdio.h>
#include <jpeglib.h>
#include <stdlib.h>
#include "bench.h"

#define MOST (8u << 20)
#define HEAD 4u

static uint32_t width_of(bytes image) {
    return image.ptr[0] | (uint32_t)image.ptr[1] << 8 | (uint32_t)image.ptr[2] << 16 | (uint32_t)image.ptr[3] << 24;
}

static void start(struct jpeg_compress_struct *codec, bytes image, uint32_t quality) {
    codec->image_width = width_of(image);
    codec->image_height = (JDIMENSION)((image.len - HEAD) / (3 * codec->image_width));
    codec->input_components = 3;
    codec->in_color_space = JCS_RGB;
    jpeg_set_defaults(codec);
    jpeg_set_quality(codec, (int)quality, TRUE);
    jpeg_start_compress(codec, TRUE);
}

static bytes pack(bytes image, uint32_t quality) {
    struct jpeg_compress_struct codec;
    struct jpeg_error_mgr errors;
    unsigned char *out = bench_room(MOST);
    size_t made = MOST;
    codec.err = jpeg_std_error(&errors);
    jpeg_create_compress(&codec);
    jpeg_mem_dest(&codec, &out, &made);
    start(&codec, image, quality);
    while (codec.next_scanline < codec.image_height) {
        JSAMPROW row = (JSAMPROW)image.ptr + HEAD + (size_t)codec.next_scanline * codec.image_width * 3;
        jpeg_write_scanlines(&codec, &row, 1);
    }
    jpeg_finish_compress(&codec);
    jpeg_destroy_compress(&codec);
    return (bytes){out, made};
}

static bytes unpack(bytes input, uint32_t quality) {
    struct jpeg_decompress_struct codec;
    struct jpeg_error_mgr errors;
    unsigned char *out = bench_room(MOST), *at = out;
    (void)quality;
    codec.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&codec);
    jpeg_mem_src(&codec, input.ptr, input.len);
    bench_check(jpeg_read_header(&codec, TRUE) == JPEG_HEADER_OK, "jpeg: header");
    jpeg_start_decompress(&codec);
    while (codec.output_scanline < codec.output_height) {
        JSAMPROW row = at;
        jpeg_read_scanlines(&codec, &row, 1);
        at += codec.output_width * 3;
    }
    jpeg_finish_decompress(&codec);
    jpeg_destroy_decompress(&codec);
    return (bytes){out, (size_t)(at - out)};
}

const bench_task bench_tasks[] = {{"encode", NULL, pack, NULL}, {"decode", pack, unpack, NULL}, {0}};
