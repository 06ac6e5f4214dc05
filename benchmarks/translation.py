"""How fast guest code is translated, and how large it becomes: whole text sections, block after block.

Translated by the core itself, through the window that its tests have (``tests/insn/probe.py``).
"""

from __future__ import annotations

from pathlib import Path

from elftools.elf.elffile import ELFFile

from tests.insn.probe import Probe

from . import contestants
from .programs import PROGRAMS, Program
from .timing import Row

SUBJECTS = ("zstd", "brotli", "openjpeg", "lua")
BASE = 0x10000  # where the probe's code lies
TAIL = 1 << 10  # a block that would run over the end of the text is not begun


def _text(path: Path) -> bytes:
    with path.open("rb") as file:
        section = ELFFile(file).get_section_by_name(".text")
        return bytes(section.data()) if section is not None else b""


def _translated(code: bytes) -> tuple[Probe, int]:
    """Block after block from the beginning, what lies between functions skipped; with it, the guest's bytes in them."""
    probe, at, taken = Probe(code), 0, 0
    while at < len(code) - TAIL:
        count = len(probe)
        translated = probe.translate(BASE + at) == 0 and len(probe) > count
        size = probe.block(count).guest_size if translated else 0
        taken += size
        at += max(size, 1)
    return probe, taken


def _row(program: Program) -> Row:
    probe, taken = _translated(_text(contestants.plugin(program)))
    last: list[tuple[int, int]] = []

    def speed() -> float:
        last[:] = [probe.times()]
        return taken / last[0][0] * 1e3

    return Row(program.name, {
        "MB a second": speed, "verifier's part": lambda: last[0][1] / last[0][0], "bytes of a byte": lambda: probe.used() / taken,
    })


def rows() -> list[Row]:
    return [_row(program) for program in PROGRAMS if program.name in SUBJECTS]
