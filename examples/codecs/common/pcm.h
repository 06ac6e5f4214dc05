/* Decoding audio to interleaved 16-bit little-endian samples, whatever the decoder. */
#ifndef EXAMPLES_PCM_H
#define EXAMPLES_PCM_H

#include <stdio.h>
#include "sink.h"

#define PCM_MOST_CHANNELS 16u   /* every decoder's own bound is lower */
#define PCM_STEP 512u           /* frames; times 16 channels of 2 bytes is within SINK_FIRST */

/* Writes at most `frames` frames and returns how many: 0 is the end. */
typedef size_t pcm_read(void *decoder, int16_t *samples, size_t frames);

static inline bool pcm_channels_ok(unsigned channels) {
    if (channels >= 1 && channels <= PCM_MOST_CHANNELS) return true;
    return vx_raise(VX_ValueError, "%u channels", channels), false;
}

/* Everything the decoder still has. */
static inline bool pcm_drain(sink *out, void *decoder, unsigned channels, pcm_read *read) {
    size_t frame = channels * sizeof(int16_t), got;
    do {
        if (!sink_reserve(out, PCM_STEP * frame)) return false;
        got = read(decoder, (int16_t *)(void *)sink_tail(out), sink_room(out) / frame);
        out->len += got * frame;
    } while (got);
    return true;
}

/* What `describe` of every audio plugin answers, as JSON text.  The static buffer is the reason
 * for no lock: a sandbox runs one call at a time. */
static inline const char *pcm_describe(unsigned channels, unsigned rate, uint64_t frames) {
    static char text[96];
    snprintf(text, sizeof text, "{\"channels\": %u, \"sample_rate\": %u, \"frames\": %llu}",
             channels, rate, (unsigned long long)frames);
    return text;
}

#endif
