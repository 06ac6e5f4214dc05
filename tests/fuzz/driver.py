"""What the Python harnesses share: atheris around a function of bytes, or single inputs again.

``python -m tests.fuzz.NAME [libFuzzer option…] CORPUS`` fuzzes; ``--replay PATH…`` runs files, or all of a folder.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

REPLAY = "--replay"


def instrumented() -> contextlib.AbstractContextManager[None]:
    """Imports under it are watched for coverage; not in a replay, which needs no atheris."""
    if REPLAY in sys.argv:
        return contextlib.nullcontext()
    import atheris

    return atheris.instrument_imports(include=["vxplug", "elftools.elf", "elftools.dwarf"])


class Finding(Exception):
    """An invariant that does not hold: the input is kept by libFuzzer."""


def require(condition: object, rule: str) -> None:
    if not condition:
        raise Finding(rule)


class Reader:
    """Choices out of the input's bytes; zeros when they have run out."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def take(self, size: int) -> bytes:
        part = self.data[self.at : self.at + size]
        self.at += size
        return part

    def rest(self) -> bytes:
        return self.data[self.at :]

    @property
    def left(self) -> int:
        return max(0, len(self.data) - self.at)


def _replay(one_input: Callable[[bytes], None], paths: list[str]) -> None:
    for path in map(Path, paths):
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            one_input(file.read_bytes())


def _kept(one_input: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """An exception ends the process at once, as a crash: libFuzzer keeps the input.  While Python ended in good order,
    libFuzzer's own timer would kill it before that."""

    def guarded(data: bytes) -> None:
        try:
            one_input(data)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os.abort()

    return guarded


def main(one_input: Callable[[bytes], None], mutate: Callable[[bytes, int, int], bytes] | None = None) -> None:
    if REPLAY in sys.argv:
        _replay(one_input, sys.argv[sys.argv.index(REPLAY) + 1 :])
        return
    import atheris

    atheris.Setup(sys.argv, _kept(one_input), custom_mutator=mutate)
    atheris.Fuzz()
