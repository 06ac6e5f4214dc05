"""Marshalling: calls of every signature into a guest that does what the input's script says (guest.c): writes
anywhere, forges vx_bytes, strings and exceptions, unmaps what it was lent, faults, loops.

Input: a signature, arguments, and the script.  Every call ends in a value of the type that the interface promised, or
in an exception that a plugin may cause; then the sandbox and the arguments are as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import functools
import math
import sys
from typing import Any

from . import driver
from .driver import Reader, require

with driver.instrumented():
    import vxplug
    from vxplug.interface import PARAM_TYPES, RESULT_TYPES, Export, Interface, encode_note
    from vxplug.types import INTEGERS as RANGES, MODES, SIZES as SCALARS, ArrayType, EnumType, Member, OptionalType, PointerType, StructType, Type, fit_a_call, size_of

from . import plugins

PARAMS, RESULTS = sorted(PARAM_TYPES), sorted(RESULT_TYPES)
MEMORY = 4 << 20
BASE = plugins.built("guest")
EXPORTS = vxplug.open(BASE).exports
RELEASE = vxplug.open(BASE)._interface.release
INTEGERS = (0, 1, -1, 127, 128, 255, 256, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), 2**400)
FLOATS = (0.0, -0.0, 1.5, 1e39, -1e308, math.inf, -math.inf, math.nan, 5e-324)
STRINGS = ("", "a", "\0", "é" * 50, "\U0001f600", "\ud800", "x" * 70000)
SIZES = (0, 1, 15, 16, 17, 4095, 4096, 4097, 65536, 70000)


@functools.lru_cache(maxsize=512)
def plugin_for(params: tuple[Type, ...], result: Type) -> vxplug.Plugin:
    target = Export("target", EXPORTS["target"].address, None, "", tuple((f"p{i}", code) for i, code in enumerate(params)), result)
    interface = Interface(None, RELEASE, (EXPORTS["load"], EXPORTS["add"], target))
    return vxplug.open(plugins.with_note(BASE, encode_note(interface)))


# --- types ---------------------------------------------------------------------------------------------------


def draw_struct(reader: Reader, depth: int) -> StructType:
    union, members, at = reader.byte() & 1 == 1, [], 0
    for number in range(1 + reader.byte() % 4):
        inner = draw_memory_type(reader, depth - 1)
        bits = reader.byte() % 8 if inner in RANGES and reader.byte() & 1 else 0
        members.append(Member(f"m{number}", inner, 0 if union else at, bits))
        at += bits or 8 * size_of(inner)
        if not bits:
            at = members[-1].bit + 8 * size_of(inner)
    size = (max(m.bit + 8 * size_of(m.type) for m in members) + 7) // 8 + reader.byte() % 5
    aligned = tuple(m if m.bits or m.bit % 8 == 0 else Member(m.name, m.type, (m.bit + 7) // 8 * 8, 0) for m in members)
    return StructType(f"S{depth}_{reader.at}", size + 1, aligned, union)


def draw_memory_type(reader: Reader, depth: int) -> Type:
    choice = reader.byte()
    if depth == 0 or choice % 6 < 2:
        return sorted(SCALARS)[choice % len(SCALARS)]
    if choice % 6 == 2:
        base = sorted(RANGES)[reader.byte() % len(RANGES)]
        return EnumType(f"E{reader.at}", base, (("A", 0), ("B", 1), ("TOP", RANGES[base][1])))
    if choice % 6 == 3:
        item = draw_memory_type(reader, depth - 1)
        return ArrayType(item, 1 + reader.byte() % 20, item in ("i8", "u8") and choice > 128)
    return draw_struct(reader, depth)


def draw_type(reader: Reader, codes: list[str], result: bool) -> Type:
    choice = reader.byte()
    if choice < 160:
        return codes[choice % len(codes)]
    inner = draw_memory_type(reader, 3)
    if isinstance(inner, ArrayType):
        inner = StructType(f"A{reader.at}", size_of(inner), (Member("items", inner, 0),))
    if choice < 208:
        return inner
    pointer = PointerType(inner, "in" if result else MODES[choice % 3])
    return pointer if result or pointer.mode == "out" or choice & 4 else OptionalType(pointer)


# --- arguments -----------------------------------------------------------------------------------------------


class Index:
    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


def buffer(reader: Reader) -> Any:
    size = SIZES[reader.byte() % len(SIZES)]
    raw = bytearray(b"\xa5" * size)
    kind = reader.byte() % 6
    if kind == 0:
        return bytes(raw)
    if kind == 1:
        return memoryview(raw)[: size // 2]
    if kind == 2:
        return memoryview(raw)[::2]
    if kind == 3:
        return memoryview(bytes(raw))
    return raw


def composed(reader: Reader, type: Type, classes: Any) -> Any:
    """A value of a type of the plugin's own, now and then with a wrong part."""
    if isinstance(type, EnumType):
        return classes.annotation(type).B if reader.byte() & 1 else reader.number(2)
    if isinstance(type, ArrayType):
        return bytes(reader.take(type.count)) if reader.byte() & 1 else [argument(reader, type.item, classes) for _ in range(type.count)]
    if isinstance(type, OptionalType):
        return None if reader.byte() % 4 == 0 else argument(reader, type.item, classes)
    if isinstance(type, PointerType):
        return None if reader.byte() % 8 == 0 else argument(reader, type.target, classes)
    cls = classes.annotation(type)
    if type.union:
        member = type.members[reader.byte() % len(type.members)]
        return cls(**{member.name: argument(reader, member.type, classes)})
    return cls(*(argument(reader, member.type, classes) for member in type.members))


