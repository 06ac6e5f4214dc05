"""What one call costs, and what bytes cost on their way in and out."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import time
from collections.abc import Callable

import wasmtime

from . import builds
from .timing import Row

KIB, MIB = 1 << 10, 1 << 20
Call = Callable[..., object]


class Wasm:
    """The functions through wasmtime, copying as an embedder has to."""

    def __init__(self) -> None:
        engine = wasmtime.Engine()
        module = builds.wasm_module("calls_library.c", ("nothing", "add", "take", "give"), engine)
        self.store = wasmtime.Store(engine)
        exports = wasmtime.Instance(self.store, module, []).exports(self.store)
        self.memory, self._add = exports["memory"], exports["add"]
        self._nothing = exports["nothing"]
        self._take, self._give = exports["take"], exports["give"]
        self._room = self.memory.data_len(self.store)
        self.memory.grow(self.store, MIB // 65536)

    def nothing(self) -> int:
        return self._nothing(self.store)

    def add(self, a: int, b: int) -> int:
        return self._add(self.store, a, b)

    def take(self, data: bytes) -> int:
        self.memory.write(self.store, data, self._room)
        return self._take(self.store, self._room, len(data))

    def same(self, data: bytes) -> bytes:
        self.take(data)
        return bytes(self.memory.read(self.store, self._room, self._room + len(data)))

    def give(self, size: int) -> bytes:
        at = self._give(self.store, size)
        return bytes(self.memory.read(self.store, at, at + size))


def _callees(name: str) -> dict[str, Call]:
    box = builds.plugin("calls_plugin.c").sandbox()
    return {
        "C extension": getattr(builds.extension(), name), "cffi API": getattr(builds.cffi_module().lib, name),
        "ctypes": getattr(builds.ctypes_library(), name), "vxplug": box[name], "wasmtime": getattr(Wasm(), name),
    }


def _takers(data: bytes) -> dict[str, Call]:
    ffi_module, library, extension = builds.cffi_module(), builds.ctypes_library(), builds.extension()
    ffi, lib = ffi_module.ffi, ffi_module.lib
    box = builds.plugin("calls_plugin.c").sandbox()
    buffer = box.buffer(len(data))
    memoryview(buffer)[:] = data
    take = box.take
    return {
        "C, same copies": extension.take_copy,
        "C extension": extension.take,
        "cffi API": lambda data: lib.take(ffi.from_buffer(data), len(data)),
        "ctypes": lambda data: library.take(data, len(data)),
        "vxplug": take,
        "vxplug.Buffer": lambda data: take(buffer),
        "wasmtime": Wasm().take,
    }


def _givers() -> dict[str, Call]:
    ffi_module, library, extension = builds.cffi_module(), builds.ctypes_library(), builds.extension()
    ffi, lib = ffi_module.ffi, ffi_module.lib
    return {
        "C, same copies": extension.give,
        "C extension": extension.give,
        "cffi API": lambda size: ffi.buffer(lib.give(size), size)[:],
        "ctypes": lambda size: ctypes.string_at(library.give(size), size),
        "vxplug": builds.plugin("calls_plugin.c").sandbox().give,
        "wasmtime": Wasm().give,
    }


def _passers() -> dict[str, Call]:
    ffi_module, library, extension = builds.cffi_module(), builds.ctypes_library(), builds.extension()
    ffi, lib = ffi_module.ffi, ffi_module.lib
    return {
        "C, same copies": extension.same_copy,
        "C extension": extension.same,
        "cffi API": lambda data: ffi.buffer(lib.same(ffi.from_buffer(data)), len(data))[:],
        "ctypes": lambda data: ctypes.string_at(library.same(data), len(data)),
        "vxplug": builds.plugin("calls_plugin.c").sandbox().same,
        "wasmtime": Wasm().same,
    }


def _row(subject: str, calls: dict[str, Call], repeat: int, *args: object) -> Row:
    """All contestants must agree on the answer before any is timed."""
    answers = {column: call(*args) for column, call in calls.items()}
    if len(set(answers.values())) != 1:
        raise AssertionError(f"{subject}: {repr(answers)[:1000]}")
    return Row(subject, {column: _run(call, args, repeat) for column, call in calls.items()})


def _run(call: Call, args: tuple[object, ...], repeat: int) -> Callable[[], float]:
    """Like `timed`, but with nothing between the clock and the call that would be timed with it."""

    def none() -> float:
        start = time.perf_counter_ns()
        for _ in itertools.repeat(None, repeat):
            call()
        return (time.perf_counter_ns() - start) / repeat

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

    return (none, one, two)[len(args)]


def rows() -> list[Row]:
    return [_row("no argument", _callees("nothing"), 20000), _row("two ints", _callees("add"), 20000, 20, 22)]


def copy_rows() -> list[Row]:
    small, large = bytes(range(256)) * 4, bytes(range(256)) * 4096
    givers, passers = _givers(), _passers()
    return [
        _row("1 KiB in", _takers(small), 5000, small),
        _row("1 MiB in", _takers(large), 50, large),
        _row("1 KiB out", givers, 5000, KIB),
        _row("1 MiB out", givers, 50, MIB),
        _row("1 KiB in and out", passers, 5000, small),
        _row("1 MiB in and out", passers, 50, large),
    ]


def buffer_rows() -> list[Row]:
    """One contestant at three sizes: what a Buffer costs, or a Mapping, does not know its size."""
    box = builds.plugin("calls_plugin.c").sandbox(memory=256 * MIB)
    sizes = {"1 KiB": KIB, "1 MiB": MIB, "64 MiB": 64 * MIB}
    shared = mmap.mmap(-1, 64 * MIB)
    return [
        Row("a Buffer in", {name: _run(box.take, (box.buffer(size),), 5000) for name, size in sizes.items()}),
        Row("a Mapping in", {name: _run(box.take, (box.map(shared, size=size),), 5000) for name, size in sizes.items()}),
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
