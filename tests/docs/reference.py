"""The API reference, docs/api.md, out of signatures and docstrings.

    python -m tests.docs.reference        writes the page
"""

from __future__ import annotations

import argparse
import functools
import inspect
import re
from pathlib import Path
from typing import Any

import vxplug
from vxplug import aio, cli, profile, sdk
from vxplug import setuptools as integration

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"
HEAD = """# API reference

Made from the docstrings by `python -m tests.docs.reference`; a test holds it to them.
"""
ATTRIBUTES = (property, functools.cached_property)
ROLE = re.compile(r":\w+:`[~.]?([\w.]+)`")


def _doc(thing: Any) -> str:
    """Docstrings are reStructuredText of the plainest kind."""
    return ROLE.sub(r"`\1`", inspect.cleandoc(thing.__doc__ or "").replace("``", "`")).replace("::\n", ":\n")


def _signature(thing: Any) -> str:
    try:
        return str(inspect.signature(thing))
    except (TypeError, ValueError):
        return ""


def _bare(signature: str) -> str:
    """Without quotes around annotations, and without self."""
    signature = re.sub(r"(: |-> )'([^']*)'", r"\1\2", signature)
    return re.sub(r"\(self(, )?", "(", signature)


def _members(cls: type) -> list[str]:
    rows = []
    for name, member in vars(cls).items():
        if name.startswith("_") or not (inspect.isfunction(member) or isinstance(member, (*ATTRIBUTES, classmethod, staticmethod))):
            continue
        function = getattr(cls, name)
        signature = "" if isinstance(member, ATTRIBUTES) else _bare(_signature(function))
        doc = " ".join(_doc(member if isinstance(member, ATTRIBUTES) else function).split("\n\n")[0].split())
        rows.append(f"- `.{name}{signature}`" + (f": {doc}" if doc else ""))
    return rows


def _entry(name: str, thing: Any) -> str:
    shown = name
    if inspect.isfunction(thing) or (inspect.isclass(thing) and "__init__" in vars(thing)):
        shown += _bare(_signature(thing)).removesuffix(" -> None") if inspect.isclass(thing) else _bare(_signature(thing))
    if inspect.isclass(thing) and issubclass(thing, Exception):
        bases = ", ".join(base.__name__ for base in thing.__bases__)
        shown = f"{name}({bases})"
    parts = [f"### {name}", f"`{shown}`", _doc(thing)]
    if inspect.isclass(thing):
        parts.append("\n".join(_members(thing)))
    return "\n\n".join(part for part in parts if part)


def _module(title: str, module: Any) -> str:
    things = [(name, getattr(module, name)) for name in module.__all__ if name != "add_command"]
    entries = [_entry(name, thing) for name, thing in things if callable(thing)]
    return "\n\n".join([f"## {title}", _doc(module), *entries])


def _commands(parser: argparse.ArgumentParser) -> str:
    """Names and help only: how argparse lays out the rest differs between Pythons."""
    (subparsers,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    rows = [f"| `vxplug {choice.dest}` | {choice.help} |" for choice in subparsers._choices_actions]
    return "\n".join(["## Command line", "", _doc(cli.main), "", "| | |", "|---|---|", *rows])


def reference() -> str:
    modules = [
        ("vxplug", vxplug), ("vxplug.aio", aio), ("vxplug.profile", profile), ("vxplug.sdk", sdk), ("vxplug.setuptools", integration),
    ]
    parts = [HEAD, *(_module(title, module) for title, module in modules), _commands(cli._parser())]
    return "\n\n".join(part.strip() for part in parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
