"""Interleaved samples: every contestant runs once a round, so that a slow moment hits them all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

# One run of a contestant; returns nanoseconds, its own or measured by `timed`.
Run = Callable[[], float]
# First runs are not counted: they translate, compile, touch memory and train the branch predictors.
WARM_UP = 2


@dataclass(frozen=True)
class Row:
    """One subject of a table: its contestants by column."""

    subject: str
    runs: dict[str, Run]


@dataclass(frozen=True)
class Measured:
    """A row's samples in nanoseconds by column; the first column is what ratios are of."""

    subject: str
    samples: dict[str, list[float]]

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


def measure(row: Row, rounds: int) -> Measured:
    samples: dict[str, list[float]] = {column: [] for column in row.runs}
    for _ in range(WARM_UP):
        for run in row.runs.values():
            run()
    for _ in range(rounds):
        for column, run in row.runs.items():
            samples[column].append(run())
    return Measured(row.subject, samples)
