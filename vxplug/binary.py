"""Guest code in a file: what its symbols and frames say, for plugins and programs alike."""

from __future__ import annotations

import io
import os
import stat
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .debuginfo import DebugInfo

__all__ = ["FILE_MAX", "Binary"]

FILE_MAX = 256 << 20


def _read_beside(path: str | None) -> bytes | None:
    """NAME.vxm.debug, if there is such a regular file of a size that a plugin may have."""
    if path is None:
        return None
    try:
        found = os.stat(path + ".debug")
        if not stat.S_ISREG(found.st_mode) or found.st_size > FILE_MAX:
            return None
        with io.open(path + ".debug", "rb") as file:
            return file.read(FILE_MAX)
    except OSError:
        return None


class Binary:
    """The bytes of an ELF file, and names for addresses in it, read when first asked for."""

    def __init__(self, data: bytes, path: str | None, base: int = 0) -> None:
        self._data = data
        self._path = path
        self._base = base  # what the loader added to its addresses
        self._debug: DebugInfo | None = None
        self._digest: str | None = None
        self._debug_lock = threading.Lock()

    @property
    def path(self) -> str | None:
        return self._path

    @property
    def digest(self) -> str:
        """SHA-256 of the plugin's bytes, in hexadecimal: what a pickle names it by."""
        if self._digest is None:
            import hashlib

            self._digest = hashlib.sha256(self._data).hexdigest()
        return self._digest

    def locate(self, address: int) -> tuple[str, str | None, int | None] | None:
        """(function, file, line) of a guest code address, as far as symbols and DWARF tell."""
        with self._debug_lock:
            return self._debug_info().locate(address - self._base)

    def symbol(self, name: str) -> tuple[int, int] | None:
        """(address, size) of a function of the symbol table."""
        with self._debug_lock:
            return self._debug_info().symbol(name)

    def symbol_size(self, address: int) -> int:
        """Bytes of the function that begins at an address; 0 where no symbol tells."""
        with self._debug_lock:
            return self._debug_info().size_at(address)

    def callers(
        self, registers: dict[str, int], stack_at: int, stack: bytes, returning: bool = False
    ) -> list[int]:
        """Addresses of the open calls, innermost first, from registers and a copy of the guest's stack;
        ``returning`` when the next instruction is a return."""
        from .unwind import Stack, walk

        with self._debug_lock:
            debug = self._debug_info()
            return walk(
                registers, Stack(stack_at, stack), lambda address: debug.rule_at(address - self._base),
                lambda address: debug.is_code(address - self._base), returning,
            )

    def _debug_info(self) -> DebugInfo:
        """Read when it is first asked for; from NAME.vxm.debug too, where a build put it aside."""
        from .debuginfo import DebugInfo

        if self._debug is None:
            self._debug = DebugInfo(self._data, _read_beside(self._path))
        return self._debug
