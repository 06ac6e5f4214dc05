"""Guest code in a file: what its symbols and frames say, for plugins and programs alike."""

from __future__ import annotations

import io
import os
import stat
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from .errors import GuestEnd

if TYPE_CHECKING:
    from .debuginfo import DebugInfo

__all__ = ["FILE_MAX", "Binary"]

FILE_MAX = 256 << 20
_Answer = TypeVar("_Answer")


class _Here(threading.local):
    looking = False  # this thread looks into some binary's debug information


_here = _Here()
_binaries: weakref.WeakSet[Binary] = weakref.WeakSet()
_blind = False  # this process reads no debug information


def _renew_locks() -> None:
    """In a forked child a lock may be held by a thread it never had, and what that was at is half made.  Where it was
    reading for the first time, locks of Python's imports and of pyelftools may be held as well, which nobody can renew:
    such a child does without names."""
    global _blind
    for binary in _binaries:
        if binary._debug_lock.locked():
            _blind = _blind or binary._debug is None
            binary._debug_lock, binary._debug = threading.Lock(), None


os.register_at_fork(after_in_child=_renew_locks)


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
        _binaries.add(self)

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
        return self._look(lambda debug: debug.locate(address - self._base), None)

    def symbol(self, name: str) -> tuple[int, int] | None:
        """(address, size) of a function of the symbol table."""
        return self._look(lambda debug: debug.symbol(name), None)

    def symbol_size(self, address: int) -> int:
        """Bytes of the function that begins at an address; 0 where no symbol tells."""
        return self._look(lambda debug: debug.size_at(address), 0)

    def callers(
        self, registers: dict[str, int], stack_at: int, stack: bytes, returning: bool = False
    ) -> list[int]:
        """Addresses of the open calls, innermost first, from registers and a copy of the guest's stack;
        ``returning`` when the next instruction is a return."""
        def ask(debug: DebugInfo) -> list[int]:
            from .callframes import WALK_BYTES_MAX
            from .unwind import Stack, walk

            meter = [WALK_BYTES_MAX]
            return walk(
                registers, Stack(stack_at, stack), lambda address: debug.rule_at(address - self._base, meter),
                lambda address: debug.is_code(address - self._base), returning,
            )

        return self._look(ask, [registers["eip"]])

    def _look(self, ask: Callable[[DebugInfo], _Answer], otherwise: _Answer) -> _Answer:
        """What the debug information answers, by one thread at a time.

        A look can begin in the middle of another of its thread: a collection runs a finaliser, or a signal its
        handler, and guest code faults in there.  It would wait for itself, or for a thread that waits for it, and
        might meet tables and modules half made: it gets ``otherwise``, as if nothing were known.
        """
        if _here.looking or _blind:
            return otherwise
        try:
            _here.looking = True
            with self._debug_lock:
                return ask(self._debug_info())
        except (GuestEnd, KeyboardInterrupt):  # of a call outside, in the middle: what was half read is read anew
            self._debug = None
            raise
        finally:
            _here.looking = False

    def _debug_info(self) -> DebugInfo:
        """Read when it is first asked for; from NAME.vxm.debug too, where a build put it aside."""
        from .debuginfo import DebugInfo

        if self._debug is None:
            self._debug = DebugInfo(self._data, _read_beside(self._path))
        return self._debug
