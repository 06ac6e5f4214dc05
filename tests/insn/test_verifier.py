"""The verifier can refuse: every bit of many blocks flipped, each survivor judged by another decoder."""

from __future__ import annotations

import itertools
import os
import random
from bisect import bisect_right

import pytest
from elftools.elf.elffile import ELFFile
from iced_x86 import Decoder as Iced
from iced_x86 import DecoderOptions, FlowControl, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register, RegisterExt

from .probe import BASE, OK, ROOT, Decoder, Probe, accepted
from .vectors import encoding

BLOCKS = int(os.environ.get("VXPLUG_BLOCKS", "1000"))
FORBIDDEN = {
    getattr(Mnemonic, name)
    for name in "SYSCALL SYSENTER SYSEXIT SYSRET INT INT1 INT3 IRET IRETD IRETQ HLT IN OUT CLI STI SGDT SIDT SLDT STR "
    "SMSW LAR LSL VERR VERW RDTSC RDTSCP RDPMC RDMSR WRMSR XGETBV XSETBV WRPKRU RDPKRU WRGSBASE WRFSBASE RDGSBASE "
    "RDFSBASE SWAPGS CPUID XSAVE XRSTOR FXSAVE FXRSTOR FXSAVE64 FXRSTOR64 CLFLUSH ENTER LEAVE INVALID UD2 XLATB".split()
}
# mov r9d, [r15 + r8 * 4]; lea r9, [r14 + r9]: what stands before every indirect branch
LOOKUP = bytes.fromhex("478b0c874f8d0c0e")
OWN_STACK = {Register.RSP, Register.R11, Register.R12, Register.R14, Register.R15}
STACK_MNEMONICS = {Mnemonic.PUSH, Mnemonic.POP, Mnemonic.PUSHFQ, Mnemonic.POPFQ, Mnemonic.CALL, Mnemonic.RET}
STRINGS = {
    getattr(Mnemonic, name + size)
    for name in ("MOVS", "CMPS", "STOS", "LODS", "SCAS")
    for size in "BWD"
}
WIDE_GUESTS = {Register.RAX, Register.RCX, Register.RDX, Register.RBX, Register.RBP, Register.RSI, Register.RDI,
               Register.R13}


@pytest.fixture(scope="module")
def probe(build_plugin):
    """Blocks at every third byte of real code, so that odd decodings occur beside ordinary ones."""
    with build_plugin(ROOT / "tests/attack/guests.c").open("rb") as file:
        text = ELFFile(file).get_section_by_name(".text").data()
    probe = Probe(text)
    for offset in range(0, len(text), 3):
        probe.translate(BASE + offset)
        if len(probe) >= BLOCKS:
            break
    for number in random.Random(1).sample(range(len(text)), 2000):
        probe.translate(BASE + number)
    yield probe
    probe.close()


@pytest.fixture(scope="module")
def vector_probe():
    """Blocks of VEX and EVEX instructions, each drawn on its own, a 16th through gs."""
    choice, ours, text = random.Random(2), Decoder(), bytearray()
    while len(text) < 80 * BLOCKS + 4000:
        insn = choice.choice([b""] * 15 + [b"\x65"]) + encoding(choice)
        result, length, _, _ = ours.decode(insn)
        if result == OK:
            text += insn[:length]
    probe = Probe(bytes(text))
    at = BASE
    while at < BASE + len(text) - 1000 and len(probe) < BLOCKS // 10:
        assert probe.translate(at) == OK
        at += probe.block(len(probe) - 1).guest_size
    yield probe
    probe.close()


STATE = (1 << 32) - 0x110e40  # where state.h has it, 32 bits of the displacement


