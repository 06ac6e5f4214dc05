/* FLAC: dr_flac, as miniaudio carries it. */
#include "miniaudio_decoders.h"
#include "pcm.h"

VX_MODULE_DOC("FLAC audio.");

static size_t read_frames(void *decoder, int16_t *samples, size_t frames) {
    return (size_t)ma_dr_flac_read_pcm_frames_s16(decoder, frames, samples);
}

static ma_dr_flac *open_stream(vx_view data) {
    ma_dr_flac *decoder = ma_dr_flac_open_memory(data.ptr, data.len, NULL);
    if (!decoder) vx_raise(VX_ValueError, "flac: not a FLAC stream, or its header is corrupt");
    return decoder;
}

static bool short_stream(unsigned long long got, unsigned long long promised) {
    return vx_raise(VX_EOFError, "flac: %llu of %llu frames could be decoded", got, promised),
           false;
}

/* dr_flac ends quietly where it finds nothing more to decode: the header's count (0 if the
 * encoder did not know it) tells a complete stream from a damaged one. */
static bool complete(const ma_dr_flac *decoder, const sink *out) {
    uint64_t got = out->len / (decoder->channels * sizeof(int16_t));
    uint64_t promised = decoder->totalPCMFrameCount;
    return promised == 0 || got == promised || short_stream(got, promised);
}

VX_DOC(decode, "Decode to interleaved 16-bit samples; ValueError if over max_size bytes.");
VX_EXPORT vx_bytes decode(vx_view data, uint32_t max_size) {
    sink out = sink_new(max_size);
    ma_dr_flac *decoder = open_stream(data);
    if (!decoder) return sink_finish(&out, false);
    bool ok = pcm_channels_ok(decoder->channels) &&
              pcm_drain(&out, decoder, decoder->channels, read_frames) && complete(decoder, &out);
    ma_dr_flac_close(decoder);
    return sink_finish(&out, ok);
}

VX_DOC(describe, "Channels, sample rate and number of frames, as JSON.");
VX_EXPORT const char *describe(vx_view data) {
    ma_dr_flac *decoder = open_stream(data);
    if (!decoder) return NULL;
    const char *text =
        pcm_describe(decoder->channels, decoder->sampleRate, decoder->totalPCMFrameCount);
    ma_dr_flac_close(decoder);
    return text;
}
