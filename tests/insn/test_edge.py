"""The decoder's lengths against the processor's: every instruction at the very end of memory (edge.c)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .probe import OK, ROOT, Decoder, Row, compile_c, table
from .test_decoder import MAPS, OPCODES, _encodings
from .test_vector_decoder import ENCODINGS as VECTORS

ENDED, NEEDS_MORE, UNDEFINED = range(3)


@pytest.fixture(scope="module")
def edge(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("edge") / "edge"
    # Nothing of the program may lie where 32-bit code reaches, nor use what such code can change.
    compile_c([ROOT / "tests/insn/edge.c"], path, "-fPIE", "-pie", "-fno-stack-protector", "-fcf-protection=none", "-Werror")
    return path


def _of_map(opcode_map: int) -> Iterator[bytes]:
    for number, opcode in OPCODES:
        if number == opcode_map:
            yield from _encodings(opcode_map, opcode)


GROUPS = {**{f"map {number}": lambda number=number: _of_map(number) for number in MAPS}, **VECTORS}


def _taken(encodings: Iterator[bytes]) -> dict[bytes, Row]:
    """What the table takes, cut where it says that it ends."""
    ours, rows, found = Decoder(), table(), {}
    for data in encodings:
        result, length, number, _ = ours.decode(data)
        if result == OK and rows[number].rule != "refuse":
            found.setdefault(data[:length], rows[number])
    return found


def _ends(edge: Path, instructions: list[bytes]) -> bytes:
    given = b"".join(bytes([len(data)]) + data.ljust(15, b"\0") for data in instructions)
    return subprocess.run([edge], input=given, stdout=subprocess.PIPE, check=True, timeout=600).stdout


@pytest.mark.parametrize("group", GROUPS)
def test_lengths_on_the_processor(edge, group):
    """Threat 1: were an instruction longer to the processor than to us, it would run bytes that nobody looked at; were it
    shorter, it would run ours from the middle.  An instruction that this processor does not have tells nothing."""
    taken = _taken(GROUPS[group]())
    ends = _ends(edge, [*taken])
    assert len(ends) == len(taken) > 1000
    problems, undefined = [], 0
    for (data, row), end in zip(taken.items(), ends, strict=True):
        whole, cut = end & 15, end >> 4
        undefined += whole == UNDEFINED
        if whole == NEEDS_MORE:
            problems.append((data.hex(), row.name, "is longer"))
        elif cut == ENDED and len(data) > 1:
            problems.append((data.hex(), row.name, "is shorter"))
        elif cut == UNDEFINED and whole != UNDEFINED:
            problems.append((data.hex(), row.name, "is undefined without its last byte only"))
    print(f"{group}: {len(taken)} instructions, {undefined} undefined here")
    assert not problems, f"{len(problems)} of {len(taken)}: {problems[:20]}"


def test_other_lengths_are_found(edge):
    """Without it the test above could be one that finds nothing: lengths that are one byte too small and too large."""
    ends = _ends(edge, [bytes.fromhex("b811223344"), bytes.fromhex("b8112233"), bytes.fromhex("b81122334490")])
    assert [(end & 15, end >> 4) for end in ends] == [(ENDED, NEEDS_MORE), (NEEDS_MORE, NEEDS_MORE), (ENDED, ENDED)]
