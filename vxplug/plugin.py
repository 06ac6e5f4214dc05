"""Plugins: the ELF file parsed and validated.  The only place that reads a plugin's bytes."""

from __future__ import annotations

import copy
import hashlib
import io
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from . import _vx, pickling
from .binary import FILE_MAX, Binary
from .errors import PluginFormatError
from .interface import Export, Import, Interface, decode_note
from .metered import Metered

if TYPE_CHECKING:
    from .sandbox import Sandbox

__all__ = ["Plugin", "open"]

PAGE = 4096
GUEST_MIN, GUEST_MAX = 0x10000, 0xFFFE0000  # VX_GUEST_MIN, VX_GUEST_MAX of vx_abi.h
IMAGE_MAX = 128 << 20
PHNUM_MAX = 64
SHNUM_MAX = 4096
# Reads by pyelftools, which takes a name to the end of the file if need be: one without an end may be as long as
# the file, and every section may have it.  4096 sections whose names end take some 100,000.
READS_MAX = 200_000
PF_X, PF_W, PF_R = 1, 2, 4


def _check(condition: object, problem: str) -> None:
    if not condition:
        raise PluginFormatError(problem)


def check_header(elf: Any, types: tuple[str, ...] = ("ET_EXEC",)) -> None:
    header = elf.header
    _check(elf.elfclass == 32, "not a 32-bit ELF file (plugins are built with `vxplug build`)")
    _check(elf.little_endian, "not little-endian")
    _check(header.e_machine == "EM_386", f"machine is {header.e_machine}, not i386")
    _check(header.e_type in types, f"type is {header.e_type}, not a static executable ({' or '.join(types)})")
    _check(header.e_phentsize == 32, f"program headers of {header.e_phentsize} bytes, not 32")
    _check(0 < header.e_phnum <= PHNUM_MAX, f"{header.e_phnum} program headers, at most {PHNUM_MAX}")
    _check(header.e_shnum <= SHNUM_MAX, f"{header.e_shnum} sections, at most {SHNUM_MAX}")


def _protection(flags: int) -> int:
    return (1 if flags & PF_R else 0) | (2 if flags & PF_W else 0) | (4 if flags & PF_X else 0)


def _segment(data: bytes, number: int, ph: Any, base: int) -> tuple[int, int, int, bytes]:
    """One PT_LOAD as (page-aligned vaddr, memsz, protection, bytes)."""
    what = f"segment {number}"
    start, memsz, filesz, offset = ph.p_vaddr + base, ph.p_memsz, ph.p_filesz, ph.p_offset
    _check(filesz <= memsz, f"{what}: file size {filesz:#x} exceeds memory size {memsz:#x}")
    _check(offset + filesz <= len(data), f"{what}: bytes {offset:#x}+{filesz:#x} lie outside the file")
    _check(start >= GUEST_MIN, f"{what}: address {start:#x} is below {GUEST_MIN:#x}")
    _check(start + memsz <= GUEST_MAX, f"{what}: {start:#x}+{memsz:#x} ends above {GUEST_MAX:#x}")
    protection = _protection(ph.p_flags)
    _check(protection & 6 != 6, f"{what}: both writable and executable")
    pad = start % PAGE
    return start - pad, memsz + pad, protection, bytes(pad) + data[offset : offset + filesz]


def load_segments(elf: Any, data: bytes, base: int = 0) -> list[tuple[int, int, int, bytes]]:
    """The PT_LOAD segments as they lie in memory.  With a base (static-pie) PT_DYNAMIC is the program's own."""
    found, total, lowest = [], 0, GUEST_MIN
    for number in range(elf.header.e_phnum):
        ph = elf.get_segment(number).header
        _check(ph.p_type != "PT_INTERP" and (base or ph.p_type != "PT_DYNAMIC"), "dynamically linked: link it statically")
        if ph.p_type != "PT_LOAD" or ph.p_memsz == 0:
            continue
        segment = _segment(data, number, ph, base)
        _check(segment[0] >= lowest, f"segment {number}: shares a page with an earlier one, or precedes it")
        lowest = (segment[0] + segment[1] + PAGE - 1) // PAGE * PAGE
        total += segment[1]
        _check(total <= IMAGE_MAX, f"image larger than {IMAGE_MAX} bytes")
        found.append(segment)
    _check(found, "no PT_LOAD segment")
    return found


def _note(elf: Any, data: bytes) -> bytes:
    section = elf.get_section_by_name(".note.vxplug")
    _check(section is not None, "no .note.vxplug section: build it with `vxplug build`")
    header = section.header
    _check(header.sh_type != "SHT_NOBITS", "the interface note has no bytes")
    _check(header.sh_offset + header.sh_size <= len(data), "the interface note lies outside the file")
    return data[header.sh_offset : header.sh_offset + header.sh_size]


def in_code(segments: list[tuple[int, int, int, bytes]], address: int) -> bool:
    return any(p & 4 and start <= address < start + size for start, size, p, _ in segments)


