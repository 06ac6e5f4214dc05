"""What isolation costs to set up: a sandbox, an instance, a process."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import wasmtime

from . import builds
from .timing import Row, timed


def _wasm_instance() -> Callable[[], object]:
    engine = wasmtime.Engine()
    module = builds.wasm_module("calls_library.c", ("add", "take", "give"), engine)

    def make() -> object:
        store = wasmtime.Store(engine)
        return wasmtime.Instance(store, module, []).exports(store)["add"](store, 20, 22)

    return make


def _process() -> object:
    return subprocess.run(["true"], check=True)


def rows() -> list[Row]:
    plugin = builds.plugin("calls_plugin.c")
    box = plugin.sandbox()

    def fresh() -> object:
        with plugin.sandbox() as new:
            return new.add(20, 22)

    def again() -> object:
        box.reset()
        return box.add(20, 22)

    return [
        Row("create, call, close", {
            "process": timed(_process, 10), "vxplug": timed(fresh, 50), "wasmtime": timed(_wasm_instance(), 50),
        }),
        Row("reset, call", {"process": timed(_process, 10), "vxplug": timed(again, 50)}),
    ]
