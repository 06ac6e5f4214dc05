/* JPEG 2000, from the upstream OpenJPEG source in the pylibjpeg-openjpeg package. */
#include <openjpeg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vxplug.h>

VX_MODULE_DOC("JPEG 2000 images: JP2 files and bare codestreams.");

#define STREAM_CHUNK 65536u     /* upstream reads through a buffer of this many bytes */
#define MOST_SAMPLES 0x10000000u   /* keeps samples times 4 below 2^32 */

/* One decoding in progress. */
typedef struct job {
    const unsigned char *data;
    size_t len, at;
    opj_stream_t *stream;
    opj_codec_t *codec;
    opj_image_t *image;
    char message[160];          /* upstream's first error: later ones only follow from it */
} job;

static OPJ_SIZE_T job_read(void *buffer, OPJ_SIZE_T size, void *user) {
    job *j = user;
    size_t left = j->len - j->at, count = size < left ? size : left;
    if (!count) return (OPJ_SIZE_T)-1;
    memcpy(buffer, j->data + j->at, count);
    j->at += count;
    return count;
}

static OPJ_BOOL job_seek(OPJ_OFF_T to, void *user) {
    job *j = user;
    if (to < 0 || (uint64_t)to > j->len) return OPJ_FALSE;
    j->at = (size_t)to;
    return OPJ_TRUE;
}

static OPJ_OFF_T job_skip(OPJ_OFF_T count, void *user) {
    job *j = user;
    OPJ_OFF_T left = (OPJ_OFF_T)(j->len - j->at);
    if (count < 0 || !left) return -1;
    if (count > left) count = left;
    j->at += (size_t)count;
    return count;
}

static void job_error(const char *text, void *user) {
    job *j = user;
    if (j->message[0]) return;
    snprintf(j->message, sizeof j->message, "%s", text);
    j->message[strcspn(j->message, "\r\n")] = 0;
}

static bool fail(const job *j, const char *what) {
    return vx_raise(VX_ValueError, "openjpeg: %s: %s", what,
                    j->message[0] ? j->message : "no reason given"), false;
}

static bool is_jp2(vx_view data) {
    static const unsigned char box[12] = {0, 0, 0, 12, 'j', 'P', ' ', ' ', 13, 10, 0x87, 10};
    return data.len >= sizeof box && !memcmp(data.ptr, box, sizeof box);
}

static bool job_create(job *j, vx_view data) {
    memset(j, 0, sizeof *j);
    j->data = data.ptr;
    j->len = data.len;
    j->stream = opj_stream_create(STREAM_CHUNK, OPJ_TRUE);
    j->codec = opj_create_decompress(is_jp2(data) ? OPJ_CODEC_JP2 : OPJ_CODEC_J2K);
    if (j->stream && j->codec) return true;
    return vx_raise(VX_MemoryError, "openjpeg: no memory for the decoder"), false;
}

static void job_connect(job *j) {
    opj_set_error_handler(j->codec, job_error, j);
    opj_stream_set_read_function(j->stream, job_read);
    opj_stream_set_seek_function(j->stream, job_seek);
    opj_stream_set_skip_function(j->stream, job_skip);
    opj_stream_set_user_data(j->stream, j, NULL);
    opj_stream_set_user_data_length(j->stream, j->len);
}

static bool job_open(job *j, vx_view data) {
    opj_dparameters_t parameters;
    if (!job_create(j, data)) return false;
    job_connect(j);
    opj_set_default_decoder_parameters(&parameters);
    return (opj_setup_decoder(j->codec, &parameters) &&
            opj_read_header(j->stream, j->codec, &j->image)) || fail(j, "header");
}

static void job_close(job *j) {
    opj_image_destroy(j->image);
    opj_destroy_codec(j->codec);
    opj_stream_destroy(j->stream);
}

static unsigned sample_bytes(const opj_image_t *image) { return image->comps[0].prec <= 8 ? 1 : 2; }

