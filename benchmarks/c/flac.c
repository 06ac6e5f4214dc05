/* libFLAC, from upstream's source in the plibflac package: 16-bit stereo, in memory. */
#include <FLAC/stream_decoder.h>
#include <FLAC/stream_encoder.h>
#include <string.h>
#include "bench.h"

#define MOST (8u << 20)
#define BLOCK 4096u

typedef struct stream {
    bytes in;
    size_t at;
    unsigned char *out;
    size_t made;
} stream;

static FLAC__StreamEncoderWriteStatus written(const FLAC__StreamEncoder *encoder, const FLAC__byte data[], size_t len,
                                              uint32_t samples, uint32_t frame, void *client) {
    stream *s = client;
    (void)encoder, (void)samples, (void)frame;
    if (s->made + len > MOST) return FLAC__STREAM_ENCODER_WRITE_STATUS_FATAL_ERROR;
    memcpy(s->out + s->made, data, len);
    s->made += len;
    return FLAC__STREAM_ENCODER_WRITE_STATUS_OK;
}

static int encode_block(FLAC__StreamEncoder *encoder, const unsigned char *pcm, uint32_t frames) {
    static FLAC__int32 samples[BLOCK * 2];
    for (uint32_t i = 0; i < frames * 2; i++) samples[i] = (int16_t)(pcm[2 * i] | pcm[2 * i + 1] << 8);
    return FLAC__stream_encoder_process_interleaved(encoder, samples, frames);
}

static bytes pack(bytes input, uint32_t level) {
    stream s = {input, 0, bench_room(MOST), 0};
    FLAC__StreamEncoder *encoder = FLAC__stream_encoder_new();
    FLAC__stream_encoder_set_compression_level(encoder, level);
    int ok = FLAC__stream_encoder_init_stream(encoder, written, NULL, NULL, NULL, &s) == FLAC__STREAM_ENCODER_INIT_STATUS_OK;
    for (size_t left = input.len / 4; ok && left;) {
        uint32_t frames = left < BLOCK ? (uint32_t)left : BLOCK;
        ok = encode_block(encoder, input.ptr + input.len / 4 * 4 - left * 4, frames);
        left -= frames;
    }
    bench_check(ok && FLAC__stream_encoder_finish(encoder), "flac: encode");
    FLAC__stream_encoder_delete(encoder);
    return (bytes){s.out, s.made};
}

static FLAC__StreamDecoderReadStatus read_bytes(const FLAC__StreamDecoder *decoder, FLAC__byte data[], size_t *len,
                                                void *client) {
    stream *s = client;
    (void)decoder;
    if (*len > s->in.len - s->at) *len = s->in.len - s->at;
    memcpy(data, s->in.ptr + s->at, *len);
    s->at += *len;
    return *len ? FLAC__STREAM_DECODER_READ_STATUS_CONTINUE : FLAC__STREAM_DECODER_READ_STATUS_END_OF_STREAM;
}

static FLAC__StreamDecoderWriteStatus decoded(const FLAC__StreamDecoder *decoder, const FLAC__Frame *frame,
                                              const FLAC__int32 *const samples[], void *client) {
    stream *s = client;
    (void)decoder;
    bench_check(frame->header.channels == 2 && s->made + frame->header.blocksize * 4 <= MOST, "flac: frame");
    for (uint32_t i = 0; i < frame->header.blocksize; i++)
        for (int channel = 0; channel < 2; channel++) {
            s->out[s->made++] = (unsigned char)samples[channel][i];
            s->out[s->made++] = (unsigned char)(samples[channel][i] >> 8);
        }
    return FLAC__STREAM_DECODER_WRITE_STATUS_CONTINUE;
}

static void failed(const FLAC__StreamDecoder *decoder, FLAC__StreamDecoderErrorStatus status, void *client) {
    (void)decoder, (void)status, (void)client;
    bench_fail("flac: decode");
}

static bytes unpack(bytes input, uint32_t level) {
    stream s = {input, 0, bench_room(MOST), 0};
    FLAC__StreamDecoder *decoder = FLAC__stream_decoder_new();
    (void)level;
    int status = FLAC__stream_decoder_init_stream(decoder, read_bytes, NULL, NULL, NULL, NULL, decoded, NULL, failed, &s);
    bench_check(status == FLAC__STREAM_DECODER_INIT_STATUS_OK &&
                FLAC__stream_decoder_process_until_end_of_stream(decoder), "flac: decode");
    FLAC__stream_decoder_delete(decoder);
    return (bytes){s.out, s.made};
}

const bench_task bench_tasks[] = {{"encode", NULL, pack, NULL}, {"decode", pack, unpack, NULL}, {0}};
