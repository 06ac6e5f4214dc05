"""One import in a process of its own: ``python -m benchmarks.importing KIND`` prints two times in nanoseconds, of
the host's own library, if any, and of the plugin with its first call."""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import time
from collections.abc import Callable
from typing import Any

from .places import CACHE, IMPORTS

Add = Callable[[int, int], int]


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
    answer = load()(20, 22)
    ended = time.perf_counter_ns()
    if answer != 42:
        raise AssertionError(f"{kind}: 20 + 22 is {answer}")
    print(ready - started, ended - ready)


if __name__ == "__main__":
    main(sys.argv[1])
