"""What the verifier takes for granted of 64-bit registers, on the processor (upper.c) and in the gates."""

from __future__ import annotations

import ctypes
import subprocess

from iced_x86 import Decoder as Iced
from iced_x86 import FlowControl, InstructionInfoFactory, OpAccess, OpKind, Register, RegisterExt

from .probe import BASE, OK, ROOT, Probe, compile_c
from .test_verifier import WIDE_GUESTS

CLEAN = (0, 1, 2, 3, 5, 6, 7, 8, 13)
NOBODYS = (4, 11, 12, 14, 15)


def test_no_instruction_fills_an_upper_half(tmp_path, capsys):
    """Threat 2: memory is named by 64 bits of a register where the address size is left out.  Were there an instruction
    that the verifier accepts and that writes the upper half, its operands would be anywhere in the host's memory."""
    program = tmp_path / "upper"
    compile_c([ROOT / "tests/insn/upper.c", ROOT / "csrc/core/verify_insn.c"], program, f"-I{ROOT / 'csrc'}", "-pthread")
    done = subprocess.run([program], stdout=subprocess.PIPE, text=True, timeout=120)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert (done.returncode, [line for line in lines if line[0] == "bad"]) == (0, [])
    kinds = [(int(taken), int(ran)) for kind, taken, ran in lines if kind == "kind"]
    with capsys.disabled():
        print(f"\ninstructions accepted, and run without a fault: {kinds}")
    legacy, vex, _ = kinds
    assert legacy[0] > 250_000 and legacy[1] > 0.97 * legacy[0] and vex[0] > 50_000
    changes = {int(register): int(count) for kind, register, count in lines if kind == "register"}
    assert all(changes[register] > 5000 for register in CLEAN) and not any(changes[register] for register in NOBODYS)


def _gate(probe: Probe, offset: int) -> list:
    """The core's instructions behind a gate, to where they jump through a register."""
    start = probe.address() + offset
    (jump,) = Iced(64, ctypes.string_at(start, 6), ip=start)
    code = ctypes.c_uint64.from_address(jump.ip_rel_memory_address).value
    found = []
    for insn in Iced(64, ctypes.string_at(code, 128), ip=code):
        found.append(insn)
        if insn.flow_control == FlowControl.INDIRECT_BRANCH:
            break
    return found


def test_no_gate_fills_an_upper_half():
    """The same of the gates that go back to guests: blocks may jump there with anything in r9 and r10, and one moved r9
    to rcx."""
    probe, factory = Probe(b"\xcc" + bytes(16)), InstructionInfoFactory()
    assert probe.translate(BASE) == OK
    gates = [_gate(probe, offset) for offset in probe.gates()]
    back = [code for code in gates if code[-1].op0_register == Register.R9]
    written = {
        used.register
        for code in back for insn in code for used in factory.info(insn).used_registers()
        if used.access not in (OpAccess.READ, OpAccess.NONE) and insn.op0_kind == OpKind.REGISTER
        and RegisterExt.size(insn.op0_register) == 8
    }
    probe.close()
    assert len(back) == 2 and Register.R9 in written and not written & (WIDE_GUESTS | {Register.R8})
