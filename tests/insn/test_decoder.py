"""The decoder's table against two disassemblers: every opcode with every ModRM byte and prefix."""

from __future__ import annotations

import itertools
import re

import capstone
import iced_x86
import pytest
from iced_x86 import Decoder as Iced
from iced_x86 import FlowControl, InstructionInfoFactory, Mnemonic, OpAccess, RflagsBits

from .probe import OK, Decoder, table

PREFIXES = [b"", b"\x66", b"\x67", b"\xf2", b"\xf3", b"\xf0", b"\x64", b"\x2e", b"\x66\xf2", b"\x66\xf3", b"\x66\xf0",
            b"\x67\xf3", b"\x65\x66"]
MAPS = {0: b"", 1: b"\x0f", 2: b"\x0f\x38", 3: b"\x0f\x3a"}
TAIL = bytes.fromhex("24112233445566778899aabb")
MNEMONICS = {value: name.lower() for name, value in vars(Mnemonic).items() if isinstance(value, int)}
FLAGS = {RflagsBits.CF: 0x001, RflagsBits.PF: 0x004, RflagsBits.AF: 0x010, RflagsBits.ZF: 0x040,
         RflagsBits.SF: 0x080, RflagsBits.OF: 0x800}

# Encodings our decoder takes and iced calls invalid: no operation hides in them.
ICED_REFUSES = {
    "x87": "undefined register forms: two bytes to every processor, which faults",
    "mov from segment": "segment registers 6 and 7: the helper faults",
    "mov to segment": "likewise",
    "xgetbv …": "the helper tells these apart, and faults",
}


def _encodings(opcode_map: int, opcode: int):
    for prefix in PREFIXES:
        for modrm in range(256):
            yield prefix + MAPS[opcode_map] + bytes([opcode, modrm]) + TAIL


@pytest.fixture(scope="module")
def disassembler():
    return capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)


def _capstone_length(disassembler, data: bytes) -> int | None:
    return next((size for _, size, _, _ in disassembler.disasm_lite(data[:15], 0, 1)), None)


def _is_prefix(opcode_map: int, opcode: int) -> bool:
    prefixes = (0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x0F)
    return (opcode_map == 0 and opcode in prefixes) or (opcode_map == 1 and opcode in (0x38, 0x3A))


OPCODES = [(m, o) for m, o in itertools.product(MAPS, range(256)) if not _is_prefix(m, o)]


@pytest.mark.parametrize("opcode_map", MAPS)
def test_lengths(disassembler, opcode_map):
    """Threat 1: a length of our own would let bytes run that nobody has looked at.

    Refused rows emit nothing, so their lengths do not matter.  Capstone must agree wherever it knows the
    instruction; iced must know every one."""
    ours = Decoder()
    seen = unknown_to_capstone = 0
    problems = []
    for _, opcode in (pair for pair in OPCODES if pair[0] == opcode_map):
        for data in _encodings(opcode_map, opcode):
            result, length, number, is_mem = ours.decode(data)
            row = table()[number]
            if result != OK or row.rule == "refuse":
                continue
            seen += 1
            iced = Iced(32, data, options=iced_x86.DecoderOptions.NO_INVALID_CHECK).decode()
            if iced.len != length and not (iced.code == 0 and row.name in ICED_REFUSES and not is_mem):
                problems.append((data.hex(), length, f"iced {iced.len}", row.name))
            theirs = _capstone_length(disassembler, data)
            unknown_to_capstone += theirs is None
            if theirs not in (None, length):
                problems.append((data.hex(), length, f"capstone {theirs}", row.name))
    assert not problems, f"{len(problems)} of {seen}: {problems[:20]}"
    assert seen > 1000 and unknown_to_capstone < seen / 10


# Names in the table that stand for a family; the members' lengths and flags are compared all the same.
FAMILY = ("…", "x87", "alu", "shift", "jcc", "cmovcc", "setcc", "segment")
SUFFIX = re.compile(r"(ps|pd|ss|sd|a|b|w|d)$")


def named(name: str, mnemonic: str) -> bool:
    """One word of the name is the mnemonic but for its operand type."""
    stems = (SUFFIX.sub("", word) for word in name.split(", "))
    return any(mnemonic.startswith("cvt" if stem.startswith("cvt") else stem) for stem in stems)


