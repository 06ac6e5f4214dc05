"""Real inputs for every codec, and the host's own library as the oracle.

A case is one encoded input with what the host's independently built library makes of it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import brotli
import lz4.frame
import miniaudio
import numpy
import openjpeg
import openjpeg.utils
import soundfile
import zopfli.zlib
import zstandard

RATE = 44100


@dataclass(frozen=True)
class Case:
    """``plain`` bytes of content; ``call`` names the export, ``argument`` follows the encoded bytes;
    ``host`` maps the encoded bytes to the expected result."""

    codec: str
    call: str
    encoded: bytes
    argument: int
    plain: int
    host: Callable[[bytes], bytes]


def library_text(size: int) -> bytes:
    """Source files of the running Python's own library, in order of path."""
    parts, left = [], size
    for path in sorted(Path(os.__file__).parent.rglob("*.py")):
        data = path.read_bytes()[:left]
        parts.append(data)
        left -= len(data)
        if left == 0:
            break
    return b"".join(parts)


def sound(seconds: float) -> numpy.ndarray:
    """Two channels: a sweep and a chord, each with a little seeded noise."""
    time = numpy.arange(int(RATE * seconds)) / RATE
    noise = numpy.random.default_rng(1).normal(0, 0.01, (time.size, 2))
    sweep = 0.4 * numpy.sin(2 * numpy.pi * (100 + 400 * time) * time)
    chord = sum(0.15 * numpy.sin(2 * numpy.pi * pitch * time) for pitch in (220, 277.2, 329.6))
    return (numpy.stack([sweep, chord], axis=1) + noise).astype(numpy.float32)


def flac_file(seconds: float) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, sound(seconds), RATE, "PCM_16", format="FLAC")
    return file.getvalue()


def picture(side: int) -> numpy.ndarray:
    row, column = numpy.mgrid[0:side, 0:side]
    noise = numpy.random.default_rng(2).integers(0, 24, (side, side, 3))
    bands = numpy.stack([row % 256, column % 256, (row * column // 64) % 256], axis=2)
    return numpy.minimum(bands // 2 + noise, 255).astype(numpy.uint8)


def _flac(data: bytes) -> bytes:
    return miniaudio.flac_read_s16(data).samples.tobytes()


def _jpeg2000(data: bytes) -> bytes:
    return openjpeg.decode(data).tobytes()


def cases(scale: float = 1.0) -> list[Case]:
    """Encoded inputs; scale 1 is more than 20 MB of content in all."""
    text = library_text(int(scale * (6 << 20)))
    some = text[: int(scale * (256 << 10))]
    seconds = 20 * scale
    pcm = int(RATE * seconds) * 4
    image = picture(int(512 * max(scale, 0.1)))
    flac = flac_file(seconds)
    jp2 = bytes(openjpeg.utils.encode_array(image, photometric_interpretation=1, use_mct=False))
    room = 64 << 20
    return [
        Case("zstd", "decompress", zstandard.compress(text, 9), room, len(text),
             lambda data: zstandard.ZstdDecompressor().decompress(data, max_output_size=room)),
        Case("brotli", "decompress", brotli.compress(text, quality=6), room, len(text), brotli.decompress),
        Case("lz4", "decompress", lz4.frame.compress(text), room, len(text), lz4.frame.decompress),
        Case("zopfli", "compress", some, 5, len(some), lambda data: zopfli.zlib.compress(data, numiterations=5)),
        Case("flac", "decode", flac, room, pcm, _flac),
        Case("openjpeg", "decode", jp2, room, image.size, _jpeg2000),
    ]
