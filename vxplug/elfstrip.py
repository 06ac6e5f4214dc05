"""Taking the debug information out of a linked plugin: what ``strip --strip-debug`` does, without binutils.

Only files that the build has just linked come here; hostile ones are never stripped.
"""

from __future__ import annotations

import io
import struct
from typing import Any

__all__ = ["strip_debug"]

_HEADER = struct.Struct("<10I")  # Elf32_Shdr
_ALLOC = 2  # SHF_ALLOC


def _is_debug(name: str) -> bool:
    return name.startswith((".debug_", ".zdebug_"))


def _aligned(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _loaded_end(elf: Any) -> int:
    """Where the bytes end that headers or segments name: these stay where they are."""
    segments = [s.header.p_offset + s.header.p_filesz for s in elf.iter_segments()]
    header = elf.header
    end: int = max(header.e_phoff + header.e_phentsize * header.e_phnum, *segments)
    return end


def strip_debug(data: bytes) -> bytes:
    """The same image, symbols and notes; no sections of debug information."""
    from elftools.elf.elffile import ELFFile

    elf = ELFFile(io.BytesIO(data))
    sections = list(elf.iter_sections())
    kept = [number for number, section in enumerate(sections) if not _is_debug(section.name)]
    renumbered = {old: new for new, old in enumerate(kept)}
    out, headers = bytearray(data[: _loaded_end(elf)]), []
    for number in kept:
        fields = list(_HEADER.unpack_from(data, elf.header.e_shoff + number * _HEADER.size))
        kind, flags, offset, size, alignment = fields[1], fields[2], fields[4], fields[5], fields[8]
        fields[6] = renumbered.get(fields[6], 0)  # sh_link
        if number and not flags & _ALLOC and kind != 8:  # SHT_NOBITS
            out += bytes(_aligned(len(out), max(alignment, 1)) - len(out))
            fields[4] = len(out)
            out += data[offset : offset + size]
        headers.append((number, fields))
    _renumber_symbols(out, headers, renumbered)
    out += bytes(_aligned(len(out), 4) - len(out))
    table = len(out)
    out += b"".join(_HEADER.pack(*fields) for _, fields in headers)
    struct.pack_into("<I", out, 32, table)  # e_shoff
    struct.pack_into("<HH", out, 48, len(headers), renumbered[elf.header.e_shstrndx])
    return bytes(out)


def _renumber_symbols(out: bytearray, headers: list[tuple[int, list[int]]], renumbered: dict[int, int]) -> None:
    """Symbols name their section by number; those of a section that went are of none."""
    for _, fields in headers:
        if fields[1] != 2:  # SHT_SYMTAB
            continue
        for at in range(fields[4], fields[4] + fields[5], 16):
            (section,) = struct.unpack_from("<H", out, at + 14)
            if 0 < section < 0xFF00:  # SHN_LORESERVE
                struct.pack_into("<H", out, at + 14, renumbered.get(section, 0))
