"""Tables say what was measured: medians, ratios, means, the worst row."""

from __future__ import annotations

import json
import os

import pytest

from benchmarks import plot, report
from benchmarks.timing import Loop, Measured, Row, measure, one_processor

ROWS = (
    Measured("slow", {"native": [10.0, 10.0, 40.0], "vxplug": [20.0, 19.0, 21.0], "wasmtime": [5.0, 5.0, 5.0]}),
    Measured("fast", {"native": [100.0, 100.0, 100.0], "vxplug": [50.0, 50.0, 50.0]}),
)
TABLE = report.Table("kernels", "kernels", ("native", "vxplug", "wasmtime", "qemu"), ROWS, True)


def test_ratios_are_of_medians_to_the_first_column():
    """The figures that everything else is made of."""
    assert [ROWS[0].ratio(column) for column in ("native", "vxplug", "wasmtime", "qemu")] == [1.0, 2.0, 0.5, None]
    assert ROWS[0].spread("vxplug") == pytest.approx(0.5 / 20)
    assert report.geometric_mean(ROWS, "vxplug") == pytest.approx(1.0)
    assert report.geometric_mean(ROWS, "qemu") is None


def test_text_names_the_worst_row_and_who_was_not_there():
    """Without it a mean could hide the row that a reader must know."""
    lines = report.text(TABLE).splitlines()
    assert lines[0].split() == ["kernels", "native", "vxplug", "wasmtime", "qemu"]
    assert "2.00 ±0.05" in lines[1] and lines[1].endswith("not installed")
    assert lines[3].split() == ["geometric", "mean", "1.00", "1.00", "0.50"]
    assert lines[4] == "vxplug's worst row: slow, 2.00; its time is 4.00 of wasmtime's"
    assert report.text(report.Table("t", "t", ("native", "vxplug"), ROWS[1:])).endswith("worst row: fast, 0.50\n")


def test_markdown_has_a_cell_for_every_column():
    """A page would show a broken table."""
    rows = [line for line in report.markdown(TABLE).splitlines() if line.startswith("|")]
    assert len(rows) == 5 and {row.count("|") for row in rows[:4]} == {6}


def test_json_keeps_every_sample():
    """Whoever wants other statistics than ours needs them."""
    read = json.loads(report.to_json([TABLE], 3, 340.0))
    assert read["tables"]["kernels"]["slow"]["vxplug"] == {"nanoseconds": [20.0, 19.0, 21.0], "ratio": 2.0, "spread": 0.025}
    assert read["machine"]["processor"] and (read["rounds"], read["loop"]) == (3, 340.0)


def test_figures_that_are_no_ratios():
    """Memory divided by speed would mean nothing; nothing at all is a figure too."""
    rows = (Measured("idle", {"KiB": [3.0, 3.5, 3.5], "pages": [0.0, 0.0, 0.0]}),)
    table = report.Table("memory", "memory each", ("KiB", "pages"), rows, absolute=True)
    assert [line.split() for line in report.text(table).splitlines()] == [
        ["memory", "each", "KiB", "pages"], ["idle", "3.50", "±0.12", "0.00", "±0.00"]]
    read = json.loads(report.to_json([table], 3, 340.0))["tables"]["memory"]["idle"]
    assert read["KiB"]["values"] == [3.0, 3.5, 3.5] and "ratio" not in read["KiB"]


def test_compute_tables_have_a_mean_in_common():
    """The one figure that the suite comes to is over rows, not over tables."""
    other = report.Table("codecs", "codecs", TABLE.columns, ROWS[:1], True)
    calls = report.Table("calls", "call cost", ("extension", "vxplug"), ROWS[:1])
    common = report.in_common([TABLE, other, calls])
    assert common is not None and len(common.rows) == 3
    assert "vxplug 1.26" in report.summary(common) and "qemu not installed" in report.summary(common)
    assert report.in_common([TABLE, calls]) is None


