"""Programs of the compute tables build, and every contestant that is here gives the same result."""

from __future__ import annotations

import importlib.util

import pytest

from benchmarks import contestants
from benchmarks.programs import KERNELS, PROGRAMS

WASM = [] if importlib.util.find_spec("wasmtime") is None else [contestants.WASMTIME]
LZ4 = next(program for program in PROGRAMS if program.name == "lz4")
# Cheap to build: one file of our own.
COLUMNS = [contestants.NATIVE32, contestants.VXPLUG, *WASM, contestants.QEMU, contestants.NATIVE64]


@pytest.mark.parametrize("task", KERNELS.tasks, ids=lambda task: task.name)
def test_kernels_agree(task):
    """A contestant that computes something else would be compared all the same."""
    with contestants.contest(KERNELS, task, COLUMNS, task.tiny) as runs:
        assert list(runs)[:2] == COLUMNS[:2]
        assert all(run() > 0 for run in [*runs.values()] * 2)


@pytest.mark.parametrize("task", LZ4.tasks, ids=lambda task: task.name)
def test_a_library_agrees(task):
    """Upstream's sources, fetched and built; its encoder writes other bytes on 64-bit machines, which is allowed."""
    with contestants.contest(LZ4, task, [contestants.NATIVE32, contestants.VXPLUG, contestants.NATIVE64], task.tiny) as runs:
        assert all(run() > 0 for run in runs.values())


def test_a_wrong_result_ends_the_run():
    """The check itself: without it agreement would mean nothing."""
    check = contestants.Checked("a row")
    check("one", 5)
    check("two", 5)
    with pytest.raises(AssertionError, match="a row: three gives 0x6, one 0x5"):
        check("three", 6)


def test_a_program_that_dies_is_not_timed():
    """Without it a task that fails could pass for a fast one."""
    task = KERNELS.tasks[0]
    nobody = type(task)("nobody", task.subject, task.input, 1, task.table)
    with (
        contestants.contest(KERNELS, nobody, [contestants.NATIVE32]) as runs,
        pytest.raises(RuntimeError, match="ended without an answer"),
    ):
        runs[contestants.NATIVE32]()


def test_rows_are_told_apart_by_their_subject():
    """--rows, the results and the plot name rows by it."""
    subjects = [task.subject for program in PROGRAMS for task in program.tasks]
    assert len(set(subjects)) == len(subjects) > 30
