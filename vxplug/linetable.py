"""DWARF line programs (DWARF 5 section 6.2): which source line an instruction came from.

Written here, and not left to pyelftools, because the bytes are hostile: a version 5 header may name
four thousand million entries of no bytes each, which a general reader then makes.  Every step of this
one consumes at least a byte of a table, and what the tables of one plugin may take together is bounded.
"""

from __future__ import annotations

import posixpath
from array import array
from bisect import bisect_right

NAMES_MAX = 20_000
NAME_MAX = 4096  # Linux's PATH_MAX: of a name, and of a path made of them
# Of all tables of one plugin that are read, the names in them included: SQLite's has half a million bytes and 200,000
# rows.  As many bytes take a second or two, as many rows 75 MB while they are read, 8 MB then.
BYTES_MAX = 8 << 20
ROWS_MAX = 500_000
ALL_NAMES_MAX = 200_000  # libc++'s headers are 400 of each unit that includes them

# DW_LNCT_*, DW_LNS_*, DW_LNE_* of DWARF 5 section 7.22.
_PATH, _DIRECTORY = 1, 2
_COPY, _ADVANCE_PC, _ADVANCE_LINE, _SET_FILE, _SET_COLUMN, _NEGATE, _BLOCK, _CONST_ADD, _FIXED_ADVANCE = range(1, 10)
_END_SEQUENCE, _SET_ADDRESS, _DEFINE_FILE = 1, 2, 3
_MASK = 0xFFFFFFFF
_NO_LINE = -1  # of a row where a sequence ends

Entry = tuple[bytes, int]  # name, index of its directory


