"""What isolation costs to set up and to keep: a sandbox, an instance, a process."""

from __future__ import annotations

import functools
import subprocess
import time
from collections.abc import Callable

import wasmtime

from . import builds
from .children import figure
from .timing import Row, Run, timed

MANY = 1000


def _wasm_instance() -> Callable[[], object]:
    engine = wasmtime.Engine()
    module = builds.wasm_module("calls_library.c", ("add", "take", "give"), engine)

    def make() -> object:
        store = wasmtime.Store(engine)
        return wasmtime.Instance(store, module, []).exports(store)["add"](store, 20, 22)

    return make


def _process() -> object:
    return subprocess.run(["true"], check=True)


def _alive() -> float:
    """Nanoseconds to make and call a sandbox, while all made before are kept: each has new address space."""
    plugin = builds.plugin("calls_plugin.c")
    boxes = [plugin.sandbox() for _ in range(MANY // 10)]  # those that closed sandboxes left are taken now
    for box in boxes:
        box.add(20, 22)
    start = time.perf_counter_ns()
    for _ in range(MANY):
        boxes.append(plugin.sandbox())
        boxes[-1].add(20, 22)
    return (time.perf_counter_ns() - start) / MANY


def rows() -> list[Row]:
    plugin = builds.plugin("calls_plugin.c")
    box = plugin.sandbox()
    page = timed(builds.extension().map_page, 1000)

    def fresh() -> object:
        with plugin.sandbox() as new:
            return new.add(20, 22)

    def again() -> object:
        box.reset()
        return box.add(20, 22)

    def row(subject: str, **runs: Run) -> Row:
        return Row(subject, {"mmap, munmap": page, **runs, "process": timed(_process, 10)})

    return [
        row("create, call, close", vxplug=timed(fresh, 50), wasmtime=timed(_wasm_instance(), 50)),
        row("create, call, of 1,000", vxplug=_alive),
        row("reset, call", vxplug=timed(again, 50)),
        row("call", vxplug=timed(functools.partial(box.add, 20, 22), 1000)),
    ]


# Memory


def memory_rows() -> list[Row]:
    subjects = {"1,000 sandboxes, idle": "idle", "1,000 sandboxes, called": "called", "1,000 of wasmtime, called": "wasmtime"}
    return [Row(subject, {"KiB resident": figure(0, "resident", kind, str(MANY)),
                          "KiB of page tables": figure(1, "resident", kind, str(MANY))})
            for subject, kind in subjects.items()]
