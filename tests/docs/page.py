"""Runs every code block of a Markdown page, in order, in one folder and one Python namespace.

    python -m tests.docs.page PAGE.md FOLDER

What is done with a block follows from its language, and a comment before it may say otherwise:

    ```python     with >>>, a doctest; otherwise executed
    ```console    lines after `$ ` are commands for sh; the lines below one are its output, if there are any
    <!-- file: NAME -->      the block is written to NAME
    <!-- status: N -->       the block's last command ends with N
    <!-- not run: REASON --> the block is passed over
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vxplug.sdk import FIRST_BUILD

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
NOTE = re.compile(r"<!-- (file|status|not run): (.+?) -->\s*\Z")
FIRST_BUILD_LINE = re.compile(rf"^.*: {re.escape(FIRST_BUILD)}\n", re.MULTILINE)  # on a new machine, of whichever is first
CHECKS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL


class PageError(Exception):
    """A block does not do what the page says; the text begins with the page and line."""


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    text: str
    note: str | None
    value: str


def blocks(text: str) -> list[Block]:
    found = []
    for match in FENCE.finditer(text):
        note = NOTE.search(text[: match.start()])
        body = re.sub(rf"^{match.group(1)}", "", match.group(3), flags=re.MULTILINE)
        line = text.count("\n", 0, match.start()) + 2
        found.append(Block(line, match.group(2), body, *(note.groups() if note else (None, ""))))
    return found


def commands(text: str) -> list[tuple[str, str]]:
    """(command, expected output) of a console block; a command goes on after a backslash."""
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif found and found[-1][0].endswith("\\"):
            found[-1] = (found[-1][0] + "\n" + line, "")
        else:
            found[-1] = (found[-1][0], found[-1][1] + line + "\n")
    return found


def _console(block: Block, status: int) -> None:
    pairs = commands(block.text)
    for number, (command, expected) in enumerate(pairs):
        done = subprocess.run(["sh", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False)
        printed = FIRST_BUILD_LINE.sub("", done.stdout)
        wanted = status if number == len(pairs) - 1 else 0
        if done.returncode != wanted:
            raise PageError(f"$ {command}\nended with {done.returncode}:\n{printed}")
        if expected and not doctest.OutputChecker().check_output(expected, printed, CHECKS):
            raise PageError(f"$ {command}\nprinted:\n{printed}not:\n{expected}")


def _python(block: Block, names: dict[str, Any], where: str) -> None:
    if ">>>" not in block.text:
        exec(compile("\n" * (block.line - 1) + block.text, where, "exec"), names)
        return
    test = doctest.DocTestParser().get_doctest(block.text, names, where, where, block.line)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=CHECKS, verbose=False)
    runner.run(test, out=report.append, clear_globs=False)
    names.update(test.globs)
    if runner.failures:
        raise PageError("".join(report))


def _run(block: Block, names: dict[str, Any], where: str) -> None:
    if block.note == "file":
        Path(block.value).parent.mkdir(parents=True, exist_ok=True)
        Path(block.value).write_text(block.text)
    elif block.language == "console":
        _console(block, int(block.value) if block.note == "status" else 0)
    elif block.language == "python":
        _python(block, names, where)
    elif block.note != "not run":
        raise PageError(f"nobody runs a block of {block.language or 'no language'}: give it a file, or say why not")


def run_page(text: str, name: str) -> int:
    """Run the blocks in the working directory; how many there were."""
    names: dict[str, Any] = {"__name__": "__page__"}
    found = blocks(text)
    for block in found:
        where = f"{name}:{block.line}"
        if block.note == "not run":
            continue
        try:
            _run(block, names, where)
        except Exception as error:
            raise PageError(f"{where}: {type(error).__name__}: {error}") from error
    return len(found)


def main(page: str, folder: str) -> None:
    text = Path(page).read_text(encoding="utf-8")
    os.chdir(folder)
    sys.path.insert(0, "")
    print(run_page(text, Path(page).name), "blocks")


if __name__ == "__main__":
    main(*sys.argv[1:])
