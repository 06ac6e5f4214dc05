"""Memory of many instances: ``python -m benchmarks.resident KIND COUNT`` prints KiB each, resident and of page tables.

In a process of its own, so that nothing else comes or goes meanwhile.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import vxplug

from . import builds


def _idle() -> Callable[[], object]:
    return builds.plugin("calls_plugin.c").sandbox


def _called() -> Callable[[], object]:
    plugin = builds.plugin("calls_plugin.c")

    def make() -> vxplug.Sandbox:
        box = plugin.sandbox()
        if box.add(20, 22) != 42:
            raise AssertionError("20 + 22")
        return box

    return make


def _wasm() -> Callable[[], object]:
    import wasmtime

    engine = wasmtime.Engine()
    module = builds.wasm_module("calls_library.c", ("add",), engine)

    def make() -> object:
        store = wasmtime.Store(engine)
        exports = wasmtime.Instance(store, module, []).exports(store)
        if exports["add"](store, 20, 22) != 42:
            raise AssertionError("20 + 22")
        return exports, store

    return make


KINDS = {"idle": _idle, "called": _called, "wasmtime": _wasm}


def _kib() -> tuple[int, int]:
    """Resident, page tables (proc_pid_status(5))."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    resident, tables = (int(fields[name].split()[0]) for name in ("VmRSS", "VmPTE"))
    return resident, tables


def main(kind: str, count: int) -> None:
    make = KINDS[kind]()
    kept = [make()]
    before = _kib()
    kept += [make() for _ in range(count)]
    print(*((now - then) / count for now, then in zip(_kib(), before, strict=True)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
