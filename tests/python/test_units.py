"""Compilation units: read as pyelftools reads them, and at a price that a hostile file does not set."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

import vxplug
from vxplug import units
from vxplug.debuginfo import _File
from vxplug.units import SECTIONS, STEPS_MAX, read_units

SOURCE = Path(__file__).parent / "guests" / "frames.c"
LOW_PC, STMT_LIST, COMP_DIR, RANGES = 0x11, 0x10, 0x1B, 0x55
DATA4, STRP, IMPLICIT_CONST, SEC_OFFSET = 0x06, 0x0E, 0x21, 0x17


def leb128(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + leb128(rest) if rest else bytes([low])


def abbreviation(attributes: list[tuple[int, int]]) -> bytes:
    """The first of a table: of a unit, without children."""
    specified = (leb128(name) + leb128(form) + (b"\0" if form == IMPLICIT_CONST else b"") for name, form in attributes)
    return b"\x01\x11\0" + b"".join(specified) + bytes(3)


def unit(values: bytes = b"") -> bytes:
    body = struct.pack("<HBBI", 5, 1, 4, 0) + b"\x01" + values
    return struct.pack("<I", len(body)) + body


def sections(**given: bytes) -> dict[str, bytes]:
    return {name: given.get(name[1:], b"") for name in SECTIONS}


def expected(dwarf) -> list[tuple[list[tuple[int, int]], int, bytes]]:
    """Ranges, line program and folder of each unit, as pyelftools has them."""
    found = []
    for compiled in dwarf.iter_CUs():
        attributes = compiled.get_top_DIE().attributes
        low, high = attributes.get("DW_AT_low_pc"), attributes.get("DW_AT_high_pc")
        base, pairs = low.value if low else 0, []
        if "DW_AT_ranges" in attributes:
            for entry in dwarf.range_lists().get_range_list_at_offset(attributes["DW_AT_ranges"].value, compiled):
                if hasattr(entry, "base_address"):
                    base = entry.base_address
                else:
                    start = 0 if getattr(entry, "is_absolute", False) else base
                    pairs.append((start + entry.begin_offset, start + entry.end_offset))
        elif high:
            pairs = [(base, high.value + (0 if high.form == "DW_FORM_addr" else base))]
        found.append((pairs, attributes["DW_AT_stmt_list"].value, attributes["DW_AT_comp_dir"].value))
    return found


@pytest.mark.parametrize("flags", [("-gdwarf-3",), ("-gdwarf-4",), ("-gdwarf-5",), ("-gdwarf-5", "-ffunction-sections"),
                                   ("-gdwarf-4", "-ffunction-sections")], ids=" ".join)
def test_units_agree_with_pyelftools(build_plugin, flags):
    """The reader is ours; another one's reading of whole plugins, libc included, is the oracle.  Wrong ranges would give a
    fault the lines of other sources."""
    data = build_plugin(SOURCE, flags).read_bytes()
    found = [tuple(unit) for unit in read_units(_File(data).sections(SECTIONS))]
    assert found == expected(ELFFile(io.BytesIO(data)).get_dwarf_info()) and len(found) > 20


def test_attributes_without_bytes_are_counted():
    """Threat 49: units of twelve bytes each may name one abbreviation with any number of attributes that take none.  When
    pyelftools read them, a plugin of 1.4 MB took hours and the host's memory at its first fault."""
    section = abbreviation([(0x4000 + number, IMPLICIT_CONST) for number in range(50_000)])
    tracemalloc.start()
    started = time.monotonic()
    with pytest.raises(ValueError, match="too long"):
        list(read_units(sections(debug_info=unit() * 5000, debug_abbrev=section)))
    elapsed, (_, peak) = time.monotonic() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert elapsed < 20 and peak < 16 << 20


@pytest.mark.parametrize("given", [
    {"debug_info": unit() * 2, "debug_abbrev": (b"\x02\x11\0" + bytes(2)) * STEPS_MAX + b"\0"},  # kinds that nobody asked for
    {"debug_info": unit() * (STEPS_MAX + 1), "debug_abbrev": abbreviation([])},
    {"debug_info": unit(bytes(12)), "debug_abbrev": abbreviation([(STMT_LIST, SEC_OFFSET), (RANGES, SEC_OFFSET), (LOW_PC, DATA4)]),
     "debug_rnglists": b"\x05\x01\0\0\0" * STEPS_MAX + b"\0"},
], ids=["kinds", "units", "ranges"])
def test_whatever_units_hold_their_reading_ends(given):
    """Threat 49: each of these is a loop, as long as a hostile section of some megabytes makes it."""
    with pytest.raises(ValueError, match="too long|too many"):
        list(read_units(sections(**given)))


def test_folders_of_the_same_bytes_are_bounded_together(monkeypatch):
    """Threat 49: four bytes of a unit name a folder of 4096, another one for each unit."""
    monkeypatch.setattr(units, "FOLDERS_MAX", 100_000)
    section = abbreviation([(STMT_LIST, SEC_OFFSET), (COMP_DIR, STRP)])
    info = b"".join(unit(struct.pack("<II", 0, number)) for number in range(100))
    with pytest.raises(ValueError, match="too many names"):
        list(read_units(sections(debug_info=info, debug_abbrev=section, debug_str=b"a" * 5000)))


