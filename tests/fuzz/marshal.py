"""Marshalling: calls of every signature into a guest that does what the input's script says (guest.c): writes
anywhere, forges vx_bytes, strings and exceptions, unmaps what it was lent, faults, loops.

Input: a signature, arguments, and the script.  Every call ends in a value of the type that the interface promised, or
in an exception that a plugin may cause; then the sandbox and the arguments are as if nothing had happened.
"""

from __future__ import annotations

import functools
import math
import sys
from typing import Any

from . import driver
from .driver import Reader, require

with driver.instrumented():
    import vxplug
    from vxplug.interface import PARAM_TYPES, RESULT_TYPES, Export, Interface, encode_note

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
def plugin_for(params: tuple[str, ...], result: str, pointer: int) -> vxplug.Plugin:
    target = Export("target", EXPORTS["target"].address + pointer, None, "", tuple((f"p{i}", code) for i, code in enumerate(params)), result)
    interface = Interface(None, RELEASE, (EXPORTS["load"], EXPORTS["add"], target))
    return vxplug.open(plugins.with_note(BASE, encode_note(interface)))


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


def argument(reader: Reader, code: str) -> Any:
    choice = reader.byte()
    if choice == 255:
        return (None, "text", 1.5, b"x", [1], object())[reader.byte() % 6]
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


def check_result(code: str, value: Any) -> None:
    if code in ("f32", "f64"):
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


def call(box: vxplug.Sandbox, result: str, arguments: list[Any]) -> None:
    try:
        value = box["target"](*arguments)
    except Exception as error:
        check_error(error)
    else:
        check_result(result, value)


def one_input(data: bytes) -> None:
    reader = Reader(data)
    result = RESULTS[reader.byte() % len(RESULTS)]
    params = tuple(PARAMS[reader.byte() % len(PARAMS)] for _ in range(reader.byte() % 6))
    flags = reader.byte()
    box = plugin_for(params, result, 0).sandbox(memory=MEMORY, stack=1 << 16, timeout=0.02, stdout=len, stderr=len,
                                               on_fault="poison" if flags & 1 else "reset")
    arguments = [argument(reader, code) for code in params]
    before = references(arguments)
    box["load"](reader.rest()[:4096])
    for _ in range(1 + (flags >> 1 & 3)):
        call(box, result, arguments)
    require(references(arguments) == before, "a reference is lost or kept")
    check_arguments(arguments)
    require(box.memory_used <= MEMORY, "memory limit")
    box.reset()
    require(box["add"](2, 3) == 5, "the sandbox is well after a reset")
    box.close()


if __name__ == "__main__":
    driver.main(one_input)
