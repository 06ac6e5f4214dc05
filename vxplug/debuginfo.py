"""Functions, lines and call frame rules of guest addresses, for tracebacks.

The debug information is the plugin author's, so it may lie, and it may be built to be slow: it is
read only after a fault, only as far as the fault's addresses ask, only up to bounds, and any failure
costs the names, nothing else.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from .callframes import CallFrames
from .errors import GuestEnd, escape
from .linetable import Budget, LineTable
from .metered import Metered
from .units import SECTIONS, read_units
from .unwind import Rule

SYMBOLS_MAX = 200_000
SECTIONS_MAX = 64 << 20  # bytes of debug information
# Reads of one file's headers by pyelftools: plugins take some hundreds, as many as these a third of a second.
READS_MAX = 200_000
ALIASES_MAX = 16  # names of one function that are compared: C libraries give some of theirs four
NAME_MAX = 200
LABEL_MAX = 256  # bytes of a function that has no size: hand-written, and short
LINE_MAX = (1 << 31) - 1  # Python's lines are C's int
_TABLES = (".debug_line", ".debug_line_str", ".debug_str")


class Frame(NamedTuple):
    """Where guest code was: what is not known is None."""

    function: str
    file: str | None
    line: int | None


def _layout(elf: Any) -> list[tuple[int, int]]:
    return [(s.header.p_vaddr, s.header.p_memsz) for s in elf.iter_segments() if s.header.p_type == "PT_LOAD"]


class _File:
    """One ELF file with debug information: the plugin, or NAME.vxm.debug beside it."""

    def __init__(self, data: bytes) -> None:
        from elftools.elf.elffile import ELFFile

        self._meter = [READS_MAX]
        self.elf = ELFFile(Metered(data, self._meter))
        self.layout = _layout(self.elf)
        self._data = data

    def section(self, name: str) -> bytes:
        """Empty where there is none, or a compressed one, which may be a bomb."""
        section = self.elf.get_section_by_name(name)
        if section is None or section.header.sh_type == "SHT_NOBITS" or section.compressed:
            return b""
        start, size = section.header.sh_offset, section.header.sh_size
        return self._data[start : start + size] if size <= SECTIONS_MAX else b""

    def sections(self, names: Iterable[str]) -> dict[str, bytes]:
        """Those that are not there, or are too much together, are empty."""
        found = {name: self.section(name) for name in names}
        return found if sum(map(len, found.values())) <= SECTIONS_MAX else dict.fromkeys(found, b"")

    def frames(self, name: str) -> CallFrames:
        section = self.elf.get_section_by_name(name)
        address = 0 if section is None else section.header.sh_addr
        return CallFrames(self.section(name), address, name == ".eh_frame")

    def symbols(self) -> _Symbols:
        return _Symbols(self.section(".symtab")[: SYMBOLS_MAX * 16], self.section(".strtab"))


class _Symbols:
    """Functions, and labels of assembly.  Kept as numbers: names may be the same bytes of the file, a hundred times its size."""

    def __init__(self, table: bytes, names: bytes) -> None:
        found = sorted(
            (value, size, name) for name, value, size, info, _, index in struct.iter_unpack("<IIIBBH", table[: len(table) // 16 * 16])
            if info & 15 in (0, 2) and 0 < index < 0xFF00  # STT_NOTYPE, STT_FUNC of a section
        )
        self._starts = array("I", [start for start, _, _ in found])
        self._sizes = array("I", [size for _, size, _ in found])
        self._offsets = array("I", [name for _, _, name in found])
        self._names = names if found else b""

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int, str]]:
        """(address, size, name) by address."""
        return zip(self._starts, self._sizes, map(self._name, range(len(self))), strict=True)

    def _name(self, at: int) -> str:
        offset = self._offsets[at]
        return self._names[offset : offset + NAME_MAX].split(b"\0", 1)[0].decode("utf-8", "replace")

    def _last(self, address: int) -> int:
        """The largest symbol of those that begin at the address or nearest before it; -1 without one."""
        return bisect_right(self._starts, address) - 1

    def _same(self, at: int) -> Iterator[int]:
        """It, and others of its address and size."""
        for other in range(at, max(-1, at - ALIASES_MAX), -1):
            if (self._starts[other], self._sizes[other]) == (self._starts[at], self._sizes[at]):
                yield other

    def name_at(self, address: int) -> str | None:
        """Of the names of a function the last, which is one without underscores if there is one."""
        at = self._last(address)
        if at < 0 or address >= self._starts[at] + (self._sizes[at] or LABEL_MAX):
            return None
        return max(map(self._name, self._same(at))) or None

    def find(self, name: str) -> tuple[int, int] | None:
        return next(((start, size) for start, size, text in self if text == name), None)

    def size_at(self, address: int) -> int:
        at = self._last(address)
        return self._sizes[at] if at >= 0 and self._starts[at] == address else 0


class _Lines:
    """Line tables of the units that were asked for."""

    def __init__(self, file: _File) -> None:
        self._sections = file.sections(_TABLES)
        self._units: list[tuple[int, int, int, str]] = []  # start, end, offset of the program, folder
        self._tables: dict[int, LineTable | None] = {}
        self._budget = Budget()
        for unit in read_units(file.sections(SECTIONS)):
            folder = unit.folder.decode("utf-8", "replace")
            self._units += [(*pair, unit.program, folder) for pair in unit.ranges if pair[0]]  # at 0 is what was dropped
        self._units.sort()
        self._starts = [unit[0] for unit in self._units]

    def find(self, address: int) -> tuple[str, int] | None:
        at = bisect_right(self._starts, address) - 1
        if at < 0 or address >= self._units[at][1]:
            return None
        _, _, offset, folder = self._units[at]
        if offset not in self._tables:
            self._tables[offset] = None  # a failure is not tried again
            self._tables[offset] = LineTable(self._sections, offset, folder, self._budget)
        table = self._tables[offset]
        return None if table is None else table.find(address)


def _stable(file: str) -> str:
    """A source's name.  The toolchain compiles libc and its support library once for all the plugins of a machine, and
    names their files by whatever installation and folder were first; some by both, one after the other.
    """
    _, toolchain, rest = file.rpartition("/ziglang/lib/")
    return f"zig/lib/{rest}" if toolchain else file


class DebugInfo:
    """What the plugin's file, or the file beside it, knows about addresses.  Raises nothing of its own."""

    def __init__(self, data: bytes, beside: bytes | None = None) -> None:
        self.failure: str | None = None  # the last one, for who debugs debug information
        self._plugin = self._attempt(lambda: _File(data))
        other = self._attempt(lambda: _File(beside)) if beside is not None else None
        matches = other is not None and self._plugin is not None and other.layout == self._plugin.layout
        files = [file for file in (other if matches else None, self._plugin) if file is not None]
        self._code = self._attempt(lambda: self._executable(self._plugin)) or []
        self._symbols: _Symbols = next(filter(None, (self._attempt(f.symbols) for f in files)), _Symbols(b"", b""))
        self._lines = self._first(files, ".debug_line", _Lines)
        self._frames = self._first(files, ".eh_frame", lambda file: file.frames(".eh_frame")) or self._first(
            files, ".debug_frame", lambda file: file.frames(".debug_frame")
        )

    def _attempt(self, work: Any) -> Any:
        """Hostile debug information makes pyelftools raise nearly anything.  What ends a call outside, at any instruction of
        Python's, is no failure of the file's."""
        try:
            return work()
        except GuestEnd:
            raise
        except Exception as error:
            self.failure = f"{type(error).__name__}: {error}"
            return None

    def _first(self, files: list[_File], section: str, make: Any) -> Any:
        for file in files:
            if self._attempt(lambda file=file: file.section(section)):
                return self._attempt(lambda file=file: make(file))
        return None

    @staticmethod
    def _executable(file: _File) -> list[tuple[int, int]]:
        segments = [s.header for s in file.elf.iter_segments() if s.header.p_type == "PT_LOAD"]
        return [(h.p_vaddr, h.p_vaddr + h.p_memsz) for h in segments if h.p_flags & 1]

    def is_code(self, address: int) -> bool:
        return any(start <= address < end for start, end in self._code)

    def rule_at(self, address: int, meter: list[int]) -> Rule | None:
        """``meter``: what one walk up the stack may cost, ``[WALK_BYTES_MAX]`` at its beginning."""
        return self._attempt(lambda: self._frames.rule_at(address, meter)) if self._frames else None

    def function(self, address: int) -> str | None:
        name = self._symbols.name_at(address)
        return None if name is None else escape(name)

    def symbol(self, name: str) -> tuple[int, int] | None:
        return self._symbols.find(name)

    def size_at(self, address: int) -> int:
        return self._symbols.size_at(address)

    def locate(self, address: int) -> Frame | None:
        """None when neither the function nor the line is known.  What is no code has none: linkers leave the lines of
        functions that they dropped at address 0, where a call of a null pointer ends."""
        if not self.is_code(address):
            return None
        function = self.function(address)
        found = self._attempt(lambda: self._lines.find(address)) if self._lines else None
        if function is None and found is None:
            return None
        file, line = found if found is not None else (None, 0)
        shown = None if file is None else escape(_stable(file))
        return Frame(function or f"{address:#010x}", shown, line if 0 < line <= LINE_MAX else None)
