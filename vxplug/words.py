"""Words of a command line as limits and as arguments of an export, and values of a plugin as JSON."""

from __future__ import annotations

import argparse
import array
import base64
import enum
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from .classes import PARAM_TYPES, Stream, Union
from .errors import Error
from .interface import Export
from .sandbox import MEMORY_MAX, MIB
from .types import (
    INTEGERS, ArrayType, EnumType, HandleType, NumbersType, OptionalType, PointerType, StructType, Type, is_input,
)

__all__ = ["arguments_of", "mebibytes", "seconds", "to_json", "written_of"]

ARRAY_CODES = {"i8": "b", "u8": "B", "i16": "h", "u16": "H", "i32": "i", "u32": "I", "i64": "q", "u64": "Q", "f32": "f", "f64": "d"}
_C_NAMES = {"f32": "float", "f64": "double"} | {code: f"{'u' * (code[0] == 'u')}int{code[1:]}_t" for code in INTEGERS}


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


# ---- words to arguments ----


def _data(text: str) -> bytes:
    return Path(text[1:]).read_bytes() if text.startswith("@") else text.encode()


def _scalar(text: str, code: str) -> Any:
    if code == "bool":
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    return float(text) if code in ("f32", "f64") else int(text, 0)


def _enum(text: str, cls: Any) -> Any:
    return cls[text] if text in cls.__members__ else int(text, 0)


def _kind(type: Type) -> str:
    """What a word or a part of JSON should have been."""
    if isinstance(type, OptionalType):
        return _kind(type.item)
    if isinstance(type, PointerType):
        return _kind(type.target)
    if isinstance(type, ArrayType):
        return f"an array of {type.count}"
    name = PARAM_TYPES[type].__name__ if isinstance(type, str) else getattr(type, "name", "array")
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


@contextmanager
def _blamed(where: str, value: Any, type: Type) -> Iterator[None]:
    """What Python's own conversions raise, as a line that says which part is wrong."""
    try:
        yield
    except Error as error:
        raise Error(f"{where}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise Error(f"{where}: {value!r} is not {_kind(type)}") from None


def _json(text: str) -> Any:
    try:
        return json.loads(_data(text))
    except (ValueError, RecursionError) as error:
        raise Error(f"{text!r} is not JSON: {error}") from None


def _member(value: Any, type: Type, classes: Mapping[str, Any]) -> Any:
    """A part of JSON as what a struct's member takes."""
    if isinstance(type, StructType):
        return _struct(value, type, classes)
    if isinstance(type, EnumType):
        return _enum(value, classes[type.name]) if isinstance(value, str) else value
    if isinstance(type, ArrayType) and isinstance(value, str):
        return value.encode()
    if not isinstance(type, ArrayType) or not isinstance(value, list):
        return value
    if type.text or type.item == "u8":
        return bytes(value)
    return [_member(item, type.item, classes) for item in value]


def _check_members(value: Any, type: StructType, members: Mapping[str, Type]) -> None:
    if not isinstance(value, dict):
        raise Error(f"{value!r} is not a JSON object, which {_kind(type)} is")
    for name in value:
        if name not in members:
            raise Error(f"{type.name} has no member {name!r}; there are: {', '.join(members)}")
    if type.union and len(value) != 1:
        raise Error(f"{type.name} takes exactly one of {', '.join(members)}")
    missing = [] if type.union else [name for name in members if name not in value]
    if missing:
        raise Error(f"{type.name} needs {', '.join(missing)}, too")


def _struct(value: Any, type: StructType, classes: Mapping[str, Any]) -> Any:
    members, made = {member.name: member.type for member in type.members}, {}
    _check_members(value, type, members)
    for name, part in value.items():
        with _blamed(name, part, members[name]):
            made[name] = _member(part, members[name], classes)
    return classes[type.name](**made)


def _numbers(items: Any, code: str) -> array.array[Any]:
    if not isinstance(items, list):
        raise Error(f"{items!r} is not a JSON array")
    made = array.array(ARRAY_CODES[code])
    for item in items:
        try:
            made.append(item)
        except OverflowError:
            raise Error(f"{item} is out of range of {_C_NAMES[code]}") from None
        except TypeError:
            raise Error(f"{item!r} is not {_kind(code)}") from None
    return made


def _nullable_text(text: str) -> str | None:
    """Text in the quotes of JSON is without them, or none could be ``null``."""
    if not text.startswith('"'):
        return None if text == "null" else text
    try:
        return str(json.loads(text))
    except ValueError:
        return text


def _argument(text: str, type: Type, classes: Mapping[str, Any]) -> Any:
    if isinstance(type, OptionalType) and type.item == "str":
        return _nullable_text(text)
    if isinstance(type, OptionalType):
        return None if text == "null" else _argument(text, type.item, classes)
    if isinstance(type, PointerType):
        return _argument(text, type.target, classes)
    if isinstance(type, StructType):
        return _struct(_json(text), type, classes)
    if isinstance(type, EnumType):
        return _enum(text, classes[type.name])
    if isinstance(type, NumbersType):
        return _numbers(_json(text), type.item)
    if type in ("view", "mut"):
        return (bytes if type == "view" else bytearray)(_data(text))
    if isinstance(type, str):
        return text if type == "str" else _scalar(text, type)
    raise Error(f"a {'handle' if isinstance(type, HandleType) else 'callback'} has no spelling on a command line")


def _taken(export: Export) -> list[tuple[str, Type]]:
    return [(name, type) for name, type in export.params if is_input(type)]


def arguments_of(export: Export, texts: list[str], classes: Mapping[str, Any]) -> list[Any]:
    """``@FILE`` is a file's bytes, structs and arrays of numbers are JSON, ``null`` is a pointer to nothing."""
    taken = _taken(export)
    if len(texts) != len(taken):
        raise Error(f"{export.name}{export.signature} takes {len(taken)} argument{'s' if len(taken) != 1 else ''}, not {len(texts)}")
    arguments = []
    for text, (name, type) in zip(texts, taken, strict=True):
        with _blamed(f"argument {name}", text, type):
            arguments.append(_argument(text, type, classes))
    return arguments


def _is_written(type: Type) -> bool:
    inner = type.item if isinstance(type, OptionalType) else type
    return inner == "mut" or (isinstance(inner, NumbersType) and inner.mode == "inout")


def written_of(export: Export, arguments: list[Any]) -> dict[str, Any]:
    """The arguments that the function writes into, by name: no result has what it leaves there."""
    return {name: value for (name, type), value in zip(_taken(export), arguments, strict=True) if _is_written(type)}


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
