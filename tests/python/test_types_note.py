"""The types of an interface note: nothing that a plugin file says of its types can harm the host."""

from __future__ import annotations

import json
import struct
from contextlib import nullcontext

import pytest

import vxplug
from vxplug import _vx
from vxplug.interface import Export, Interface, decode_note, encode_note
from vxplug.records import Record
from vxplug.types import ArrayType, EnumType, Member, NumbersType, OptionalType, PointerType, StructType

ENUM = {"kind": "enum", "name": "e", "base": "i32", "members": [["A", 0]]}
STRUCT = {"kind": "struct", "name": "s", "size": 8, "members": [["a", "i32", 0, 0], ["b", "u32", 32, 5]]}
ARRAY = {"kind": "array", "item": "i32", "count": 2, "text": False}
TEXTS = {"kind": "struct", "name": "t", "size": 8, "members": [["a", "str", 0, 0]]}
POINTERS = [{"kind": "pointer", "target": "str", "mode": "out"}, {"kind": "function", "params": [], "result": "view"},
            {"kind": "function", "params": [3], "result": "none"}]


def _note(types, params=(), result="none", abi=2) -> bytes:
    export = {"name": "f", "address": 65536, "doc": None, "prototype": "", "params": list(params), "result": result}
    body = json.dumps({"abi": abi, "doc": None, "release": 0, "types": types, "exports": [export]}).encode()
    return struct.pack("<III", 7, len(body), abi) + b"vxplug\0\0" + body + b"\0" * (-len(body) % 4)


def _change(row, **parts):
    return {**row, **parts}


def _deep(depth):
    rows = [_change(STRUCT, name="s0")]
    for i in range(1, depth):
        rows.append({"kind": "struct", "name": f"s{i}", "size": 8, "members": [["m", i - 1, 0, 0]]})
    return rows


def _wide(levels):
    """Each level has the one below many times over, in the same bytes: values of 4096 ** levels parts."""
    rows = [{"kind": "struct", "name": "s0", "size": 1, "members": [["m", "i8", 0, 0]]}]
    for i in range(levels):
        rows.append({"kind": "union", "name": f"u{i}", "size": 1, "members": [[f"m{n}", i, 0, 0] for n in range(4096)]})
    return rows


def _functions(levels, width):
    """Each takes the one before it many times over."""
    return [{"kind": "function", "params": [i - 1] * width if i else [], "result": "none"} for i in range(levels)]


def _takes(row, result="none"):
    return [TEXTS, row, {"kind": "function", "params": [1] if result == "none" else [], "result": result}]


