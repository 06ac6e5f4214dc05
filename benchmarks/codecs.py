"""Upstream codecs: the sandboxed plugin against the same C as a native i386 program."""

from __future__ import annotations

import subprocess
import sysconfig
import time
from pathlib import Path
from types import ModuleType

import vxplug
from examples.codecs import build

from .builds import CACHE
from .timing import Row, Run

MIB = 1 << 20
ROOM = 64 * MIB


def _text(size: int) -> bytes:
    """Real data that every machine has: the standard library's own sources."""
    found, left = [], size
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        found.append(path.read_bytes()[:left])
        left -= len(found[-1])
    return b"".join(found)


def _native(program: Path, data: Path, argument: int) -> Run:
    def run() -> float:
        command = [program, data, str(argument), "1"]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    return run


def _sandboxed(module: ModuleType, export: str, data: bytes, argument: int) -> Run:
    function = getattr(module, export)

    def run() -> float:
        start = time.perf_counter_ns()
        function(data, argument)
        return time.perf_counter_ns() - start

    return run


def _row(name: str, subject: str, data: bytes, argument: int) -> Row:
    module, export = build.import_codec(name), build.CODECS[name].export
    path = CACHE / f"{name}.input"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return Row(subject, {
        "native i386": _native(build.native_bench(name), path, argument),
        "vxplug": _sandboxed(module, export, data, argument),
    })


def rows() -> list[Row]:
    text = _text(4 * MIB)
    vxplug.install(timeout=60.0, memory=512 << 20)
    zstd, brotli, lz4 = (build.import_codec(name) for name in ("zstd", "brotli", "lz4"))
    return [
        _row("zstd", "zstd decompress", zstd.compress(text, 3), ROOM),
        _row("brotli", "brotli decompress", brotli.compress(text, 5), ROOM),
        _row("lz4", "lz4 decompress", lz4.compress(text, 1), ROOM),
        _row("zopfli", "zopfli compress", text[: 64 << 10], 1),
    ]
