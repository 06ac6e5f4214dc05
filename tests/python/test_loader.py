"""Malformed plugin files: each reason of PluginFormatError, reached by one edit of a good file."""

from __future__ import annotations

import json
import struct

import pytest

import vxplug
from vxplug.interface import encode_note

EHDR = {"class": 4, "order": 5, "type": 16, "machine": 18, "entry": 24, "phoff": 28, "shoff": 32,
        "phentsize": 42, "phnum": 44, "shnum": 48}
PHDR = {"type": 0, "offset": 4, "vaddr": 8, "filesz": 16, "memsz": 20, "flags": 24}
PT_LOAD = 1


@pytest.fixture(scope="module")
def good(calls_path) -> bytes:
    return calls_path.read_bytes()


class Editor:
    """A plugin's bytes with fields of its headers set by name."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)

    def header(self, field: str, value: int, form: str) -> Editor:
        struct.pack_into("<" + form, self.data, EHDR[field], value)
        return self

    def _loads(self) -> list[int]:
        phoff, = struct.unpack_from("<I", self.data, EHDR["phoff"])
        count, = struct.unpack_from("<H", self.data, EHDR["phnum"])
        offsets = [phoff + 32 * i for i in range(count)]
        return [at for at in offsets if struct.unpack_from("<I", self.data, at)[0] == PT_LOAD]

    def load(self, number: int, field: str, value: int) -> Editor:
        struct.pack_into("<I", self.data, self._loads()[number] + PHDR[field], value)
        return self

    def load_value(self, number: int, field: str) -> int:
        return struct.unpack_from("<I", self.data, self._loads()[number] + PHDR[field])[0]


EDITS = {
    "not an ELF file": lambda e: e.data.__setitem__(slice(0, 4), b"MZ\0\0"),
    "not a 32-bit ELF file": lambda e: e.header("class", 2, "B"),
    "malformed ELF file": lambda e: e.header("order", 9, "B"),
    "machine is": lambda e: e.header("machine", 62, "H"),
    "not a static executable": lambda e: e.header("type", 3, "H"),
    "program headers of 31 bytes": lambda e: e.header("phentsize", 31, "H"),
    "0 program headers": lambda e: e.header("phnum", 0, "H"),
    "65535 program headers": lambda e: e.header("phnum", 0xFFFF, "H"),
    "sections, at most": lambda e: e.header("shnum", 0xFFF0, "H"),
    "exceeds memory size": lambda e: e.load(0, "filesz", e.load_value(0, "memsz") + 1),
    "lie outside the file": lambda e: e.load(0, "offset", len(e.data)),
    "is below 0x10000": lambda e: e.load(0, "vaddr", 0xF000),
    "ends above": lambda e: e.load(0, "vaddr", 0xFFFDF000),
    "both writable and executable": lambda e: [e.load(n, "flags", 7) for n in range(len(e._loads()))],
    "shares a page": lambda e: e.load(1, "vaddr", e.load_value(0, "vaddr")),
    "bytes of memory, over the limit of 134217728": lambda e: e.load(len(e._loads()) - 1, "memsz", 0x8000001),
    "dynamically linked": lambda e: e.load(0, "type", 3),
    "no PT_LOAD segment": lambda e: [e.load(0, "type", 4) for _ in list(e._loads())],
    "is not in executable memory": lambda e: e.header("entry", 0x10, "I"),
    "no .note.vxplug section": lambda e: e.header("shnum", 0, "H").header("shoff", 0, "I"),
}


@pytest.mark.parametrize("reason", EDITS)
def test_reason(good, reason):
    """Without it the edit would load, or the author would be told something else."""
    editor = Editor(good)
    EDITS[reason](editor)
    with pytest.raises(vxplug.PluginFormatError, match=reason.replace(".", r"\.")):
        vxplug.open(bytes(editor.data))


def test_the_unedited_file_loads(good):
    """Without it every edit could be refused for a reason of its own making."""
    assert "add" in vxplug.open(bytes(Editor(good).data)).exports


class Alarm(Exception):
    """Of an application, from its signal handler."""


@pytest.mark.parametrize("error", [Alarm("now"), vxplug.GuestFault("", "interrupt"), vxplug.GuestTimeout("outside")], ids=repr)
def test_what_comes_from_elsewhere_is_no_fault_of_the_file(good, monkeypatch, error):
    """Without it an application would be told that its good plugin is malformed, whenever its handler raised in the middle."""
    def fails(*arguments):
        raise error

    monkeypatch.setattr("vxplug.plugin.decode_note", fails)
    with pytest.raises(type(error)) as caught:
        vxplug.open(good)
    assert caught.value is error


@pytest.mark.parametrize("size", [0, 3, 4, 16, 51, 52, 84, 4096])
def test_truncated(good, size):
    """Without it a download cut short would crash the parser or load."""
    with pytest.raises(vxplug.PluginFormatError):
        vxplug.open(good[:size])


def _with_note(good: bytes, change) -> bytes:
    """The good plugin with its note's JSON edited in place, padded to its old size with spaces."""
    interface = vxplug.open(good)._interface
    old = encode_note(interface)
    at = good.index(old[20:80])
    size, = struct.unpack_from("<I", good, at - 16)
    body = json.loads(good[at : at + size])
    change(body)
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    assert len(text) <= size
    return good[:at] + text.ljust(size) + good[at + size :]


def _export(body: dict, **changes: object) -> None:
    body["exports"] = [{**body["exports"][0], **changes}]


NOTES = {
    "not an object of this ABI": lambda b: b.update(abi=9),
    "exports are not a list": lambda b: b.update(exports={}),
    "export name is not a C identifier": lambda b: _export(b, name="a b"),
    "is reserved by Python": lambda b: _export(b, name="__spec__"),
    "is a Python keyword": lambda b: _export(b, name="import"),
    "address .* is not code": lambda b: _export(b, address=0x10),
    "address is not a number": lambda b: _export(b, address=True),
    "is not a 32-bit address": lambda b: _export(b, address=1 << 32),
    "unknown type of": lambda b: _export(b, params=[["a", "pickle"]]),
    "a parameter is not a pair": lambda b: _export(b, params=[["a"]]),
    "two parameters share a name": lambda b: _export(b, params=[["a", "i32"], ["a", "i32"]]),
    "parameters are not a short list": lambda b: _export(b, params=[["a", "i32"]] * 65),
    "unknown result type": lambda b: _export(b, result="object"),
    "two exports share a name": lambda b: b.update(exports=[b["exports"][0]] * 2),
    "docstring is not text": lambda b: b.update(doc=1),
    "release function .* is not code": lambda b: b.update(release=16),
}


@pytest.mark.parametrize("reason", NOTES)
def test_note_reason(good, reason):
    """Threat 41: without it names that shadow, foreign addresses or unknown types would be believed."""
    with pytest.raises(vxplug.PluginFormatError, match=reason):
        vxplug.open(_with_note(good, NOTES[reason]))


def test_control_characters_of_a_note_are_escaped(good):
    """Threat 42: without it a docstring could drive the terminal of whoever calls help()."""
    plugin = vxplug.open(_with_note(good, lambda b: _export(b, doc="a\x1b[2J\u202eb\nc")))
    doc = next(iter(plugin.exports.values())).doc
    assert doc is not None and "\x1b" not in doc and "\u202e" not in doc and doc.endswith("\nc")
