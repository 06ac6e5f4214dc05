"""The VEX and EVEX rows against two disassemblers: every map, opcode, prefix, W and length, with every ModRM byte for
the plain ones and with a choice of them for the others."""

from __future__ import annotations

import itertools

import capstone
import pytest
from iced_x86 import Code, CpuidFeature, DecoderOptions, OpCodeInfo
from iced_x86 import Decoder as Iced

from .probe import FORM_GENERAL, FORM_ROUND, OK, SHORT, Decoder, table
from .test_decoder import FAMILY, FLAGS, MNEMONICS, named
from .vectors import FEATURES

TAIL = bytes.fromhex("24112233445566778899aabb")
# Each kind of operand, and every value of the reg field.
SOME_MODRM = [0x00, 0x0C, 0x15, 0x54, 0x5D, 0x94, 0xA5, 0xC0, 0xC9, 0xD2, 0xDB, 0xE4, 0xED, 0xF6, 0xFF, 0x3C]


def _vex():
    for opcode_map, opcode, pp, w, length in itertools.product((1, 2, 3), range(256), range(4), (0, 1), (0, 1)):
        for modrm in range(256) if (w, length) == (0, 0) else SOME_MODRM:
            for vvvv in (15, 9):
                yield bytes([0xC4, 0xE0 | opcode_map, w << 7 | vvvv << 3 | length << 2 | pp, opcode, modrm]) + TAIL


def _evex():
    for opcode_map, opcode, pp, w in itertools.product((1, 2, 3, 5, 6), range(256), range(4), (0, 1)):
        for third in (0x08, 0x28, 0x48, 0x68, 0x09, 0x89, 0xC9, 0x88, 0x18, 0x38, 0x58, 0x78, 0x59, 0xD9):
            for modrm in range(256) if third in (0x08, 0x49) and w == pp & 1 else SOME_MODRM:
                for vvvv in (15, 9):
                    head = [0x62, 0xF0 | opcode_map, w << 7 | vvvv << 3 | 4 | pp, third, opcode, modrm]
                    yield bytes(head) + TAIL


def _two_byte_vex():
    for opcode, pp, length, modrm, vvvv in itertools.product(range(256), range(4), (0, 1), SOME_MODRM, (15, 9)):
        yield bytes([0xC5, 0x80 | vvvv << 3 | length << 2 | pp, opcode, modrm]) + TAIL


COMPLEX = ("vfmulc", "vfcmulc", "vfmaddc", "vfcmaddc")
ENCODINGS = {"two-byte VEX": _two_byte_vex, "VEX": _vex, "EVEX": _evex}


def half(insn) -> bool:
    return CpuidFeature.AVX512_FP16 in insn.cpuid_features()


