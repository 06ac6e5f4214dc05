/* OpenJPEG, from upstream's source in the pylibjpeg-openjpeg package: 8-bit RGB in memory, as bare codestreams.
 * The input is the width in 4 little-endian bytes, then the pixels' rows. */
#include <openjpeg.h>
#include <string.h>
#include "bench.h"

#define MOST (8u << 20)
#define HEAD 4u
#define CHUNK 65536u

typedef struct memory {
    unsigned char *ptr;
    size_t len, at, end; /* end: the furthest byte written */
} memory;

static OPJ_SIZE_T read_bytes(void *buffer, OPJ_SIZE_T size, void *user) {
    memory *m = user;
    size_t left = m->len - m->at, count = size < left ? size : left;
    if (!count) return (OPJ_SIZE_T)-1;
    memcpy(buffer, m->ptr + m->at, count);
    m->at += count;
    return count;
}

static OPJ_SIZE_T write_bytes(void *buffer, OPJ_SIZE_T size, void *user) {
    memory *m = user;
    if (size > m->len - m->at) return (OPJ_SIZE_T)-1;
    memcpy(m->ptr + m->at, buffer, size);
    m->at += size;
    if (m->at > m->end) m->end = m->at;
    return size;
}

static OPJ_OFF_T skip(OPJ_OFF_T count, void *user) {
    memory *m = user;
    if (count < 0 || (uint64_t)count > m->len - m->at) return -1;
    m->at += (size_t)count;
    return count;
}

static OPJ_BOOL seek(OPJ_OFF_T to, void *user) {
    memory *m = user;
    if (to < 0 || (uint64_t)to > m->len) return OPJ_FALSE;
    m->at = (size_t)to;
    return OPJ_TRUE;
}

static opj_stream_t *stream_of(memory *m, OPJ_BOOL input) {
    opj_stream_t *stream = opj_stream_create(CHUNK, input);
    opj_stream_set_read_function(stream, read_bytes);
    opj_stream_set_write_function(stream, write_bytes);
    opj_stream_set_skip_function(stream, skip);
    opj_stream_set_seek_function(stream, seek);
    opj_stream_set_user_data(stream, m, NULL);
    opj_stream_set_user_data_length(stream, m->len);
    return stream;
}

static opj_image_t *image_of(bytes file) {
    uint32_t width;
    memcpy(&width, file.ptr, HEAD);
    uint32_t height = (uint32_t)((file.len - HEAD) / 3 / width);
    opj_image_cmptparm_t components[3];
    memset(components, 0, sizeof components);
    for (int c = 0; c < 3; c++)
        components[c] = (opj_image_cmptparm_t){.dx = 1, .dy = 1, .w = width, .h = height, .prec = 8};
    opj_image_t *image = opj_image_create(3, components, OPJ_CLRSPC_SRGB);
    bench_check(image != NULL, "openjpeg: no memory");
    image->x1 = width, image->y1 = height;
    for (uint32_t i = 0; i < width * height; i++)
        for (int c = 0; c < 3; c++) image->comps[c].data[i] = file.ptr[HEAD + 3 * i + (uint32_t)c];
    return image;
}

/* Lossless: whole numbers only, so that all builds write the same bytes. */
static bytes pack(bytes file, uint32_t unused) {
    memory out = {bench_room(MOST), MOST, 0, 0};
    opj_stream_t *stream = stream_of(&out, OPJ_FALSE);
    opj_codec_t *codec = opj_create_compress(OPJ_CODEC_J2K);
    opj_image_t *image = image_of(file);
    opj_cparameters_t parameters;
    (void)unused;
    opj_set_default_encoder_parameters(&parameters);
    parameters.tcp_mct = 1;
    bench_check(opj_setup_encoder(codec, &parameters, image) && opj_start_compress(codec, image, stream) &&
                opj_encode(codec, stream) && opj_end_compress(codec, stream), "openjpeg: encode");
    opj_image_destroy(image);
    opj_destroy_codec(codec);
    opj_stream_destroy(stream);
    return (bytes){out.ptr, out.end};
}

static bytes pixels(const opj_image_t *image) {
    size_t count = (size_t)image->comps[0].w * image->comps[0].h;
    unsigned char *out = bench_room(count * 3);
    for (size_t i = 0; i < count; i++)
        for (int c = 0; c < 3; c++) out[3 * i + (size_t)c] = (unsigned char)image->comps[c].data[i];
    return (bytes){out, count * 3};
}

static bytes unpack(bytes input, uint32_t unused) {
    memory in = {(unsigned char *)input.ptr, input.len, 0, 0};
    opj_stream_t *stream = stream_of(&in, OPJ_TRUE);
    opj_codec_t *codec = opj_create_decompress(OPJ_CODEC_J2K);
    opj_image_t *image = NULL;
    opj_dparameters_t parameters;
    (void)unused;
    opj_set_default_decoder_parameters(&parameters);
    bench_check(opj_setup_decoder(codec, &parameters) && opj_read_header(stream, codec, &image) &&
                opj_decode(codec, stream, image) && opj_end_decompress(codec, stream), "openjpeg: decode");
    bytes result = pixels(image);
    opj_image_destroy(image);
    opj_destroy_codec(codec);
    opj_stream_destroy(stream);
    return result;
}

const bench_task bench_tasks[] = {{"encode", NULL, pack, NULL}, {"decode", pack, unpack, NULL}, {0}};
