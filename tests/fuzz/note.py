"""The interface note: any bytes either decode or raise PluginFormatError, and what decodes can be used everywhere an
interface is: as signatures, stubs, functions of a sandbox and attributes of a module.

Input: one byte; 0: the rest is the section's bytes.  Else it is the version, the rest the descriptor's text.
"""

from __future__ import annotations

import inspect
import json
import random
import struct
from types import ModuleType
from typing import Any

from . import driver
from .driver import require

with driver.instrumented():
    import vxplug
    from vxplug import importer
    from vxplug.interface import PARAM_TYPES, RESULT_TYPES, decode_note, encode_note
    from vxplug.stubs import stub_text
    from vxplug.types import SIZES

from . import plugins

NAMES = ["a", "self", "lambda", "__class__", "__init__", "reset", "close", "_box", "plugin", "None", "print", "é", "a b", "",
         "x" * 300, "\u202ea", "_", "__spec__", "box", "timeout"]
VALUES: list[Any] = [None, True, False, 0, -1, 1, 1.5, 1e400, 2**31, 2**32 - 1, 2**32, 2**70, "", "\0", "\n", "\x1b[31m", "\u202e",
                     "\ud800", "a" * 70000, [], {}, [[]], plugins.EXPORT, plugins.ENTRY, *NAMES, *PARAM_TYPES, *RESULT_TYPES]


def wrapped(version: int, text: bytes) -> bytes:
    return struct.pack("<III", 7, len(text), version) + b"vxplug\0\0" + text


def use(interface: Any, note: bytes) -> None:
    for export in interface.exports:
        require(export.name.isidentifier() and export.name.isascii(), "a name that is none")
    data = plugins.small_plugin(note)
    try:
        text = stub_text(vxplug.open(data))
        require(all(char.isprintable() or char == "\n" for char in text), "control characters in a stub")
        compile(text, "stub", "exec")
        loader = importer.PluginLoader("fuzzed", "fuzzed.vxm", data, {"memory": 1 << 20, "stack": 1 << 14, "timeout": 1})
        module = ModuleType("fuzzed")
        loader.exec_module(module)
    except vxplug.Error:
        return
    box = module.__sandbox__
    require(isinstance(box, vxplug.Sandbox) and {e.name for e in interface.exports} <= set(module.__all__), "module attributes")
    for export in interface.exports:
        function = box[export.name]
        require(getattr(module, export.name) is function, "a function is hidden")
        require(len(inspect.signature(function).parameters) == len(export.inputs), "signature")
        repr(function), function.__doc__
        if not export.params:
            try:
                function()
            except vxplug.Error:
                pass  # a fault of the guest: the result's registers are whatever they are
    require(isinstance(repr(box), str) and dir(box) and not box.closed, "the sandbox's own attributes")
    box.close()


def one_input(data: bytes) -> None:
    note = data[1:] if data[:1] == b"\0" else wrapped(data[0] if data else 1, data[1:])
    try:
        interface = decode_note(note)
    except vxplug.PluginFormatError as error:
        require(len(str(error)) < 1000 and str(error).isprintable(), "an error text")
        return
    again = decode_note(encode_note(interface))
    require([e.name for e in again.exports] == [e.name for e in interface.exports], "encode and decode")
    use(interface, note)


# --- a mutator of JSON trees ---------------------------------------------------------------------------------


def example(rng: random.Random) -> dict[str, Any]:
    types = [example_type(rng, number) for number in range(rng.randrange(5))]
    params = [[f"p{i}", rng.choice([*PARAM_TYPES, *range(len(types))])] for i in range(rng.randrange(4))]
    export = {"name": rng.choice(NAMES), "address": plugins.EXPORT, "doc": rng.choice((None, "doc")), "prototype": "int f(void)",
              "params": params, "result": rng.choice([*RESULT_TYPES, *range(len(types))])}
    return {"abi": 2 if types else 1, "doc": None, "release": 0, "exports": [export], **({"types": types} if types else {})}


def example_type(rng: random.Random, number: int) -> dict[str, Any]:
    """A row of the type table that may refer to the earlier ones."""
    inner = rng.choice([*SIZES, *range(number)])
    kind = rng.choice(("enum", "struct", "struct", "union", "array", "pointer"))
    name = rng.choice((f"T{number}", *NAMES))
    if kind == "enum":
        return {"kind": kind, "name": name, "base": rng.choice(("i32", "u8", "u64")), "members": [[rng.choice(NAMES), 1], ["B", -1 if rng.random() < 0.2 else 2]]}
    if kind == "array":
        return {"kind": kind, "item": inner, "count": rng.choice((1, 3, 300, 70000)), "text": rng.random() < 0.2}
    if kind == "pointer":
        return {"kind": kind, "target": inner, "mode": rng.choice(("in", "out", "inout")), "optional": rng.random() < 0.5}
    members = [[f"m{i}", rng.choice([*SIZES, inner]), rng.choice((0, 32, 64 * i, 3)), rng.choice((0, 0, 0, 3))] for i in range(rng.randrange(1, 4))]
    return {"kind": kind, "name": name, "size": rng.choice((4, 16, 64, 4096)), "members": members}


def paths(tree: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [prefix]
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        found += paths(value, (*prefix, key))
    return found


def _parent(tree: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        tree = tree[key]
    return tree


def change(tree: Any, rng: random.Random) -> Any:
    path = rng.choice(paths(tree)[:400])
    if not path:
        return example(rng)
    parent, key = _parent(tree, path), path[-1]
    kind = rng.randrange(5)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, list):
        parent.insert(key, json.loads(json.dumps(parent[key])))
    elif kind == 2 and isinstance(parent, dict):
        parent[rng.choice([*parent, "extra"])] = parent[key]
    elif kind == 3 and isinstance(parent[key], list):
        parent[key].append(rng.choice([["q", "i32"], *VALUES]))
    else:
        parent[key] = rng.choice(VALUES)
    return tree


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    import atheris

    rng = random.Random(seed)
    if rng.randrange(3) == 0:
        return bytes(atheris.Mutate(data, max_size))
    try:
        tree = json.loads(data[1:])
        for _ in range(rng.choice((1, 1, 2, 4))):
            tree = change(tree, rng)
        text = json.dumps(tree, ensure_ascii=rng.random() < 0.3)
        return (data[:1] + text.encode("utf-8", "surrogatepass"))[:max_size]
    except (ValueError, RecursionError, TypeError):
        tree = example(rng)
        return (bytes([tree["abi"]]) + json.dumps(tree).encode())[:max_size]


if __name__ == "__main__":
    driver.main(one_input, mutate)
