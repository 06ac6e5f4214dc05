"""All tables, or those named: ``python -m benchmarks [--rounds N] [calls callbacks kernels codecs sandboxes]``."""

from __future__ import annotations

import argparse

from . import calls, codecs, kernels, sandboxes
from .timing import print_table

TABLES = {
    "calls": ("call cost", calls.rows),
    "callbacks": ("callbacks", calls.callback_rows),
    "kernels": ("kernels", kernels.rows),
    "codecs": ("codecs", codecs.rows),
    "sandboxes": ("setting up", sandboxes.rows),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="runs of each contestant; their median counts")
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}; all by default")
    options = parser.parse_args()
    unknown = set(options.tables) - set(TABLES)
    if unknown:
        parser.error(f"no table {', '.join(sorted(unknown))}")
    print("Times divided by the first column's: 1.00 is as fast, 2.00 takes twice as long.\n")
    for name in options.tables or TABLES:
        title, rows = TABLES[name]
        print_table(title, rows(), options.rounds)


if __name__ == "__main__":
    main()
