"""What the fuzzers found, in its smallest form.  Attacks that need a guest are in tests/attack: `id_left_set`."""

from __future__ import annotations

import struct
import time

import pytest

import vxplug
from tests.fuzz import plugins
from vxplug.describe import describe
from vxplug.interface import Export, Interface, encode_note
from vxplug.types import Member, StructType


def _with_sections(data: bytes, count: int, name: bytes) -> bytes:
    """The same plugin with `count` more sections, which share a name that does not end before the file does."""
    shoff = struct.unpack_from("<I", data, 32)[0]
    old = struct.unpack_from("<H", data, 48)[0]
    patched = bytearray(data[:shoff])
    names = struct.unpack_from("<I", data, shoff + 2 * 40 + 16)[0]
    struct.pack_into("<H", patched, 48, old + count)
    more = struct.pack("<10I", shoff + (old + count) * 40 - names, 1, 0, 0, 0, 0, 0, 0, 1, 0) * count
    return bytes(patched) + data[shoff:] + more + name


def test_sections_with_endless_names():
    """Without a bound on its reads a parser took 4096 names of the file's length each: hours, for 256 MiB."""
    data = plugins.small_plugin(encode_note(Interface(None, 0, ())))
    started = time.monotonic()
    plugin = vxplug.open(_with_sections(data, 4000, b"A" * (8 << 20)))
    assert not plugin.exports and describe(plugin)["sections"] == []
    assert time.monotonic() - started < 20


def test_many_sections_are_read():
    """The bound on reads is far above what any file needs whose names end."""
    data = plugins.small_plugin(encode_note(Interface(None, 0, ())))
    plugin = vxplug.open(_with_sections(data, 4000, b".text.a_function_of_some_length_as_they_occur_in_cxx_libraries\0"))
    assert not plugin.exports and len(describe(plugin)["sections"]) > 4000


@pytest.mark.parametrize("sizes", [[4096], [512, 512]])
def test_structs_too_large_for_a_call(sizes):
    """A note may name them; without a check when it is read, making a sandbox raised the binding's ValueError."""
    structs = [StructType(f"S{n}", size, (Member("first", "i32", 0),)) for n, size in enumerate(sizes)]
    params = tuple((f"p{n}", struct) for n, struct in enumerate(structs))
    note = encode_note(Interface(None, 0, (Export("f", plugins.EXPORT, None, "", params, "none"),)))
    with pytest.raises(vxplug.PluginFormatError, match="larger than a call may have"):
        vxplug.open(plugins.small_plugin(note))
