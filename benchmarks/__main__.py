"""All tables, or those named: ``python -m benchmarks [--rounds N] [--rows PATTERN] [TABLE...]``."""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from . import calls, compute, contestants, imports, plot, report, sandboxes, scale, translation
from .places import CACHE
from .timing import LOOP, Measured, Row, measure, one_processor

ROUNDS, QUICK_ROUNDS = 15, 3
SETTLE = 4.0  # seconds: some neighbours stay as long
OUTPUT = CACHE / "results"
Wanted = Callable[[str], bool]


def _listed(rows: Callable[[], Iterable[Row]]) -> Callable[[Wanted], Iterable[Row]]:
    """Rows whose contestants are cheap to make: those not wanted are made and dropped."""
    return lambda wanted: (row for row in rows() if wanted(row.subject))


TABLES: dict[str, tuple[str, Callable[[Wanted], Iterable[Row]]]] = {
    "calls": ("call cost", _listed(calls.rows)),
    "copies": ("bytes in and out", _listed(calls.copy_rows)),
    "buffers": ("Buffer by size", _listed(calls.buffer_rows)),
    "callbacks": ("callbacks", _listed(calls.callback_rows)),
    "imports": ("imports", _listed(imports.rows)),
    "sandboxes": ("setting up", _listed(sandboxes.rows)),
    "threads": ("time a call", _listed(scale.thread_rows)),
    "bytes": ("time a byte", _listed(scale.byte_rows)),
    "lookups": ("indirect calls", _listed(scale.lookup_rows)),
}
# Figures that are no ratios.
FIGURES: dict[str, tuple[str, Callable[[Wanted], Iterable[Row]]]] = {
    "memory": ("memory each", _listed(sandboxes.memory_rows)),
    "translation": ("translation", _listed(translation.rows)),
}
ALL = (*compute.TITLES, *TABLES, *FIGURES)
SIDE_BY_SIDE = {"threads", "imports"}  # contestants with threads of their own


def _columns(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(contestants.COLUMNS):
        raise argparse.ArgumentTypeError(f"no column {', '.join(sorted(unknown))}")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"runs of each contestant; their median counts ({ROUNDS})")
    parser.add_argument("--quick", action="store_const", dest="rounds", const=QUICK_ROUNDS, help=f"a look: {QUICK_ROUNDS} rounds")
    parser.add_argument("--rows", default="*", metavar="PATTERN", help="rows whose subject matches, as in '*compress'")
    parser.add_argument("--columns", type=_columns, default=[*contestants.COLUMNS], metavar="NAME,NAME",
                        help=f"of the compute tables: {', '.join(contestants.COLUMNS)}")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="DIR", help="for results.md, results.json, results.svg")
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(ALL)}; all by default")
    return parser


def _samples(name: str, title: str, rows: Iterable[Row], rounds: int) -> tuple[Measured, ...]:
    measured: list[Measured] = []
    todo = iter(rows)
    while True:
        # A row's programs are started when it is asked for.
        with contextlib.nullcontext() if name in SIDE_BY_SIDE else one_processor():
            row = next(todo, None)
            if row is None:
                break
            if sys.stderr.isatty():
                print(f"\r\033[K{title}: {row.subject}", end="\r", file=sys.stderr, flush=True)
            measured.append(measure(row, rounds))
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    return tuple(measured)


def _measured(name: str, options: argparse.Namespace) -> report.Table:
    def wanted(subject: str) -> bool:
        return fnmatch.fnmatch(subject, options.rows)

    if name in compute.TITLES:
        title, columns = compute.TITLES[name], options.columns
        rows = _samples(name, title, compute.rows(name, wanted, columns), options.rounds)
        return report.Table(name, title, tuple(columns), rows, compute=True)
    title, make = (TABLES | FIGURES)[name]
    rows = _samples(name, title, make(wanted), options.rounds)
    found = dict.fromkeys(column for row in rows for column in row.samples)
    return report.Table(name, title, tuple(found), rows, absolute=name in FIGURES)


def _write(tables: list[report.Table], rounds: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    common = report.in_common(tables)
    parts = [*(report.markdown(table) for table in tables), *([report.summary(common)] if common else [])]
    (folder / "results.md").write_text("\n".join(parts))
    (folder / "results.json").write_text(report.to_json(tables, rounds, LOOP.usual()))
    ratios = [table for table in tables if not table.absolute]
    if ratios:
        plot.draw(ratios, folder / "results.svg")
    print(f"written: {folder}/results.md, .json{', .svg' if ratios else ''}")


def main() -> None:
    parser = _parser()
    options = parser.parse_args()
    unknown = set(options.tables) - set(ALL)
    if unknown:
        parser.error(f"no table {', '.join(sorted(unknown))}")
    if options.rounds < 1:
        parser.error("at least one round")
    print("Times divided by the first column's: 1.00 is as fast, 2.00 takes twice as long; ± half the quartiles' distance.\n")
    LOOP.settle(SETTLE)
    tables = []
    for name in options.tables or ALL:
        table = _measured(name, options)
        if table.rows:
            tables.append(table)
            print(report.text(table), flush=True)
    if not tables:
        parser.error(f"no row matches {options.rows}")
    common = report.in_common(tables)
    print(report.summary(common) if common else "", end="\n" if common else "")
    print(f"the fixed loop took {LOOP.usual() / 1000:.0f} µs in quiet moments; "
          "where other runs on this machine say less, this one was disturbed throughout")
    _write(tables, options.rounds, options.output)


if __name__ == "__main__":
    main()
