"""Saved reports of how guest code ended (``GuestEnd.to_json``): read back, checked, shown.

A report travels: it may come from another machine, and its texts come from the plugin.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .errors import REPORT_VERSION, Error, escape
from .unwind import FRAMES_MAX

if TYPE_CHECKING:
    from .plugin import Plugin

REPORT_MAX = 1 << 20  # bytes
_REGISTERS = ("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "esp", "eip", "eflags")


def _word(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 32:
        raise ValueError(f"{what} is not a 32-bit number")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} is not a text")
    return value


def _check_frame(frame: Any) -> None:
    if not isinstance(frame, dict):
        raise ValueError("a frame is not an object")
    _text(frame.get("function"), "a frame's function")
    _word(frame.get("address"), "a frame's address")
    if frame.get("file") is not None:
        _text(frame["file"], "a frame's file")
    if frame.get("line") is not None:
        _word(frame["line"], "a frame's line")


def decode_report(data: bytes) -> dict[str, Any]:
    """The report in ``data``, which may be all that ``vxplug call --json`` printed; ValueError when there is none."""
    if len(data) > REPORT_MAX:
        raise ValueError(f"larger than {REPORT_MAX} bytes")
    try:
        report = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if isinstance(report, dict) and isinstance(report.get("report"), dict):
        report = report["report"]
    if not isinstance(report, dict) or report.get("report") != REPORT_VERSION:
        raise ValueError(f"no report of version {REPORT_VERSION}")
    for key in ("error", "message", "kind", "stderr", "digest", "bytes"):
        _text(report.get(key), key)
    if not isinstance(report.get("frames"), list) or len(report["frames"]) > FRAMES_MAX:
        raise ValueError(f"frames is not a list of at most {FRAMES_MAX}")
    for frame in report["frames"]:
        _check_frame(frame)
    if not isinstance(report.get("registers"), dict) or not isinstance(report.get("limits"), dict):
        raise ValueError("registers or limits are missing")
    for name in _REGISTERS:
        _word(report["registers"].get(name), name)
    return report


def _place(frame: dict[str, Any], plugin: Plugin | None) -> tuple[str, str | None, int | None]:
    """The plugin at hand may know names that the one that faulted was stripped of."""
    found = plugin.locate(frame["address"]) if plugin is not None else None
    return found or (frame["function"], frame.get("file"), frame.get("line"))


def _frame_line(frame: dict[str, Any], plugin: Plugin | None) -> str:
    function, file, line = _place(frame, plugin)
    source = "" if file is None else f" at {file}:{line}" if line else f" at {file}"
    return f"  {frame['address']:#010x} in {escape(function)}{escape(source)}"


def describe_report(report: dict[str, Any], plugin: Plugin | None = None) -> str:
    """The report as text for a terminal, innermost frame first."""
    if plugin is not None and plugin.digest != report["digest"]:
        raise Error(f"the report is of another plugin: SHA-256 {escape(report['digest'])}, not {plugin.digest}")
    registers, where = report["registers"], report.get("plugin")
    lines = [f"{escape(report['error'])}: " + "\n".join(map(escape, report["message"].splitlines()))]
    lines += [f"plugin: {escape(str(where))} (SHA-256 {escape(report['digest'])})", "frames, innermost first:"]
    lines += [_frame_line(frame, plugin) for frame in report["frames"]]
    lines.append("registers:")
    for first in range(0, len(_REGISTERS), 4):
        lines.append("  " + "  ".join(f"{n} {registers[n]:08x}" for n in _REGISTERS[first : first + 4]))
    if report["bytes"]:
        lines.append(f"instruction: {escape(report['bytes'])}")
    lines.append("limits: " + ", ".join(f"{escape(k)}={escape(str(v))}" for k, v in report["limits"].items()))
    return "\n".join(lines)