def argument(reader: Reader, code: Any, classes: Any) -> Any:
    choice = reader.byte()
    if choice == 255:
        return (None, "text", 1.5, b"x", [1], object())[reader.byte() % 6]
    if not isinstance(code, str):
        return composed(reader, code, classes)
    if code in ("view", "mut"):
        return buffer(reader)
    if code == "str":
        return STRINGS[choice % len(STRINGS)]
    if code in ("f32", "f64"):
        return FLOATS[choice % len(FLOATS)]
    value = INTEGERS[choice % len(INTEGERS)] if choice < 128 else choice & 63
    return Index(value) if choice == 254 else value


def in_range(code: str, value: int) -> bool:
    bits = int(code[1:])
    return 0 <= value < 1 << bits if code[0] == "u" else -(1 << bits - 1) <= value < 1 << bits - 1


def check_result(code: Type, value: Any) -> None:
    if not isinstance(code, str):
        require(len(repr(value)) >= 0 and value == value or "nan" in repr(value), "a value of a composed type")
    elif code in ("f32", "f64"):
        require(type(value) is float, "a float")
    elif code == "bool":
        require(type(value) is bool, "a bool")
    elif code == "none":
        require(value is None, "None")
    elif code == "str":
        require(value is None or (type(value) is str and len(value) <= MEMORY and "\0" not in value), "a str")
    elif code == "bytes":
        require(type(value) is bytes and len(value) <= MEMORY and isinstance(hash(value), int), "bytes")
    else:
        require(type(value) is int and in_range(code, value), f"{value} of {code}")


def check_error(error: Exception) -> None:
    """What a guest may cause: the package's own errors, and builtin ones that it or a wrong argument named."""
    if isinstance(error, vxplug.GuestFault):
        require(error.kind not in ("unverified-code", "none", "return", "ready", "hook"), error.kind)
    require(not isinstance(error, SystemError) or "exception set" not in str(error) and "without" not in str(error), repr(error))
    module = type(error).__module__
    require(module in ("builtins", "vxplug.errors"), f"{type(error)}")
    require(all(char.isprintable() or char == "\n" for char in str(error)) or module == "builtins", repr(error))


def references(arguments: list[Any]) -> list[int]:
    """Counts of what nobody else may hold."""
    return [sys.getrefcount(value) for value in arguments if isinstance(value, (bytearray, memoryview, Index))]


def check_arguments(arguments: list[Any]) -> None:
    for value in arguments:
        if isinstance(value, bytearray):
            value.append(0)  # BufferError: the buffer is still lent
            value.pop()
        elif isinstance(value, bytes):
            require(value.count(0xA5) == len(value) or value == b"x", "immutable bytes have changed")


def call(box: vxplug.Sandbox, result: Type, arguments: list[Any]) -> None:
    try:
        value = box["target"](*arguments)
    except Exception as error:
        check_error(error)
    else:
        check_result(result, value)


def draw_arguments(reader: Reader, plugin: vxplug.Plugin, params: tuple[Type, ...]) -> list[Any]:
    inputs = [type for type in params if not (isinstance(type, PointerType) and type.mode == "out")]
    try:
        return [argument(reader, type, plugin.exports["target"].classes) for type in inputs]
    except (TypeError, ValueError, OverflowError):
        return []  # a union takes no part that is wrong


def one_input(data: bytes) -> None:
    reader = Reader(data)
    result = draw_type(reader, RESULTS, True)
    params = tuple(draw_type(reader, PARAMS, False) for _ in range(reader.byte() % 6))
    if not fit_a_call(params):
        return  # the loader refuses it: the note's harness
    flags = reader.byte()
    plugin = plugin_for(params, result)
    outputs = len(plugin.exports["target"].outputs)
    box = plugin.sandbox(memory=MEMORY, stack=1 << 16, timeout=0.02, stdout=len, stderr=len,
                         on_fault="poison" if flags & 1 else "reset")
    arguments = draw_arguments(reader, plugin, params)
    before = references(arguments)
    try:
        box["load"](reader.rest()[:4096])
    except vxplug.GuestTimeout:
        return  # the machine is busy with something else
    for _ in range(1 + (flags >> 1 & 3)):
        call(box, result if outputs == (result != "none") else StructType("several", 1, ()), arguments)
    require(references(arguments) == before, "a reference is lost or kept")
    check_arguments(arguments)
    require(box.memory_used <= MEMORY, "memory limit")
    box.reset()
    with contextlib.suppress(vxplug.GuestTimeout):
        require(box["add"](2, 3) == 5, "the sandbox is well after a reset")
    box.close()


if __name__ == "__main__":
    driver.main(one_input)
