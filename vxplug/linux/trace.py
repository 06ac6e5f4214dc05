"""One line a system call, as strace would print it; guest text is escaped.

Kinds of arguments in csrc/core/linuxcalls.def: ``int`` and ``uint`` decimal, ``hex``, ``oct``, ``addr``;
``off`` two words of one number; ``fd``, ``dirfd``, ``sig``; ``path`` text at an address; ``oflags`` of open;
``in:N`` bytes whose length is argument N; ``out`` bytes whose length is the result.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable

from .. import _vx
from .calls import ROWS, signed
from .process import AT_FDCWD

__all__ = ["Tracer"]

SHOWN = 32  # bytes of a buffer
TEXT_MAX = 4096
ACCESS = ("O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE")
OPEN_FLAGS = {
    0o100: "O_CREAT", 0o200: "O_EXCL", 0o400: "O_NOCTTY", 0o1000: "O_TRUNC", 0o2000: "O_APPEND",
    0o4000: "O_NONBLOCK", 0o100000: "O_LARGEFILE", 0o200000: "O_DIRECTORY", 0o400000: "O_NOFOLLOW",
    0o2000000: "O_CLOEXEC", 0o10000000: "O_PATH",
}


def _quote(data: bytes | None, more: bool = False) -> str:
    if data is None:
        return "(unreadable)"
    text = "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else _escape(b) for b in data)
    return f'"{text}"' + ("..." if more else "")


def _escape(byte: int) -> str:
    return {10: "\\n", 9: "\\t", 13: "\\r", 34: '\\"', 92: "\\\\"}.get(byte, f"\\x{byte:02x}")


def _buffer(box: _vx.Box, address: int, size: int) -> str:
    return _quote(box.read(address, min(size, SHOWN)), size > SHOWN)


def _open_flags(word: int) -> str:
    names = [ACCESS[word & 3], *(name for bit, name in OPEN_FLAGS.items() if word & bit)]
    rest = word & ~(3 | sum(OPEN_FLAGS))
    return "|".join(names + ([hex(rest)] if rest else []))


def _signal(word: int) -> str:
    try:
        return signal.Signals(word).name
    except ValueError:
        return str(word)


SIMPLE: dict[str, Callable[[int], str]] = {
    "int": lambda word: str(signed(word)), "uint": str, "hex": hex, "oct": lambda word: f"0{word:o}",
    "addr": lambda word: hex(word) if word else "NULL", "fd": lambda word: str(signed(word)),
    "dirfd": lambda word: "AT_FDCWD" if word == AT_FDCWD else str(signed(word)),
    "oflags": _open_flags, "sig": _signal,
}


def _argument(box: _vx.Box, kind: str, at: int, words: tuple[int, ...], result: int | None) -> str:
    word = words[at]
    if kind in SIMPLE:
        return SIMPLE[kind](word)
    if kind == "off":
        return str(signed(words[at + 1]) << 32 | word)
    if kind == "path":
        return _quote(box.text(word, TEXT_MAX))
    if kind == "out":
        return _buffer(box, word, result) if result is not None and result > 0 else hex(word)
    return _buffer(box, word, words[int(kind.partition(":")[2])])


def _arguments(box: _vx.Box, kinds: list[str], words: tuple[int, ...], result: int | None) -> list[str]:
    out, at = [], 0
    for kind in kinds:
        out.append(_argument(box, kind, at, words, result))
        at += 2 if kind == "off" else 1
    return out


def _result(number: int | None, kinds: str) -> str:
    if number is None:
        return "?"
    if -4096 < number < 0:
        name = errno.errorcode.get(-number, "")
        return f"-1 {name} ({os.strerror(-number)})" if name else str(number)
    return hex(number & 0xFFFFFFFF) if kinds == "addr" else str(number)


ADDRESSES = {"brk", "mmap", "mmap2", "mremap"}


class Tracer:
    """The core's trace hook: a line to `write` for every call."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self.write = write

    def __call__(self, box: _vx.Box, number: int, words: tuple[int, ...], result: int | None) -> None:
        row = ROWS.get(number)
        if row is None:
            self.write(f"syscall_{number}() = {_result(result, '')}")
            return
        arguments = ", ".join(_arguments(box, row.arguments.split(), words, result))
        self.write(f"{row.name}({arguments}) = {_result(result, 'addr' if row.name in ADDRESSES else '')}")
