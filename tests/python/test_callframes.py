"""Call frame information: read as pyelftools reads it, and at a price that a hostile file does not set."""

from __future__ import annotations

import io
import random
import struct
import time
from pathlib import Path

import pytest
from elftools.dwarf.callframe import FDE, CallFrameInfo
from elftools.dwarf.structs import DWARFStructs
from elftools.elf.elffile import ELFFile

import vxplug
from vxplug.callframes import ENTRIES_MAX, STATES_MAX, WALK_BYTES_MAX, CallFrames
from vxplug.unwind import EIP, Rule

SOURCE = Path(__file__).parent / "guests" / "frames.c"
ADDRESS = 0x1000
REMEMBER, RESTORE = b"\x0a", b"\x0b"
BEGINNING = b"\x0c\x04\x04\x88\x01"  # of every function: the frame is at esp + 4, the return address below it


def expected_at(table: list[dict], address: int) -> Rule | None:
    """What pyelftools' rows say: the last one that is not past the address."""
    row = [row for row in table if row["pc"] <= address][-1]
    if row["cfa"].reg is None:
        return None
    saved = {n: r.arg for n, r in row.items() if isinstance(n, int) and n <= EIP and r.type == "OFFSET"}
    return Rule(row["cfa"].reg, row["cfa"].offset, saved)


def record(body: bytes) -> bytes:
    return struct.pack("<I", len(body)) + body


def section_of(programs: list[bytes], beginning: bytes = BEGINNING) -> bytes:
    """A section .eh_frame: functions of 256 bytes at ADDRESS, one after the other."""
    frames = record(bytes(4) + b"\x01zR\0\x01\x7c\x08\x01\x03" + beginning)
    for number, program in enumerate(programs):
        frames += record(struct.pack("<III", len(frames) + 4, ADDRESS + 256 * number, 256) + b"\0" + program)
    return frames + bytes(4)


def debug_section_of(program: bytes, beginning: bytes, version: int) -> bytes:
    """A section .debug_frame with one function at ADDRESS."""
    sizes = b"\x04\0" if version == 4 else b""
    common = record(b"\xff\xff\xff\xff" + bytes([version, 0]) + sizes + b"\x01\x7c\x08" + beginning)
    return common + record(struct.pack("<III", 0, ADDRESS, 256) + program)


def rule_of(program: bytes) -> Rule | None:
    """At the end of a function with the program."""
    return CallFrames(section_of([program]), 0, True).rule_at(ADDRESS + 255, [WALK_BYTES_MAX])


# ---- the same as pyelftools ----


@pytest.mark.parametrize("flags", [
    (), ("-O0",), ("-fno-omit-frame-pointer",)], ids=["default", "O0", "frame-pointers"])
