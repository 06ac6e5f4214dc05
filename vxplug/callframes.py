"""Call frame information (DWARF 5 section 6.4, and .eh_frame of the Linux Standard Base): how to leave a function.

Written here, and not left to pyelftools, because the bytes are hostile: a general reader keeps a row of all registers for
each address of a function, and copies one whenever a state is remembered.  This one keeps one row, of the registers that
the unwinder follows, and runs a program no further than the address that is asked for.  What is malformed or unknown
raises: no rule is known then.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from .linetable import Reader
from .unwind import EIP, Rule

__all__ = ["WALK_BYTES_MAX", "CallFrames"]

ENTRIES_MAX = 100_000  # of a section: as many take two seconds.  Plugins have hundreds, or some thousands with C++
# Bytes of programs that are run for all frames of one walk up the stack: as many take a tenth of a second.  Of a function
# they are some fifty, of the largest of libm 4,000.
WALK_BYTES_MAX = 1 << 15
STATES_MAX = 16  # remembered at a time: compilers nest one or two
AUGMENTATION_MAX = 8  # letters

# DW_CFA_* of DWARF 5 section 7.24; the first three have an operand in their low bits.
_ADVANCE, _OFFSET, _RESTORE = 0x40, 0x80, 0xC0
_NOP, _GNU_ARGS_SIZE = 0x00, 0x2E
_ADVANCES = {0x02: 1, 0x03: 2, 0x04: 4}  # and the size of their operand
_REMEMBER_STATE, _RESTORE_STATE = 0x0A, 0x0B
_DEF_CFA, _DEF_CFA_REGISTER, _DEF_CFA_OFFSET, _DEF_CFA_EXPRESSION = 0x0C, 0x0D, 0x0E, 0x0F
_DEF_CFA_SF, _DEF_CFA_OFFSET_SF = 0x12, 0x13
_OFFSET_EXTENDED, _RESTORE_EXTENDED, _OFFSET_EXTENDED_SF = 0x05, 0x06, 0x11
# Rules that the unwinder does not follow: undefined, same_value; register, val_offset, val_offset_sf; (val_)expression.
_PLAIN, _NUMBERED, _EXPRESSIONS = (0x07, 0x08), (0x09, 0x14, 0x15), (0x10, 0x16)

# DW_EH_PE_*: the size of a pointer, and what it counts from.
_SIZES = {0x00: 4, 0x02: 2, 0x03: 4, 0x04: 8, 0x0A: 2, 0x0B: 4, 0x0C: 8}
_SIGNED, _BASE, _PC_RELATIVE = 0x08, 0xF0, 0x10
_MASK = 0xFFFFFFFF


class _Common(NamedTuple):
    """What a CIE says for the functions that name it."""

    code: int  # factors of advances and of offsets
    data: int
    encoding: int  # of addresses
    augmented: bool
    program: tuple[int, int]  # where it stands


class _Function(NamedTuple):
    start: int
    size: int
    number: int
    program: tuple[int, int]
    common: _Common


class _Row:
    """The rules at one location."""

    def __init__(self, common: _Common) -> None:
        self._code, self._data = common.code, common.data
        self._location = 0
        self.register: int | None = None  # and offset: of the canonical frame address
        self.offset = 0
        self.saved: dict[int, int] = {}
        self._initial: dict[int, int] = {}
        self._states: list[tuple[int | None, int, dict[int, int]]] = []

    def begin(self, start: int) -> None:
        """The rules so far are those that the functions of a CIE begin with."""
        self._location, self._initial = start, dict(self.saved)

    def run(self, source: Reader, address: int, meter: list[int]) -> None:
        """As far as the rules of the address; ``meter`` has the bytes that may still be run."""
        while source.at < source.end and self._location <= address:
            before = source.at
            source.at += 1
            self._step(source.data[before], source)
            meter[0] -= source.at - before
            if meter[0] < 0:
                raise ValueError("too many bytes of call frame programs")

    def _step(self, opcode: int, source: Reader) -> None:
        operand = opcode & 0x3F
        if opcode >= _RESTORE:
            self._save(operand, self._initial.get(operand))
        elif opcode >= _OFFSET:
            self._save(operand, source.unsigned() * self._data)
        elif opcode >= _ADVANCE:
            self._location += operand * self._code
        elif opcode in _ADVANCES:
            self._location += source.number(_ADVANCES[opcode]) * self._code
        elif opcode in (_REMEMBER_STATE, _RESTORE_STATE):
            self._change_state(opcode)
        elif opcode == _GNU_ARGS_SIZE:  # what is pushed for a call: the frame address counts it already
            source.unsigned()
        elif opcode != _NOP and not self._define_frame(opcode, source):
            self._define_register(opcode, source)

    def _change_state(self, opcode: int) -> None:
        if opcode == _REMEMBER_STATE:
            if len(self._states) == STATES_MAX:
                raise ValueError("too many states are remembered")
            self._states.append((self.register, self.offset, dict(self.saved)))
        else:
            self.register, self.offset, self.saved = self._states.pop()

    def _define_frame(self, opcode: int, source: Reader) -> bool:
        """The canonical frame address; False where the operation is none of those."""
        if opcode in (_DEF_CFA, _DEF_CFA_SF, _DEF_CFA_REGISTER):
            self.register = source.unsigned()
        if opcode in (_DEF_CFA, _DEF_CFA_OFFSET):
            self.offset = source.unsigned()
        elif opcode in (_DEF_CFA_SF, _DEF_CFA_OFFSET_SF):
            self.offset = source.signed() * self._data
        elif opcode == _DEF_CFA_EXPRESSION:
            source.skip(source.unsigned())
            self.register = None
        return opcode in (_DEF_CFA, _DEF_CFA_SF, _DEF_CFA_REGISTER, _DEF_CFA_OFFSET, _DEF_CFA_OFFSET_SF, _DEF_CFA_EXPRESSION)

    def _define_register(self, opcode: int, source: Reader) -> None:
        register, offset = source.unsigned(), None
        if opcode == _OFFSET_EXTENDED:
            offset = source.unsigned() * self._data
        elif opcode == _OFFSET_EXTENDED_SF:
            offset = source.signed() * self._data
        elif opcode == _RESTORE_EXTENDED:
            offset = self._initial.get(register)
        elif opcode in _NUMBERED:
            source.unsigned()
        elif opcode in _EXPRESSIONS:
            source.skip(source.unsigned())
        elif opcode not in _PLAIN:
            raise ValueError(f"call frame operation {opcode:#x}")
        self._save(register, offset)

    def _save(self, register: int, offset: int | None) -> None:
        if offset is None:
            self.saved.pop(register, None)
        elif register <= EIP:
            self.saved[register] = offset


class CallFrames:
    """The functions of a section .eh_frame that is loaded at ``address``, or of .debug_frame."""

    def __init__(self, section: bytes, address: int, eh: bool) -> None:
        self._section, self._address, self._eh = section, address, eh
        self._commons: dict[int, _Common] = {}
        self._functions: list[_Function] = []
        at = 0
        for _ in range(ENTRIES_MAX):
            if at >= len(section):
                break
            at = self._read_entry(at)
        else:
            raise ValueError("too many entries of call frame information")
        self._functions.sort()
        self._starts = [function.start for function in self._functions]

    def rule_at(self, address: int, meter: list[int]) -> Rule | None:
        """``meter``, a list of one: bytes of programs that the walk may still run."""
        at = bisect_right(self._starts, address) - 1
        if at < 0 or address >= self._starts[at] + self._functions[at].size:
            return None
        function = self._functions[at]
        row = _Row(function.common)
        row.run(Reader(self._section, *function.common.program), _MASK, meter)
        row.begin(function.start)
        row.run(Reader(self._section, *function.program), address, meter)
        return None if row.register is None else Rule(row.register, row.offset, row.saved)

    # ---- entries ----

    def _read_entry(self, at: int) -> int:
        """Returns where the next one is."""
        length = Reader(self._section, at, at + 4).number(4)
        end = at + 4 + length
        if end > len(self._section):
            raise ValueError("call frame information ends early")
        if length == 0 and self._eh:  # the end of what one object file brought
            return end
        source = Reader(self._section, at + 4, end)
        name = source.number(4)
        if name == (0 if self._eh else _MASK):
            self._commons[at] = self._read_common(source)
        else:
            # A CIE comes before what names it: whatever looks like one elsewhere is not read time and again.
            self._read_function(source, self._commons[at + 4 - name if self._eh else name])
        return end

    def _read_function(self, source: Reader, common: _Common) -> None:
        start = self._pointer(source, common.encoding)
        size = source.number(_SIZES[common.encoding & 0x0F])
        if common.augmented:
            source.skip(source.unsigned())
        self._functions.append(_Function(start, size, len(self._functions), (source.at, source.end), common))

    def _read_common(self, source: Reader) -> _Common:
        version = source.number(1)
        end = self._section.find(b"\0", source.at, source.at + AUGMENTATION_MAX + 1)
        if version not in (1, 3, 4) or end < 0:
            raise ValueError("call frame information of an unknown kind")
        augmentation = source.take(end + 1 - source.at)[:-1]
        if version == 4:
            source.skip(2)  # sizes of addresses and segment selectors
        code, data = source.unsigned(), source.signed()
        if (source.number(1) if version == 1 else source.unsigned()) != EIP:
            raise ValueError("call frame information without a return address")
        encoding = self._read_augmentation(source, augmentation) if augmentation else 0
        return _Common(code, data, encoding, bool(augmentation), (source.at, source.end))

    def _read_augmentation(self, source: Reader, letters: bytes) -> int:
        """The encoding of addresses."""
        encoding = 0
        if not letters.startswith(b"z"):
            raise ValueError(f"augmentation {letters!r}")
        size = source.unsigned()
        end = source.at + size
        for letter in letters[1:].decode("ascii"):
            if letter == "R":
                encoding = source.number(1)
            elif letter == "P":  # the function that C++ exceptions ask
                source.skip(_SIZES[source.number(1) & 0x0F])
            elif letter == "L":
                source.skip(1)
            elif letter not in "SB":
                raise ValueError(f"augmentation {letters!r}")
        source.at = end
        return encoding

    def _pointer(self, source: Reader, encoding: int) -> int:
        if encoding & _BASE not in (0, _PC_RELATIVE):
            raise ValueError(f"pointer encoding {encoding:#x}")
        base = self._address + source.at if encoding & _BASE else 0
        value = int.from_bytes(source.take(_SIZES[encoding & 0x0F]), "little", signed=bool(encoding & _SIGNED))
        return base + value & _MASK
