"""One line a system call, as strace would print it; guest text is escaped.

Kinds of arguments in csrc/core/linuxcalls.def: ``int`` and ``uint`` decimal, ``hex``, ``oct``, ``addr``;
``off`` two words of one number; ``fd``, ``dirfd``, ``sig``; ``path`` text at an address; ``oflags`` of open;
``in:N`` bytes whose length is argument N; ``out`` bytes whose length is the result.
"""

from __future__ import annotations

import errno
import os
import posixpath
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import _vx
from ..policy import LinuxPolicy
from ..trace import Trace
from . import clocks
from .calls import ROWS, Row, served, signed
from .descriptors import HostStream
from .process import AT_FDCWD

if TYPE_CHECKING:
    from .personality import Personality

__all__ = ["Tracer", "traced"]

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


# --- what a policy could allow

SENDERS = {"kill", "tkill", "tgkill"}
WRITERS = {
    "creat", "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat", "renameat2", "link", "linkat",
    "symlink", "symlinkat", "truncate", "truncate64", "chmod", "fchmodat", "utime", "utimes", "futimesat", "utimensat",
    "utimensat_time64",
}
LINK_MAKERS = {"symlink", "symlinkat"}  # whose first path is the text of a link
O_DIRECTORY, O_WRITES = 0o200000, 0o1103  # O_TRUNC, O_CREAT, O_WRONLY, O_RDWR
NEVER = {"threads and processes": {"clone", "fork", "vfork"}, "sockets": {"socketcall", "socket"}, "programs": {"execve"}}


def _paths(box: _vx.Box, row: Row, words: tuple[int, ...]) -> list[tuple[int, bytes]]:
    """(directory's descriptor, path) of each file that a call names."""
    found, dirfd = [], AT_FDCWD
    for word, kind in zip(words, row.arguments.split(), strict=False):
        if kind == "dirfd":
            dirfd = word
        elif kind == "path":
            found.append((dirfd, box.text(word, TEXT_MAX) or b""))
            dirfd = AT_FDCWD
    return found[1:] if row.name in LINK_MAKERS else found


def _writes(row: Row, words: tuple[int, ...]) -> bool:
    flags = words[row.arguments.split().index("oflags")] if "oflags" in row.arguments else 0
    return row.name in WRITERS or bool(flags & O_WRITES)


def _wants_directory(row: Row, words: tuple[int, ...]) -> bool:
    flags = words[row.arguments.split().index("oflags")] if "oflags" in row.arguments else 0
    return row.name == "chdir" or bool(flags & O_DIRECTORY)


def _why_never(row: Row, result: int | None) -> str | None:
    """Of a call that no policy allows."""
    error = row.server if row.server.startswith("E") else errno.errorcode.get(-(result or 0), "") if result else ""
    if not row.server.startswith("E") and not (row.name == "clone" or (row.name.find("chown") >= 0 and result == -errno.EPERM)):
        return None
    kind = next((f"{kind} do not exist here" for kind, names in NEVER.items() if row.name in names), "not served")
    return f"{kind}; under a policy it answers {error or 'an error'}"


def _is_refusal(row: Row, words: tuple[int, ...]) -> bool:
    """Of a call that ended the guest's without a policy: whether that was because there is none."""
    if row.name in SENDERS:
        return words[row.arguments.split().index("sig")] != signal.SIGABRT
    return row.server not in ("core", "either")


INITIALISING = "not during initialisation, whose outcome all sandboxes share"


class Tracer:
    """The core's trace hook of one box: a line, a count and a need of each call to its Trace."""

    def __init__(self, trace: Trace, policy: LinuxPolicy | None, personality: Personality | None) -> None:
        self.trace = trace
        self.policy, self.personality = policy, personality
        trace.start(policy)

    def __call__(self, box: _vx.Box, number: int, words: tuple[int, ...], result: int | None) -> None:
        row = ROWS.get(number)
        if row is None:
            self.trace.line(f"syscall_{number}() = {_result(result, '')}")
            self.trace.calls["unknown"] += 1  # as one: the guest has four billion numbers
            self.trace.cannot(f"system call {number}", "there is none of this number")
            return
        arguments = ", ".join(_arguments(box, row.arguments.split(), words, result))
        self.trace.line(f"{row.name}({arguments}) = {_result(result, 'addr' if row.name in ADDRESSES else '')}")
        self.trace.calls[row.name] += 1
        self._need(box, row, words, result)

    def _need(self, box: _vx.Box, row: Row, words: tuple[int, ...], result: int | None) -> None:
        initialising = box.closed  # it opens when that is done
        if result is None and (self.personality is None or initialising) and _is_refusal(row, words):
            self.trace.refused[row.name] += 1
            if initialising:
                return self.trace.cannot(row.name, INITIALISING)
            self.trace.need("basics")
        never = _why_never(row, result)
        if never is not None:
            return self.trace.cannot(row.name, never)
        if row.server not in ("core", "either"):
            self.trace.need("basics")
        if self._tells_time(row):
            self.trace.need("time")
        if row.name == "getrandom":
            self.trace.need("random")
        if row.name == "ioctl" and self._is_terminal(words[0]):
            self.trace.need("terminal")
        if row.server == "policy":
            self._need_paths(box, row, words, result)

    def _tells_time(self, row: Row) -> bool:
        """Whether the guest wanted to know the time: its process knows, where there is one."""
        if self.personality is not None:
            return self.personality.current is not None and self.personality.current.timed
        function = served(row.name)
        return function is not None and function[0].__module__ == clocks.__name__

    def _is_terminal(self, fd: int) -> bool:
        """Whether the guest's descriptor is a stream that only lacks the right to be one."""
        process = self.personality.current if self.personality is not None else None
        try:
            description = process.table.get(fd) if process is not None else None
        except OSError:
            return False
        return isinstance(description, HostStream) and os.isatty(description.fd)

    def _need_paths(self, box: _vx.Box, row: Row, words: tuple[int, ...], result: int | None) -> None:
        for dirfd, path in _paths(box, row, words):
            if row.name == "chdir" and result == 0:
                path = b"."  # the process is there now
            start = self._start(dirfd, path)
            if path and start is not None:
                whole = posixpath.normpath(posixpath.join(start, os.fsdecode(path)))
                self.trace.need_path("/" + whole.lstrip("/"), _writes(row, words), _wants_directory(row, words))

    def _start(self, dirfd: int, path: bytes) -> str | None:
        """The directory that a relative path is of; None: no descriptor of one."""
        process: Any = self.personality.current if self.personality is not None else None
        if process is None or path.startswith(b"/"):
            return self.policy.cwd if self.policy is not None else "/"
        try:
            return "/" + "/".join(map(os.fsdecode, process.start(dirfd, path)))
        except OSError:
            return None


def traced(trace: Trace | Callable[[str], object]) -> Trace:
    """What the embedder gave as ``trace=``; a callable stands for a Trace that writes to it."""
    if isinstance(trace, Trace):
        return trace
    if not callable(trace):
        raise TypeError(f"trace: expected vxplug.Trace or a callable, got {type(trace).__name__}")
    return Trace(trace)
