"""Figures that a process of its own prints, one line of them a sample."""

from __future__ import annotations

import functools
import itertools
import subprocess
import sys
from collections.abc import Iterator

from .places import ROOT
from .timing import Run


@functools.cache
def _sample(module: str, arguments: tuple[str, ...], number: int) -> tuple[float, ...]:
    """One process for all figures of a sample."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return tuple(map(float, done.stdout.split()))


def figure(which: int, module: str, *arguments: str) -> Run:
    """The figure at that place of what ``python -m benchmarks.MODULE`` prints."""
    numbers: Iterator[int] = itertools.count()
    return lambda: _sample(module, arguments, next(numbers))[which]