class Judge:
    """A second opinion on one instruction: what is wrong with it, or an empty string."""

    def __init__(self, targets: set[int]) -> None:
        self.factory = InstructionInfoFactory()
        self.targets = targets

    def memory(self, insn, raw: bytes) -> str:
        if insn.mnemonic in (Mnemonic.LEA, Mnemonic.NOP) or insn.mnemonic in STRINGS:
            return ""
        if not any(insn.op_kind(i) == OpKind.MEMORY for i in range(insn.op_count)):
            return ""
        base, index = insn.memory_base, insn.memory_index
        if raw == LOOKUP[:4]:
            return ""
        if insn.flow_control in (FlowControl.INDIRECT_BRANCH, FlowControl.INDIRECT_CALL):
            return "branches through memory"
        if insn.memory_segment != Register.GS:
            return "memory without gs"
        if base == index == Register.NONE and insn.memory_displacement >> 31:
            slots = {STATE + 0x40, STATE + 0x68}
            slot = insn.memory_displacement & 0xFFFFFFFF in slots
            return "" if slot or b"\x67" in raw[:4] else "a slot nobody has"
        if base == index == Register.NONE and b"\x67" not in raw[:5]:
            return "no 32-bit address size"
        lanes = insn.is_vsib and RegisterExt.is_vector_register(index)
        wide = any(r != Register.NONE and RegisterExt.size(r) != 4 for r in ((base,) if lanes else (base, index)))
        if wide and not self.near(insn):
            return "64-bit address"
        return "an address of the host's" if base in (Register.ESP, Register.EIP) else ""

    def near(self, insn) -> bool:
        """A register that is nobody's 64-bit scratch, and a displacement within the guards."""
        displacement = (insn.memory_displacement ^ 1 << 63) - (1 << 63)
        clean = insn.memory_base in WIDE_GUESTS | {Register.R8} and insn.memory_index == Register.NONE
        return clean and -0x10000 <= displacement < 0x10000

    def registers(self, insn) -> str:
        if insn.mnemonic in (Mnemonic.VZEROALL, Mnemonic.VZEROUPPER):
            return ""  # they clear registers 8 to 15 as well, which are nobody's
        for used in self.factory.info(insn).used_registers():
            if RegisterExt.is_vector_register(used.register) and RegisterExt.number(used.register) > 7:
                return "names a vector register that no guest has"
            if used.access in (OpAccess.READ, OpAccess.COND_READ, OpAccess.NONE):
                continue
            full = RegisterExt.full_register(used.register)
            if full in OWN_STACK and insn.mnemonic not in STACK_MNEMONICS:
                return "writes a register of the host"
            if used.register in WIDE_GUESTS and insn.mnemonic not in STRINGS | {Mnemonic.LEA, Mnemonic.JRCXZ}:
                implicit = RegisterExt.size(used.register) == 8 and insn.op0_kind == OpKind.REGISTER
                if implicit and RegisterExt.size(insn.op0_register) == 8:
                    return "writes 64 bits of a guest register"
            if RegisterExt.is_segment_register(used.register):
                return "writes a segment register"
        return ""

    def flow(self, insn, before: bytes) -> str:
        if insn.flow_control in (FlowControl.INDIRECT_BRANCH, FlowControl.INDIRECT_CALL):
            return "" if insn.op0_register == Register.R9 and before == LOOKUP else "branches anywhere"
        if insn.flow_control in (FlowControl.UNCONDITIONAL_BRANCH, FlowControl.CONDITIONAL_BRANCH, FlowControl.CALL):
            return "" if insn.near_branch_target in self.targets else "branches nowhere known"
        return ""

    def problem(self, insn, raw: bytes, before: bytes) -> str:
        if _undefined_x87(raw):
            return ""  # to every processor two bytes that fault; test_decoder.py lists them
        if insn.mnemonic in FORBIDDEN or insn.is_privileged:
            return "forbidden"
        return self.memory(insn, raw) or self.registers(insn) or self.flow(insn, before)


def _undefined_x87(raw: bytes) -> bool:
    bare = raw[raw[:1] >= b"\x40" and raw[:1] < b"\x48" :]  # REX names no register there
    return len(bare) == 2 and 0xD9 <= bare[0] <= 0xDF and bare[1] >= 0xC0 and Iced(64, bare).decode().code == 0


def _confined_by(raw: bytes) -> int:
    """How many bytes of prefixes: gs, and the address size."""
    return (raw[:1] == b"\x65") + (raw[:2] == b"\x65\x67")


def _neighbours(raw: bytes):
    """The same vector instruction with another W, length, mask, or without a broadcast."""
    at = _confined_by(raw)
    yield raw
    for w, length, mask in itertools.product((0, 0x80), range(3), (0, 1)):
        changed = bytearray(raw)
        if raw[at] == 0x62:
            changed[at + 2] = changed[at + 2] & 0x7F | w
            changed[at + 3] = changed[at + 3] & 0x08 | length << 5 | mask
        elif raw[at] == 0xC4:
            changed[at + 2] = changed[at + 2] & 0x7B | w | (length & 1) << 2
        else:
            changed[at + 1] = changed[at + 1] & 0xFB | (length & 1) << 2
        yield bytes(changed)


