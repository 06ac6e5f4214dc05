"""The tables as one picture: a line a row, a dot a contestant, further left is faster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .report import OURS, Table, geometric_mean

COLOURS = {OURS: "#c1121f"}
OTHERS = ("#1d3557", "#2a9d8f", "#e9a03b", "#8a5a9e", "#6c757d", "#457b9d")
LINE = 0.26  # inches a row


def _colours(tables: Sequence[Table]) -> dict[str, str]:
    """The same contestant has the same colour in every table."""
    columns = list(dict.fromkeys(column for table in tables for column in table.columns if column != OURS))
    return COLOURS | {column: OTHERS[i % len(OTHERS)] for i, column in enumerate(columns)}


def _dots(axes: Any, table: Table, colours: dict[str, str]) -> None:
    rows = sorted(table.rows, key=lambda row: row.ratio(OURS) or 0.0)
    for column in sorted(table.columns, key=lambda column: column == OURS):  # ours on top
        points = [(ratio, at) for at, row in enumerate(rows) if (ratio := row.ratio(column)) is not None]
        if not points:
            continue
        mean = geometric_mean(rows, column)
        axes.scatter(*zip(*points, strict=True), s=52 if column == OURS else 26, color=colours[column], zorder=3,
                     label=f"{column} (mean {mean:.2f})")
    axes.set_yticks(range(len(rows)), [row.subject for row in rows])
    axes.set_ylim(-0.7, len(rows) - 0.3)


def _axes(axes: Any, table: Table) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.axvline(1, color="#1d3557", linewidth=1)
    axes.grid(axis="both", linewidth=0.4, color="#cccccc")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelsize=8)
    axes.set_title(f"{table.title}: time divided by that of {table.columns[0]} (left is faster)", fontsize=9, loc="left")
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _share_axis(panels: Sequence[Any]) -> None:
    """Tables of one kind are read against each other."""
    if panels:
        limits = [axes.get_xlim() for axes in panels]
        for axes in panels:
            axes.set_xlim(min(low for low, _ in limits), max(high for _, high in limits))


def draw(tables: Sequence[Table], path: Path) -> None:
    """An SVG (or what else the name ends in) of all tables, one below the other; all are of ratios."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    heights = [len(table.rows) * LINE + 0.8 for table in tables]
    figure = Figure(figsize=(10, sum(heights)), layout="constrained")
    FigureCanvasSVG(figure)
    panels = figure.subplots(len(tables), 1, height_ratios=heights, squeeze=False)
    colours = _colours(tables)
    for (axes,), table in zip(panels, tables, strict=True):
        _dots(axes, table, colours)
        _axes(axes, table)
    _share_axis([axes for (axes,), table in zip(panels, tables, strict=True) if table.compute])
    figure.savefig(path)
