"""What stays the same as work grows: threads, bytes, code."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable

import vxplug

from . import builds
from .timing import Row, Run, timed

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
Call = Callable[[], object]
PER_RUN = 1 << 20  # bytes that a run of small inputs hashes in all
CALLS = 300_000  # of `calls` in one run


@functools.cache
def _plugin() -> vxplug.Plugin:
    return builds.plugin("scale_plugin.c")


# Threads


def _together(calls: list[Call], count: int) -> Run:
    """Nanoseconds a call while as many threads as there are ``calls`` make ``count`` each."""

    def run() -> float:
        barrier = threading.Barrier(len(calls) + 1)

        def worker(call: Call) -> None:
            barrier.wait()
            for _ in range(count):
                call()

        threads = [threading.Thread(target=worker, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        barrier.wait()
        start = time.perf_counter_ns()
        for thread in threads:
            thread.join()
        return (time.perf_counter_ns() - start) / (count * len(calls))

    return run


def _threads(subject: str, make: Callable[[], Call], count: int) -> Row:
    counts = sorted({1, *(2**i for i in range(1, 7) if 2**i <= (os.cpu_count() or 1))})
    names = ("1 thread", *(f"{n} threads" for n in counts[1:]))
    return Row(subject, {name: _together([make() for _ in range(n)], count) for name, n in zip(names, counts, strict=True)})


def thread_rows() -> list[Row]:
    """A sandbox for each thread, and the machine's own limit: native code that holds no lock."""
    native = builds.shared_library("scale_library.c").work

    def guest(rounds: int) -> Callable[[], Call]:
        return lambda: functools.partial(_plugin().sandbox().work, rounds)

    return [
        _threads("1,000,000 rounds", guest(1_000_000), 1000),
        _threads("the same, native", lambda: functools.partial(native, 1_000_000), 1000),
        _threads("50,000 rounds", guest(50_000), 20_000),
        _threads("1 round", guest(1), 200_000),
    ]


# Bytes


def _per_byte(call: Callable[[object], object], data: object, size: int) -> Run:
    repeat = max(1, PER_RUN // size)
    run = timed(lambda: call(data), repeat)
    return lambda: run() / size


def byte_rows() -> list[Row]:
    """Time a byte of input, which the guest reads once; a view is copied into the guest before, a Buffer is there."""
    sizes = {"1 KiB": KIB, "32 KiB": 32 * KIB, "1 MiB": MIB, "32 MiB": 32 * MIB, "1 GiB": GIB}
    box = _plugin().sandbox(memory=3 * GIB)
    data = b"\x5a" * GIB

    def lent(size: int) -> vxplug.Buffer:
        buffer = box.buffer(size)
        memoryview(buffer)[:] = data[:size]
        return buffer

    return [
        Row("a view in", {name: _per_byte(box.sum, memoryview(data)[:size], size) for name, size in sizes.items()}),
        Row("a Buffer in", {name: _per_byte(box.sum, lent(size), size) for name, size in sizes.items()}),
    ]


# Code


def lookup_rows() -> list[Row]:
    """Time of an indirect call, the target one of so many; what the caches of the processor cost shows natively."""
    box, library = _plugin().sandbox(), builds.shared_library("scale_library.c")
    columns = {"10 blocks": 10, "1,000 blocks": 1000, "100,000 blocks": 100_000}

    def row(subject: str, call: Callable[[int, int], int]) -> Row:
        return Row(subject, {name: timed(functools.partial(call, blocks, CALLS)) for name, blocks in columns.items()})

    return [row("vxplug", box.calls), row("native -m64", library.calls)]
