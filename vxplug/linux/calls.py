"""The list of system calls, and who in this package serves which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from .. import _vx

__all__ = ["NAMES", "ROWS", "Row", "served", "serves", "signed"]


class Row(NamedTuple):
    """A row of csrc/core/linuxcalls.def."""

    number: int
    name: str
    server: str  # "core", "policy-core", "both", "policy", "either", or the errno that denies
    arguments: str


ROWS = {row[0]: Row(*row) for row in _vx.linux_rows()}
NAMES = {row.number: row.name for row in ROWS.values()}

_functions: dict[str, tuple[Callable[..., Any], int]] = {}
Function = TypeVar("Function", bound=Callable[..., Any])


def serves(*names: str) -> Callable[[Function], Function]:
    """Registers a function for the calls of these names: it gets the process and its arguments as
    unsigned words, and returns the result (None is 0) or raises OSError."""

    def register(function: Function) -> Function:
        for name in names:
            _functions[name] = function, function.__code__.co_argcount - 1
        return function

    return register


def served(name: str) -> tuple[Callable[..., Any], int] | None:
    """The function that serves a call, and how many arguments it takes."""
    return _functions.get(name)


def signed(word: int) -> int:
    return word - (1 << 32) if word & 0x80000000 else word
