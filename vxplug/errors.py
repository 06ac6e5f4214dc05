"""The exceptions of vxplug, and the one place that makes them from the end of guest code."""

from __future__ import annotations

import unicodedata
from typing import Any

__all__ = [
    "Error",
    "GuestExit",
    "GuestFault",
    "GuestMemoryError",
    "GuestTimeout",
    "PluginFormatError",
    "PolicyError",
]


class Error(Exception):
    """Base of every error that vxplug itself raises."""


class PluginFormatError(Error, ImportError):
    """The file is not a valid plugin; the text says what is wrong and where."""


class GuestFault(Error):
    """Guest code did something the sandbox does not allow, or crashed.

    ``kind`` is one of the words of ``csrc/core/trap.def`` (``"memory"``, ``"divide"``, …), ``address``
    the guest address that could not be accessed (or None), ``eip`` the guest address of the
    instruction, ``registers`` a dict of eax … edi, eip, eflags, ``traceback`` a list of (function,
    file, line), innermost first, as far as known.
    """

    def __init__(
        self,
        message: str,
        kind: str = "",
        address: int | None = None,
        eip: int = 0,
        registers: dict[str, int] | None = None,
        traceback: list[tuple[str, str | None, int | None]] | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.address = address
        self.eip = eip
        self.registers = dict(registers or {})
        self.traceback = list(traceback or [])

    def __reduce__(self) -> tuple[Any, ...]:
        parts = (self.args[0], self.kind, self.address, self.eip, self.registers, self.traceback)
        return type(self), parts


class GuestTimeout(Error, TimeoutError):
    """A call, or the plugin's initialisation, took longer than its limit."""


class GuestMemoryError(Error, MemoryError):
    """The sandbox's memory limit does not allow what was asked."""


class GuestExit(Error):
    """The plugin called ``exit``; ``code`` is its status."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.code)


class PolicyError(Error, PermissionError):
    """A system call or host import that the policy refuses; ``number`` is the system call's."""

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.number)


# Numbers of arch/x86/entry/syscalls/syscall_32.tbl that a refused plugin is likely to have tried.
_SYSCALLS = {
    2: "fork", 3: "read", 5: "open", 8: "creat", 10: "unlink", 11: "execve", 12: "chdir", 13: "time",
    19: "lseek", 26: "ptrace", 37: "kill", 38: "rename", 39: "mkdir", 42: "pipe", 55: "fcntl",
    67: "sigaction", 78: "gettimeofday", 85: "readlink", 90: "mmap", 102: "socketcall", 106: "stat",
    114: "wait4", 116: "sysinfo", 120: "clone", 122: "uname", 123: "modify_ldt", 136: "personality",
    140: "_llseek", 145: "readv", 162: "nanosleep", 168: "poll", 173: "rt_sigreturn", 183: "getcwd",
    190: "vfork", 191: "ugetrlimit", 192: "mmap2", 195: "stat64", 197: "fstat64", 220: "getdents64",
    221: "fcntl64", 265: "clock_gettime", 266: "clock_getres", 295: "openat", 340: "prlimit64",
    355: "getrandom", 359: "socket", 383: "statx", 403: "clock_gettime64",
}


def escape(text: str) -> str:
    """Guest text with what could steer a terminal or reorder a line made visible."""
    return "".join(
        char if char.isprintable() and unicodedata.bidirectional(char) not in _BIDI else ascii(char)[1:-1]
        for char in text
    )


_BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def _where(info: dict[str, Any], frames: list[tuple[str, str | None, int | None]]) -> str:
    function = info["function"]
    place = f"in {function}()" if function else "during initialisation"
    if not frames:
        return f"{place}, eip {info['eip']:#010x}"
    name, file, line = frames[0]
    source = f", {file}:{line}" if file else ""
    return f"{place}, eip {info['eip']:#010x} ({escape(name)}{escape(source)})"


def from_trap(
    info: dict[str, Any], frames: list[tuple[str, str | None, int | None]], limits: dict[str, Any]
) -> Error:
    """The exception for the end of guest code that ``info`` (see ``_vx.Box``) describes."""
    kind, where = info["kind"], _where(info, frames)
    if kind == "timeout":
        limit = limits["timeout"] if info["function"] else limits["init_timeout"]
        return GuestTimeout(f"time limit of {limit} s reached {where}")
    if kind == "exit":
        return GuestExit(f"the plugin called exit({info['code']}) {where}", info["code"])
    if kind == "syscall":
        name = _SYSCALLS.get(info["code"], "unknown")
        return PolicyError(f"system call {info['code']} ({name}) is not allowed {where}", info["code"])
    return GuestFault(
        f"{kind}: {_detail(info)} {where}", kind, info["address"], info["eip"], info["registers"], frames
    )


def _detail(info: dict[str, Any]) -> str:
    if info["address"] is not None:
        return f"{info['text']} at {info['address']:#010x}"
    if info["kind"] in ("illegal-instruction", "privileged-instruction", "protection"):
        return f"{info['text']} ({info['bytes'].hex(' ')})"
    if info["kind"] == "software-interrupt":
        return f"{info['text']} (int {info['code']:#x})"
    return str(info["text"])
