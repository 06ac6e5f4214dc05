"""The headers of a 32-bit ELF file, little-endian: what loading needs of the format (System V ABI, chapters 4 and 5).

Read here, and not by pyelftools, because every import of a plugin paid for it: seven eighths of its time, first call
included.  pyelftools reads what is wanted only to explain a plugin, and the tests hold this file against it.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from .errors import PluginFormatError

__all__ = [
    "EM_386", "ET_DYN", "ET_EXEC", "PHNUM_MAX", "PLUGINS", "PROGRAMS", "PT_DYNAMIC", "PT_GNU_STACK", "PT_INTERP", "PT_LOAD",
    "SHNUM_MAX", "SHT_NOBITS", "Elf", "Section", "Segment", "check",
]

EM_386 = 3
ET_EXEC, ET_DYN = 2, 3
PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_GNU_STACK = 1, 2, 3, 0x6474E551
SHT_NOBITS = 8
PLUGINS = "plugins are built with `vxplug build`"
PROGRAMS = "programs that run here are static and for i386"
IDENTITIES = (b"\1\1", b"\1\2", b"\2\1", b"\2\2")  # 32 and 64 bits, little- and big-endian
PHNUM_MAX = 64
SHNUM_MAX = 4096
_HEADER = struct.Struct("<16x2H5I6H")
_SEGMENT = struct.Struct("<8I")
_SECTION = struct.Struct("<10I")


class Header(NamedTuple):
    type: int
    machine: int
    version: int
    entry: int
    phoff: int
    shoff: int
    flags: int
    ehsize: int
    phentsize: int
    phnum: int
    shentsize: int
    shnum: int
    shstrndx: int


class Segment(NamedTuple):
    type: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    flags: int
    align: int


class Section(NamedTuple):
    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entsize: int


def check(condition: object, problem: str) -> None:
    if not condition:
        raise PluginFormatError(problem)


class Elf:
    """A file's bytes and their headers.  Raises PluginFormatError where they are not those of an i386 executable; ``hint``
    says what it should have been."""

    def __init__(self, data: bytes, hint: str = PLUGINS) -> None:
        check(data, f"the file is empty ({hint})")
        check(data[:4] == b"\x7fELF", f"not an ELF file ({hint})")
        check(data[4:6] in IDENTITIES, "malformed ELF file: its class and byte order are none of the format's")
        check(data[4:5] == b"\x01", f"not a 32-bit ELF file ({hint})")
        check(data[5:6] == b"\x01", "not little-endian")
        check(len(data) >= _HEADER.size, "the file ends in its header")
        self.data = data
        self.header = header = Header._make(_HEADER.unpack_from(data))
        check(header.machine == EM_386, f"machine is {header.machine}, not i386 ({EM_386})")
        check(header.phentsize == _SEGMENT.size, f"program headers of {header.phentsize} bytes, not {_SEGMENT.size}")
        check(0 < header.phnum <= PHNUM_MAX, f"{header.phnum} program headers, at most {PHNUM_MAX}")
        check(header.shnum <= SHNUM_MAX, f"{header.shnum} sections, at most {SHNUM_MAX}")
        table = self._table(header.phoff, header.phnum, _SEGMENT, "program headers")
        self.segments = [Segment._make(fields) for fields in _SEGMENT.iter_unpack(table)]

    def _table(self, offset: int, count: int, entry: struct.Struct, what: str) -> bytes:
        size = count * entry.size
        check(offset + size <= len(self.data), f"the {what} lie outside the file")
        return self.data[offset : offset + size]

    def section(self, name: bytes) -> Section | None:
        """The last section of that name, as other tools see it, or None."""
        header = self.header
        if header.shnum == 0:
            return None
        check(header.shentsize == _SECTION.size, f"section headers of {header.shentsize} bytes, not {_SECTION.size}")
        check(header.shstrndx < header.shnum, "no section has the names of sections")
        table = self._table(header.shoff, header.shnum, _SECTION, "section headers")
        names = Section._make(_SECTION.unpack_from(table, header.shstrndx * _SECTION.size)).offset
        wanted, is_here = name + b"\0", self.data.startswith
        found = [fields for fields in _SECTION.iter_unpack(table) if is_here(wanted, names + fields[0])]
        return Section._make(found[-1]) if found else None
