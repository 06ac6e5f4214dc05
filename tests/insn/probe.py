"""The core's decoder, table and translator through ctypes, for tests; built with the C compiler."""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_int32, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
BASE = 0x10000
OK, INVALID, SHORT = 0, 1, 2
GATES = 5  # GATE_COUNT of cache.h
# vx_rule of decode.h, in order.
RULES = (
    "copy copy_as vector short_inc push_reg push_imm push_rm pop_reg pop_rm pushf popf leave lea moffs xlat maskmov "
    "bit_string string fnstenv nop pause jcc loop jmp_rel jmp_ind call_rel call_ind ret int3 int helper refuse"
).split()
REFUSALS = ("segment register", "port", "far transfer", "system", "undefined by definition",
            "16-bit branch: lands where nothing is mapped", "not offered by cpuid")
# vx_op.form of decode.h.
FORM_GENERAL, FORM_VSIB, FORM_ROUND = 1 | 4 | 256, 512, 2048


class _Op(Structure):
    _fields_ = [
        *((name, c_uint8) for name in ("map", "first", "last", "prefixes", "ext", "rm")), ("form", c_uint16),
        *((name, c_uint8) for name in ("imm", "w", "l")),
        ("reads", c_uint16), ("writes", c_uint16),
        *((name, c_uint8) for name in ("rule", "arg", "needs", "modes")),
        ("name", c_char_p),
    ]


class _Insn(Structure):
    _fields_ = [("row", c_int32), *((name, c_uint8) for name in ("length", "is_mem", "imm_size", "result"))]


class Block(Structure):
    """vx_block of cache.h."""

    _fields_ = [
        *((name, c_uint32) for name in ("eip", "start", "end", "first_mark")),
        ("marks", c_uint16), ("guest_size", c_uint16),
    ]


@dataclass(frozen=True)
class Row:
    """One row of opcodes.def."""

    map: int
    first: int
    last: int
    prefixes: int
    ext: int
    rm: int
    form: int
    w: int
    l: int
    reads: int
    writes: int
    rule: str
    arg: int
    name: str


def compile_c(sources: list[str | Path], output: Path, *flags: str) -> None:
    """Build C for the tests.  Raises CalledProcessError with the compiler's words on stderr."""
    command = [os.environ.get("CC", "gcc"), "-std=gnu11", "-O3", "-g", "-Wall", "-Wextra", "-D_GNU_SOURCE"]
    subprocess.run([*command, *flags, *map(str, sources), "-o", str(output)], check=True)


def core_sources() -> list[Path]:
    core = ROOT / "csrc" / "core"
    return sorted([*core.glob("*.c"), *core.glob("*.S")])


def compile_with_core(sources: list[Path], output: Path, *flags: str, core: list[Path] | None = None) -> None:
    """Build C for the tests together with the core, which has the sanitizers of the extension module then."""
    checks = os.environ.get("VXPLUG_SANITIZE")
    sanitized = [f"-fsanitize={checks}", "-fno-omit-frame-pointer"] if checks else []
    compile_c([*sources, *(core or core_sources())], output, *flags, *sanitized, "-pthread", f"-I{ROOT / 'csrc'}",
              f"-I{ROOT / 'sdk/include'}")


@cache
def library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.so"
        # as the extension module is built: calls within the core go through no table, which is a twentieth of its speed
        compile_with_core([ROOT / "tests/insn/probe.c"], path, "-shared", "-fPIC", "-fvisibility=hidden")
        lib = ctypes.CDLL(str(path))
    lib.probe_open.restype = lib.probe_code.restype = c_void_p
    lib.probe_table.restype = POINTER(_Op)
    lib.probe_block.restype = POINTER(Block)
    lib.probe_decode.argtypes = [c_char_p, c_uint32, POINTER(_Insn)]
    lib.probe_accepts.argtypes = [c_char_p]
    lib.probe_accepts.restype = c_uint32
    lib.probe_open.argtypes = [c_char_p, c_uint32]
    lib.probe_close.argtypes = lib.probe_count.argtypes = lib.probe_code.argtypes = lib.probe_used.argtypes = [c_void_p]
    lib.probe_used.restype = c_uint64
    for name in ("probe_translate", "probe_block", "probe_gate", "probe_verify"):
        getattr(lib, name).argtypes = [c_void_p, c_uint32]
    lib.probe_flip.argtypes = [c_void_p, c_uint32, POINTER(c_uint8)]
    lib.probe_times.argtypes = [c_void_p, POINTER(c_uint64), POINTER(c_uint64)]
    lib.probe_translate.restype = lib.probe_verify.restype = c_int
    lib.probe_count.restype = lib.probe_gate.restype = lib.probe_flip.restype = c_uint32
    return lib


def accepted(code: bytes) -> int:
    """Length of the instruction, if the verifier lets it stand alone, else 0."""
    return library().probe_accepts(code.ljust(24, b"\0"))


@cache
def table() -> tuple[Row, ...]:
    count = c_uint32()
    ops = library().probe_table(byref(count))
    return tuple(
        Row(op.map, op.first, op.last, op.prefixes, op.ext, op.rm, op.form, op.w, op.l, op.reads, op.writes, RULES[op.rule], op.arg,
            op.name.decode())
        for op in ops[: count.value]
    )


class Decoder:
    """One reusable result: ``decode(bytes)`` gives (result, length, row number, has a memory operand)."""

    def __init__(self) -> None:
        self._insn = _Insn()
        self._call = library().probe_decode

    def decode(self, data: bytes) -> tuple[int, int, int, bool]:
        insn = self._insn
        self._call(data, len(data), insn)
        return insn.result, insn.length, insn.row, bool(insn.is_mem)


class Probe:
    """A piece of guest code at ``BASE`` and the blocks translated from it."""

    def __init__(self, code: bytes) -> None:
        self._lib = library()
        self._probe = self._lib.probe_open(code, len(code))
        if not self._probe:
            raise MemoryError("probe")

    def close(self) -> None:
        self._lib.probe_close(self._probe)

    def translate(self, eip: int) -> int:
        return self._lib.probe_translate(self._probe, eip)

    def __len__(self) -> int:
        return self._lib.probe_count(self._probe)

    def used(self) -> int:
        """Bytes of translated code, what lies between blocks included."""
        return self._lib.probe_used(self._probe)

    def block(self, number: int) -> Block:
        return self._lib.probe_block(self._probe, number).contents

    def bytes_of(self, block: Block) -> bytes:
        return ctypes.string_at(self._lib.probe_code(self._probe) + block.start, block.end - block.start)

    def forge(self, block: Block, code: bytes) -> None:
        """Other bytes in the place of the block's own."""
        assert len(code) == block.end - block.start
        ctypes.memmove(self._lib.probe_code(self._probe) + block.start, code, len(code))

    def address(self) -> int:
        """Where the cache's code lies, gates first."""
        return self._lib.probe_code(self._probe)

    def gates(self) -> set[int]:
        return {self._lib.probe_gate(self._probe, gate) for gate in range(GATES)}

    def verify(self, number: int) -> bool:
        return bool(self._lib.probe_verify(self._probe, number))

    def flip(self, number: int) -> bytes:
        """One byte a bit of the block: 1 where the verifier accepted the block with that bit flipped."""
        block = self.block(number)
        accepted = (c_uint8 * (8 * (block.end - block.start)))()
        self._lib.probe_flip(self._probe, number, accepted)
        return bytes(accepted)

    def times(self) -> tuple[int, int]:
        translating, verifying = c_uint64(), c_uint64()
        self._lib.probe_times(self._probe, byref(translating), byref(verifying))
        return translating.value, verifying.value
