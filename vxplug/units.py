"""Compilation units (DWARF 5 sections 7.5, 7.25 and 7.28): where each one's code is, and its line program.

Written here, and not left to pyelftools, because the bytes are hostile: an abbreviation may have any number of attributes
that take no bytes of a unit, and a general reader makes an object of each for every unit that names it.  This one keeps
eight attributes of a unit's first entry, and counts each that it passes.  What is malformed raises: no line is known then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .linetable import NAME_MAX, Reader

__all__ = ["SECTIONS", "Unit", "read_units"]

SECTIONS = (
    ".debug_info", ".debug_abbrev", ".debug_str", ".debug_line_str", ".debug_str_offsets", ".debug_addr", ".debug_ranges",
    ".debug_rnglists",
)

# Attributes and ranges that are read for one plugin: as many take half a second.  Of large C++ programs they are some
# 100,000.
STEPS_MAX = 300_000
RANGES_MAX = 100_000  # that are kept
FOLDERS_MAX = 4 << 20  # bytes of their folders' names, which may be the same bytes of the file

# DW_AT_*, DW_UT_*, DW_RLE_* of DWARF 5 sections 7.5.4, 7.5.1 and 7.25.
_STMT_LIST, _LOW_PC, _HIGH_PC, _COMP_DIR, _RANGES = 0x10, 0x11, 0x12, 0x1B, 0x55
_STR_OFFSETS_BASE, _ADDR_BASE, _RNGLISTS_BASE = 0x72, 0x73, 0x74
_WANTED = (_STMT_LIST, _LOW_PC, _HIGH_PC, _COMP_DIR, _RANGES, _STR_OFFSETS_BASE, _ADDR_BASE, _RNGLISTS_BASE)
_HEADER_MORE = {2: 12, 4: 8, 5: 8, 6: 12}  # bytes that units of a type have in their header besides
_END, _BASE_ADDRESSX, _STARTX_ENDX, _STARTX_LENGTH, _OFFSET_PAIR, _BASE_ADDRESS, _START_END, _START_LENGTH = range(8)

# DW_FORM_* of section 7.5.6, in 32-bit DWARF of 32-bit addresses: their bytes, or how many a number before them says.
_ADDR, _STRING, _STRP, _IMPLICIT_CONST, _LINE_STRP, _RNGLISTX = 0x01, 0x08, 0x0E, 0x21, 0x1F, 0x23
_SIZES = {
    _ADDR: 4, 0x05: 2, 0x06: 4, 0x07: 8, 0x0B: 1, 0x0C: 1, _STRP: 4, 0x10: 4, 0x11: 1, 0x12: 2, 0x13: 4, 0x14: 8, 0x17: 4,
    0x19: 0, 0x1C: 4, 0x1D: 4, 0x1E: 16, _LINE_STRP: 4, 0x20: 8, 0x24: 8, 0x25: 1, 0x26: 2, 0x27: 3, 0x28: 4, 0x29: 1,
    0x2A: 2, 0x2B: 3, 0x2C: 4,
}
_LEB128 = (0x0D, 0x0F, 0x15, 0x1A, 0x1B, 0x22, _RNGLISTX)
_BLOCKS = {0x03: 2, 0x04: 4, 0x0A: 1}
_LEB128_BLOCKS = (0x09, 0x18)
_STRX, _ADDRX = (0x1A, 0x25, 0x26, 0x27, 0x28), (0x1B, 0x29, 0x2A, 0x2B, 0x2C)

Value = tuple[int, "int | bytes"]  # its form, and what stands there
Specification = tuple[int, int, int]  # attribute, form, and the value of an implicit one
Sections = Mapping[str, bytes]


class Unit(NamedTuple):
    ranges: list[tuple[int, int]]
    program: int  # where its line program is
    folder: bytes


class _Steps:
    """What may still be read."""

    def __init__(self) -> None:
        self._left, self._ranges, self._folders = STEPS_MAX, RANGES_MAX, FOLDERS_MAX

    def take(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise ValueError("compilation units take too long to read")

    def take_range(self) -> None:
        self.take()
        self._ranges -= 1
        if self._ranges < 0:
            raise ValueError("too many ranges of compilation units")

    def take_folder(self, size: int) -> None:
        self._folders -= size
        if self._folders < 0:
            raise ValueError("too many names of compilation units' folders")


class _Abbreviations:
    """What the first entries of units have, of each kind read once."""

    def __init__(self, section: bytes, steps: _Steps) -> None:
        self._section, self._steps = section, steps
        self._known: dict[tuple[int, int], list[Specification]] = {}

    def find(self, offset: int, code: int) -> list[Specification]:
        if (offset, code) not in self._known:
            source = Reader(self._section, offset, len(self._section))
            while (found := source.unsigned()) not in (0, code):
                self._pass(source)
            if found == 0:
                raise ValueError(f"no abbreviation {code}")
            self._known[offset, code] = self._pass(source)
        return self._known[offset, code]

    def _pass(self, source: Reader) -> list[Specification]:
        source.unsigned()  # tag
        source.skip(1)  # whether it has children
        found: list[Specification] = []
        while True:
            self._steps.take()
            name, form = source.unsigned(), source.unsigned()
            if name == form == 0:
                return found
            found.append((name, form, source.signed() if form == _IMPLICIT_CONST else 0))


def _number_at(section: bytes, offset: int) -> int:
    return Reader(section, offset, len(section)).number(4)


def _string_at(section: bytes, offset: int) -> bytes:
    nul = section.find(b"\0", offset, offset + NAME_MAX)
    return section[offset : nul if nul >= 0 else offset + NAME_MAX]


def _read_value(source: Reader, form: int) -> int | bytes:
    if form in _SIZES:
        return source.number(_SIZES[form])
    if form in _LEB128:
        return source.unsigned()
    if form == _STRING:
        return source.string()
    if form in _BLOCKS:
        source.skip(source.number(_BLOCKS[form]))
    elif form in _LEB128_BLOCKS:
        source.skip(source.unsigned())
    else:
        raise ValueError(f"form {form:#x} in a unit")
    return 0


class _Entry:
    """The first entry of a unit."""

    def __init__(self, sections: Sections, version: int, values: dict[int, Value], steps: _Steps) -> None:
        self._sections, self._version, self._values, self._steps = sections, version, values, steps

    def read(self) -> Unit | None:
        """None without a line program."""
        program = self._values.get(_STMT_LIST)
        if program is None:
            return None
        folder = self._folder()
        self._steps.take_folder(len(folder))
        return Unit(list(self._ranges()), _offset(program), folder)

    def _base(self, attribute: int) -> int:
        """Where the unit's part of a section of offsets begins: behind its header, where nothing is said."""
        return _offset(self._values.get(attribute, (0, 8)))

    def _address(self, index: int) -> int:
        return _number_at(self._sections[".debug_addr"], self._base(_ADDR_BASE) + 4 * index)

    def _folder(self) -> bytes:
        form, value = self._values.get(_COMP_DIR, (_STRING, b""))
        if isinstance(value, bytes):
            return value
        if form in _STRX:
            value = _number_at(self._sections[".debug_str_offsets"], self._base(_STR_OFFSETS_BASE) + 4 * value)
        elif form not in (_STRP, _LINE_STRP):
            return b""
        return _string_at(self._sections[".debug_line_str" if form == _LINE_STRP else ".debug_str"], value)

    def _low(self) -> int | None:
        if _LOW_PC not in self._values:
            return None
        form, value = self._values[_LOW_PC][0], _offset(self._values[_LOW_PC])
        return self._address(value) if form in _ADDRX else value

    def _ranges(self) -> Iterator[tuple[int, int]]:
        low, high = self._low(), self._values.get(_HIGH_PC)
        if _RANGES in self._values:
            yield from self._listed(low or 0)
        elif low is not None and high is not None:
            self._steps.take_range()
            yield low, _offset(high) if high[0] == _ADDR else low + _offset(high)

    def _listed(self, base: int) -> Iterator[tuple[int, int]]:
        form, offset = self._values[_RANGES][0], _offset(self._values[_RANGES])
        if self._version < 5:
            section = self._sections[".debug_ranges"]
            return self._old_ranges(Reader(section, offset, len(section)), base)
        section = self._sections[".debug_rnglists"]
        if form == _RNGLISTX:
            begin = self._base(_RNGLISTS_BASE)
            offset = begin + _number_at(section, begin + 4 * offset)
        return self._new_ranges(Reader(section, offset, len(section)), base)

    def _old_ranges(self, source: Reader, base: int) -> Iterator[tuple[int, int]]:
        """DWARF 4 section 2.17.3."""
        while (pair := (source.number(4), source.number(4))) != (0, 0):
            self._steps.take_range()
            if pair[0] == 0xFFFFFFFF:
                base = pair[1]
            else:
                yield base + pair[0], base + pair[1]

    def _new_ranges(self, source: Reader, base: int) -> Iterator[tuple[int, int]]:
        while (kind := source.number(1)) != _END:
            self._steps.take_range()
            if kind == _BASE_ADDRESS:
                base = source.number(4)
            elif kind == _BASE_ADDRESSX:
                base = self._address(source.unsigned())
            else:
                yield self._new_range(source, kind, base)

    def _new_range(self, source: Reader, kind: int, base: int) -> tuple[int, int]:
        if kind == _OFFSET_PAIR:
            return base + source.unsigned(), base + source.unsigned()
        if kind == _STARTX_ENDX:
            return self._address(source.unsigned()), self._address(source.unsigned())
        if kind not in (_START_END, _STARTX_LENGTH, _START_LENGTH):
            raise ValueError(f"range of kind {kind}")
        start = self._address(source.unsigned()) if kind == _STARTX_LENGTH else source.number(4)
        return start, source.number(4) if kind == _START_END else start + source.unsigned()