@pytest.mark.parametrize("given", [
    {"debug_info": b"\xff\xff\xff\xff" + bytes(20)},  # longer than the section, or the mark of 64-bit DWARF
    {"debug_info": b"\x04\0\0\0\x09\0\0\0"},  # a version that does not exist
    {"debug_info": unit(), "debug_abbrev": b"\0"},
    {"debug_info": unit(), "debug_abbrev": abbreviation([(STMT_LIST, 0x77)])},
    {"debug_info": unit(), "debug_abbrev": b"\x01\x11\0" + bytes([STMT_LIST, IMPLICIT_CONST, 0x7F]) + bytes(3)},  # at -1
    {"debug_info": unit(b"a\0"), "debug_abbrev": abbreviation([(STMT_LIST, 0x08)])},
    {"debug_info": unit(b"\xff" * 8), "debug_abbrev": abbreviation([(STMT_LIST, SEC_OFFSET), (RANGES, SEC_OFFSET)])},
])
def test_malformed_units_are_refused(given):
    """Another error than ValueError, or an offset before a section, would come of a file that lies."""
    with pytest.raises(ValueError):
        list(read_units(sections(**given)))


def with_sections(data: bytes, given: dict[str, bytes]) -> bytes:
    """An ELF file with other contents of some sections, behind all that it has."""
    elf, out = ELFFile(io.BytesIO(data)), bytearray(data)
    for number, section in enumerate(elf.iter_sections()):
        if section.name in given:
            header = elf.header.e_shoff + number * elf.header.e_shentsize
            struct.pack_into("<II", out, header + 16, len(out), len(given[section.name]))  # sh_offset, sh_size
            out += given[section.name]
    return bytes(out)


def test_a_plugin_with_such_units_faults_soon(build_plugin):
    """Threat 49, of a whole file: the application waits for the fault of which the lines are looked up."""
    section = abbreviation([(0x4000 + number, IMPLICIT_CONST) for number in range(50_000)])
    data = with_sections(build_plugin(SOURCE).read_bytes(), {".debug_abbrev": section, ".debug_info": unit() * 20_000})
    with vxplug.open(data).sandbox() as box:
        started = time.monotonic()
        with pytest.raises(vxplug.GuestFault) as caught:
            box.crash(5)
        assert time.monotonic() - started < 20
    assert caught.value.traceback[0] == ("innermost", None, None)


def at_its_bounds() -> dict[str, bytes]:
    """Debug information that is as much as is read: symbols, ranges, rows, frames."""
    start = 0x10000
    rows = bytes([4, 0]) + bytes(4) + bytes([1, 1, 1, 251, 14, 13]) + bytes(16) + b"\xff" * 490_000
    ranges = b"".join(struct.pack("<II", start + number, 0xFFFF0000) for number in range(99_000)) + bytes(8)
    frames = bytearray(struct.pack("<II", 20, 0) + b"\x01zR\0\x01\x7c\x08\x01\x1b" + bytes(7))
    for number in range(99_000):
        frames += struct.pack("<IIiII", 16, len(frames) + 4, number * 16 - len(frames), 16, 0)
    return {
        ".symtab": b"".join(struct.pack("<IIIBBH", n % 500, start + n, 1, 2, 0, 1) for n in range(200_000)),
        ".strtab": b"\xff" * 2000, ".debug_line": struct.pack("<IH", len(rows) + 2, 5) + rows, ".debug_ranges": ranges,
        ".debug_abbrev": b"\x01\x11\0" + bytes([STMT_LIST, SEC_OFFSET, RANGES, SEC_OFFSET]) + bytes(3),
        ".debug_info": struct.pack("<IHIBBII", 16, 4, 0, 4, 1, 0, 0), ".eh_frame": bytes(frames),
    }


@pytest.mark.skipif("VXPLUG_SANITIZE" in os.environ, reason="a sanitizer's allocator takes more, and keeps what was freed")
def test_the_first_fault_costs_what_is_said(build_plugin, tmp_path):
    """Threat 48: docs/embedding.md says what looking up names may take, whatever the file holds."""
    (tmp_path / "evil.vxm").write_bytes(with_sections(build_plugin(SOURCE, ("-gdwarf-4",)).read_bytes(), at_its_bounds()))
    script = """
import sys, time, vxplug
def status(name):
    return next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith(name + ':')) >> 10
box = vxplug.open(sys.argv[1]).sandbox()
before, started = status('VmRSS'), time.monotonic()
try: box.crash(5)
except vxplug.GuestFault: pass
debug = box.plugin._debug
assert debug.failure is None and debug._lines._tables and len(debug._frames._functions) == 99_000, debug.failure
assert time.monotonic() - started < 20
print(status('VmHWM') - before < 192 and status('VmRSS') - before < 96 or (status('VmHWM') - before, status('VmRSS') - before))
"""
    command = [sys.executable, "-c", script, str(tmp_path / "evil.vxm")]
    assert subprocess.run(command, capture_output=True, text=True, timeout=100).stdout == "True\n"
