"""The headers that loading reads, against pyelftools' reading of the same bytes."""

from __future__ import annotations

import io
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from elftools.elf import enums
from elftools.elf.elffile import ELFFile

import vxplug
from vxplug.describe import describe
from vxplug.elf import EM_386, PHNUM_MAX, SHNUM_MAX, Elf

GUEST = """
#include <vxplug.h>
VX_EXPORT int32_t add(int32_t a, int32_t b) { return a + b; }
"""
NOTE = ".note.vxplug"
ROUNDS = 4000
ROOT = Path(__file__).parents[2]
# pyelftools gives names for these numbers.
NAMES = {"e_type": enums.ENUM_E_TYPE, "e_machine": enums.ENUM_E_MACHINE, "e_version": enums.ENUM_E_VERSION,
         "p_type": enums.ENUM_P_TYPE_BASE, "sh_type": enums.ENUM_SH_TYPE_BASE}


def _ours(data: bytes) -> Any:
    elf = Elf(data)
    section = elf.section(NOTE.encode())
    return tuple(elf.header), [tuple(segment) for segment in elf.segments], section and tuple(section)


def _numbers(header: Any) -> tuple[int, ...]:
    return tuple(NAMES[name][value] if isinstance(value, str) else value for name, value in header.items() if name != "e_ident")


def _theirs(elf: ELFFile) -> Any:
    segments = [_numbers(elf.get_segment(number).header) for number in range(elf.header.e_phnum)]
    section = elf.get_section_by_name(NOTE)
    return _numbers(elf.header), segments, section and _numbers(section.header)


def _beyond_us(elf: ELFFile, size: int) -> bool:
    """What another reader may take and loading refuses, by the header alone."""
    header = elf.header
    return (elf.elfclass != 32 or not elf.little_endian or NAMES["e_machine"].get(header.e_machine) != EM_386
            or header.e_phentsize != 32 or not 0 < header.e_phnum <= PHNUM_MAX or header.e_phoff + 32 * header.e_phnum > size
            or header.e_shnum > SHNUM_MAX or header.e_shentsize != 40 or header.e_shstrndx >= header.e_shnum
            or header.e_shoff + 40 * header.e_shnum > size)


def _mutants(data: bytes) -> Iterator[bytes]:
    """Bytes of the file's header, of program and section headers, and of section names changed; some files cut."""
    rng, elf = random.Random(20261125), Elf(data)
    header, names = elf.header, elf.section(b".shstrtab")
    assert names is not None
    places = [(0, 52), (header.phoff, 32 * header.phnum), (header.shoff, 40 * header.shnum), (names.offset, names.size)]
    for _ in range(ROUNDS):
        mutant = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 4))):
            start, size = rng.choice(places)
            mutant[start + rng.randrange(size)] = rng.choice((0, 1, 2, 0x7F, 0xFF, rng.randrange(256)))
        yield bytes(mutant[: rng.choice((len(mutant),) * 9 + (rng.randrange(len(mutant)),))])


def _shown_if_loaded(data: bytes) -> None:
    """Tools use pyelftools: what it cannot read must not stop them."""
    try:
        plugin = vxplug.open(data)
    except vxplug.PluginFormatError:
        return
    assert describe(plugin)["exports"] and not plugin._debug_info().is_code(0)


@pytest.fixture(scope="module")
def plugin(build_plugin) -> bytes:
    return build_plugin(GUEST).read_bytes()


def test_reads_what_pyelftools_reads(plugin):
    """A number read from another place than every other tool reads it from would let through what they would not."""
    assert _ours(plugin) == _theirs(ELFFile(io.BytesIO(plugin)))
    assert _ours(plugin)[2] is not None


def test_mutants_are_read_alike_or_refused(plugin):
    """Likewise of hostile headers; and what only we refuse has to be beyond the limits that we say."""
    seen: Counter[str] = Counter()
    for mutant in _mutants(plugin):
        try:
            elf = ELFFile(io.BytesIO(mutant))
            theirs = _theirs(elf)
        except Exception:  # pyelftools raises many kinds; what it cannot read tells nothing
            seen["unread by pyelftools"] += 1
            _shown_if_loaded(mutant)
            continue
        try:
            ours = _ours(mutant)
        except vxplug.PluginFormatError:
            seen["refused"] += 1
            assert _beyond_us(elf, len(mutant)), elf.header
        else:
            seen["alike"] += 1
            assert ours == theirs
    assert seen["alike"] > ROUNDS / 4 and seen["refused"] > ROUNDS / 40, seen


@pytest.mark.parametrize(("change", "reason"), [
    (lambda data: data[:51], "the file ends in its header"),
    (lambda data: data[:28] + b"\xff\xff\xff\xff" + data[32:], "the program headers lie outside the file"),
    (lambda data: data[:32] + b"\xff\xff\xff\xff" + data[36:], "the section headers lie outside the file"),
    (lambda data: data[:46] + b"\x29" + data[47:], "section headers of 41 bytes, not 40"),
    (lambda data: data[:50] + b"\xff\x0f" + data[52:], "no section has the names of sections"),
    (lambda data: data[:48] + b"\0\0" + data[50:], "no .note.vxplug section"),
    (lambda data: data[:50] + data[48:50] + data[52:], "no section has the names of sections"),
    (lambda data: data[:44] + b"\x41\0" + data[46:], "65 program headers, at most 64"),
    (lambda data: data.replace(b".note.vxplug\0", b".note.vxplugs"), "no .note.vxplug section"),
    (lambda data: data[:-1], "section headers lie outside the file"),
])
def test_reasons(plugin, change, reason):
    """An author has to learn what is wrong with the file, and where."""
    with pytest.raises(vxplug.PluginFormatError, match=reason):
        vxplug.open(change(plugin))


def test_loading_does_without_pyelftools(plugin, tmp_path):
    """Without it a library that explains plugins could slip back into the start of every program."""
    path = tmp_path / "plugin.vxm"
    path.write_bytes(plugin)
    code = f"import sys, vxplug; print(vxplug.open({str(path)!r}).sandbox().add(1, 2), 'elftools' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.split() == ["3", "False"]