def test_names_flags_and_operands():
    """The same length with another meaning, or a flag said to die that lives, would be as bad."""
    ours, factory = Decoder(), InstructionInfoFactory()
    problems: set[tuple] = set()
    compared = 0
    for opcode_map, opcode in OPCODES:
        for data in _encodings(opcode_map, opcode):
            result, _, number, is_mem = ours.decode(data)
            row = table()[number]
            if result != OK or row.rule in ("refuse", "nop"):
                continue
            iced = Iced(32, data).decode()
            if iced.code == 0:
                continue
            compared += 1
            mnemonic = MNEMONICS[iced.mnemonic]
            where = (row.name, row.rule, mnemonic)
            memory = any(m.access != OpAccess.NONE for m in factory.info(iced).used_memory())
            if is_mem and not memory and row.rule not in ("lea", "helper") and mnemonic not in ("lea",):
                problems.add((*where, "memory", data.hex()[:12]))
            reads = sum(ours_bit for bit, ours_bit in FLAGS.items() if iced.rflags_read & bit)
            writes = sum(ours_bit for bit, ours_bit in FLAGS.items() if iced.rflags_modified & bit)
            if row.rule != "helper" and reads & ~row.reads:
                problems.add((*where, f"reads {reads & ~row.reads:#x} unsaid"))
            if row.writes & ~writes:
                problems.add((*where, f"is said to write {row.writes & ~writes:#x}"))
            if not any(word in row.name for word in FAMILY) and not named(row.name, mnemonic):
                problems.add((*where, "name"))
    assert compared > 100_000
    assert not problems, f"{len(problems)}: {sorted(problems)[:60]}"


def test_nothing_is_taken_that_is_no_instruction():
    """Lengths and flags of what does not exist agree with nobody's.  Without it the table took `lock cmp` by its third
    opcode, 82, which the processor refuses."""
    ours = Decoder()
    taken = set()
    for opcode_map, opcode in OPCODES:
        for data in _encodings(opcode_map, opcode):
            result, _, number, is_mem = ours.decode(data)
            row = table()[number]
            if result == OK and row.rule != "refuse" and Iced(32, data).decode().code == 0:
                if is_mem or row.name not in ICED_REFUSES:
                    taken.add((row.name, data.hex()[:12]))
    assert not taken, sorted(taken)[:20]


def test_refused_rows_are_what_they_say():
    """A row that refuses a harmless instruction hides a gap; iced says what kind each is."""
    flows = {FlowControl.INTERRUPT, FlowControl.EXCEPTION, FlowControl.RETURN, FlowControl.CALL,
             FlowControl.UNCONDITIONAL_BRANCH, FlowControl.INDIRECT_CALL, FlowControl.INDIRECT_BRANCH}
    ours = Decoder()
    harmless: set[str] = set()
    for opcode_map, opcode in OPCODES:
        for data in _encodings(opcode_map, opcode):
            result, _, number, _ = ours.decode(data)
            if result != OK or table()[number].rule != "refuse":
                continue
            iced = Iced(32, data).decode()
            if not iced.is_privileged and iced.flow_control not in flows and not iced.is_save_restore_instruction:
                harmless.add(MNEMONICS[iced.mnemonic])
    assert harmless <= KNOWN_REFUSALS, sorted(harmless - KNOWN_REFUSALS)


# Unprivileged, and refused on purpose: branches cut to 16 bits, segment registers, identity and time, caches, protection keys.
KNOWN_REFUSALS = set(
    "push pop arpl les lds lss lfs lgs lar lsl sldt str smsw sgdt sidt verr verw rdtsc rdtscp rdpmc xgetbv "
    "clflush clflushopt clwb rdpkru wrpkru rdfsbase rdgsbase wrfsbase wrgsbase ptwrite invalid clzero monitorx mwaitx "
    "monitor mwait xend xtest enclu vmfunc umonitor tpause umwait incsspd rdsspd setssbsy rstorssp saveprevssp clrssbsy "
    "loop loope loopne jcxz jecxz ja jae jb jbe je jne jg jge jl jle jo jno jp jnp js jns rdrand rdseed rdpid xbegin "
    "xabort "
    "xsave xsaveopt xrstor rdpru encls enclv pcommit serialize xsusldtrk xresldtrk montmul mcommit pconfig".split()
)
