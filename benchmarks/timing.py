"""Interleaved medians: every contestant runs once a round, so that a slow moment hits them all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

# One run of a contestant; returns nanoseconds, its own or measured by `timed`.
Run = Callable[[], float]


@dataclass(frozen=True)
class Row:
    """One subject of a table: its contestants by column."""

    subject: str
    runs: dict[str, Run]


def timed(work: Callable[[], object], repeat: int = 1) -> Run:
    """A run that measures ``work`` from outside, ``repeat`` times over."""

    def run() -> float:
        start = time.perf_counter_ns()
        for _ in range(repeat):
            work()
        return (time.perf_counter_ns() - start) / repeat

    return run


def medians(row: Row, rounds: int) -> dict[str, float]:
    samples: dict[str, list[float]] = {column: [] for column in row.runs}
    for run in row.runs.values():
        run()  # caches, translation, branch predictors
    for _ in range(rounds):
        for column, run in row.runs.items():
            samples[column].append(run())
    return {column: statistics.median(values) for column, values in samples.items()}


def _cells(row: Row, columns: list[str], rounds: int) -> list[str]:
    times = medians(row, rounds)
    base = times[columns[0]]
    return [row.subject, *(f"{times[c] / base:.2f}" if c in times else "" for c in columns)]


def print_table(title: str, rows: list[Row], rounds: int) -> None:
    """The first column of the first row is 1; every cell is a time divided by its row's first."""
    columns = list(rows[0].runs)
    table = [[title, *columns], *(_cells(row, columns, rounds) for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns) + 1)]
    for line in table:
        cells = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        print("  ".join([line[0].ljust(widths[0]), *cells]), flush=True)
    print(flush=True)
