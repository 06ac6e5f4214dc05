"""Words of a command line as limits and as arguments of an export, and values of a plugin as JSON."""

from __future__ import annotations

import argparse
import array
import base64
import enum
import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from .classes import Stream, Union
from .errors import Error
from .interface import Export
from .sandbox import MEMORY_MAX, MIB
from .types import ArrayType, EnumType, HandleType, NumbersType, OptionalType, PointerType, StructType, Type, is_input

__all__ = ["arguments_of", "mebibytes", "seconds", "stack_for", "to_json"]

ARRAY_CODES = {"i8": "b", "u8": "B", "i16": "h", "u16": "H", "i32": "i", "u32": "I", "i64": "q", "u64": "Q", "f32": "f", "f64": "d"}


# ---- words to limits ----


def mebibytes(text: str) -> int:
    """A limit of memory, in bytes."""
    try:
        count = int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of MiB") from None
    if not 1 <= count <= MEMORY_MAX // MIB:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and {MEMORY_MAX // MIB} MiB")
    return count * MIB


def seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 1e-6 <= number <= 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.000001 and 1000000000 seconds")
    return number


def stack_for(memory: int) -> int:
    """The usual one, or half of the memory where there is less."""
    return min(8 * MIB, memory // 2)


# ---- words to arguments ----


def _data(text: str) -> bytes:
    return Path(text[1:]).read_bytes() if text.startswith("@") else text.encode()


def _scalar(text: str, code: str) -> Any:
    if code == "bool":
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    return float(text) if code in ("f32", "f64") else int(text, 0)


def _enum(text: str, cls: Any) -> Any:
    return cls[text] if text in cls.__members__ else int(text, 0)


def _member(value: Any, type: Type, classes: Mapping[str, Any]) -> Any:
    """A part of JSON as what a struct's member takes."""
    if isinstance(type, StructType):
        return _struct(value, type, classes)
    if isinstance(type, EnumType):
        return _enum(value, classes[type.name]) if isinstance(value, str) else value
    if isinstance(type, ArrayType) and isinstance(value, str):
        return value.encode()
    if isinstance(type, ArrayType) and (type.text or type.item == "u8"):
        return bytes(value)
    if isinstance(type, ArrayType):
        return [_member(item, type.item, classes) for item in value]
    return value


def _struct(value: Any, type: StructType, classes: Mapping[str, Any]) -> Any:
    members = {member.name: member.type for member in type.members}
    return classes[type.name](**{name: _member(part, members[name], classes) for name, part in value.items()})


def _argument(text: str, type: Type, classes: Mapping[str, Any]) -> Any:
    if isinstance(type, OptionalType):
        return None if text == "null" else _argument(text, type.item, classes)
    if isinstance(type, PointerType):
        return _argument(text, type.target, classes)
    if isinstance(type, StructType):
        return _struct(json.loads(_data(text)), type, classes)
    if isinstance(type, EnumType):
        return _enum(text, classes[type.name])
    if isinstance(type, NumbersType):
        return array.array(ARRAY_CODES[type.item], json.loads(_data(text)))
    if type in ("view", "mut"):
        return (bytes if type == "view" else bytearray)(_data(text))
    if isinstance(type, str):
        return text if type == "str" else _scalar(text, type)
    raise Error(f"a {'handle' if isinstance(type, HandleType) else 'callback'} has no spelling on a command line")


def arguments_of(export: Export, texts: list[str], classes: Mapping[str, Any]) -> list[Any]:
    """``@FILE`` is a file's bytes, structs and arrays of numbers are JSON, ``null`` is a pointer to nothing."""
    taken = [(name, type) for name, type in export.params if is_input(type)]
    if len(texts) != len(taken):
        raise Error(f"{export.name}{export.signature} takes {len(taken)} arguments")
    arguments = []
    for text, (name, type), (_, annotation) in zip(texts, taken, export.inputs, strict=True):
        try:
            arguments.append(_argument(text, type, classes))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            raise Error(f"argument {name}: {text!r} is not a {getattr(annotation, '__name__', annotation)}") from None
        except Error as error:
            raise Error(f"argument {name}: {error}") from None
    return arguments


# ---- values to JSON ----


def to_json(value: Any) -> Any:
    """In types that JSON has: structs are objects, enums their names where they have one, bytes
    ``{"base64": …}``, floats that are no numbers text, handles null, streams lists of their pieces."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, (bytes, bytearray)):
        return {"base64": base64.b64encode(value).decode()}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Union):
        return {name: to_json(getattr(value, name)) for name in type(value).__layout__.members}
    if isinstance(value, (tuple, list, array.array, Stream)):
        return [to_json(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, str)) else None
