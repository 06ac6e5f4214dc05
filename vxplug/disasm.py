"""``vxplug disasm``: each guest instruction of a function beside the host code that runs in its place.

Needs capstone: ``pip install 'vxplug[tools]'``.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from .elf import Elf
from .errors import Error, escape
from .plugin import Plugin, load_segments, open as open_plugin
from .sandbox import Sandbox

__all__ = ["Pair", "add_command", "function_range", "pairs"]

FUNCTION_MAX = 1 << 20  # bytes of one function that are shown


# Branches out of the block, as capstone shows them when the block is at 0: to the cache's fixed exits.
_EXIT = re.compile(r"0xf{8}[0-9a-f]{8}\b")


class Pair(NamedTuple):
    """One guest instruction and its translation."""

    address: int
    guest: bytes
    host: bytes
    offset: int  # of `host` in the block


def _capstone() -> Any:
    try:
        import capstone
    except ImportError:
        raise Error("disasm needs capstone: pip install 'vxplug[tools]'") from None
    return capstone


def function_range(plugin: Plugin, name: str) -> tuple[int, int]:
    """Where a function begins and ends: an export, any symbol, or an address as 0x…"""
    if name in plugin.exports:
        address = plugin.exports[name].address
        return address, address + max(plugin.symbol_size(address), 1)
    if name.startswith("0x"):
        try:
            address = int(name, 16)
        except ValueError:
            raise Error(f"{name}: not an address") from None
        if address >= 1 << 32:
            raise Error(f"{name}: not an address of 32 bits")
        return address, address + 1
    found = plugin.symbol(name)
    if found is None:
        raise Error(f"no function {escape(name)!r} in the plugin; `vxplug inspect` lists what it exports")
    return found[0], found[0] + max(found[1], 1)


def _block(address: int, code: bytes, translation: tuple[int, bytes, int, list[tuple[int, int]]]) -> Iterator[Pair]:
    """Several marks may belong to one instruction, the later ones to parts of its host code.  What follows the
    last instruction (the way to the next block, or the trap where none is) stands beside no guest code."""
    size, host, _, marks = translation
    starts: dict[int, int] = {}
    for at, guest in marks:
        starts.setdefault(guest, at)
    guests = sorted(starts)
    for number, guest in enumerate(guests):
        last = number == len(guests) - 1
        end, to = (size, len(host)) if last else (guests[number + 1], starts[guests[number + 1]])
        yield Pair(address + guest, code[guest:end], host[starts[guest] : to], starts[guest])


def _guest_code(plugin: Plugin, address: int, size: int) -> bytes:
    """Bytes of the image, as far as they lie in one segment of the file."""
    for segment in load_segments(Elf(plugin.data)):
        offset = address - segment.start - segment.zeros
        if 0 <= offset < len(segment.data):
            return bytes(segment.data[offset : offset + size])
    return b""


def pairs(box: Sandbox, start: int, end: int) -> Iterator[Pair]:
    """Block after block from ``start`` until ``end``, each translated as if it were branched to."""
    address = start
    while address < min(end, start + FUNCTION_MAX):
        translation = box._box.translation(address)
        if translation is None:
            return
        yield from _block(address, _guest_code(box.plugin, address, translation[0]), translation)
        if translation[0] == 0:
            return
        address += translation[0]


def _found(box: Sandbox, name: str) -> list[Pair]:
    found = list(pairs(box, *function_range(box.plugin, name)))
    if not found:
        raise Error(f"{escape(name)}: no code is there")
    return found


def _listing(decoder: Any, code: bytes, address: int) -> list[str]:
    """Text of each instruction; what capstone does not know is shown as bytes."""
    rows, at = [], 0
    while at < len(code):
        found = next(decoder.disasm(code[at:], address + at, 1), None)
        size = found.size if found else 1
        rows.append(f"{found.mnemonic} {found.op_str}".strip() if found else f".byte {code[at]:#04x}")
        at += size
    return rows


class _Text:
    def __init__(self) -> None:
        capstone = _capstone()
        self.guest = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
        self.host = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)

    def host_rows(self, code: bytes, offset: int) -> list[str]:
        return [_EXIT.sub("exit", row) for row in _listing(self.host, code, offset)]

    def rows(self, pair: Pair) -> Iterator[tuple[str, str]]:
        left = _listing(self.guest, pair.guest, pair.address)
        right = self.host_rows(pair.host, pair.offset)
        for number in range(max(1, len(right))):
            guest = f"{pair.address:08x}  {left[0]}" if number == 0 and left else ""
            yield guest, right[number] if number < len(right) else ""

    def record(self, pair: Pair) -> dict[str, Any]:
        return {
            "address": pair.address, "guest_bytes": pair.guest.hex(), "host_bytes": pair.host.hex(),
            "guest": _listing(self.guest, pair.guest, pair.address), "host": self.host_rows(pair.host, pair.offset),
        }


def _print_function(text: _Text, box: Sandbox, name: str) -> None:
    found = _found(box, name)
    print(f"{escape(name)}:")
    line = None
    for pair in found:
        place = box.plugin.locate(pair.address)
        if place is not None and place[1:] != line:
            line = place[1:]
            print(f"; {line[0]}:{line[1]}" if line[0] else f"; {place[0]}")
        for guest, host in text.rows(pair):
            print(f"{guest:<52}{host}".rstrip())


def _disasm(options: argparse.Namespace) -> int:
    text = _Text()
    plugin = open_plugin(options.file)
    names = options.function or list(plugin.exports)
    with plugin.sandbox(stdout=lambda data: None, stderr=lambda data: None) as box:
        if options.json:
            records = {n: [text.record(p) for p in _found(box, n)] for n in names}
            print(json.dumps(records, indent=2))
            return 0
        for name in names:
            _print_function(text, box, name)
    return 0


def add_command(commands: Any) -> None:
    disasm = commands.add_parser("disasm", help="show guest code beside the host code that runs in its place")
    disasm.add_argument("--json", action="store_true")
    disasm.add_argument("file")
    disasm.add_argument("function", nargs="*", default=[], metavar="FUNC",
                        help="exports, symbols or 0xADDRESSes (default: all exports)")
    disasm.set_defaults(run=_disasm)