def test_rules_agree_with_pyelftools(build_plugin, flags):
    """The decoder is ours; another one's reading of whole plugins, libc included, is the oracle."""
    data, checked = Path(build_plugin(SOURCE, flags)).read_bytes(), 0
    elf = ELFFile(io.BytesIO(data))
    section = elf.get_section_by_name(".eh_frame")
    frames = CallFrames(section.data(), section.header.sh_addr, True)
    for entry in elf.get_dwarf_info().EH_CFI_entries():
        if not isinstance(entry, FDE):
            continue
        start, size, table = entry.header.initial_location, entry.header.address_range, entry.get_decoded().table
        near = {row["pc"] + step for row in table for step in (-1, 0, 1)}
        for address in sorted(near | {start, start + size // 2, start + size - 1}):
            if start <= address < start + size:
                assert frames.rule_at(address, [WALK_BYTES_MAX]) == expected_at(table, address)
                checked += 1
    assert checked > 1000


def _operations(rng: random.Random) -> bytes:
    register, number, block = bytes([rng.randrange(12)]), bytes([rng.randrange(128)]), b"\x02\x9c\x06"
    short, extended = rng.randrange(9), b"\x80\x01"
    return rng.choice([
        b"\0", bytes([0x40 + rng.randrange(8)]), b"\x02" + number, b"\x03" + number + b"\0", b"\x04" + number + bytes(3),
        bytes([0x80 + short]) + number, bytes([0x80 + short]) + b"\xff\x01", bytes([0xC0 + short]), b"\x05" + register + extended,
        b"\x06" + register, b"\x07" + register, b"\x08" + register, b"\x09" + register + number, b"\x0c" + register + number,
        b"\x0d" + register, b"\x0e" + number, b"\x0f" + block, b"\x10" + register + block, b"\x11" + register + number,
        b"\x13" + number, b"\x14" + register + number, b"\x15" + register + number, b"\x16" + register + block,
        b"\x0a\x0e\x08\x07\x05\x0b", b"\x0a\x0a\x0c\x05\x08\x0b\x42\x0b",
    ])


@pytest.mark.parametrize("version", [None, 1, 3, 4], ids=["eh_frame", "1", "3", "4"])
def test_programs_agree_with_pyelftools(version):
    """Seeded: compilers use few of the operations and of the forms of a section, assembly any."""
    rng, structs, rules = random.Random(7), DWARFStructs(little_endian=True, dwarf_format=32, address_size=4), 0
    for _ in range(100):
        beginning = BEGINNING + b"".join(bytes([0x80 + rng.randrange(8), 3]) for _ in range(rng.randrange(3)))
        program = b"".join(_operations(rng) for _ in range(rng.randrange(1, 40)))
        section = debug_section_of(program, beginning, version) if version else section_of([program], beginning)
        entries = CallFrameInfo(io.BytesIO(section), len(section), 0, structs, version is None).get_entries()
        table, frames = entries[1].get_decoded().table, CallFrames(section, 0, version is None)
        for address in range(ADDRESS, ADDRESS + 256, 5):
            expected = expected_at(table, address)
            if expected is None or expected.offset is not None:  # a register for a frame that has none is no program
                assert frames.rule_at(address, [WALK_BYTES_MAX]) == expected
                rules += expected is not None
    assert rules > 1000


def test_pushed_arguments_are_passed_over():
    """GNU_args_size, which pyelftools knows no rule for: functions of C++ that push arguments would end every trace."""
    assert rule_of(b"\x2e\x10") == Rule(4, 4, {EIP: -4})


# ---- the price ----


def test_remembered_states_are_bounded():
    """Threat 49: a byte remembers a row, and a program may be of nothing else."""
    assert rule_of(REMEMBER * STATES_MAX + RESTORE * STATES_MAX) == Rule(4, 4, {EIP: -4})
    with pytest.raises(ValueError, match="too many states"):
        rule_of(REMEMBER * (STATES_MAX + 1))


def test_a_walk_runs_so_many_bytes_of_programs():
    """Threat 49: each of the frames of a forged stack may lie in a function with a program as long as a section may be."""
    frames, meter = CallFrames(section_of([bytes(10_000)] * 4), 0, True), [WALK_BYTES_MAX]
    for number in range(3):
        assert frames.rule_at(ADDRESS + 256 * number, meter) == Rule(4, 4, {EIP: -4})
    with pytest.raises(ValueError, match="too many bytes"):
        frames.rule_at(ADDRESS + 256 * 3, meter)
    started = time.monotonic()
    with pytest.raises(ValueError, match="too many bytes"):
        rule_of(bytes(32 << 20))
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(("allowed", "names"), [(2, ["innermost"]), (500, ["innermost", "middle", "crash"])])
def test_every_walk_may_run_as_much(build_plugin, monkeypatch, allowed, names):
    """Threat 49: the bytes are counted over all frames of a walk; were they of a plugin, its later faults had no names."""
    monkeypatch.setattr("vxplug.callframes.WALK_BYTES_MAX", allowed)
    with vxplug.open(build_plugin(SOURCE)).sandbox() as box:
        for _ in range(20):
            with pytest.raises(vxplug.GuestFault) as caught:
                box.crash(5)
            assert [name for name, _, _ in caught.value.traceback] == names


def test_a_row_has_the_registers_that_are_followed():
    """Threat 49: of registers there are as many as numbers, and each state that is remembered has them all."""
    program = b"".join(b"\x05" + bytes([number]) + b"\x01" for number in range(128))
    rule = rule_of(program)
    assert rule is not None and set(rule.saved) == set(range(EIP + 1))


def test_entries_are_bounded():
    """Threat 49: an end of entries takes four bytes, and a section may be of nothing else."""
    started = time.monotonic()
    with pytest.raises(ValueError, match="too many entries"):
        CallFrames(bytes(32 << 20), 0, True)
    assert time.monotonic() - started < 5
    assert CallFrames(bytes(4 * ENTRIES_MAX - 4), 0, True).rule_at(0, [1]) is None


@pytest.mark.parametrize("program", [
    b"\x3f", b"\x2d", b"\x01" + bytes(4), b"\x0b", b"\x0c\x04", b"\x0f\xff\x7f", b"\x80" + b"\xff" * 20,
    b"\x10\x01\x80\x80\x80\x80\x10",
], ids=["unknown", "of-another-processor", "set_loc", "no-state", "cut", "block", "number", "long-block"])
def test_a_malformed_program_gives_no_rule(program):
    """Half a rule would lead the walk where no frame is."""
    with pytest.raises((ValueError, LookupError)):
        rule_of(program)


@pytest.mark.parametrize("common", [
    b"\x02zR\0\x01\x7c\x08\x01\x03", b"\x01eh\0\x01\x7c\x08\x01\x03", b"\x01zQ\0\x01\x7c\x08\x01\x03",
    b"\x01zR\0\x01\x7c\x10\x01\x03",
    b"\x01" + b"z" * 4000 + b"\0", b"\x01zR\0\x01\x7c\x08\x01\x33", b"\x01zR\0\x01\x7c\x08\x01\xff", b"\x01zR", b"",
], ids=["version", "eh", "letter", "return-address", "letters", "data-relative", "omitted", "cut", "empty"])
def test_an_unknown_kind_of_entry_gives_no_rules(common):
    """Its program would be read from the wrong byte on."""
    frames = record(bytes(4) + common)
    frames += record(struct.pack("<III", len(frames) + 4, ADDRESS, 256) + b"\0")
    with pytest.raises((ValueError, LookupError)):
        CallFrames(frames, 0, True)
