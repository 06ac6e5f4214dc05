"""The VEX and EVEX instructions the oracle draws from, taken from iced-x86: an opinion of what exists that our
table had no part in.  ``rows()`` is C for tests/insn/forms.c."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from random import Random

from iced_x86 import (
    Code, CpuidFeature, Instruction, MandatoryPrefix, MemorySizeExt, Mnemonic, OpCodeInfo, OpCodeOperandKind,
    OpCodeTableKind, RflagsBits,
)

# What docs/guest-abi.md says a guest may have.
FEATURES = {
    getattr(CpuidFeature, name)
    for name in "AVX AVX2 FMA F16C BMI1 BMI2 AES PCLMULQDQ VAES VPCLMULQDQ GFNI AVX512F AVX512VL AVX512BW AVX512DQ "
    "AVX512CD AVX512_IFMA AVX512_VBMI AVX512_VBMI2 AVX512_VNNI AVX512_BITALG AVX512_VPOPCNTDQ AVX512_BF16 "
    "AVX512_FP16".split()
}
CODES = {value: name for name, value in vars(Code).items() if name.startswith(("VEX_", "EVEX_"))}
KINDS = {value: name for name, value in vars(OpCodeOperandKind).items() if isinstance(value, int)}
MNEMONICS = {value: name.lower() for name, value in vars(Mnemonic).items() if isinstance(value, int)}
MAPS = {OpCodeTableKind.T0F: 1, OpCodeTableKind.T0F38: 2, OpCodeTableKind.T0F3A: 3, OpCodeTableKind.MAP5: 5,
        OpCodeTableKind.MAP6: 6}
PREFIXES = {MandatoryPrefix.NONE: 0, MandatoryPrefix.PNP: 0, MandatoryPrefix.P66: 1, MandatoryPrefix.PF3: 2,
            MandatoryPrefix.PF2: 3}
# Of the test's own letters of flags: layout.h.
FLAGS = {RflagsBits.CF: "c", RflagsBits.PF: "p", RflagsBits.AF: "a", RflagsBits.ZF: "z", RflagsBits.SF: "s",
         RflagsBits.OF: "o"}
ALIGNED = {"vmovaps", "vmovapd", "vmovdqa", "vmovdqa32", "vmovdqa64", "vmovntps", "vmovntpd", "vmovntdq", "vmovntdqa"}
HOOKS = {"vldmxcsr": "MXCSR", "vmaskmovdqu": "MASKMOV"}


def _flags(mask: int) -> str:
    return "".join(letter for bit, letter in FLAGS.items() if mask & bit)


def _attributes(info: OpCodeInfo, kinds: list[str]) -> list[str]:
    found = {
        "VVVV": any("VVVV" in kind for kind in kinds), "VSIB": any("VSIB" in kind for kind in kinds),
        "ROUND": info.can_use_rounding_control or info.can_suppress_all_exceptions,
        "MASK": info.can_use_op_mask_register, "MASKED": info.require_op_mask_register,
        "ZERO": info.can_use_zeroing_masking, "ANY_W": info.is_wig, "ANY_L": info.is_lig,
    }
    return [f"VECTOR_{name}" for name, has in found.items() if has]


def _row(code: int, info: OpCodeInfo) -> str:
    kinds = [KINDS[kind] for kind in info.op_kinds()][: info.op_count]
    name = MNEMONICS[info.mnemonic]
    memory = any("MEM" in kind for kind in kinds)
    register = any(kind.endswith(("_OR_MEM", "_RM")) for kind in kinds) or "SEG_RDI" in kinds
    digit = info.group_index if info.is_group else -1
    size = MemorySizeExt.size(info.memory_size) if memory else 0
    element = MemorySizeExt.size(info.broadcast_memory_size) if info.can_broadcast else 0
    if "VSIB" in str(kinds):
        size = MemorySizeExt.element_size(info.memory_size)
    insn = Instruction()
    insn.code = code
    flags = f"{_flags(insn.rflags_modified)}/{_flags(insn.rflags_undefined)}"
    immediate = any("IMM8" in kind or "IS4" in kind for kind in kinds)
    return (
        f'VECTOR_ROW("{name}", {2 if CODES[code].startswith("EVEX") else 1}, {MAPS[info.table]}, {info.op_code:#04x}, '
        f"{PREFIXES[info.mandatory_prefix]}, {info.w}, {info.l}, {digit}, {int(register)}, {int(memory)}, "
        f"{int(immediate)}, {size}, {element}, {int(name in ALIGNED)}, "
        f"\"/{flags}\", {HOOKS.get(name, 'NONE')}, {' | '.join(_attributes(info, kinds)) or '0'})"
    )


def encoding(choice: Random) -> bytes:
    """A random VEX or EVEX encoding, of an instruction or nearly; the bits that 32-bit mode ignores are as compilers
    write them."""
    code, info = choice.choice(_all_codes())
    pp, vvvv = PREFIXES[info.mandatory_prefix], choice.choice([15, 8 + choice.randrange(8)])
    tail = bytes([choice.choice([info.group_index << 3 if info.is_group else 0, choice.randrange(256)])
                  | choice.choice([0, 0x40, 0x80, 0xC0])]) + choice.randbytes(6)
    second = info.w << 7 | vvvv << 3 | pp
    if CODES[code].startswith("EVEX"):
        third = choice.choice([0, 0x80]) | info.l << 5 | choice.choice([0, 0x10]) | 8 | choice.randrange(8)
        return bytes([0x62, 0xF0 | MAPS[info.table], second | 4, third, info.op_code]) + tail
    return bytes([0xC4, 0xE0 | MAPS[info.table], second | info.l << 2, info.op_code]) + tail


@cache
def _all_codes() -> list[tuple[int, OpCodeInfo]]:
    return list(codes())


def codes() -> Iterator[tuple[int, OpCodeInfo]]:
    for code in CODES:
        info, insn = OpCodeInfo(code), Instruction()
        insn.code = code
        if info.mode32 and set(insn.cpuid_features()) <= FEATURES:
            yield code, info


def rows() -> str:
    return "\n".join(_row(code, info) for code, info in codes()) + "\n"
