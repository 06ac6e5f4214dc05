"""Marshalling: calls of every signature into a guest that does what the input's script says (guest.c): writes
anywhere, forges vx_bytes, strings and exceptions, unmaps what it was lent, calls what it was lent, faults, loops.

Input: a signature, what callables do, arguments, and the script.  Every call ends in a value of the type that the interface promised, or
in an exception that a plugin may cause; then the sandbox and the arguments are as if nothing had happened.
"""

from __future__ import annotations

import array
import contextlib
import functools
import itertools
import math
import sys
from collections.abc import Callable
from typing import Any

from . import driver
from .driver import Reader, require

with driver.instrumented():
    import vxplug
    from vxplug.interface import PARAM_TYPES, RESULT_TYPES, Export, Import, Interface, encode_note
    from vxplug.types import (
        INTEGERS as RANGES, MODES, SIZES as SCALARS, ArrayType, EnumType, FunctionType, HandleType, Member, NumbersType,
        OptionalType, PointerType, StructType, Type, fit_a_call, is_call_param, is_call_result, is_callable_here, is_output,
        size_of,
    )

from . import plugins

PARAMS, RESULTS = sorted(PARAM_TYPES), sorted(RESULT_TYPES)
CALL_PARAMS, CALL_RESULTS = list(filter(is_call_param, PARAMS)), list(filter(is_call_result, RESULTS))
NUMBERS = [code for code in sorted(SCALARS) if code != "bool"]
MEMORY = 4 << 20
BASE = plugins.built("guest")
EXPORTS = vxplug.open(BASE).exports
STUBS = {name: function.address for name, function in vxplug.open(BASE).imports.items()}
RELEASE = vxplug.open(BASE)._interface.release
INTEGERS = (0, 1, -1, 127, 128, 255, 256, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), 2**400)
FLOATS = (0.0, -0.0, 1.5, 1e39, -1e308, math.inf, -math.inf, math.nan, 5e-324)
STRINGS = ("", "a", "\0", "é" * 50, "\U0001f600", "\ud800", "x" * 70000)
ARRAYS = {"i8": "b", "u8": "B", "i16": "h", "u16": "H", "i32": "i", "u32": "I", "i64": "q", "u64": "Q", "f32": "f", "f64": "d"}
SIZES = (0, 1, 15, 16, 17, 4095, 4096, 4097, 65536, 70000)


@functools.lru_cache(maxsize=64)  # each holds what it read of its debug information
def plugin_for(params: tuple[Type, ...], result: Type, imported: tuple[FunctionType, ...]) -> vxplug.Plugin:
    target = Export("target", EXPORTS["target"].address, None, "", tuple((f"p{i}", code) for i, code in enumerate(params)), result)
    imports = tuple(Import(name, address, "", type) for (name, address), type in zip(STUBS.items(), imported, strict=False))
    interface = Interface(None, RELEASE, (EXPORTS["load"], EXPORTS["add"], target), imports)
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


def draw_call_type(reader: Reader, result: bool, depth: int) -> Type:
    """What C passes to a function of the host's, or takes from it."""
    choice, codes = reader.byte(), CALL_RESULTS if result else CALL_PARAMS
    if choice < 112:
        return codes[choice % len(codes)]
    if choice < 144:
        return NumbersType(NUMBERS[choice % len(NUMBERS)], "in" if result or choice & 16 else "inout")
    if choice < 160:
        return HandleType("Owned", EXPORTS["target"].address) if choice & 4 else HandleType("Lent", 0)
    if choice < 192 and not result and depth:
        function = draw_function(reader, depth - 1)
        return function if is_callable_here(function) else "i32"
    inner = draw_value_type(reader, 2)
    return inner if choice < 208 else PointerType(inner, "in" if result or choice & 1 else "inout")


def draw_function(reader: Reader, depth: int = 2) -> FunctionType:
    params = tuple(draw_call_type(reader, False, depth) for _ in range(reader.byte() % 4))
    return FunctionType(params if fit_a_call(params) else (), draw_call_type(reader, True, depth))