class Told(Loop):
    """A loop that takes what it is told, a second thereafter."""

    def __init__(self, *told):
        super().__init__()
        self.told = iter(told)

    def __call__(self):
        self._taken.append(next(self.told, 1.0))
        return self._taken[-1]


def _two(turns):
    """A row of two whose every run takes longer than the one before."""

    def runner(name):
        def run():
            turns.append(name)
            return float(len(turns))

        return run

    return Row("row", {"a": runner("a"), "b": runner("b")})


def test_contestants_take_turns_and_warm_runs_do_not_count():
    """A slow moment must hit all, the first runs translate, and whoever is always first has what the last leaves."""
    turns = []
    measured = measure(_two(turns), 3, Told())
    assert turns == [*"ab", *"ab", *"ab", *"ba", *"ab"] and measured.disturbed == 0
    assert measured.samples == {"a": [5.0, 8.0, 9.0], "b": [6.0, 7.0, 10.0]}


@pytest.mark.parametrize("place", range(3))
def test_a_disturbed_round_is_measured_again(place):
    """Before, between and after the runs: a neighbour's moment must be nobody's figure."""
    loops = [1.0] * 12
    loops[3 + place] = 1.3
    turns = []
    measured = measure(_two(turns), 2, Told(*loops))
    assert len(turns) == 10 and measured.disturbed == 0
    assert measured.samples == {"a": [5.0, 9.0], "b": [6.0, 10.0]}


def test_a_machine_that_is_never_quiet():
    """The run ends, takes the least disturbed rounds and says that they were."""
    turns = []
    measured = measure(_two(turns), 2, Told(*[1.0] * 3, *[3.0] * 9, *[2.0] * 3, *[3.0] * 9))
    assert len(turns) == 2 * (2 + 2 * 4) and measured.disturbed == 1 and measured.rounds == 2
    assert measured.samples == {"a": [5.0, 13.0], "b": [6.0, 14.0]}
    shown = report.text(report.Table("t", "t", ("a", "b"), (measured, ROWS[0])))
    assert shown.endswith("in 1 of 5 rounds others took part of the processor\n")


def test_what_is_usual_is_not_the_very_fastest():
    """One moment of a faster clock would make every other one disturbed."""
    loop = Told(0.5, *[1.0] * 19)
    assert [loop() for _ in range(20)][0] == 0.5 and loop.usual() == 1.0


@pytest.mark.parametrize("table", ["calls", "threads"])
def test_rows_are_made_and_run_on_one_processor(table):
    """Programs start when a row is made.  Threads side by side need more than one."""
    pytest.importorskip("wasmtime")
    from benchmarks import __main__ as suite

    before, seen = os.sched_getaffinity(0), []

    def run():
        seen.append(os.sched_getaffinity(0))
        return 1.0

    def rows():
        run()
        yield Row("row", {"a": run})

    (measured,) = suite._samples(table, "title", rows(), 1)
    assert measured.samples == {"a": [1.0]} and os.sched_getaffinity(0) == before
    assert {len(processors) for processors in seen} == {len(before) if table == "threads" else 1}


def test_contestants_share_the_processor_that_is_least_busy():
    """On another one a program could have a neighbour that its rival has not."""
    before = os.sched_getaffinity(0)
    if len(before) < 2:
        pytest.skip("one processor")
    free = max(before)
    with one_processor(lambda: 1.0 if os.sched_getaffinity(0) == {free} else 2.0):
        assert os.sched_getaffinity(0) == {free}
    assert os.sched_getaffinity(0) == before


def test_plot_draws_every_row(tmp_path):
    """The picture is what most readers look at."""
    pytest.importorskip("matplotlib")
    path = tmp_path / "results.svg"
    plot.draw([TABLE, TABLE], path)
    drawn = path.read_text()
    assert drawn.count("<!-- slow -->") == 2 and drawn.count("<!-- fast -->") == 2
    assert "<!-- vxplug (mean 1.00) -->" in drawn