def program_headers(elf: Any) -> tuple[int, int, int]:
    """(address, entry size, count) of the program headers where they are mapped, or zeros."""
    header = elf.header
    size = header.e_phentsize * header.e_phnum
    for number in range(header.e_phnum):
        ph = elf.get_segment(number).header
        inside = ph.p_offset <= header.e_phoff and header.e_phoff + size <= ph.p_offset + ph.p_filesz
        if ph.p_type == "PT_LOAD" and inside:
            return ph.p_vaddr + header.e_phoff - ph.p_offset, header.e_phentsize, header.e_phnum
    return 0, 0, 0


def _parse(data: bytes) -> tuple[Interface, _vx.Plugin]:
    from elftools.elf.elffile import ELFFile

    elf = ELFFile(Metered(data, [READS_MAX]))
    check_header(elf)
    segments = load_segments(elf, data)
    _check(in_code(segments, elf.header.e_entry), f"entry {elf.header.e_entry:#x} is not in executable memory")
    interface = decode_note(_note(elf, data))
    for export in interface.exports:
        _check(in_code(segments, export.address), f"{export.name}: address {export.address:#x} is not code")
    for function in interface.imports:
        _check(in_code(segments, function.address), f"import {function.name}: {function.address:#x} is not code")
    for address in interface.functions:
        _check(in_code(segments, address), f"function {address:#x} of a type is not code")
    release = interface.release
    _check(release == 0 or in_code(segments, release), f"release function {release:#x} is not code")
    core = _vx.Plugin(segments, elf.header.e_entry, *program_headers(elf))
    return interface, core


Parsed = TypeVar("Parsed")


def parse(data: bytes, make: Callable[[bytes], Parsed]) -> Parsed:
    """Validate a file's bytes by `make`.  Raises PluginFormatError, whatever the bytes are.

    pyelftools answers hostile bytes with many kinds of exception (construct, struct, Unicode, key,
    assertion …), so every Exception out of it means one thing: not a valid plugin.
    """
    _check(len(data) <= FILE_MAX, f"file larger than {FILE_MAX} bytes")
    _check(data[:4] == b"\x7fELF", "not an ELF file")
    try:
        return make(data)
    except PluginFormatError:
        raise
    except (MemoryError, OSError):
        raise
    except Exception as error:
        raise PluginFormatError(f"malformed ELF file: {type(error).__name__}: {error}") from error


def read_file(path: str) -> bytes:
    """Enough of the file to see that it is too large."""
    with io.open(path, "rb") as file:
        return file.read(FILE_MAX + 1)


class Plugin(Binary):
    """A validated plugin: immutable, shareable between threads, the maker of sandboxes."""

    def __init__(self, data: bytes, path: str | None = None) -> None:
        try:
            self._interface, self._core = parse(data, _parse)
        except PluginFormatError as error:
            raise PluginFormatError(f"{path or 'plugin'}: {error}", path=path) from error.__cause__
        super().__init__(data, path)
        self._exports = MappingProxyType({export.name: export for export in self._interface.exports})
        self._imports = MappingProxyType({i.name: i for i in self._interface.imports})
        self._digest = hashlib.sha256(data).hexdigest()
        self._portable = False
        self._origin: Plugin | None = None
        pickling.remember_plugin(self)

    @property
    def data(self) -> bytes:
        """The bytes that were validated."""
        return self._data

    @property
    def doc(self) -> str | None:
        return self._interface.doc

    @property
    def interface_version(self) -> int:
        """Of the interface note, which the build made no newer than it had to be."""
        return self._interface.version

    @property
    def exports(self) -> MappingProxyType[str, Export]:
        return self._exports

    @property
    def imports(self) -> Mapping[str, Import]:
        """The functions that the plugin expects of the host: give them as ``sandbox(imports={name: callable})``."""
        return self._imports

    @property
    def types(self) -> Mapping[str, type]:
        """The classes made for the plugin's enums, structs and unions, by their C names."""
        return MappingProxyType(self._interface.classes.named)

    def sandbox(self, **limits: Any) -> Sandbox:
        """A new sandbox of this plugin; the limits are those of :class:`vxplug.Sandbox`."""
        from .sandbox import Sandbox

        return Sandbox(self, **limits)

    def portable(self) -> Plugin:
        """The same plugin, whose pickles, and those of its sandboxes and functions, carry its code: for
        processes that do not have the file."""
        twin = copy.copy(self)
        twin._portable = True
        twin._origin = self  # which pickles know, as long as it lives
        return twin

    def __copy__(self) -> Plugin:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        return pickling.load_plugin, (self._digest, self._path, self._data if self._portable else None)

    def __repr__(self) -> str:
        return f"<vxplug.Plugin {self._path or '(bytes)'}: {len(self._exports)} exports>"


def open(source: str | os.PathLike[str] | bytes) -> Plugin:
    """Read and validate a plugin from a path or from its bytes.

    Raises OSError when the file cannot be read, PluginFormatError when it is not a valid plugin.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        return Plugin(bytes(source))
    path = os.fspath(source)
    return Plugin(read_file(path), path)
