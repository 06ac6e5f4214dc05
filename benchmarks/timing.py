"""Interleaved samples: every contestant runs once a round, so that a slow moment hits them all.

Machines are shared, and a neighbour on the other thread of a core takes up to half of it for seconds.  So a fixed loop is
timed before and after every run; rounds in which it took long are measured again, within reason, and those count in which it
took least.  The loop alone chooses: what the contestants took is not looked at.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# One run of a contestant; returns nanoseconds, its own or measured by `timed`.
Run = Callable[[], float]
# First runs are not counted: they translate, compile, touch memory and train the branch predictors.
WARM_UP = 2
# The loop takes a third of a millisecond; a neighbour makes it 1.3 to 2 times longer.
TURNS = 20_000
QUIET = 1.1
# At most so many times the rounds asked for.
PATIENCE = 4


@dataclass(frozen=True)
class Row:
    """One subject of a table: its contestants by column."""

    subject: str
    runs: dict[str, Run]


@dataclass(frozen=True)
class Measured:
    """A row's samples in nanoseconds by column; the first column is what ratios are of.

    ``disturbed`` of the rounds that count were measured while somebody else took part of the processor.
    """

    subject: str
    samples: dict[str, list[float]]
    disturbed: int = 0

    @property
    def rounds(self) -> int:
        return len(next(iter(self.samples.values())))

    def median(self, column: str) -> float:
        return statistics.median(self.samples[column])

    def ratio(self, column: str) -> float | None:
        """A median divided by the first column's; None where the column has no samples."""
        if column not in self.samples:
            return None
        return self.median(column) / self.median(next(iter(self.samples)))

    def spread(self, column: str) -> float:
        """Half the distance between the quartiles, as a part of the median."""
        if len(self.samples[column]) < 2 or self.median(column) == 0:
            return 0.0
        low, _, high = statistics.quantiles(self.samples[column], n=4, method="inclusive")
        return (high - low) / 2 / self.median(column)


def timed(work: Callable[[], object], repeat: int = 1) -> Run:
    """A run that measures ``work`` from outside, ``repeat`` times over."""

    def run() -> float:
        start = time.perf_counter_ns()
        for _ in range(repeat):
            work()
        return (time.perf_counter_ns() - start) / repeat

    return run


class Loop:
    """A fixed piece of work: how long it takes tells who else is on the processor."""

    def __init__(self) -> None:
        self._taken: list[float] = []

    def settle(self, seconds: float) -> None:
        """Before the first row, so that it is not measured against itself."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self()

    def usual(self) -> float:
        """Nanoseconds in a quiet moment: of its fastest tenth, since the very fastest is the clock's."""
        return sorted(self._taken)[len(self._taken) // 10]

    def __call__(self) -> float:
        """Nanoseconds of processor time."""
        start = time.thread_time_ns()
        for _ in range(TURNS):
            pass
        self._taken.append(time.thread_time_ns() - start)
        return self._taken[-1]


LOOP = Loop()


@contextlib.contextmanager
def one_processor(loop: Callable[[], float] = LOOP) -> Iterator[None]:
    """Contestants and the programs they start take turns on the processor that is least busy now: on two, one neighbour would be
    one contestant's alone."""
    before = os.sched_getaffinity(0)

    def taken(processor: int) -> float:
        os.sched_setaffinity(0, {processor})
        return statistics.median(loop() for _ in range(9))

    try:
        os.sched_setaffinity(0, {min(before, key=taken)})
        yield
    finally:
        os.sched_setaffinity(0, before)


def measure(row: Row, rounds: int, loop: Loop = LOOP) -> Measured:
    for _ in range(WARM_UP):
        for run in row.runs.values():
            run()
    found: list[tuple[float, dict[str, float]]] = []
    while len(found) < rounds or (len(found) < rounds * PATIENCE and _quiet(found, loop) < rounds):
        slowest, taken = loop(), {}
        for column in _turns(list(row.runs), len(found)):
            taken[column] = row.runs[column]()
            slowest = max(slowest, loop())
        found.append((slowest, taken))
    best = sorted(found, key=lambda one: one[0])[:rounds]
    samples = {column: [taken[column] for _, taken in best] for column in row.runs}
    return Measured(row.subject, samples, rounds - _quiet(best, loop))


def _turns(columns: list[str], number: int) -> list[str]:
    """Another one begins each round: what the one before leaves of caches and of the heap is not always the same one's."""
    first = number % len(columns)
    return columns[first:] + columns[:first]


def _quiet(found: list[tuple[float, dict[str, float]]], loop: Loop) -> int:
    limit = QUIET * loop.usual()
    return sum(slowest <= limit for slowest, _ in found)
