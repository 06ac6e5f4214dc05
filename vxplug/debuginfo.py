"""Names and lines of guest addresses, for tracebacks.

The debug information is the plugin author's, so it may lie, and it may be built to be slow: it is
read only after a fault, only for files up to a bound, and any failure costs the names, nothing else.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from typing import Any

from .errors import escape

SYMBOLS_MAX = 200_000
LINE_BYTES_MAX = 8 << 20
NAME_MAX = 200


class DebugInfo:
    def __init__(self, data: bytes) -> None:
        self.symbols: list[tuple[int, int, str]] = []
        self.lines: list[tuple[int, str, int]] = []
        try:
            self._read(data)
        except Exception as error:  # hostile debug information: the fault is reported without names
            self.failure: str | None = f"{type(error).__name__}: {error}"
        else:
            self.failure = None

    def _read(self, data: bytes) -> None:
        from elftools.elf.elffile import ELFFile

        elf = ELFFile(io.BytesIO(data))
        table = elf.get_section_by_name(".symtab")
        if table is not None and table.num_symbols() <= SYMBOLS_MAX:
            self.symbols = sorted(
                (s.entry.st_value, s.entry.st_size, s.name[:NAME_MAX])
                for s in table.iter_symbols()
                if s.entry.st_info.type == "STT_FUNC"
            )
        section = elf.get_section_by_name(".debug_line")
        if section is not None and section.header.sh_size <= LINE_BYTES_MAX:
            self.lines = sorted(self._line_rows(elf.get_dwarf_info()))

    def _line_rows(self, dwarf: Any) -> list[tuple[int, str, int]]:
        rows = []
        for unit in dwarf.iter_CUs():
            program = dwarf.line_program_for_CU(unit)
            if program is None:
                continue
            names = [entry.name.decode("utf-8", "replace") for entry in program["file_entry"]]
            first = 0 if program["version"] >= 5 else 1
            for entry in program.get_entries():
                state = entry.state
                if state is None:
                    continue
                index = state.file - first
                name = names[index] if 0 <= index < len(names) else "?"
                rows.append((state.address, "" if state.end_sequence else name[:NAME_MAX], state.line))
        return rows

    def _line(self, address: int) -> tuple[str | None, int | None]:
        at = bisect_right(self.lines, (address, "\U0010ffff", 0)) - 1
        if at < 0 or not self.lines[at][1]:
            return None, None
        return escape(self.lines[at][1]), self.lines[at][2]

    def locate(self, address: int) -> tuple[str, str | None, int | None] | None:
        at = bisect_right(self.symbols, (address, 1 << 32, "")) - 1
        if at < 0:
            return None
        start, size, name = self.symbols[at]
        if address >= start + max(size, 1):
            return None
        return (escape(name), *self._line(address))
