"""Translated code against the same C on the bare processor."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import wasmtime

from . import builds
from .timing import Row, Run

# Large enough that the call around it does not show: tens of milliseconds.
SIZES = {"fib": 30, "indirect": 5_000_000, "quicksort": 100_000, "chase": 5_000_000, "stream": 5_000,
         "wide": 10_000_000, "matrix": 60}
SUBJECTS = {
    "fib": "recursive fib", "indirect": "indirect calls", "quicksort": "quicksort with callback",
    "chase": "pointer chasing", "stream": "streaming loads", "wide": "64-bit arithmetic",
    "matrix": "matrix of doubles",
}


class Checked:
    """Runs a kernel and compares its checksum with what the first contestant found."""

    def __init__(self) -> None:
        self.expected: dict[str, int] = {}

    def __call__(self, name: str, checksum: int) -> None:
        if self.expected.setdefault(name, checksum) != checksum:
            raise AssertionError(f"{name}: {checksum} instead of {self.expected[name]}")


def _native(program: Path, name: str, check: Checked) -> Run:
    def run() -> float:
        command = [program, name, str(SIZES[name])]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        checksum, nanoseconds = map(int, out.split())
        check(name, checksum)
        return nanoseconds

    return run


def _called(call: Callable[[int], int], name: str, check: Checked) -> Run:
    def run() -> float:
        start = time.perf_counter_ns()
        checksum = call(SIZES[name])
        taken = time.perf_counter_ns() - start
        check(name, checksum & 0xFFFFFFFF)
        return taken

    return run


def _wasm() -> Callable[[str], Callable[[int], int]]:
    engine = wasmtime.Engine()
    store = wasmtime.Store(engine)
    instance = wasmtime.Instance(store, builds.wasm_module("kernels.c", tuple(SIZES), engine), [])
    exports = instance.exports(store)
    return lambda name: lambda size: exports[name](store, size)


def rows() -> list[Row]:
    native32, native64 = builds.native_kernels(32), builds.native_kernels(64)
    box = builds.plugin("kernels.c", ["-DKERNEL_PLUGIN"]).sandbox()
    wasm, check = _wasm(), Checked()
    return [
        Row(SUBJECTS[name], {
            "native i386": _native(native32, name, check), "vxplug": _called(box[name], name, check),
            "wasmtime": _called(wasm(name), name, check), "native x86-64": _native(native64, name, check),
        })
        for name in SIZES
    ]
