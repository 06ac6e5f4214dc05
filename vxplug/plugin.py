"""Plugins: the ELF file parsed and validated.  The only place that reads a plugin's bytes."""

from __future__ import annotations

import functools
import io
import os
import struct
import weakref
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from . import _vx, pickling
from .binary import FILE_MAX, Binary
from .elf import ET_DYN, ET_EXEC, PT_DYNAMIC, PT_INTERP, PT_LOAD, SHT_NOBITS, Elf, Segment, check
from .errors import PluginFormatError
from .interface import Export, Import, Interface, decode_note

if TYPE_CHECKING:
    from .sandbox import Sandbox

__all__ = ["Plugin", "open"]

PAGE = 4096
GUEST_MIN, GUEST_MAX = 0x10000, 0xFFFE0000  # VX_GUEST_MIN, VX_GUEST_MAX of vx_abi.h
IMAGE_MAX = 128 << 20
TYPES = {1: "ET_REL", ET_EXEC: "ET_EXEC", ET_DYN: "ET_DYN", 4: "ET_CORE"}
PF_X, PF_W, PF_R = 1, 2, 4


@functools.cache  # the statement, run again, takes as long as a quarter of the sandbox's __init__
def _sandbox_class() -> type[Sandbox]:
    from .sandbox import Sandbox

    return Sandbox


def check_type(elf: Elf, *types: int) -> None:
    wanted = " or ".join(TYPES[type] for type in types)
    found = TYPES.get(elf.header.type, elf.header.type)
    check(elf.header.type in types, f"type is {found}, not a static executable ({wanted})")


def _protection(flags: int) -> int:
    return (1 if flags & PF_R else 0) | (2 if flags & PF_W else 0) | (4 if flags & PF_X else 0)


class Loaded(NamedTuple):
    """One PT_LOAD: zeros from a page's start to the address of its bytes, and behind them up to its size."""

    start: int
    size: int
    protection: int
    zeros: int
    data: memoryview


def _segment(data: bytes, number: int, ph: Segment, base: int, lowest: int) -> Loaded:
    start, memsz, filesz, offset = ph.vaddr + base, ph.memsz, ph.filesz, ph.offset
    protection, problem = _protection(ph.flags), None
    if filesz > memsz:
        problem = f"file size {filesz:#x} exceeds memory size {memsz:#x}"
    elif offset + filesz > len(data):
        problem = f"bytes {offset:#x}+{filesz:#x} lie outside the file"
    elif start < GUEST_MIN:
        problem = f"address {start:#x} is below {GUEST_MIN:#x}"
    elif start + memsz > GUEST_MAX:
        problem = f"{start:#x}+{memsz:#x} ends above {GUEST_MAX:#x}"
    elif protection & 6 == 6:
        problem = "both writable and executable"
    elif start - start % PAGE < lowest:
        problem = "shares a page with an earlier one, or precedes it"
    if problem is not None:
        raise PluginFormatError(f"segment {number}: {problem}")
    pad = start % PAGE
    return Loaded(start - pad, memsz + pad, protection, pad, memoryview(data)[offset : offset + filesz])


def load_segments(elf: Elf, base: int = 0) -> list[Loaded]:
    """The PT_LOAD segments as they lie in memory.  With a base (static-pie) PT_DYNAMIC is the program's own."""
    found, total, lowest = [], 0, GUEST_MIN
    for number, ph in enumerate(elf.segments):
        check(ph.type != PT_INTERP and (base or ph.type != PT_DYNAMIC), "dynamically linked: link it statically")
        if ph.type != PT_LOAD or ph.memsz == 0:
            continue
        segment = _segment(elf.data, number, ph, base, lowest)
        lowest = (segment.start + segment.size + PAGE - 1) // PAGE * PAGE
        total += segment.size
        found.append(segment)
    check(total <= IMAGE_MAX, f"the image takes {total} bytes of memory, over the limit of {IMAGE_MAX}")
    check(found, "no PT_LOAD segment")
    return found