REFUSED = {
    "itself": ([{"kind": "array", "item": 0, "count": 2, "text": False}], "does not come before it"),
    "a circle": ([_change(STRUCT, members=[["a", 1, 0, 0]]), _change(STRUCT, name="t", members=[["a", 0, 0, 0]])],
                 "does not come before it"),
    "negative index": ([_change(ARRAY, item=-1)], "is not between"),
    "a bool as index": ([STRUCT, _change(ARRAY, item=False)], "is not a number"),
    "huge array": ([_change(ARRAY, count=1 << 19)], "larger than"),
    "huge count": ([_change(ARRAY, count=1 << 62)], "is not between"),
    "product of arrays": ([_change(ARRAY, count=1 << 10), _change(ARRAY, item=0, count=1 << 10)], "larger than"),
    "no items": ([_change(ARRAY, count=0)], "is not between"),
    "many objects": ([_change(ARRAY, item="i8", count=1 << 17)], "more than 65536 parts"),
    "overlapping objects": (_wide(2), "more than 65536 parts"),
    "many members": ([_change(STRUCT, name=f"s{i}", size=4096, members=[[f"m{n}", "i8", 8 * n, 0] for n in range(4096)])
                      for i in range(5)], "type 3: enums and structs have too many members"),
    "many structs": ([_change(STRUCT, name=f"s{i}") for i in range(2000)], "or are too many"),
    "deep": (_deep(40), "nested more than"),
    "empty struct": ([_change(STRUCT, members=[])], "without members"),
    "zero size": ([_change(STRUCT, size=0)], "is not between"),
    "huge size": ([_change(STRUCT, size=1 << 32)], "is not between"),
    "member past the end": ([_change(STRUCT, members=[["a", "i64", 8, 0]])], "lies outside"),
    "bit-field past the end": ([_change(STRUCT, members=[["a", "i32", 60, 5]])], "lies outside"),
    "huge offset": ([_change(STRUCT, members=[["a", "i8", 1 << 63, 0]])], "is not between"),
    "negative offset": ([_change(STRUCT, members=[["a", "i8", -8, 0]])], "is not between"),
    "not at a byte": ([_change(STRUCT, members=[["a", "i8", 3, 0]])], "not at a byte"),
    "bit-field of float": ([_change(STRUCT, members=[["a", "f32", 0, 3]])], "not a type of bit-fields"),
    "bit-field of struct": ([STRUCT, _change(STRUCT, name="t", members=[["a", 0, 0, 3]])], "not a type of bit-fields"),
    "wide bit-field": ([_change(STRUCT, members=[["a", "i8", 0, 9]])], "wider than its type"),
    "doubled member": ([_change(STRUCT, members=[["a", "i8", 0, 0], ["a", "i8", 8, 0]])], "share a name"),
    "text in a union": ([_change(STRUCT, kind="union", members=[["a", "str", 0, 0]])], "text in a union"),
    "text deep in a union": ([_change(STRUCT, name="t", members=[["a", "str", 0, 0]]), _change(ARRAY, item=0, count=1),
                              _change(STRUCT, kind="union", members=[["a", 1, 0, 0]])], "text in a union"),
    "text over the end": ([_change(STRUCT, members=[["a", "str", 40, 0]])], "lies outside"),
    "bits of text": ([_change(STRUCT, members=[["a", "str", 0, 3]])], "not a type of bit-fields"),
    "pointer to text that is read": ([{"kind": "pointer", "target": "str", "mode": "inout"}], "text that is not given back"),
    "a callback that gives text in a struct": ([_change(STRUCT, members=[["a", "str", 0, 0]]),
                                                {"kind": "function", "params": [], "result": 0}], "a result that no callback has"),
    "functions that take functions": (_functions(20, 2), "more than 65536 parts"),
    "a callback that takes many objects": ([_change(ARRAY, item="i8", count=1 << 15), _change(STRUCT, size=1 << 15, members=[["a", 0, 0, 0]]),
                                            {"kind": "pointer", "target": 1, "mode": "in"},
                                            {"kind": "function", "params": [2, 2], "result": "none"}], "more than 65536 parts"),
    "functions deep in functions": (_functions(40, 1), "nested more than"),
    "a callback that takes what C does not have": (_takes({"kind": "numbers", "item": "i32", "mode": "out"}), "a parameter that no callback has"),
    "a callback that answers text": (_takes({"kind": "pointer", "target": 0, "mode": "inout"}), "a parameter that no callback has"),
    "a callback that only writes": (_takes({"kind": "pointer", "target": "i32", "mode": "out"}), "a parameter that no callback has"),
    "a callback that takes what Python cannot call": (_takes({"kind": "function", "params": [], "result": "view"}), "a parameter that no callback has"),
    "a callback that gives a pointer to be written": (_takes({"kind": "pointer", "target": "i32", "mode": "inout"}, 1), "a result that no callback has"),
    "a callback that gives text by pointer": (_takes({"kind": "pointer", "target": 0, "mode": "in"}, 1), "a result that no callback has"),
    "a callback that gives owned numbers": (_takes({"kind": "numbers", "item": "i32", "mode": "out"}, 1), "a result that no callback has"),
    "a callback that gives a function": (_takes({"kind": "function", "params": [], "result": "none"}, 1), "a result that no callback has"),
    "member of bytes": ([_change(STRUCT, members=[["a", "bytes", 0, 0]])], "memory can hold"),
    "shadowing member": ([_change(STRUCT, members=[["__class__", "i8", 0, 0]])], "reserved by Python"),
    "keyword": ([_change(STRUCT, members=[["class", "i8", 0, 0]])], "is a Python keyword"),
    "code in a name": ([_change(STRUCT, members=[["a=print(1)", "i8", 0, 0]])], "not a C identifier"),
    "code in a class": ([_change(STRUCT, name="s(object)")], "not a C identifier"),
    "bidi": ([_change(STRUCT, name="\u202es")], "not a C identifier"),
    "two of a name": ([STRUCT, _change(STRUCT, size=16)], "two types are called s"),
    "enum of float": ([_change(ENUM, base="f32")], "not an integer"),
    "enum value": ([_change(ENUM, members=[["A", 1 << 31]])], "is not between"),
    "enum text": ([_change(ENUM, members=[["A", "0"]])], "is not a number"),
    "enum mro": ([_change(ENUM, members=[["mro", 0]])], "reserved by Python"),
    "enum sunder": ([_change(ENUM, members=[["_missing_", 0]])], "reserved by Python"),
    "enum doubled": ([_change(ENUM, members=[["A", 0], ["A", 1]])], "share a name"),
    "empty enum": ([_change(ENUM, members=[])], "without members"),
    "pointer in a struct": ([{"kind": "pointer", "target": "i32", "mode": "in"},
                             _change(STRUCT, members=[["a", 0, 0, 0]])], "memory can hold"),
    "pointer mode": ([{"kind": "pointer", "target": "i32", "mode": "up"}], "unknown mode"),
    "numbers of bool": ([{"kind": "numbers", "item": "bool", "mode": "in"}], "is not a number"),
    "numbers of text": ([{"kind": "numbers", "item": "str", "mode": "in"}], "is not a number"),
    "numbers of numbers": ([{"kind": "numbers", "item": 0, "mode": "in"}], "is not a number"),
    "optional number": ([{"kind": "optional", "item": "i32"}], "cannot be NULL"),
    "optional out": ([{"kind": "pointer", "target": "i32", "mode": "out"}, {"kind": "optional", "item": 0}], "is not passed"),
    "optional optional": ([{"kind": "optional", "item": "str"}, {"kind": "optional", "item": 0}], "cannot be NULL"),
    "unknown kind": ([{"kind": "class"}], "unknown kind"),
    "kind of another type": ([{"kind": ["enum"]}], "unknown kind"),
    "no object": ([7], "is not an object"),
    "no list": ({}, "not a list"),
    "members no list": ([_change(STRUCT, members={"a": 1})], "not a list"),
    "short member": ([_change(STRUCT, members=[["a", "i8", 0]])], "not lists of 4"),
    "many types": ([ENUM] * 5000, "bounded length"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_types(name):
    """Without it a plugin file could make the host loop, read outside a copy, or run its names as code."""
    types, text = REFUSED[name]
    with pytest.raises(vxplug.PluginFormatError, match=text):
        decode_note(_note(types))


@pytest.mark.parametrize(
    ("params", "result", "text"),
    [
        ([["p", 2]], "none", "unknown type of p"),
        ([["p", 7]], "none", "does not come before it"),
        ([], 2, "unknown result type"),
        ([["p", "bytes"]], "none", "unknown type of p"),
        ([], "view", "unknown result type"),
        ([["p", 3]], "none", "p is a struct by value with text"),
        ([], 4, "unknown result type"),
        ([], 5, "a function that Python cannot call"),
        ([], 6, "a function that Python cannot call"),
    ],
)
def test_hostile_uses(params, result, text):
    """Without it a type could stand where no call can pass it."""
    with pytest.raises(vxplug.PluginFormatError, match=text):
        decode_note(_note([ENUM, STRUCT, ARRAY, TEXTS, *POINTERS], params, result))


def test_results_have_a_bound_together():
    """Without it one call could give 64 structs of the most parts that one may have: gigabytes, of a guest with megabytes."""
    types = [
        {"kind": "struct", "name": "one", "size": 4, "members": [["v", "u32", 0, 0]]},
        {"kind": "array", "item": 0, "count": 15_000, "text": False},
        {"kind": "struct", "name": "many", "size": 60_000, "members": [["m", 1, 0, 0]]},
    ]
    types += [{"kind": "pointer", "target": 2, "mode": mode} for mode in ("in", "out", "inout")]
    decode_note(_note(types, [["a", 3], ["b", 4], ["c", 3]], 3))
    for params, result in (([["a", 4], ["b", 5], ["c", 5]], "none"), ([["a", 4], ["b", 5]], 3)):
        with pytest.raises(vxplug.PluginFormatError, match="f: results of more than 65536 parts"):
            decode_note(_note(types, params, result))


def _bound_looks(monkeypatch, most):
    """At fields of types: what a comparison or a hash costs is how many there are."""
    looks = 0

    def counted(self, key=Record._key):
        nonlocal looks
        looks += 1
        assert looks < most
        return key(self)

    monkeypatch.setattr(Record, "_key", counted)


def test_wide_types_in_many_functions(monkeypatch):
    """Without it a note of 80 KB could keep whoever opens the file busy for hours: a type's hash went through all of its parts,
    for each function that takes it."""
    _bound_looks(monkeypatch, 20_000)
    few = _change(STRUCT, members=[[f"m{n}", "i8", 0, 0] for n in range(15)])
    many = _change(STRUCT, name="t", members=[[f"m{n}", 0, 0, 0] for n in range(4000)])
    functions = [{"kind": "function", "params": [2], "result": "i32"}] * 3000
    decode_note(_note([few, many, {"kind": "pointer", "target": 1, "mode": "in"}, *functions]))


@pytest.mark.parametrize("names", [("e", "e"), ("e", "f")])
def test_types_of_one_hash(monkeypatch, names):
    """Without it a note of 340 KB could keep whoever opens the file busy for minutes: -1 and -2 have one hash, and so had two
    enums, whatever was made of them, and thousands of functions that take either, each compared with all before it."""
    types, ends = [], []
    _bound_looks(monkeypatch, 50_000)
    for name, value in zip(names, (-1, -2), strict=True):
        types.append({"kind": "enum", "name": name, "base": "i32", "members": [["A", value]]})
        for _ in range(30):
            types.append({"kind": "array", "item": len(types) - 1, "count": 1, "text": False})
        types.append({"kind": "struct", "name": name + "s", "size": 4, "members": [["m", len(types) - 1, 0, 0]]})
        ends.append(len(types) - 1)
    for n in range(1000):
        types.append({"kind": "function", "params": [ends[n >> bit & 1] for bit in range(12)], "result": "none"})
    refused = pytest.raises(vxplug.PluginFormatError, match="two types are called e")
    with refused if names == ("e", "e") else nullcontext():
        decode_note(_note(types))


def test_old_notes_know_no_types():
    """Without it a note that calls itself ABI 1 could smuggle in what ABI 1 has not."""
    with pytest.raises(vxplug.PluginFormatError, match="does not come before it"):
        decode_note(_note([ENUM], [["p", 0]], abi=1))
    with pytest.raises(vxplug.PluginFormatError, match="ABI version 3; this vxplug reads 1 to 2"):
        decode_note(_note([ENUM], abi=3))


def test_notes_are_as_old_as_they_can_be():
    """Without it every new plugin would need a new vxplug, or lose its types."""
    plain = Interface(None, 0, (Export("f", 65536, None, "", (("a", "i32"),), "none"),))
    data = encode_note(plain)
    assert data[8:12] == b"\1\0\0\0" and decode_note(data).exports == plain.exports
    level = EnumType("level", "i32", (("A", 0),))
    inner = StructType("inner", 8, (Member("a", level, 0), Member("b", "u8", 35, 3), Member("t", ArrayType("i8", 2, True), 40)))
    texts = StructType("texts", 12, (Member("a", ArrayType("str", 2), 0), Member("b", "str", 64)))
    outer = StructType("outer", 16, (Member("x", inner, 64), Member("y", ArrayType(inner, 1), 0)), union=True)
    params = (("p", PointerType(outer, "inout")), ("q", level), ("r", PointerType(inner, "out")), ("s", OptionalType(PointerType(inner, "in"))), ("t", NumbersType("f32", "inout")),
              ("u", PointerType(texts, "inout")), ("v", PointerType("str", "out")))
    rich = Interface("doc", 65536, (Export("f", 65536, None, "", params, outer),))
    data = encode_note(rich)
    assert data[8:12] == b"\2\0\0\0" and decode_note(data).exports == rich.exports


def test_layouts_check_themselves():
    """Without it the C half would believe whatever the Python half came to pass it."""
    byte = _vx.Layout("scalar", code="u8")
    pointer = _vx.Layout("pointer", target=byte, mode="in")
    wrong = [
        lambda: _vx.Layout("class"), lambda: _vx.Layout("scalar", code="str"), lambda: _vx.Layout("scalar"),
        lambda: _vx.Layout("array", target=byte, count=0), lambda: _vx.Layout("array", target=byte, count=1 << 21),
        lambda: _vx.Layout("array", count=3), lambda: _vx.Layout("array", target=pointer, count=3),
        lambda: _vx.Layout("bytes", target=_vx.Layout("scalar", code="i32"), count=3),
        lambda: _vx.Layout("pointer", mode="in"), lambda: _vx.Layout("pointer", target=pointer, mode="in"),
        lambda: _vx.Layout("struct", size=0, cls=int, members=[]), lambda: _vx.Layout("struct", size=4, members=[]),
        lambda: _vx.Layout("struct", size=1 << 21, cls=int, members=[]),
        lambda: _vx.Layout("struct", size=4, cls=int, members=[("a", byte, 32, 0)]),
        lambda: _vx.Layout("struct", size=4, cls=int, members=[("a", byte, 31, 2)]),
        lambda: _vx.Layout("struct", size=4, cls=int, members=[("a", byte, 3, 0)]),
        lambda: _vx.Layout("struct", size=4, cls=int, members=[("a", byte, 0, 9)]),
        lambda: _vx.Layout("struct", size=4, cls=int, members=[("a", pointer, 0, 0)]),
        lambda: _vx.Layout("union", size=4, cls=int, members=[("a", _vx.Layout("text"), 0, 0)]),
        lambda: _vx.Layout("struct", size=4, cls=int, members=[("a", _vx.Layout("text"), 8, 0)]),
        lambda: _vx.Layout("struct", size=4, cls=int, members=[("a", _vx.Layout("text"), 0, 3)]),
        lambda: byte.unpack(b""), lambda: byte.unpack(b"12"), lambda: pointer.unpack(b"1234"),
    ]
    for make in wrong:
        with pytest.raises(ValueError):
            make()
    for make in (lambda: _vx.Layout("enum", code="i32", cls=int), lambda: byte.pack_member("a", 1)):
        with pytest.raises((AttributeError, TypeError)):
            make()
    nested = byte
    with pytest.raises(ValueError, match="nested too deep"):
        for _ in range(100):
            nested = _vx.Layout("array", target=nested, count=1)