def _offset(value: Value) -> int:
    if isinstance(value[1], bytes) or value[1] < 0:
        raise ValueError("an offset or address that is none")
    return value[1]


def _read_unit(source: Reader, sections: Sections, abbreviations: _Abbreviations, steps: _Steps) -> Unit | None:
    version = source.number(2)
    if not 2 <= version <= 5:
        raise ValueError(f"unit of version {version}")
    kind = source.number(1) if version == 5 else 0
    if version == 5:
        source.skip(1)  # the size of addresses
    offset = source.number(4)
    source.skip(_HEADER_MORE.get(kind, 0) if version == 5 else 1)
    code, values = source.unsigned(), {}
    for name, form, implicit in abbreviations.find(offset, code) if code else ():
        steps.take()
        value = implicit if form == _IMPLICIT_CONST else _read_value(source, form)
        if name in _WANTED:
            values[name] = (form, value)
    return _Entry(sections, version, values, steps).read()


def read_units(sections: Sections) -> Iterator[Unit]:
    """Those of .debug_info that have a line program; ``sections`` has all of SECTIONS, empty ones for what is not there."""
    section, at, steps = sections[".debug_info"], 0, _Steps()
    abbreviations = _Abbreviations(sections[".debug_abbrev"], steps)
    while at < len(section):
        steps.take()
        end = at + 4 + _number_at(section, at)
        if end > len(section):
            raise ValueError("a unit ends behind its section")
        unit = _read_unit(Reader(section, at + 4, end), sections, abbreviations, steps)
        at = end
        if unit is not None:
            yield unit
