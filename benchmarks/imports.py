"""What an import costs, first call included, each in a process of its own."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator
from itertools import count

from . import builds
from .places import ROOT
from .timing import Row, Run

KINDS = ("C extension", "vxplug", "wasmtime")


@functools.cache
def _times(kind: str, sample: int) -> tuple[int, ...]:
    """One process for both figures of a sample."""
    command = [sys.executable, "-m", "benchmarks.importing", kind]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return tuple(map(int, done.stdout.split()))


def _figure(kind: str, which: int) -> Run:
    samples: Iterator[int] = count()
    return lambda: float(_times(kind, next(samples))[which])


def rows() -> list[Row]:
    """The extension needs no library before; so the second row has the others' own alone."""
    builds.extension()
    builds.lean_plugin("calls_plugin.c", "lean_plugin")
    builds.wasm_library()
    return [
        Row("import, first call", {kind: _figure(kind, 1) for kind in KINDS}),
        Row("the library itself", {kind: _figure(kind, 0) for kind in KINDS[1:]}),
    ]
