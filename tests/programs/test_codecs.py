"""Unmodified upstream codecs in the sandbox against the host's independently built libraries."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vxplug

pytest.importorskip("openjpeg", reason="the host's codecs are not installed: see examples/requirements.txt")
from examples.codecs import build  # noqa: E402
from examples.codecs.inputs import Case, cases, library_text  # noqa: E402

FLIPS = 200
CASES = {case.codec: case for case in cases(0.03)}
LIMITS = {"memory": 512 << 20, "timeout": 20.0}


@pytest.fixture(scope="module", params=list(CASES))
def codec(request):
    with vxplug.open(build.plugin_path(request.param)).sandbox(**LIMITS) as box:
        yield CASES[request.param], box[CASES[request.param].call]


# zopfli encodes: it has no corrupt input.
DECODERS = [name for name in CASES if name != "zopfli"]


def test_output_is_identical(codec):
    """The promise of the examples: the sandbox computes what the processor computes."""
    case, function = codec
    assert function(case.encoded, case.argument) == case.host(case.encoded)


def flipped(case: Case):
    rng = random.Random(case.codec)
    for _ in range(FLIPS):
        data = bytearray(case.encoded)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        yield bytes(data)


def outcome(function, *arguments) -> bytes | None:
    """None is the codec's own error, or a GuestFault."""
    try:
        return function(*arguments)
    except (vxplug.GuestFault, vxplug.GuestTimeout, ValueError, MemoryError, EOFError):
        return None


def host_outcome(case: Case, data: bytes) -> bytes | None:
    try:
        return case.host(data)
    except Exception:  # each library has error types of its own
        return None


@pytest.mark.parametrize("codec", DECODERS, indirect=True)
def test_corrupt_input_is_an_error_or_the_same_answer(codec):
    """Damage must never pass silently where the host's library reports it, and never hurt the host."""
    case, function = codec
    for number, data in enumerate(flipped(case)):
        theirs, ours = host_outcome(case, data), outcome(function, data, case.argument)
        if theirs is None:
            assert ours is None, f"flip {number}: the host reports an error, the sandbox {len(ours)} bytes"
        elif ours is not None:
            assert ours == theirs, f"flip {number}"
    assert function(case.encoded, case.argument) == case.host(case.encoded)


@pytest.mark.parametrize("name, compress", [("zstd", 3), ("brotli", 5), ("lz4", 0)])
def test_round_trips_of_odd_sizes(name, compress):
    """Sizes at the edges of pages and blocks, both ways in the guest."""
    text = library_text(300_000)
    with vxplug.open(build.plugin_path(name)).sandbox(**LIMITS) as box:
        for size in (1, 2, 4095, 4096, 4097, 65535, 65536, 65537, 300_000):
            packed = box.compress(text[:size], compress)
            assert box.decompress(packed, 1 << 20) == text[:size]


@pytest.mark.parametrize(("example", "source"), [("hello", "hello"), ("types", "shapes")])
def test_examples_print_what_they_should(tmp_path, example, source):
    """Without it the first things that a newcomer runs could break unseen."""
    from vxplug import sdk

    folder = Path(__file__).parents[2] / "examples" / example
    shutil.copy(folder / "main.py", tmp_path)
    sdk.build([folder / f"{source}.c"], tmp_path / f"{source}.vxm")
    done = subprocess.run([sys.executable, "main.py"], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(folder.parents[1])})
    assert done.stdout == (folder / "expected.txt").read_text(), done.stderr
