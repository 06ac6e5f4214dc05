"""What one call costs, and what bytes cost on their way in and out."""

from __future__ import annotations

import ctypes
import itertools
import time
from collections.abc import Callable

import wasmtime

from . import builds
from .timing import Row

KIB, MIB = 1 << 10, 1 << 20
Call = Callable[..., object]


class Wasm:
    """The three functions through wasmtime, copying as an embedder has to."""

    def __init__(self) -> None:
        engine = wasmtime.Engine()
        module = builds.wasm_module("calls_library.c", ("add", "take", "give"), engine)
        self.store = wasmtime.Store(engine)
        exports = wasmtime.Instance(self.store, module, []).exports(self.store)
        self.memory, self._add = exports["memory"], exports["add"]
        self._take, self._give = exports["take"], exports["give"]
        self._room = self.memory.data_len(self.store)
        self.memory.grow(self.store, MIB // 65536)

    def add(self, a: int, b: int) -> int:
        return self._add(self.store, a, b)

    def take(self, data: bytes) -> int:
        self.memory.write(self.store, data, self._room)
        return self._take(self.store, self._room, len(data))

    def give(self, size: int) -> bytes:
        at = self._give(self.store, size)
        return bytes(self.memory.read(self.store, at, at + size))


def _adders() -> dict[str, Call]:
    return {
        "C extension": builds.extension().add, "cffi API": builds.cffi_module().lib.add,
        "ctypes": builds.ctypes_library().add, "vxplug": builds.plugin("calls_plugin.c").sandbox().add,
        "wasmtime": Wasm().add,
    }


def _takers() -> dict[str, Call]:
    ffi_module, library = builds.cffi_module(), builds.ctypes_library()
    ffi, lib = ffi_module.ffi, ffi_module.lib
    return {
        "C extension": builds.extension().take,
        "cffi API": lambda data: lib.take(ffi.from_buffer(data), len(data)),
        "ctypes": lambda data: library.take(data, len(data)),
        "vxplug": builds.plugin("calls_plugin.c").sandbox().take,
        "wasmtime": Wasm().take,
    }


def _givers() -> dict[str, Call]:
    ffi_module, library = builds.cffi_module(), builds.ctypes_library()
    ffi, lib = ffi_module.ffi, ffi_module.lib
    return {
        "C extension": builds.extension().give,
        "cffi API": lambda size: ffi.buffer(lib.give(size), size)[:],
        "ctypes": lambda size: ctypes.string_at(library.give(size), size),
        "vxplug": builds.plugin("calls_plugin.c").sandbox().give,
        "wasmtime": Wasm().give,
    }


def _row(subject: str, calls: dict[str, Call], repeat: int, *args: object) -> Row:
    """All contestants must agree on the answer before any is timed."""
    answers = {column: call(*args) for column, call in calls.items()}
    if len(set(answers.values())) != 1:
        raise AssertionError(f"{subject}: {answers}")
    return Row(subject, {column: _run(call, args, repeat) for column, call in calls.items()})


def _run(call: Call, args: tuple[object, ...], repeat: int) -> Callable[[], float]:
    """Like `timed`, but with nothing between the clock and the call that would be timed with it."""

    def one() -> float:
        (a,) = args
        start = time.perf_counter_ns()
        for _ in itertools.repeat(None, repeat):
            call(a)
        return (time.perf_counter_ns() - start) / repeat

    def two() -> float:
        a, b = args
        start = time.perf_counter_ns()
        for _ in itertools.repeat(None, repeat):
            call(a, b)
        return (time.perf_counter_ns() - start) / repeat

    return two if len(args) == 2 else one


def rows() -> list[Row]:
    takers, givers = _takers(), _givers()
    return [
        _row("add(int32, int32)", _adders(), 20000, 20, 22),
        _row("1 KiB in", takers, 5000, bytes(range(256)) * 4),
        _row("1 MiB in", takers, 50, bytes(range(256)) * 4096),
        _row("1 KiB out", givers, 5000, KIB),
        _row("1 MiB out", givers, 50, MIB),
    ]


def _callers() -> dict[str, Call]:
    """100 callbacks a call; what the peers need to wrap a Python function is made once."""
    ffi_module, library = builds.cffi_module(), builds.ctypes_library()
    negate = int.__neg__
    for_ctypes, for_cffi = builds.CALLBACK(negate), ffi_module.ffi.callback("int32_t(int32_t)", negate)
    box = builds.plugin("calls_plugin.c").sandbox()
    return {
        "ctypes": lambda count: library.callbacks(for_ctypes, count),
        "cffi API": lambda count: ffi_module.lib.callbacks(for_cffi, count),
        "vxplug": lambda count: box.callbacks(negate, count),
    }


def callback_rows() -> list[Row]:
    return [_row("100 callbacks", _callers(), 200, 100)]
