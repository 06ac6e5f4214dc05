"""What the tasks read: real text, sound and a photograph, from packages that the benchmarks need anyway."""

from __future__ import annotations

import functools
import io
import struct
import sysconfig
import wave
from collections.abc import Callable
from pathlib import Path

from examples.codecs.upstream import CACHE, Packages

HERE = Path(__file__).resolve().parent
PACKAGES = Packages(HERE / "sources.txt")
KIB = 1 << 10


def _text(size: int) -> bytes:
    """The standard library's own sources, which every machine has."""
    found, left = [], size
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        found.append(path.read_bytes()[:left])
        left -= len(found[-1])
    return b"".join(found)


def _recording() -> tuple[bytes, int]:
    """16-bit stereo samples, and how many a second: a test recording of pyFLAC."""
    path = PACKAGES.unpack("pyFLAC", "tests/data") / "stereo.wav"
    with wave.open(str(path)) as file:
        if (file.getnchannels(), file.getsampwidth()) != (2, 2):
            raise ValueError(f"{path.name} is not 16-bit stereo")
        return file.readframes(file.getnframes()), file.getframerate()


def _sound() -> bytes:
    return _recording()[0] * 4


def _vorbis() -> bytes:
    import numpy
    import soundfile

    samples, rate = _recording()
    file = io.BytesIO()
    soundfile.write(file, numpy.frombuffer(samples, dtype="<i2").reshape(-1, 2), rate, format="OGG", subtype="VORBIS")
    return file.getvalue()


def _picture(step: int) -> bytes:
    """Every ``step``-th pixel of a photograph: its width, then rows of RGB."""
    import matplotlib.cbook
    from PIL import Image

    with Image.open(str(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))) as photo:
        image = photo.convert("RGB").reduce(step)
        return struct.pack("<I", image.width) + image.tobytes()


INPUTS: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "script": (HERE / "c" / "script.lua").read_bytes,
    "long text": lambda: _text(4096 * KIB),
    "text": lambda: _text(1024 * KIB),
    "some text": lambda: _text(256 * KIB),
    "little text": lambda: _text(16 * KIB),
    "sound": _sound,
    "vorbis": _vorbis,
    "picture": lambda: _picture(1),
    "small picture": lambda: _picture(2),
}


@functools.cache
def input_file(name: str) -> Path:
    path = CACHE / "benchmarks" / f"{name.replace(' ', '-')}.input"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(INPUTS[name]())
    return path