/* Interleaving needs components of one shape. */
static bool shape_ok(const opj_image_t *image) {
    const opj_image_comp_t *first = image->comps, *end = image->comps + image->numcomps;
    for (const opj_image_comp_t *c = first; c < end; c++)
        if (c->w != first->w || c->h != first->h || c->prec != first->prec || c->prec > 16)
            return vx_raise(VX_NotImplementedError, "openjpeg: component %d differs from the first "
                            "in shape, or has more than 16 bits", (int)(c - first)), false;
    return true;
}

/* Before decoding, which allocates all of it. */
static bool size_ok(const opj_image_t *image, uint32_t max_size) {
    uint64_t pixels = (uint64_t)image->comps[0].w * image->comps[0].h;
    uint64_t most = max_size / sample_bytes(image);
    if (most > MOST_SAMPLES) most = MOST_SAMPLES;
    if (pixels <= most && pixels * image->numcomps <= most) return true;
    return vx_raise(VX_ValueError, "openjpeg: %u x %u x %u samples exceed max_size (%u bytes)",
                    (unsigned)image->comps[0].w, (unsigned)image->comps[0].h,
                    (unsigned)image->numcomps, (unsigned)max_size), false;
}

static bool data_ok(const opj_image_t *image) {
    for (unsigned c = 0; c < image->numcomps; c++)
        if (!image->comps[c].data)
            return vx_raise(VX_ValueError, "openjpeg: component %u has no data", c), false;
    return true;
}

/* Pixel by pixel, each sample little-endian in as many bytes as the precision needs. */
static void interleave(const opj_image_t *image, unsigned char *out) {
    size_t pixels = (size_t)image->comps[0].w * image->comps[0].h;
    unsigned bytes = sample_bytes(image);
    for (size_t i = 0; i < pixels; i++)
        for (unsigned c = 0; c < image->numcomps; c++) {
            uint32_t sample = (uint32_t)image->comps[c].data[i];
            *out++ = (unsigned char)sample;
            if (bytes == 2) *out++ = (unsigned char)(sample >> 8);
        }
}

static vx_bytes samples(const opj_image_t *image) {
    size_t pixels = (size_t)image->comps[0].w * image->comps[0].h;
    size_t size = pixels * image->numcomps * sample_bytes(image);
    unsigned char *out = malloc(size ? size : 1);
    if (!out) return vx_raise(VX_MemoryError, "openjpeg: no memory for %zu bytes", size);
    interleave(image, out);
    return vx_take(out, size);
}

static bool decode_image(job *j, uint32_t max_size) {
    if (!shape_ok(j->image) || !size_ok(j->image, max_size)) return false;
    if (!opj_decode(j->codec, j->stream, j->image) || !opj_end_decompress(j->codec, j->stream))
        return fail(j, "data");
    return shape_ok(j->image) && size_ok(j->image, max_size) && data_ok(j->image);
}

VX_DOC(decode, "Decode to interleaved samples of 1 or 2 bytes; ValueError if over max_size bytes.");
VX_EXPORT vx_bytes decode(vx_view data, uint32_t max_size) {
    job j;
    vx_bytes out = {NULL, 0, VX_BORROWED};
    if (job_open(&j, data) && decode_image(&j, max_size)) out = samples(j.image);
    job_close(&j);
    return out;
}

static const char *describe_image(const opj_image_t *image) {
    static char text[160];
    const opj_image_comp_t *first = image->comps;
    snprintf(text, sizeof text,
             "{\"width\": %u, \"height\": %u, \"components\": %u, \"bits\": %u, \"signed\": %s}",
             (unsigned)first->w, (unsigned)first->h, (unsigned)image->numcomps,
             (unsigned)first->prec, first->sgnd ? "true" : "false");
    return text;
}

VX_DOC(describe, "Width, height, components, bits and signedness, as JSON.");
VX_EXPORT const char *describe(vx_view data) {
    job j;
    const char *text = job_open(&j, data) ? describe_image(j.image) : NULL;
    job_close(&j);
    return text;
}