def _note(elf: Elf) -> bytes:
    section = elf.section(b".note.vxplug")
    if section is None:
        raise PluginFormatError("no .note.vxplug section: build it with `vxplug build`")
    check(section.type != SHT_NOBITS, "the interface note has no bytes")
    check(section.offset + section.size <= len(elf.data), "the interface note lies outside the file")
    return elf.data[section.offset : section.offset + section.size]


class Code:
    """Which addresses may be executed."""

    def __init__(self, segments: list[Loaded]) -> None:
        self._parts = [range(s.start, s.start + s.size) for s in segments if s.protection & 4]

    def __contains__(self, address: int) -> bool:
        for part in self._parts:
            if address in part:
                return True
        return False


def program_headers(elf: Elf) -> tuple[int, int, int]:
    """(address, entry size, count) of the program headers where they are mapped, or zeros."""
    header = elf.header
    size = header.phentsize * header.phnum
    for ph in elf.segments:
        if ph.type == PT_LOAD and ph.offset <= header.phoff and header.phoff + size <= ph.offset + ph.filesz:
            return ph.vaddr + header.phoff - ph.offset, header.phentsize, header.phnum
    return 0, 0, 0


def _parse(data: bytes) -> tuple[Interface, _vx.Plugin]:
    elf = Elf(data)
    check_type(elf, ET_EXEC)
    segments = load_segments(elf)
    code = Code(segments)
    check(elf.header.entry in code, f"entry {elf.header.entry:#x} is not in executable memory")
    interface = decode_note(_note(elf))
    for export in interface.exports:
        if export.address not in code:
            raise PluginFormatError(f"{export.name}: address {export.address:#x} is not code")
    for function in interface.imports:
        check(function.address in code, f"import {function.name}: {function.address:#x} is not code")
    for address in interface.functions:
        check(address in code, f"function {address:#x} of a type is not code")
    release = interface.release
    check(release == 0 or release in code, f"release function {release:#x} is not code")
    core = _vx.Plugin(segments, elf.header.entry, *program_headers(elf))
    return interface, core


Parsed = TypeVar("Parsed")
# What decoding hostile bytes raises (JSON, Unicode, recursion …): kinds that Python itself has.  An exception of an
# application's own, or a GuestEnd, comes from a signal handler, or the time of a call outside that is over.
_MALFORMED = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, NameError, RuntimeError, SyntaxError, TypeError,
    ValueError, struct.error,
)


def parse(data: bytes, make: Callable[[bytes], Parsed]) -> Parsed:
    """Validate a file's bytes by `make`.  Raises PluginFormatError, whatever the bytes are."""
    check(len(data) <= FILE_MAX, f"file larger than {FILE_MAX} bytes")
    try:
        return make(data)
    except _MALFORMED as error:
        raise PluginFormatError(f"malformed ELF file: {type(error).__name__}: {error}") from error


def read_file(path: str) -> bytes:
    """Enough of the file to see that it is too large.  Room is taken for what it says its size is: for the most
    that there could be it costs more than reading."""
    with io.open(path, "rb", buffering=0) as file:
        size = min(os.fstat(file.fileno()).st_size, FILE_MAX)
        data = file.read(size + 1)
        if len(data) == size:
            return data
        rest = io.BufferedReader(file)  # it does not know, or changes
        return data + rest.read(FILE_MAX + 1 - len(data))


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
        self._portable = False
        self._origin: Plugin | None = None
        self._interface.classes.plugins.append(weakref.ref(self))
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
        return _sandbox_class()(self, **limits)

    def portable(self) -> Plugin:
        """The same plugin, whose pickles, and those of its sandboxes and functions, carry its code: for
        processes that do not have the file."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._portable = True
        twin._origin = self  # which pickles know, as long as it lives
        plugins = twin._interface.classes.plugins  # values of its types carry the code too
        plugins[1:] = [weakref.ref(twin)]
        return twin

    def __copy__(self) -> Plugin:
        return self  # immutable, and its values know by which plugin they pickle

    def __reduce__(self) -> tuple[Any, ...]:
        return pickling.load_plugin, (self.digest, self._path, self._data if self._portable else None)

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