def _decode(code: bytes, start: int, ip: int):
    """An encoding that only W, the vector length, the masks or a gather's equal registers make undefined is judged
    as its neighbour: the processor faults, or ignores those bits."""
    x87 = next((size for size in (2, 3) if _undefined_x87(code[start : start + size])), 15)
    raw = code[start : start + x87]
    insn = Iced(64, raw, ip=ip + start).decode()
    kind = raw[_confined_by(raw) :][:1]
    if insn.code != 0 or len(raw) < 6 or kind not in (b"\x62", b"\xc4", b"\xc5"):
        return insn
    found = (Iced(64, other, DecoderOptions.NO_INVALID_CHECK, ip=ip + start).decode() for other in _neighbours(raw))
    return next((other for other in found if other.code != 0), insn)


def _judge_mutant(judge: Judge, code: bytes, boundaries: list[int], bit: int, ip: int) -> str:
    """The instructions from the flipped one to where the reading falls into step again."""
    at = boundaries[bisect_right(boundaries, bit // 8) - 1]
    known = set(boundaries)
    while True:
        insn = _decode(code, at, ip)
        problem = judge.problem(insn, code[at : at + insn.len], code[at - len(LOOKUP) : at])
        at += max(insn.len, 1)
        if problem or at >= len(code) or (at in known and at > bit // 8):
            return problem and f"{insn}: {problem}"


def _boundaries(code: bytes, ip: int) -> list[int]:
    found, at = [], 0
    while at < len(code):
        found.append(at)
        at += _decode(code, at, ip).len
    return found


@pytest.mark.parametrize("which", ["probe", "vector_probe"])
def test_every_flipped_bit_is_refused_or_harmless(which, request, capsys):
    """Without it the verifier could accept everything.  A mutant it accepts must be one that an
    independent decoder finds confined too: another register, constant or displacement."""
    probe = request.getfixturevalue(which)
    blocks = min(BLOCKS, len(probe))
    bodies = {probe.block(i).start for i in range(len(probe))} | probe.gates()
    refused = accepted = 0
    problems: list[str] = []
    for number in range(blocks):
        block = probe.block(number)
        code = bytearray(probe.bytes_of(block))
        boundaries = _boundaries(bytes(code), block.start)
        judge = Judge(bodies | {block.start + at for at in boundaries})
        for bit, ok in enumerate(probe.flip(number)):
            if not ok:
                refused += 1
                continue
            accepted += 1
            code[bit // 8] ^= 1 << bit % 8
            problem = _judge_mutant(judge, bytes(code), boundaries, bit, block.start)
            code[bit // 8] ^= 1 << bit % 8
            if problem:
                problems.append(f"block {number} bit {bit}: {problem}")
    with capsys.disabled():
        print(f"\n{blocks} blocks, {refused + accepted} mutants: {refused} refused, {accepted} accepted and confined")
    assert not problems, f"{len(problems)}: {problems[:20]}"
    assert refused > accepted / 4 > 0


@pytest.mark.parametrize("which", ["probe", "vector_probe"])
def test_translated_blocks_verify(which, request):
    """The other direction: the translator's own output is accepted, and the judge agrees with it."""
    probe = request.getfixturevalue(which)
    bodies = {probe.block(i).start for i in range(len(probe))} | probe.gates()
    for number in range(len(probe)):
        block = probe.block(number)
        code = probe.bytes_of(block)
        boundaries = _boundaries(code, block.start)
        judge = Judge(bodies | {block.start + at for at in boundaries})
        assert probe.verify(number)
        for at in boundaries:
            insn = _decode(code, at, block.start)
            assert judge.problem(insn, code[at : at + insn.len], code[at - len(LOOKUP) : at]) == "", str(insn)


@pytest.mark.parametrize("seed", range(4))
def test_random_bytes_translate_and_verify(seed):
    """Threats 1, 2, 6: whatever the bytes say, the block is one the verifier knows."""
    probe = Probe(random.Random(seed).randbytes(40_000))
    results = {probe.translate(BASE + offset) for offset in range(0, 40_000, 5)}
    probe.close()
    assert results == {OK}


def _heads():
    """What comes before ModRM: mov, movups, vmovups in both forms, vpgatherdd in both; each with every register bit."""
    for rex in [b"", *(bytes([n]) for n in range(0x40, 0x50))]:
        yield rex + b"\x8b"
        yield rex + b"\x0f\x10"
    for bits in range(0, 0x100, 0x20):
        yield bytes([0xC4, bits | 1, 0x78, 0x10])
        yield bytes([0xC4, bits | 2, 0x61, 0x90])
        for high in (0, 8):
            yield bytes([0x62, bits | 0x11, 0x7C, 0x40 | high, 0x10])
            yield bytes([0x62, bits | 0x12, 0x7D, 0x41 | high, 0x90])


def _addresses():
    """ModRM with register 1, SIB and displacement."""
    edges = [edge + n for edge in (0, 0x80, 0x10000, -0x80, -0x10000) for n in (-1, 0)] + [2**31 - 1, -(2**31)]
    words = [edge.to_bytes(4, "little", signed=True) for edge in edges]
    for mod, rm in itertools.product((0, 0x40, 0x80), range(8)):
        for sib in [bytes([n]) for n in range(256)] if rm == 4 else [b""]:
            bare = mod == 0 and rm != 5 and not (sib and sib[0] & 7 == 5)
            for displacement in [bytes(4)] if bare else words:
                yield bytes([mod | 8 | rm]) + sib + displacement


def test_every_form_of_address_is_refused_or_confined():
    """Without it a form that no block has, and that is no bit away from one, could name the host's memory: as the fourth
    vector as an index did without the address size."""
    judge, problems, near, far = Judge(set()), [], 0, 0
    addresses = [*_addresses()]
    for size, head in itertools.product((b"\x65", b"\x65\x67", b"\x67", b""), _heads()):
        for address in addresses:
            code = size + head + address
            length = accepted(code)
            if length == 0:
                continue
            insn = _decode(code, 0, 0)
            near, far = near + (size == b"\x65"), far + (size == b"\x65\x67")
            problem = judge.memory(insn, code) if insn.len == length else "another length"
            if problem:
                problems.append(f"{code.hex()} {insn}: {problem}")
    assert not problems, f"{len(problems)}: {problems[:20]}"
    assert far > near > 1000


# Guest code; in what is emitted for it, bytes and what takes their place.
FORGERIES = {
    "rdi is not cut back": ("aacc", "89ff", "6690"),  # stosb; mov edi, edi becomes a nop
    "rsi is not cut back": ("accc", "89f6", "6690"),  # lodsb
    "popf takes every flag": ("9dcc", "4181e0d50c2000", "4181e0ffffffff"),
    "popf fixes no flag": ("9dcc", "4181c802020000", "4181c802020100"),
    "an exit without its reason": ("cc", "41b9", "41b8"),
    "nothing ends the block": ("cc", "e9", "b8"),
    # vpgatherdd xmm0, [eax + xmm4], xmm1: lanes reach 2 GiB both ways; clc where a byte is left
    "lanes without the address size": ("c4e271900420cc", "6567c4e271900420", "65c4e271900420f8"),
    "lanes without the address size, with EVEX": ("62f27d09900c20cc", "656762f27d09900c20", "6562f27d09900c20f8"),
    "an index without the address size": ("8b0408cc", "65678b0408", "658b0408f8"),  # mov eax, [eax + ecx]
    "an address of 32 bits without the address size": ("a1000000f0cc", "65678b0425000000f0", "658b0425000000f0f8"),
    **{
        f"it has {name}": ("89c8cc", "89c8", code)  # mov eax, ecx
        for name, code in {
            "syscall": "0f05", "sysenter": "0f34", "int 0x80": "cd80", "rdtsc": "0f31", "cpuid": "0fa2", "ud2": "0f0b",
            "hlt": "f490", "cli": "fa90", "in": "ec90", "rdmsr": "0f32", "wrmsr": "0f30", "invd": "0f08", "push": "5090",
            "pop": "5890", "popfq": "9d90", "retf": "cb90", "iret": "cf90", "leave": "c990", "xlat": "d790",
            "movs": "a490", "stos": "aa90", "mov rsp, rax": "89c4", "jmp rax": "ffe0", "call rax": "ffd0", "jmp short": "eb00",
        }.items()
    },
}


@pytest.mark.parametrize("what", FORGERIES)
def test_forged_blocks_are_refused(what):
    """Rules that no single bit breaks: without it the verifier could accept the sequence without its point."""
    guest, old, new = (bytes.fromhex(part) for part in FORGERIES[what])
    probe = Probe(guest + bytes(16))
    assert probe.translate(BASE) == OK and probe.verify(0)
    block = probe.block(0)
    code = probe.bytes_of(block)
    assert old in code
    at = code.rindex(old)
    probe.forge(block, code[:at] + new + code[at + len(old) :])
    assert not probe.verify(0)
    probe.forge(block, code)
    assert probe.verify(0)
    probe.close()
