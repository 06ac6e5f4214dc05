"""The one place that makes exceptions from the end of guest code, with the guest's frames in them."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from types import CodeType, FrameType, FunctionType, TracebackType
from typing import Any, TypeVar

from . import _vx
from .binary import Binary
from .errors import GuestEnd, GuestExit, GuestFault, GuestTimeout, PolicyError, escape
from .linux.calls import NAMES

__all__ = ["from_trap"]

Frame = tuple[str, "str | None", "int | None"]
_Found = TypeVar("_Found")

# The checks of -fsanitize-trap=undefined by their number in clang (its list of sanitizer handlers), which the
# trapping instruction carries.
_UBSAN = dict(enumerate((
    "integer addition overflows", "unreachable code reached", "integrity check of control flow failed",
    "integer division overflows or divides by zero", "object of a wrong dynamic type",
    "floating-point value does not fit", "call of a function of another type", "implicit conversion changes the value",
    "wrong argument of a builtin", "cast to a wrong class", "load of an invalid value",
    "function ended without a return value", "integer multiplication overflows", "integer negation overflows",
    "null argument where none may be", "null result where none may be", "null argument where none may be",
    "null result where none may be", "array index out of bounds", "pointer arithmetic overflows",
    "shift out of bounds", "integer subtraction overflows", "misaligned or null pointer used",
    "assumed alignment does not hold", "array of no positive size",
)))

LAST_WORDS = 400  # characters of the guest's last output that a message quotes
LAST_LINES = 6


# ---- frames ----


def _try(find: Callable[[], _Found], otherwise: _Found) -> _Found:
    """What is found of names, or ``otherwise``.  They are made of what a hostile file holds, and with modules that cannot
    be imported any more while Python ends, so any error may come of them; an application waits for the one that is
    being made, and would catch no other."""
    try:
        return find()
    except MemoryError:  # the host's own trouble
        raise
    except Exception:
        return otherwise


def _frames(info: dict[str, Any], plugin: Binary) -> tuple[list[Frame], list[int]]:
    returning = info["bytes"][:1] == b"\xc3"
    addresses = _try(
        lambda: plugin.callers(info["registers"], info["stack_at"], info["stack"], returning), [info["eip"]]
    )
    return [_frame_at(address, plugin) for address in addresses], addresses


def _frame_at(address: int, plugin: Binary) -> Frame:
    function, file, line = _try(lambda: plugin.locate(address), None) or (f"{address:#010x}", None, None)
    return function, file, line  # no class of debuginfo's, which a report would travel with


_SOURCE_SUFFIXES = (".c", ".h", ".cc", ".hh", ".cpp", ".hpp", ".cxx", ".hxx", ".s", ".S", ".inc", ".rs", ".zig")
SOURCE_MAX = 16 << 20


def _shown_file(file: str | None, plugin: Binary) -> str:
    """The file name a traceback gets.  Python opens what it names to show the line, and the name is the
    plugin's: only what is a regular source file may be opened, or what is not there at all."""
    if file is None:
        return f"<{escape(os.path.basename(plugin.path or 'plugin'))}>"
    try:
        found = os.stat(file)
    except (OSError, ValueError):
        exists = False
    else:
        exists = True
        if stat.S_ISREG(found.st_mode) and found.st_size <= SOURCE_MAX and file.endswith(_SOURCE_SUFFIXES):
            return file
    return f"<{file}>" if exists or not file.startswith("/") else file


def _guest() -> Iterator[None]:
    """A generator's frame exists before it runs, and has no caller.  One of a call would keep ours alive, with
    the exception that is made here: garbage that only the collector finds."""
    yield


def _template() -> CodeType:
    """Code that knows of no columns: they would be underlined in C source."""
    code = _guest.__code__
    if sys.version_info < (3, 11):
        return code
    units = len(code.co_code) // 2
    entries = [min(8, units - at) for at in range(0, units, 8)]  # Objects/locations.md: code 13 is "no columns"
    return code.replace(co_linetable=b"".join(bytes([0x80 | 13 << 3 | size - 1, 0]) for size in entries))


_FRAME = _template()


def _python_frame(frame: Frame, plugin: Binary) -> FrameType:
    function, file, line = frame
    code = _FRAME.replace(co_name=function, co_filename=_shown_file(file, plugin), co_firstlineno=line or 0)
    return FunctionType(code, {})().gi_frame  # type: ignore[no-any-return]