class Judge:
    def __init__(self) -> None:
        self.infos: dict[int, OpCodeInfo] = {}
        self.flags: dict[tuple[int, int], str] = {}

    def info(self, insn) -> OpCodeInfo:
        if insn.code not in self.infos:
            self.infos[insn.code] = OpCodeInfo(insn.code)
        return self.infos[insn.code]

    def offered(self, insn) -> bool:
        return insn.code != Code.INVALID and set(insn.cpuid_features()) <= FEATURES

    def excused(self, insn, data: bytes) -> bool:
        """An instruction that iced knows may be refused beside a W that 64-bit mode would read as a general register
        of 64 bits, and when EVEX asks for zeroing without a mask."""
        info = self.info(insn)
        wide = data[0] != 0xC5 and bool(data[2] & 0x80) and info.is_wig32
        lengths = MNEMONICS[insn.mnemonic] in ("vpcmpestrm", "vpcmpestri")  # in eax and edx
        return wide and (lengths or any(word in info.instruction_string for word in ("r32", "/m32", "reg")))

    def faults(self, data: bytes, length: int) -> bool:
        """What iced calls invalid and we leave to the processor, which faults (test_processor.py draws them): a gather
        whose registers are not three, a complex product in a factor's place, and zeroing on a store.  The length must be
        right all the same."""
        insn = Iced(32, data, DecoderOptions.NO_INVALID_CHECK).decode()
        apart = MNEMONICS[insn.mnemonic].startswith(("vgather", "vpgather", "vscatter", "vpscatter", *COMPLEX))
        zeroing = data[0] == 0x62 and bool(data[3] & 0x80) and data[5] < 0xC0
        return self.offered(insn) and insn.len == length and (apart or zeroing)

    def wrong(self, row, insn) -> str:
        """Anything but a name and flags that fit."""
        key = (id(row), insn.code)
        if key not in self.flags:
            self.flags[key] = self._wrong(row, insn)
        return self.flags[key]

    def _wrong(self, row, insn) -> str:
        writes = sum(bit for theirs, bit in FLAGS.items() if insn.rflags_modified & theirs)
        mnemonic = MNEMONICS[insn.mnemonic]
        if row.writes & ~writes:
            return f"is said to write {row.writes & ~writes:#x}"
        if insn.rflags_read:
            return "reads flags unsaid"
        return "" if any(word in row.name for word in FAMILY) or named(row.name, mnemonic) else f"named {row.name}"


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_vectors(encoding):
    """Threats 1 and 4: a length, an operand or a name of our own would let other instructions run than the ones
    looked at; a refusal of our own would be a hole in what a guest is promised."""
    ours, judge = Decoder(), Judge()
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
    problems: set[tuple] = set()
    counts = dict.fromkeys(("taken", "refused", "excused", "left to the processor", "unknown to capstone",
                            "half precision, of which capstone knows nothing"), 0)
    for data in ENCODINGS[encoding]():
        result, length, number, _ = ours.decode(data)
        assert result != SHORT
        insn = Iced(32, data).decode()
        if result != OK:
            counts["refused"] += 1
            if judge.offered(insn):
                counts["excused"] += 1
                if not judge.excused(insn, data):
                    problems.add((str(judge.info(insn).op_code_string), "refused", data[:6].hex()))
            continue
        counts["taken"] += 1
        row = table()[number]
        if not judge.offered(insn):
            counts["left to the processor"] += 1
            if not judge.faults(data, length):
                problems.add((row.name, "unknown to iced", data[:6].hex()))
        elif insn.len != length:
            problems.add((row.name, f"length {length}, iced {insn.len}", data[:6].hex()))
        elif wrong := judge.wrong(row, insn):
            problems.add((row.name, MNEMONICS[insn.mnemonic], wrong))
        theirs = next((size for _, size, _, _ in disassembler.disasm_lite(data[:15], 0, 1)), None)
        if half(insn):
            counts["half precision, of which capstone knows nothing"] += 1
            continue
        counts["unknown to capstone"] += theirs is None
        if theirs not in (None, length):
            problems.add((row.name, f"length {length}, capstone {theirs}", data[:6].hex()))
    print(f"\n{encoding}: {counts}")
    assert not problems, f"{len(problems)}: {sorted(problems)[:40]}"
    assert counts["taken"] > 5_000 and counts["unknown to capstone"] < counts["taken"] / 10


def test_no_wide_general_register():
    """In 64-bit mode, where the code runs, W makes a general register 64 bits wide."""
    wide = [row.name for row in table() if row.form & FORM_GENERAL and row.map > 3 and row.w != 1]
    assert not wide


def test_rounding_belongs_to_registers():
    """EVEX.b on a register form without rounding is reserved: processors differ."""
    ours = Decoder()
    for row in table():
        if row.map >= 7 and not row.form & FORM_ROUND and row.rm & 1 and row.w != 4:
            pp = next(p for p in range(4) if row.prefixes >> p & 1)
            head = [0x62, 0xF1 + row.map - 7, (row.w == 2) << 7 | 0x7C | pp, 0x59, row.first, 0xC0]
            assert ours.decode(bytes(head) + TAIL)[0] != OK, row.name


def test_the_fifth_bit_of_vvvv():
    """EVEX.V': in 32-bit mode Intel's processors fault when it names the upper registers, AMD's do not look at it.  A guest
    that depended on the host's maker could not be tested by its author."""
    ours = Decoder()
    for third, known in ((0x48, True), (0x40, False), (0x4F, True), (0x47, False)):
        for second in (0x7C, 0x74):  # vmovaps has no vvvv, vaddps has one
            data = bytes([0x62, 0xF1, second, third, 0x58 if second == 0x74 else 0x28, 0xC1]) + TAIL
            assert (ours.decode(data)[0] == OK) == known, data.hex()


def test_other_maps_are_refused():
    """Threat 5: what a map beyond the known ones holds would run as an instruction of one that the table knows."""
    ours = Decoder()
    opcodes = itertools.product(range(256), range(4), (0x00, 0xC1))
    for opcode, pp, modrm in opcodes:
        for other in (0, *range(4, 32)):
            assert ours.decode(bytes([0xC4, 0xE0 | other, 0x78 | pp, opcode, modrm]) + TAIL)[0] != OK, (other, opcode)
        for other in (0, 4, *range(7, 16)):
            assert ours.decode(bytes([0x62, 0xF0 | other, 0x7C | pp, 0x48, opcode, modrm]) + TAIL)[0] != OK, (other, opcode)
