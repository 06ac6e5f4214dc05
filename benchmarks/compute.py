"""The compute tables: translated code against the same C everywhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from .contestants import COLUMNS, contest
from .programs import PROGRAMS
from .timing import Row

TITLES = {"kernels": "kernels", "codecs": "codecs", "hashes": "hashes", "interpreter": "interpreter"}


def rows(table: str, wanted: Callable[[str], bool], columns: Sequence[str] = tuple(COLUMNS)) -> Iterator[Row]:
    """Each row's contestants live until the next row is asked for."""
    for program in PROGRAMS:
        for task in program.tasks:
            if task.table == table and wanted(task.subject):
                with contest(program, task, columns) as runs:
                    yield Row(task.subject, runs)
