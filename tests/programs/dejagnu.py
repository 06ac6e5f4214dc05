"""gcc's own execution tests, gcc.c-torture/execute: which there are, and what their directives ask for.

Of DejaGnu's directives, those that choose options are obeyed.  Those that say what a test needs are
not: what this target lacks does not compile, or does not pass natively, and so is not in the baseline.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# What the .exp file of each folder passes to every test in it, on this target.
FOLDERS = {
    "": (),
    "ieee": ("-fno-inline", "-ffloat-store"),
    "builtins": ("-fno-tree-dse", "-fno-tree-loop-distribute-patterns", "-fno-tracer", "-fno-ipa-ra",
                 "-fno-inline-functions", "-Wl,--allow-multiple-definition"),  # the last: libc is static here
}
TARGET = "i686-pc-linux-gnu"
EFFECTIVE = {"ia32", "fpic", "signal"}  # of DejaGnu's effective targets, those that select options in this suite

DIRECTIVE = re.compile(r"\{\s*dg-(options|additional-options)\s+(.*)\}")
FLAGS = re.compile(r"^(?:set|lappend) additional_flags (.*)$", re.MULTILINE)  # indented ones hang on other targets
TOKEN = re.compile(r'"([^"]*)"|([{}])|([^\s{}"]+)')


@dataclass(frozen=True)
class Case:
    name: str
    sources: tuple[Path, ...]
    options: tuple[str, ...]


def words(text: str) -> list:
    """Tcl words: quoted text is one, braces nest."""
    stack: list[list] = [[]]
    for quoted, brace, bare in TOKEN.findall(text):
        if brace == "{":
            stack.append([])
        elif brace == "}" and len(stack) > 1:
            inner = stack.pop()
            stack[-1].append(inner)
        elif brace != "}":
            stack[-1].append(bare or quoted)
    return stack[0]


def selects(selector: list | str) -> bool:
    """Does a DejaGnu selector name this target?"""
    if isinstance(selector, str):
        return selector in EFFECTIVE or fnmatch.fnmatchcase(TARGET, selector)
    for operator, combine in (("||", any), ("&&", all)):
        if operator in selector:
            at = selector.index(operator)
            return combine((selects(selector[:at]), selects(selector[at + 1:])))
    if selector[:1] == ["!"]:
        return not selects(selector[1:])
    return any(selects(part) for part in selector)


def directive_options(text: str) -> list[str]:
    """The options that the directives in a test's comments add, on this target."""
    options: list[str] = []
    for kind, rest in DIRECTIVE.findall(text):
        value, *selector = words(rest)
        if selector and not selects(selector[0][1:]):  # { target … }
            continue
        flags = " ".join(value if isinstance(value, list) else [value]).split()
        options = flags if kind == "options" else options + flags
    return options


def _extra_options(script: Path) -> list[str]:
    """From the .x file some tests have beside them."""
    if not script.is_file():
        return []
    return [word for line in FLAGS.findall(script.read_text()) for word in words(line)]


def _case(suite: Path, source: Path) -> Case:
    folder = source.parent.name if source.parent != suite else ""
    options = [*FOLDERS[folder], *directive_options(source.read_text(errors="replace")),
               *_extra_options(source.with_suffix(".x"))]
    sources = [source]
    if folder == "builtins":
        sources += [source.with_name(f"{source.stem}-lib.c"), source.parent / "lib" / "main.c"]
    return Case(f"{folder}/{source.stem}".lstrip("/"), tuple(sources), tuple(options))


def cases(suite: Path) -> Iterator[Case]:
    for folder in FOLDERS:
        for source in sorted((suite / folder).glob("*.c")):
            if folder != "builtins" or not source.stem.endswith("-lib"):
                yield _case(suite, source)
