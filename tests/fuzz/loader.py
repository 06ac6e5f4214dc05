"""The loader: any bytes either load or raise PluginFormatError; what loads makes a sandbox or ends in vxplug.Error,
and its debug information costs names, never more.

Input: one byte chooses.  EDIT: the rest edits a linked plugin with debug information, compressed or not: which, then
operations of one byte, a place and bytes; else the rest is the file.  LOCATE: its debug information is read, else it
is run.
"""

from __future__ import annotations

import io
import random
import struct

from . import driver
from .driver import Reader, require

with driver.instrumented():
    from elftools.elf.elffile import ELFFile

    import vxplug
    from vxplug.interface import Export, Interface, encode_note

from . import plugins

EDIT, LOCATE = 0x80, 0x40
EDGES = (0, 1, 2, 4, 0x20, 0x28, 0x34, 0x7F, 0x80, 0xFF, 0xFFF, 0x1000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000,
         0xFFFE0000, 0xFFFDF000, 0xFFFFF000, 0xFFFFFFFF)
NOTE = encode_note(Interface("doc", 0, (Export("target", plugins.EXPORT, "doc", "int target(void)", (), "i32"),)))
LOCATED_MAX = 200 * len("\\U0010ffff")
LIMITS = {"memory": 16 << 20, "stack": 1 << 16, "timeout": 0.01, "init_timeout": 0.01}


class Real:
    """A linked plugin, and the places in it where a format has fields."""

    def __init__(self, name: str) -> None:
        data = plugins.built(name)
        elf = ELFFile(io.BytesIO(data))
        symbols = {symbol.name: symbol.entry.st_value for symbol in elf.get_section_by_name(".symtab").iter_symbols()}
        export = Export("target", symbols["target"], "doc", "int target(void)", (), "i32")
        self.data = plugins.with_note(data, encode_note(Interface("doc", 0, (export,))))
        elf = ELFFile(io.BytesIO(self.data))
        self.areas = [(0, 52), (52, 32 * elf.header.e_phnum), (elf.header.e_shoff, 40 * elf.header.e_shnum)]
        self.areas += [(section.header.sh_offset, section.header.sh_size) for section in elf.iter_sections()
                       if section.header.sh_size and section.header.sh_type != "SHT_NOBITS"]


REAL = [Real("tiny"), Real("tiny-compressed")]


def edited(reader: Reader) -> bytes:
    real = REAL[reader.byte() % len(REAL)]
    data = bytearray(real.data)
    for _ in range(32):
        if not reader.left:
            break
        choice = reader.byte()
        start, size = real.areas[reader.byte() % len(real.areas)]
        at = start + reader.number(2) % size
        if choice % 4 == 0:
            data[at : at + 4] = EDGES[reader.byte() % len(EDGES)].to_bytes(4, "little")
        elif choice % 4 == 1:
            data[at : at + 4] = reader.take(4).ljust(4, b"\0")
        elif choice % 4 == 2:
            data[at] = reader.byte()
        else:
            data[at : at + 8] = data[(at + reader.number(2)) % len(data) :][:8].ljust(8, b"\0")
    return bytes(data)


def check_text(text: str) -> None:
    """Text of the plugin's in an error: nothing that steers a terminal."""
    require(all(char.isprintable() or char == "\n" for char in text), f"control characters in {text!r}")


def locate(plugin: vxplug.Plugin) -> None:
    for export in plugin.exports.values():
        place = plugin.locate(export.address)
        require(place is None or len(place[0]) <= LOCATED_MAX, "a long name")


def use(plugin: vxplug.Plugin) -> None:
    try:
        with plugin.sandbox(stdout=len, stderr=len, **LIMITS) as box:
            require(box.memory_used <= LIMITS["memory"], "memory limit")
            for name, export in list(plugin.exports.items())[:3]:
                if not export.params:
                    box[name]()
    except vxplug.GuestFault as error:
        require(error.kind != "unverified-code", "the verifier refused a translation")
        check_text(str(error))
    except vxplug.Error as error:
        check_text(str(error))
    except (ValueError, OverflowError) as error:
        raise driver.Finding(f"{error!r} out of a sandbox") from error


def one_input(data: bytes) -> None:
    reader = Reader(data)
    choice = reader.byte()
    file = edited(reader) if choice & EDIT else reader.rest()
    try:
        plugin = vxplug.open(file)
    except vxplug.PluginFormatError as error:
        check_text(str(error))
        return
    if choice & LOCATE:
        locate(plugin)
    else:
        use(plugin)


def _set_field(data: bytearray, rng: random.Random) -> None:
    """A field of the small file's headers, at its own boundary."""
    start = rng.choice((1, 53, 53 + 32, 1 + struct.unpack_from("<I", data, 33)[0] % max(1, len(data) - 40)))
    at = min(start + 2 * rng.randrange(20), len(data) - 4)
    data[at : at + 4] = rng.choice(EDGES).to_bytes(4, "little")


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    import atheris

    rng = random.Random(seed)
    if len(data) < 200 and rng.randrange(8) == 0:
        return (bytes([rng.choice((0, LOCATE))]) + plugins.small_plugin(NOTE))[:max_size]
    if len(data) > 100 and not data[0] & EDIT and rng.randrange(2):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 4))):
            _set_field(changed, rng)
        return bytes(changed)
    return bytes(atheris.Mutate(data, max_size))


if __name__ == "__main__":
    driver.main(one_input, mutate)
