"""C names in Python: what is a keyword there, or otherwise taken."""

from __future__ import annotations

import keyword
from collections.abc import Iterable
from typing import Any

from .cdecl import name_of, place
from .errors import PluginFormatError, SdkError
from .types import identifier

__all__ = ["check_distinct", "enumerator", "python_name"]


def python_name(name: str, what: str, die: Any = None, kept: tuple[str, ...] = ()) -> str:
    """A C name in Python: PEP 8's underscore ends a keyword, and what is ``kept``.  SdkError says where the C name is
    that has no such way out; ``what`` is its role."""
    shown, name = name, f"{name}_" if keyword.iskeyword(name) or name in kept else name
    try:
        return identifier(name, "it")
    except PluginFormatError as error:
        reason = str(error).partition("it ")[2].removeprefix(f"{name!r} ")
        where = "" if die is None else f"{place(die)}: "
        raise SdkError(f"{where}{what} {shown} cannot be a name in Python: it {reason}; call it something else") from None


def check_distinct(named: Iterable[tuple[str, str, str]], what: str) -> None:
    """Of (name in Python, name in C, where it stands): SdkError says of two with one name in Python where both stand."""
    seen: dict[str, tuple[str, str]] = {}
    for name, shown, where in named:
        if name in seen:
            first, there = seen[name]
            raise SdkError(f"{where}: {what} {shown} is called {name} in Python, as is {first} ({there}): rename one")
        seen[name] = shown, where


def enumerator(member: Any, enum: str | None, die: Any) -> str:
    """The classes of Python's enums have a method mro, and keep names between underscores for themselves.  Of the members
    debug information says no place; ``die`` is the enum."""
    name = name_of(member) or ""
    if enum is not None and name.startswith("_") and name.endswith("_"):
        raise SdkError(f"{place(die)}: enumerator {name} of {enum} cannot be a name in Python's enums: call it something else")
    return name if enum is None else python_name(name, f"enumerator of {enum}", die, ("mro",))
