"""Measured tables as text, as Markdown and as JSON."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .timing import Measured

OURS, PEER = "vxplug", "wasmtime"
MEAN = "geometric mean"
VERSIONS = ("wasmtime", "ziglang", "cffi")


@dataclass(frozen=True)
class Table:
    """``columns`` may name contestants that no row has: they were not there to be measured.

    An ``absolute`` table's columns are figures of different kinds, their units in their names, and no ratios.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Measured, ...]
    compute: bool = False  # of one kind with the other compute tables: they have a mean in common
    absolute: bool = False


def geometric_mean(rows: Iterable[Measured], column: str) -> float | None:
    ratios = [ratio for row in rows if (ratio := row.ratio(column)) is not None]
    return statistics.geometric_mean(ratios) if ratios else None


def against(rows: Iterable[Measured], other: str) -> float | None:
    """Our time as a part of another contestant's: geometric mean over the rows that both have."""
    both = [row for row in rows if OURS in row.samples and other in row.samples]
    return statistics.geometric_mean([row.median(OURS) / row.median(other) for row in both]) if both else None


def worst(rows: Iterable[Measured], column: str = OURS) -> Measured | None:
    return max((row for row in rows if row.ratio(column) is not None), key=lambda row: row.ratio(column) or 0.0, default=None)


def _cell(row: Measured, column: str, absolute: bool) -> str:
    if column not in row.samples:
        return ""
    shown = row.median(column) if absolute else row.ratio(column) or 0.0
    return f"{shown:.2f} ±{row.spread(column) * shown:.2f}"


def _mean_line(rows: Sequence[Measured], columns: Sequence[str], label: str = MEAN) -> list[str]:
    means = [geometric_mean(rows, column) for column in columns]
    return [label, *("" if mean is None else f"{mean:.2f}" for mean in means)]


def _lines(table: Table) -> list[list[str]]:
    """Cells by line, the heading first."""
    absent = [column for column in table.columns if not any(column in row.samples for row in table.rows)]
    heading = [table.title, *table.columns]
    body = [[row.subject, *("not installed" if c in absent else _cell(row, c, table.absolute) for c in table.columns)] for row in table.rows]
    return [heading, *body, *([] if table.absolute else [_mean_line(table.rows, table.columns)])]


def _verdict(table: Table) -> str:
    found = worst(table.rows)
    disturbed = _disturbed(table)
    if found is None or table.absolute:
        return disturbed
    part = against(table.rows, PEER)
    compared = f"; its time is {part:.2f} of {PEER}'s" if part is not None else ""
    return f"{OURS}'s worst row: {found.subject}, {found.ratio(OURS):.2f}{compared}{disturbed and '; ' + disturbed}"


def _disturbed(table: Table) -> str:
    """So that a reader knows how quiet the machine was."""
    disturbed, rounds = sum(row.disturbed for row in table.rows), sum(row.rounds for row in table.rows)
    return f"in {disturbed} of {rounds} rounds others took part of the processor" if disturbed else ""


def text(table: Table) -> str:
    lines = _lines(table)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    shown = ["  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
             for line in lines]
    return "\n".join([*shown, _verdict(table)]).rstrip() + "\n"


def markdown(table: Table) -> str:
    heading, *body = _lines(table)
    rule = ["---", *("---:" for _ in table.columns)]
    rows = ["| " + " | ".join(line) + " |" for line in [heading, rule, *body]]
    return "\n".join([*rows, "", _verdict(table)]).rstrip() + "\n"


def in_common(tables: Sequence[Table]) -> Table | None:
    """One table of the compute tables' means, and of all their rows together."""
    compute = [table for table in tables if table.compute]
    if len(compute) < 2:
        return None
    return Table("compute", "all compute rows", compute[0].columns, tuple(row for table in compute for row in table.rows), True)


def summary(table: Table) -> str:
    """The last lines of a report: what all compute rows come to."""
    _, *means = _mean_line(table.rows, table.columns)
    shown = ", ".join(f"{column} {mean or 'not installed'}" for column, mean in zip(table.columns, means, strict=True))
    return f"{MEAN} of all {len(table.rows)} compute rows: {shown}\n{_verdict(table)}\n"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def machine() -> dict[str, str]:
    """What a reader needs to know to compare with another run."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"processor": f"{len(names)} of {names[0]}" if names else platform.machine(), "python": platform.python_version(),
            **{peer: _version(peer) for peer in VERSIONS}}


def _figures(table: Table, row: Measured, column: str) -> dict[str, object]:
    if table.absolute:
        return {"values": row.samples[column], "spread": row.spread(column)}
    return {"nanoseconds": row.samples[column], "ratio": row.ratio(column), "spread": row.spread(column)}


def to_json(tables: Sequence[Table], rounds: int, loop: float) -> str:
    """``loop``: nanoseconds that the fixed loop took in this run's quiet moments, for comparison with other runs' machines."""
    content = {
        table.name: {row.subject: {column: _figures(table, row, column)
                                   for column in row.samples} for row in table.rows}
        for table in tables
    }
    return json.dumps({"machine": machine(), "rounds": rounds, "loop": loop, "tables": content}, indent=1)
