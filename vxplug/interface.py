"""The interface note: what a plugin exports, written by the build, validated before use.

The note is the ELF section ``.note.vxplug``: an ELF note, name ``vxplug``, type the ABI version, whose
descriptor is compact UTF-8 JSON::

    {"abi": 1, "doc": str | null, "release": address,
     "exports": [{"name", "address", "doc", "prototype", "params": [[name, code], …], "result"}]}
"""

from __future__ import annotations

import inspect
import json
import keyword
import struct
from dataclasses import dataclass
from typing import Any

from .errors import PluginFormatError, escape

__all__ = ["ABI_VERSION", "Export", "Interface", "decode_note", "encode_note"]

ABI_VERSION = 1
NOTE_NAME = b"vxplug\0"
NOTE_MAX = 1 << 20
EXPORTS_MAX = 4096
PARAMS_MAX = 64
TEXT_MAX = 65536

SCALARS = {
    "i8": int, "u8": int, "i16": int, "u16": int, "i32": int, "u32": int, "i64": int, "u64": int,
    "bool": bool, "f32": float, "f64": float,
}
PARAM_TYPES: dict[str, Any] = {**SCALARS, "str": str, "view": bytes, "mut": bytearray}
RESULT_TYPES: dict[str, Any] = {**SCALARS, "none": None, "str": "str | None", "bytes": bytes}


@dataclass(frozen=True)
class Export:
    """One exported function: C prototype, docstring, and its types as (name, code) and a code."""

    name: str
    address: int
    doc: str | None
    prototype: str
    params: tuple[tuple[str, str], ...]
    result: str

    @property
    def signature(self) -> inspect.Signature:
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [
            inspect.Parameter(name, kind, annotation=PARAM_TYPES[code]) for name, code in self.params
        ]
        return inspect.Signature(parameters, return_annotation=RESULT_TYPES[self.result])


@dataclass(frozen=True)
class Interface:
    doc: str | None
    release: int
    exports: tuple[Export, ...]


def encode_note(interface: Interface) -> bytes:
    exports = [
        {
            "name": e.name, "address": e.address, "doc": e.doc, "prototype": e.prototype,
            "params": [list(p) for p in e.params], "result": e.result,
        }
        for e in interface.exports
    ]
    body = {"abi": ABI_VERSION, "doc": interface.doc, "release": interface.release, "exports": exports}
    desc = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    header = struct.pack("<III", len(NOTE_NAME), len(desc), ABI_VERSION)
    return header + NOTE_NAME.ljust(8, b"\0") + desc + b"\0" * (-len(desc) % 4)


def _check(condition: object, problem: str) -> None:
    if not condition:
        raise PluginFormatError(f"interface note: {problem}")


def _descriptor(data: bytes) -> bytes:
    _check(len(data) <= NOTE_MAX, f"larger than {NOTE_MAX} bytes")
    _check(len(data) >= 20, "shorter than its header")
    name_size, desc_size, version = struct.unpack_from("<III", data)
    _check(name_size == len(NOTE_NAME) and data[12:19] == NOTE_NAME, "not a vxplug note")
    _check(version == ABI_VERSION, f"ABI version {version}; this vxplug reads {ABI_VERSION}")
    _check(desc_size <= len(data) - 20, "descriptor runs past the section")
    return data[20 : 20 + desc_size]


def _number(value: object, what: str) -> int:
    _check(isinstance(value, int) and not isinstance(value, bool), f"{what} is not a number")
    assert isinstance(value, int)
    _check(0 <= value < 1 << 32, f"{what} is not a 32-bit address")
    return value


def _text(value: object, what: str) -> str | None:
    _check(value is None or isinstance(value, str), f"{what} is not text")
    _check(value is None or len(value) <= TEXT_MAX, f"{what} is longer than {TEXT_MAX} characters")
    return None if value is None else "\n".join(escape(line) for line in value.split("\n"))


def _identifier(value: object, what: str) -> str:
    _check(isinstance(value, str), f"{what} is not text")
    assert isinstance(value, str)
    _check(value.isascii() and value.isidentifier() and len(value) <= 255, f"{what} is not a C identifier")
    _check(not keyword.iskeyword(value), f"{what} {value!r} is a Python keyword")
    _check(not (value.startswith("__") and value.endswith("__")), f"{what} {value!r} is reserved by Python")
    return value


def _param(value: object, function: str) -> tuple[str, str]:
    _check(isinstance(value, list) and len(value) == 2, f"{function}: a parameter is not a pair")
    assert isinstance(value, list)
    name = _identifier(value[0], f"{function}: parameter name")
    _check(isinstance(value[1], str) and value[1] in PARAM_TYPES, f"{function}: unknown type of {name}")
    return name, value[1]


def _export(value: object) -> Export:
    _check(isinstance(value, dict), "an export is not an object")
    assert isinstance(value, dict)
    name = _identifier(value.get("name"), "export name")
    params = value.get("params")
    _check(isinstance(params, list) and len(params) <= PARAMS_MAX, f"{name}: parameters are not a short list")
    assert isinstance(params, list)
    checked = tuple(_param(param, name) for param in params)
    _check(len({p for p, _ in checked}) == len(checked), f"{name}: two parameters share a name")
    result = value.get("result")
    _check(isinstance(result, str) and result in RESULT_TYPES, f"{name}: unknown result type")
    return Export(
        name,
        _number(value.get("address"), f"{name}: address"),
        _text(value.get("doc"), f"{name}: docstring"),
        _text(value.get("prototype"), f"{name}: prototype") or "",
        checked,
        str(result),
    )


def decode_note(data: bytes) -> Interface:
    """The interface in the bytes of a note section.  Raises PluginFormatError."""
    try:
        body = json.loads(_descriptor(data).decode())
    except (ValueError, RecursionError) as error:
        raise PluginFormatError(f"interface note: not JSON: {type(error).__name__}") from None
    _check(isinstance(body, dict) and body.get("abi") == ABI_VERSION, "not an object of this ABI")
    exports = body.get("exports")
    _check(isinstance(exports, list) and len(exports) <= EXPORTS_MAX, "exports are not a list of bounded length")
    checked = tuple(_export(export) for export in exports)
    _check(len({e.name for e in checked}) == len(checked), "two exports share a name")
    return Interface(_text(body.get("doc"), "docstring"), _number(body.get("release"), "release"), checked)