def _python_traceback(frames: Sequence[Frame], plugin: Binary) -> TracebackType | None:
    """Entries that Python prints like its own, the outermost call first."""
    chain = None
    for frame in frames:
        chain = TracebackType(chain, _python_frame(frame, plugin), 0, frame[2] or 0)
    return chain


# ---- text ----


def _where(info: dict[str, Any], frames: Sequence[Frame]) -> str:
    function = info["function"]
    place = f"in {function}()" if function else "during initialisation"
    known = [frame for frame in frames if not frame[0].startswith("0x")]
    if not known:
        return f"{place}, eip {info['eip']:#010x}"
    name, file, line = known[0]
    source = f", {os.path.basename(file)}" if file else ""
    source += f":{line}" if line else ""
    return f"{place}, eip {info['eip']:#010x} ({name}{source})"


def _last_words(output: bytes) -> str:
    """What the guest said on stderr before its end, or nothing."""
    text = output.decode("utf-8", "replace").strip()[-LAST_WORDS:]
    lines = [escape(line) for line in text.splitlines()[-LAST_LINES:] if line.strip()]
    if not lines:
        return ""
    return f"; it wrote: {lines[0]}" if len(lines) == 1 else "; it wrote:\n    " + "\n    ".join(lines)


def _undefined(code: bytes) -> str | None:
    """What clang's trap instruction for undefined behaviour (ud1 with a number) stands for."""
    if code[:3] == b"\x0f\xb9\x00":
        return _UBSAN[0]
    return _UBSAN.get(code[3]) if code[:3] == b"\x0f\xb9\x40" and len(code) > 3 else None


def _detail(info: dict[str, Any], frames: Sequence[Frame], limits: dict[str, Any]) -> str:
    kind, text = info["kind"], str(info["text"])
    if kind == "stack-overflow":
        return f"{text} (limit of {limits['stack']} bytes) at {info['address']:#010x}"
    if kind == "output-limit":
        return f"{text} (limit of {limits['output']} bytes)"
    if info["address"] is not None:
        return f"{text} at {info['address']:#010x}"
    if any(frame[0].startswith("__stack_chk_fail") for frame in frames[:2]):
        return f"{text} (stack smashing detected)"
    if kind == "illegal-instruction" and _undefined(info["bytes"]):
        return f"{text} (undefined behaviour: {_undefined(info['bytes'])})"
    if kind in ("illegal-instruction", "privileged-instruction", "protection"):
        return f"{text} ({info['bytes'].hex(' ')})"
    if kind == "signal":
        return f"{text} ({info['code']})"
    if kind == "software-interrupt":
        return f"{text} (int {info['code']:#x})"
    return text


def _time_limit(info: dict[str, Any], limits: dict[str, Any]) -> Any:
    """The one that was reached: that of a call outside, still open, whose time is over, or else its own."""
    outside = _vx.overdue()
    if outside is not None and outside[0] == "timeout":
        return f"{outside[1]:g}"
    return limits["timeout"] if info["function"] else limits["init_timeout"]


# ---- the exception ----


def _exception(info: dict[str, Any], frames: list[Frame], limits: dict[str, Any]) -> GuestEnd:
    kind, where = info["kind"], _where(info, frames)
    end = where + _try(lambda: _last_words(info["stderr"]), "")
    if kind == "timeout":
        return GuestTimeout(f"time limit of {_time_limit(info, limits)} s reached {end}")
    if kind == "exit":
        return GuestExit(f"the plugin called exit({info['code']}) {end}", info["code"])
    if kind == "syscall":
        name = NAMES.get(info["code"], "unknown")
        allowed = "allowed" if info["function"] else "allowed by any policy"
        return PolicyError(f"system call {info['code']} ({name}) is not {allowed} {end}", info["code"])
    detail = _detail(info, frames, limits)
    return GuestFault(f"{kind}: {detail} {end}", kind, info["address"], info["eip"], info["registers"], frames)


def from_trap(info: dict[str, Any], plugin: Binary, limits: dict[str, Any]) -> GuestEnd:
    """The exception for the end of guest code that ``info`` (see ``_vx.Box``) describes."""
    frames, addresses = _frames(info, plugin)
    error = _exception(info, frames, limits)
    error.traceback = frames
    error.stderr = info["stderr"]
    error.details = {
        "kind": info["kind"], "function": info["function"], "address": info["address"], "eip": info["eip"],
        "code": info["code"], "bytes": info["bytes"].hex(" "), "registers": info["registers"],
        "limits": limits, "plugin": plugin.path, "digest": _try(lambda: plugin.digest, ""), "addresses": addresses,
    }
    return error.with_traceback(_try(lambda: _python_traceback(frames, plugin), None))
