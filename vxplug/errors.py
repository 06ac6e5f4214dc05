"""The exceptions of vxplug; ``vxplug/faults.py`` makes those that tell how guest code ended."""

from __future__ import annotations

import json
from typing import Any

__all__ = [
    "Error",
    "GuestEnd",
    "GuestExit",
    "GuestFault",
    "GuestMemoryError",
    "GuestTimeout",
    "MissingImportError",
    "PluginFormatError",
    "PolicyError",
    "SdkError",
]


class Error(Exception):
    """Base of every error that vxplug itself raises."""


class PluginFormatError(Error, ImportError):
    """The file is not a valid plugin; the text says what is wrong and where."""


class SdkError(Error):
    """The build failed; the text is what the compiler or linker printed, or what is wrong."""


class MissingImportError(Error, ImportError):
    """The plugin needs host functions that were not given; the text has their prototypes.

    ``name`` is the module's that was imported, and ``path`` the plugin's, where there is one.
    """


class GuestEnd(Error):
    """Guest code ended in another way than returning: base of the exceptions that say how.

    ``traceback`` is a list of (function, file, line), innermost first, as far as known; ``stderr`` the
    end of what the call wrote there.  ``report()`` has all that is known, for ``vxplug inspect --fault``.
    """

    traceback: list[tuple[str, str | None, int | None]] = []
    stderr: bytes = b""
    details: dict[str, Any] = {}

    def report(self) -> dict[str, Any]:
        """Everything known about the end, in types that JSON has."""
        frames = [{"function": f, "file": file, "line": line} for f, file, line in self.traceback]
        for frame, address in zip(frames, self.details.get("addresses", []), strict=False):
            frame["address"] = address
        return {
            "report": REPORT_VERSION, "error": type(self).__name__, "message": str(self.args[0]),
            **{key: value for key, value in self.details.items() if key != "addresses"},
            "frames": frames, "stderr": self.stderr.decode("utf-8", "replace"),
        }

    def to_json(self) -> str:
        """The report as text."""
        return json.dumps(self.report(), indent=2)

    def _state(self) -> dict[str, Any]:
        return {"traceback": self.traceback, "stderr": self.stderr, "details": self.details}


REPORT_VERSION = 1


class GuestFault(GuestEnd):
    """Guest code did something the sandbox does not allow, or crashed.

    ``kind`` is one of the words of ``csrc/core/trap.def`` (``"memory"``, ``"divide"``, …), ``address``
    the guest address that could not be accessed (or None), ``eip`` the guest address of the
    instruction, ``registers`` a dict of eax … edi, eip, eflags.
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
        return type(self), parts, self._state()


class GuestTimeout(GuestEnd, TimeoutError):
    """A call, or the plugin's initialisation, took longer than its limit."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, self._state()


class GuestMemoryError(Error, MemoryError):
    """The sandbox's memory limit does not allow what was asked."""


class GuestExit(GuestEnd):
    """The plugin called ``exit``; ``code`` is its status."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.code), self._state()


class PolicyError(GuestEnd, PermissionError):
    """A system call or host import that the policy refuses; ``number`` is the system call's."""

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.number), self._state()


def escape(text: str) -> str:
    """Guest text with what could steer a terminal or reorder a line made visible."""
    if text.isascii() and text.isprintable():  # nearly all, and nothing of ASCII reorders
        return text
    import unicodedata

    return "".join(
        char if char.isprintable() and unicodedata.bidirectional(char) not in _BIDI else ascii(char)[1:-1]
        for char in text
    )


_BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