class Reader:
    """Numbers and strings of DWARF, in order; ValueError where they do not end in time."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data, self.at, self.end = data, at, min(end, len(data))

    def take(self, size: int) -> bytes:
        if size > self.end - self.at:
            raise ValueError("debug information ends early")
        self.at += size
        return self.data[self.at - size : self.at]

    def skip(self, size: int) -> None:
        if size > self.end - self.at:
            raise ValueError("debug information ends early")
        self.at += size

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def unsigned(self) -> int:
        value = shift = 0
        while shift < 70:
            byte = self.number(1)
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
        raise ValueError("number longer than 64 bits")

    def signed(self) -> int:
        start = self.at
        value = self.unsigned()
        bits = 7 * (self.at - start)
        return value - (1 << bits) if value >> (bits - 1) else value

    def string(self) -> bytes:
        nul = self.data.find(b"\0", self.at, self.end)
        if nul < 0:
            raise ValueError("string without an end")
        text = self.data[self.at : min(nul, self.at + NAME_MAX)]
        self.at = nul + 1
        return text


def _string_at(section: bytes, offset: int) -> bytes:
    """However many names are said to begin there, each is only looked at as far as it counts."""
    nul = section.find(b"\0", offset, offset + NAME_MAX)
    return section[offset : nul if nul >= 0 else offset + NAME_MAX]


class Budget:
    """What the tables of one plugin may still take."""

    def __init__(self) -> None:
        self.bytes, self.rows, self.names = BYTES_MAX, ROWS_MAX, ALL_NAMES_MAX

    def take_bytes(self, size: int) -> None:
        self.bytes -= size
        if self.bytes < 0:
            raise ValueError("too many bytes of line tables")

    def take_name(self, name: bytes) -> None:
        """Of a file or folder; four bytes of a table may name text that is a thousand times as long."""
        self.take_bytes(len(name))
        self.names -= 1
        if self.names < 0:
            raise ValueError("too many names in line tables")


class LineTable:
    """One unit's line program, run to its end; ``find`` then answers from the rows."""

    def __init__(self, sections: dict[str, bytes], offset: int, folder: str, budget: Budget) -> None:
        self._sections = sections
        self._folder = folder
        self._budget = budget
        section = sections[".debug_line"]
        start = Reader(section, offset, len(section))
        length = start.number(4)
        self._in = Reader(section, start.at, start.at + length)
        budget.take_bytes(self._in.end - self._in.at)
        self._read_header()
        rows = self._run()
        budget.rows -= len(rows)
        rows.sort(key=lambda row: (row[0], row[2] >= 0))  # where one sequence ends another may start
        self._addresses = array("I", [address for address, _, _ in rows])  # a tenth of what the tuples take
        self._file_of = array("I", [min(file, _MASK) for _, file, _ in rows])
        self._line_of = array("q", [max(_NO_LINE, min(line, _MASK)) for _, _, line in rows])

    # ---- header ----

    def _read_header(self) -> None:
        source = self._in
        self._version = source.number(2)
        if not 2 <= self._version <= 5:
            raise ValueError(f"line table of version {self._version}")
        if self._version == 5:
            source.take(2)  # sizes of addresses and segment selectors
        size = source.number(4)
        program = source.at + size
        self._step = source.number(1)
        if self._version >= 4:
            source.take(1)  # operations of a VLIW instruction
        source.take(1)  # default_is_stmt
        self._line_base = int.from_bytes(source.take(1), "little", signed=True)
        self._line_range = source.number(1)
        self._opcode_base = source.number(1)
        if self._line_range == 0 or self._opcode_base == 0:
            raise ValueError("line table without a range")
        self._lengths = source.take(self._opcode_base - 1)
        self._read_names()
        source.at = program

    def _read_names(self) -> None:
        if self._version == 5:
            self._folders = [name for name, _ in self._read_entries()]
            self._files = self._read_entries()
            return
        self._folders = [self._folder.encode(), *self._old_folders()]
        self._files = [(b"?", 0), *self._old_files()]

    def _old_folders(self) -> list[bytes]:
        found: list[bytes] = []
        while name := self._in.string():
            self._budget.take_name(name)
            found.append(name)
        return found

    def _old_files(self) -> list[Entry]:
        found = []
        while name := self._in.string():
            self._budget.take_name(name)
            found.append((name, self._in.unsigned()))
            self._in.unsigned(), self._in.unsigned()  # time, length
        return found

    def _read_entries(self) -> list[Entry]:
        source = self._in
        formats = [(source.unsigned(), source.unsigned()) for _ in range(source.number(1))]
        count = source.unsigned()
        if count > NAMES_MAX or (count and not formats):
            raise ValueError("line table with too many names")
        found = []
        for _ in range(count):
            values = {content: self._read_form(form) for content, form in formats}
            name, folder = values.get(_PATH), values.get(_DIRECTORY, 0)
            name = name if isinstance(name, bytes) else b"?"
            self._budget.take_name(name)
            found.append((name, folder if isinstance(folder, int) else 0))
        return found

    def _read_form(self, form: int) -> bytes | int:
        """DW_FORM_*: those that section 6.2.4.1 allows here, each of at least one byte."""
        source = self._in
        sizes = {0x0B: 1, 0x05: 2, 0x06: 4, 0x07: 8, 0x1E: 16}
        if form in sizes:
            return source.number(sizes[form])
        if form in (0x0E, 0x1F):
            section = self._sections.get(".debug_str" if form == 0x0E else ".debug_line_str", b"")
            return _string_at(section, source.number(4))
        if form == 0x08:
            return source.string()
        if form == 0x0F:
            return source.unsigned()
        if form == 0x09:
            return source.take(source.unsigned())[:NAME_MAX]
        raise ValueError(f"form {form:#x} in a line table")

    # ---- program ----

    def _run(self) -> list[tuple[int, int, int]]:
        """Rows of (address, file, line); a line of -1 ends a sequence."""
        source, rows = self._in, []
        base, line_base, line_range, step = self._opcode_base, self._line_base, self._line_range, self._step
        address, file, line = 0, 1, 1
        while source.at < source.end:
            opcode = source.data[source.at]
            source.at += 1
            if opcode >= base:
                address = address + (opcode - base) // line_range * step & _MASK
                line += line_base + (opcode - base) % line_range
                rows.append((address, file, line))
            elif opcode == 0:
                address, file, line = self._extended(rows, address, file, line)
            elif opcode == _COPY:
                rows.append((address, file, line))
            elif opcode == _ADVANCE_PC:
                address = address + source.unsigned() * step & _MASK
            elif opcode == _ADVANCE_LINE:
                line += source.signed()
            elif opcode == _SET_FILE:
                file = source.unsigned()
            elif opcode == _CONST_ADD:
                address = address + (255 - base) // line_range * step & _MASK
            elif opcode == _FIXED_ADVANCE:
                address = address + source.number(2) & _MASK
            else:
                for _ in range(self._lengths[opcode - 1]):
                    source.unsigned()
            if len(rows) > self._budget.rows:
                raise ValueError("line table with too many rows")
        return rows

    def _extended(self, rows: list[tuple[int, int, int]], address: int, file: int, line: int) -> tuple[int, int, int]:
        source = self._in
        size = source.unsigned()
        body = source.take(size)
        if size and body[0] == _END_SEQUENCE:
            rows.append((address, 0, _NO_LINE))
            return 0, 1, 1
        if size == 5 and body[0] == _SET_ADDRESS:
            address = int.from_bytes(body[1:], "little")
        return address, file, line

    # ---- answers ----

    def find(self, address: int) -> tuple[str, int] | None:
        """(file, line) of the instruction at the address; a line of 0 is the compiler's own code."""
        at = bisect_right(self._addresses, address) - 1
        if at < 0 or self._line_of[at] == _NO_LINE:
            return None
        return self._path(self._file_of[at]), self._line_of[at]

    def _path(self, index: int) -> str:
        if index >= len(self._files):
            return "?"
        name, folder = self._files[index]
        inside = self._folders[folder] if folder < len(self._folders) else b""
        path = posixpath.join(*(part.decode("utf-8", "replace") for part in (inside, name)))
        return posixpath.normpath(posixpath.join(self._folder, path))[:NAME_MAX]