def draw_value_type(reader: Reader, depth: int) -> Type:
    inner = draw_memory_type(reader, depth)
    return StructType(f"A{reader.at}", size_of(inner), (Member("items", inner, 0),)) if isinstance(inner, ArrayType) else inner


def draw_special(reader: Reader, result: bool) -> Type:
    """Numbers, callables, and handles whose destructor is the hostile function too."""
    choice = reader.byte()
    if choice % 3 == 0:
        return NumbersType(NUMBERS[choice // 3 % len(NUMBERS)], "out" if result else ("in", "inout")[choice & 1])
    if choice % 3 == 1:
        function = draw_function(reader)
        return function if not result or is_callable_here(function) else "none"
    return HandleType("Owned", EXPORTS["target"].address) if choice & 4 else HandleType("Lent", 0)


def draw_type(reader: Reader, codes: list[str], result: bool) -> Type:
    choice = reader.byte()
    if choice < 136:
        return codes[choice % len(codes)]
    if choice < 160:
        return draw_special(reader, result)
    inner = draw_value_type(reader, 3)
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


class Host:
    """What the guest's calls out meet: callables that answer, fail or call back, as the input says."""

    box: vxplug.Sandbox  # set when it is there

    def __init__(self, reader: Reader, classes: Any) -> None:
        self.actions = itertools.cycle(reader.take(6) or b"\0")
        self.classes = classes
        self.things: list[Any] = []  # handles that results were
        self.functions: list[tuple[FunctionType, Any]] = []  # of the guest's

    def function(self, type: FunctionType) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            for code, value in zip(type.params, arguments, strict=True):
                check_callback_argument(code, value)
                self.keep(code, value)
            return self.act(type, next(self.actions))

        return called

    def keep(self, type: Type, value: Any) -> None:
        """What the guest gave, to be used later, also when it is dead."""
        if isinstance(type, HandleType) and value is not None:
            self.things.append(value)
        if isinstance(type, FunctionType) and value is not None:
            self.functions.append((type, value))
        if isinstance(type, NumbersType) and type.mode == "inout":
            value.reverse()

    def call_guest(self, reader: Reader) -> None:
        for type, function in self.functions[-1:]:
            inputs = [p.target if isinstance(p, PointerType) else p for p in type.params]
            function(*[argument(reader, p, self.classes, self) for p in inputs])

    def answer(self, type: FunctionType, reader: Reader) -> Any:
        given = [] if type.result == "none" else [argument(reader, type.result, self.classes, self)]
        given += [None if reader.byte() & 1 else argument(reader, p.target, self.classes, self)
                  for p in type.params if isinstance(p, PointerType) and is_output(p)]
        return given[0] if len(given) == 1 else tuple(given)

    def act(self, type: FunctionType, action: int) -> Any:
        if action % 8 == 0:
            raise KeyError(action)
        if action % 8 == 1:
            require(self.box["add"](2, 3) == 5, "a call in a callback")
        if action % 8 == 2:
            self.box.reset()
        if action % 8 == 3:
            return object()
        if action % 8 == 4:
            self.call_guest(Reader(bytes([action & 127])))
        return self.answer(type, Reader(bytes([action & 127, action, action >> 3])))


def numbers(reader: Reader, type: NumbersType) -> Any:
    count = SIZES[reader.byte() % len(SIZES)] % 5000
    values = array.array(ARRAYS[type.item], [1]) * count
    return list(values) if type.mode == "in" and reader.byte() & 1 else values


def composed(reader: Reader, type: Type, classes: Any, host: Host) -> Any:
    """A value of a type of the plugin's own, now and then with a wrong part."""
    if isinstance(type, FunctionType):
        return host.function(type)
    if isinstance(type, HandleType):
        return host.things[-1] if host.things else None
    if isinstance(type, NumbersType):
        return numbers(reader, type)
    if isinstance(type, EnumType):
        return classes.annotation(type).B if reader.byte() & 1 else reader.number(2)
    if isinstance(type, ArrayType):
        return bytes(reader.take(type.count)) if reader.byte() & 1 else [argument(reader, type.item, classes, host) for _ in range(type.count)]
    if isinstance(type, OptionalType):
        return None if reader.byte() % 4 == 0 else argument(reader, type.item, classes, host)
    if isinstance(type, PointerType):
        return None if reader.byte() % 8 == 0 else argument(reader, type.target, classes, host)
    cls = classes.annotation(type)
    if type.union:
        member = type.members[reader.byte() % len(type.members)]
        return cls(**{member.name: argument(reader, member.type, classes, host)})
    return cls(*(argument(reader, member.type, classes, host) for member in type.members))


def argument(reader: Reader, code: Any, classes: Any, host: Host) -> Any:
    choice = reader.byte()
    if choice == 255:
        return (None, "text", 1.5, b"x", [1], object())[reader.byte() % 6]
    if not isinstance(code, str):
        return composed(reader, code, classes, host)
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


def check_callback_argument(code: Type, value: Any) -> None:
    if code in ("view", "mut"):
        require(type(value) is (bytes if code == "view" else bytearray) and len(value) <= MEMORY, "bytes for a callback")
    else:
        check_result(code, value)


def check_result(code: Type, value: Any) -> None:
    if isinstance(code, NumbersType):
        require(isinstance(value, array.array) and value.typecode == ARRAYS[code.item], "numbers")
    elif not isinstance(code, str):
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


def call(box: vxplug.Sandbox, result: Type, arguments: list[Any], host: Host) -> None:
    try:
        value = box["target"](*arguments)
    except Exception as error:
        check_error(error)
    else:
        check_result(result, value)
        host.keep(result, value)


def draw_arguments(reader: Reader, host: Host, params: tuple[Type, ...]) -> list[Any]:
    inputs = [type for type in params if not (isinstance(type, PointerType) and type.mode == "out")]
    try:
        return [argument(reader, type, host.classes, host) for type in inputs]
    except (TypeError, ValueError, OverflowError):
        return []  # a union takes no part that is wrong


def script(flags: int, rest: bytes) -> bytes:
    """What guest.c is to do: as the input says, but that alone seldom hits on a call of what is lent."""
    start = bytes([13, 8 | flags & 16]) if flags & 32 else b""  # an import, with what follows as arguments
    start += bytes([13, 1 | flags >> 6 & 2]) if flags & 64 else b""  # the first or second argument
    return (start + rest)[:4096]


def one_input(data: bytes) -> None:
    reader = Reader(data)
    result = draw_type(reader, RESULTS, True)
    params = tuple(draw_type(reader, PARAMS, False) for _ in range(reader.byte() % 6))
    if not fit_a_call(params):
        return  # the loader refuses it: the note's harness
    flags = reader.byte()
    imported = tuple(draw_function(reader) for _ in range(flags >> 3 & 3))[: len(STUBS)]
    plugin = plugin_for(params, result, imported)
    outputs = len(plugin.exports["target"].outputs)
    host = Host(reader, plugin.exports["target"].classes)
    box = host.box = plugin.sandbox(memory=MEMORY, stack=1 << 16, timeout=0.02, stdout=len, stderr=len,
                                    on_fault="poison" if flags & 1 else "reset",
                                    imports={name: host.function(f.type) for name, f in plugin.imports.items()})
    arguments = draw_arguments(reader, host, params)
    before = references(arguments)
    try:
        box["load"](script(flags, reader.rest()))
    except vxplug.GuestTimeout:
        return  # the machine is busy with something else
    for _ in range(1 + (flags >> 1 & 3)):
        call(box, result if outputs == (result != "none") else StructType("several", 1, ()), arguments, host)
    try:
        host.call_guest(reader)
    except Exception as error:
        check_error(error)
    require(references(arguments) == before, "a reference is lost or kept")
    check_arguments(arguments)
    require(box.memory_used <= MEMORY, "memory limit")
    box.reset()
    with contextlib.suppress(vxplug.GuestTimeout):
        require(box["add"](2, 3) == 5, "the sandbox is well after a reset")
    box.close()


if __name__ == "__main__":
    driver.main(one_input)
