"""Imports in a process of their own: ``python -m benchmarks.importing KIND`` prints three times in nanoseconds, of
the host's own library, if any, of the plugin with its first call, and of the same again once Python has forgotten it."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import time
from collections.abc import Callable
from typing import Any

from .places import CACHE, IMPORTS

Add = Callable[[int, int], int]
MODULES = ("calls_extension", "lean_plugin")


def _library(kind: str) -> Callable[[], Add]:
    """What imports the plugin, once its host is there."""
    if kind == "C extension":
        return lambda: importlib.import_module("calls_extension").add
    if kind == "vxplug":
        import vxplug

        vxplug.install()
        return lambda: importlib.import_module("lean_plugin").add
    import wasmtime

    return lambda: _instance(wasmtime)


def _instance(wasmtime: Any) -> Add:
    engine = wasmtime.Engine()
    store = wasmtime.Store(engine)
    module = wasmtime.Module.from_file(engine, str(CACHE / "calls_library.wasm"))
    add = wasmtime.Instance(store, module, []).exports(store)["add"]
    return lambda a, b: add(store, a, b)


def main(kind: str) -> None:
    sys.path.insert(0, str(IMPORTS))
    started = time.perf_counter_ns()
    load = _library(kind)
    ready = time.perf_counter_ns()
    print(ready - started, _timed(load), _timed(load))


def _timed(load: Callable[[], Add]) -> int:
    started = time.perf_counter_ns()
    answer = load()(20, 22)
    ended = time.perf_counter_ns()
    if answer != 42:
        raise AssertionError(f"20 + 22 is {answer}")
    for name in MODULES:
        sys.modules.pop(name, None)
    return ended - started


if __name__ == "__main__":
    main(sys.argv[1])
