"""Plugins for the Python harnesses: one made here byte by byte, and those that `run` has built."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

from elftools.elf.elffile import ELFFile

# entry: mov eax, READY; int 0x30; int3.  At +16 every export: xor eax, eax; ret
CODE = bytes.fromhex("b800000000cd30cc").ljust(16, b"\x90") + bytes.fromhex("31c0c3").ljust(16, b"\x90")
CODE_AT, DATA_AT = 0x10000, 0x12000
ENTRY, EXPORT = CODE_AT, CODE_AT + 16
NAMES = b"\0.note.vxplug\0.shstrtab\0.symtab\0.strtab\0"
EHDR, PHDR, SHDR = "<16sHHIIIIIHHHHHH", "<8I", "<10I"


def _section(name: bytes, kind: int, offset: int, size: int, link: int = 0, info: int = 0, entry: int = 0) -> bytes:
    return struct.pack(SHDR, NAMES.index(b"\0" + name + b"\0") + 1 if name else 0, kind, 0, 0, offset, size, link, info, 1, entry)


def small_plugin(note: bytes, symbols: bytes = b"\0target\0") -> bytes:
    """About 500 bytes and the note: a code segment, a data segment, a note, a symbol table."""
    code_offset = 52 + 2 * 32
    note_offset = code_offset + len(CODE)
    symbol = struct.pack("<IIIBBH", 0, 0, 0, 0, 0, 0) + struct.pack("<IIIBBH", 1, EXPORT, 16, 0x12, 0, 1)
    parts = [CODE, note, NAMES, symbol, symbols]
    offsets = [code_offset]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    sections = [
        _section(b"", 0, 0, 0),
        _section(b".note.vxplug", 7, note_offset, len(note)),
        _section(b".shstrtab", 3, offsets[2], len(NAMES)),
        _section(b".symtab", 2, offsets[3], len(symbol), link=4, info=1, entry=16),
        _section(b".strtab", 3, offsets[4], len(symbols)),
    ]
    ident = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    header = struct.pack(EHDR, ident, 2, 3, 1, ENTRY, 52, offsets[-1], 0, 52, 32, 2, 40, len(sections), 2)
    segments = struct.pack(PHDR, 1, code_offset, CODE_AT, CODE_AT, len(CODE), len(CODE), 5, 0x1000)
    segments += struct.pack(PHDR, 1, 0, DATA_AT, DATA_AT, 52, 0x1800, 6, 0x1000)
    return header + segments + b"".join(parts) + b"".join(sections)


def built(name: str) -> bytes:
    """A plugin that `run` has built: guest.c with the SDK, tiny.c with its debug information."""
    return (Path(os.environ["VXPLUG_FUZZ_BUILD"]) / f"{name}.vxm").read_bytes()


def with_note(data: bytes, note: bytes) -> bytes:
    """The same plugin with another interface note, which is put behind everything else."""
    elf = ELFFile(io.BytesIO(data))
    index = elf.get_section_index(".note.vxplug")
    at = elf.header.e_shoff + index * elf.header.e_shentsize
    patched = bytearray(data)
    struct.pack_into("<II", patched, at + 16, len(data), len(note))
    return bytes(patched) + note

