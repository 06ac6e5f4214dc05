"""The guest's call stack at its end, from registers and a copy of the stack's memory.

Both are the guest's, so they may lie; a lie costs a wrong name in a traceback and nothing else.  Every
step must move up the stack, and steps are counted.  A frame is left by its call frame information
(DWARF 5 section 6.4) or, where there is none, by its frame pointer.  Nothing is guessed from what looks
like a return address: a trace that stops is better than one that invents callers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

FRAMES_MAX = 64
EXIT_EIP = 0xFFFFF000  # VX_EXIT_EIP of vx_abi.h: who called is the host
# Numbers of the i386 psABI supplement, table 2.14.
EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI, EIP = range(9)
NAMES = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "eip")
_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class Rule:
    """How to leave a frame: the canonical frame address, and where registers were saved below it."""

    register: int
    offset: int
    saved: dict[int, int]


@dataclass(frozen=True)
class Stack:
    """Guest stack bytes from ``base`` up."""

    base: int
    data: bytes

    def word(self, address: int) -> int | None:
        at = address - self.base
        if not 0 <= at <= len(self.data) - 4:
            return None
        return int.from_bytes(self.data[at : at + 4], "little")


Registers = dict[int, "int | None"]


def _by_rule(registers: Registers, stack: Stack, rule: Rule) -> Registers | None:
    start = registers.get(rule.register)
    if start is None:
        return None
    frame = start + rule.offset & _MASK
    caller = {**registers, ECX: None, EAX: None, EDX: None, EIP: None, ESP: frame}
    for register, offset in rule.saved.items():
        caller[register] = stack.word(frame + offset & _MASK)
    return caller


def _by_frame_pointer(registers: Registers, stack: Stack) -> Registers | None:
    ebp = registers.get(EBP)
    if ebp is None or ebp % 4:
        return None
    return {EBP: stack.word(ebp), EIP: stack.word(ebp + 4), ESP: ebp + 8 & _MASK}


def _by_return_address(registers: Registers, stack: Stack) -> Registers | None:
    """Before a return, or out of a jump to nowhere: the return address is on top of the stack."""
    esp = registers.get(ESP)
    return None if esp is None else {**registers, EIP: stack.word(esp), ESP: esp + 4 & _MASK}


def _caller(
    registers: Registers, address: int, stack: Stack, rule_at: Callable[[int], Rule | None], on_top: bool
) -> Registers | None:
    if on_top:
        return _by_return_address(registers, stack)
    rule = rule_at(address)
    return _by_frame_pointer(registers, stack) if rule is None else _by_rule(registers, stack, rule)


def walk(
    registers: dict[str, int],
    stack: Stack,
    rule_at: Callable[[int], Rule | None],
    is_code: Callable[[int], bool],
    returning: bool,
) -> list[int]:
    """Addresses of instructions, innermost first: where the guest stopped, then the calls that are open.

    ``returning``: the instruction there is a ``ret``, as after the system call of a function without a
    frame.
    """
    now: Registers = {number: registers[name] for number, name in enumerate(NAMES)}
    found = [registers["eip"]]
    while len(found) < FRAMES_MAX:
        low = now[ESP]
        caller = _caller(now, found[-1], stack, rule_at, returning or not is_code(found[-1]))
        returning = False
        if caller is None or low is None:
            break
        returns, high = caller.get(EIP), caller.get(ESP)
        if returns is None or returns == EXIT_EIP or not is_code(returns - 1):
            break
        if high is None or high <= low:
            break
        found.append(returns - 1)
        now = caller
    return found
