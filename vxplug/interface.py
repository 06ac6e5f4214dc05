"""The interface note: what a plugin exports, written by the build, validated before use.

The note is the ELF section ``.note.vxplug``: an ELF note, name ``vxplug``, type the ABI version, whose
descriptor is compact UTF-8 JSON::

    {"abi": 2, "doc": str | null, "release": address, "types": [type, …],
     "exports": [{"name", "address", "doc", "prototype", "params": [[name, type], …], "result"}],
     "imports": [{"name", "address", "prototype", "type"}]}

A type is a code or an index into ``types`` (see types.py).  A note without types is written as ABI 1, which
knows only codes, so that an older vxplug loads the plugin too.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .classes import PARAM_TYPES, SCALARS, Classes
from .errors import PluginFormatError, escape
from .records import Record
from .types import (
    OBJECTS_MAX,
    TEXT,
    ArrayType,
    FunctionType,
    HandleType,
    NumbersType,
    OptionalType,
    PointerType,
    StreamType,
    StructType,
    Type,
    Types,
    check,
    decode_types,
    encode_types,
    fit_a_call,
    has_text,
    identifier,
    integer,
    is_callable_here,
    is_input,
    is_output,
    malformed,
    outlives_call,
)

if TYPE_CHECKING:
    import inspect

__all__ = ["ABI_VERSIONS", "Export", "Import", "Interface", "decode_note", "encode_note"]

ABI_VERSIONS = (1, 2)
NOTE_NAME = b"vxplug\0"
NOTE_MAX = 1 << 20
EXPORTS_MAX = 4096
IMPORTS_MAX = 256
PARAMS_MAX = 64
TEXT_MAX = 65536

RESULT_TYPES: dict[str, Any] = {**SCALARS, "none": None, "str": "str | None", "bytes": bytes}


NO_CLASSES = Classes(())  # of interfaces that a build makes, for no sandbox


class Export(Record, aside=("classes",)):
    """One exported function: C prototype, docstring, and its types as (name, type) and a type."""

    name: str
    address: int
    doc: str | None
    prototype: str
    params: tuple[tuple[str, Type], ...]
    result: Type
    classes: Classes = NO_CLASSES

    @property
    def inputs(self) -> list[tuple[str, Any]]:
        """(name, annotation) of each Python parameter: those the function only writes are none."""
        return [(name, self.classes.annotation(type)) for name, type in self.params if is_input(type)]

    @property
    def outputs(self) -> list[Any]:
        """Annotations of what a call gives back: the result, then each parameter that the function writes."""
        written = [self.classes.annotation(type) for _, type in self.params if is_output(type)]
        if isinstance(self.result, str):
            return written if self.result == "none" else [RESULT_TYPES[self.result], *written]
        return [self.classes.result(self.result), *written]

    @cached_property
    def signature(self) -> inspect.Signature:
        import inspect

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [inspect.Parameter(name, kind, annotation=annotation) for name, annotation in self.inputs]
        outputs = self.outputs
        result = None if not outputs else outputs[0] if len(outputs) == 1 else tuple[tuple(outputs)]  # type: ignore[misc]
        return inspect.Signature(parameters, return_annotation=result)


class Import(Record):
    """A function that the plugin expects of the host; ``address`` is of its stub in the plugin."""

    name: str
    address: int
    prototype: str
    type: FunctionType


def described(name: str, prototype: str) -> str:
    """What an import is: its prototype, and the name in Python where that is another."""
    return prototype if f"{name}(" in prototype else f"{prototype} as {name}"


class Interface(Record, aside=("classes", "version")):
    doc: str | None
    release: int
    exports: tuple[Export, ...]
    imports: tuple[Import, ...] = ()
    functions: tuple[int, ...] = ()  # addresses in the types, for the loader to check; not written
    classes: Classes = NO_CLASSES
    version: int = ABI_VERSIONS[0]

    @property
    def types(self) -> list[Type]:
        """Of each export's parameters and result, then of the imports."""
        used = [type for e in self.exports for type in (*(t for _, t in e.params), e.result)]
        return [*used, *(i.type for i in self.imports)]


def encode_note(interface: Interface) -> bytes:
    types, refs = encode_types(interface.types)
    at = iter(refs)
    exports = [
        {
            "name": e.name, "address": e.address, "doc": e.doc, "prototype": e.prototype,
            "params": [[name, next(at)] for name, _ in e.params], "result": next(at),
        }
        for e in interface.exports
    ]
    version = 2 if types else 1
    body = {"abi": version, "doc": interface.doc, "release": interface.release, "exports": exports}
    if types:
        body["types"] = types
    if interface.imports:
        body["imports"] = [
            {"name": i.name, "address": i.address, "prototype": i.prototype, "type": next(at)} for i in interface.imports
        ]
    desc = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    header = struct.pack("<III", len(NOTE_NAME), len(desc), version)
    return header + NOTE_NAME.ljust(8, b"\0") + desc + b"\0" * (-len(desc) % 4)


def _descriptor(data: bytes) -> tuple[int, bytes]:
    check(len(data) <= NOTE_MAX, f"larger than {NOTE_MAX} bytes")
    check(len(data) >= 20, "shorter than its header")
    name_size, desc_size, version = struct.unpack_from("<III", data)
    check(name_size == len(NOTE_NAME) and data[12:19] == NOTE_NAME, "not a vxplug note")
    check(version in ABI_VERSIONS, f"ABI version {version}; this vxplug reads {ABI_VERSIONS[0]} to {ABI_VERSIONS[-1]}")
    check(desc_size <= len(data) - 20, "descriptor runs past the section")
    return version, data[20 : 20 + desc_size]


def _address(value: object, what: str) -> int:
    number = integer(value, -(1 << 64), 1 << 64, what)
    if not 0 <= number < 1 << 32:
        raise malformed(f"{what} is not a 32-bit address")
    return number


def _text(value: object, what: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise malformed(f"{what} is not text")
    if len(value) > TEXT_MAX:
        raise malformed(f"{what} is longer than {TEXT_MAX} characters")
    return escape(value) if "\n" not in value else "\n".join(map(escape, value.split("\n")))


def _param(value: object, types: Types, function: str) -> tuple[str, Type]:
    if not isinstance(value, list) or len(value) != 2:
        raise malformed(f"{function}: a parameter is not a pair")
    name = identifier(value[0], f"{function}: parameter name")
    type = types.ref(value[1], f"{function}: type of {name}")
    if isinstance(type, str) and type in PARAM_TYPES:
        return name, type
    inner = type.item if isinstance(type, OptionalType) else type
    known = inner in PARAM_TYPES if isinstance(inner, str) else not isinstance(inner, (ArrayType, StreamType))
    check(not (isinstance(inner, StructType) and has_text(inner)), f"{function}: {name} is a struct by value with text")
    check(known and not (isinstance(inner, NumbersType) and inner.mode == "out"), f"{function}: unknown type of {name}")
    return name, type


def _result(value: object, types: Types, function: str) -> Type:
    type = types.ref(value, f"{function}: result type")
    if isinstance(type, str):
        check(type in RESULT_TYPES, f"{function}: unknown result type")
        return type
    check(not isinstance(type, (ArrayType, OptionalType)), f"{function}: unknown result type")
    check(not isinstance(type, PointerType) or type.mode == "in", f"{function}: unknown result type")
    check(not isinstance(type, NumbersType) or type.mode == "out", f"{function}: unknown result type")
    check(not isinstance(type, FunctionType) or is_callable_here(type), f"{function}: a function that Python cannot call")
    check(not isinstance(type, PointerType) or type.target != TEXT, f"{function}: unknown result type")
    return type


def _check_call(value: dict[str, Any], params: tuple[tuple[str, Type], ...], result: Type, types: Types, name: str) -> None:
    """What parameters and result must be together; codes alone always are."""
    check(fit_a_call(type for _, type in params), f"{name}: structs by value are larger than a call may have")
    given = [param[1] for param, (_, type) in zip(value["params"], params, strict=True) if is_output(type)]
    parts = sum(map(types.parts, given)) + (0 if isinstance(result, str) else types.parts(value.get("result")))
    check(parts <= OBJECTS_MAX, f"{name}: results of more than {OBJECTS_MAX} parts")
    lasting = all(outlives_call(type) for _, type in params)
    check(lasting or not isinstance(result, StreamType), f"{name}: a stream with outputs or callbacks")


def _export(value: object, types: Types, classes: Classes) -> Export:
    if not isinstance(value, dict):
        raise malformed("an export is not an object")
    name = identifier(value.get("name"), "export name")
    params = value.get("params")
    if not isinstance(params, list) or len(params) > PARAMS_MAX:
        raise malformed(f"{name}: parameters are not a short list")
    checked = tuple([_param(param, types, name) for param in params])
    if len(checked) > 1 and len(dict(checked)) != len(checked):
        raise malformed(f"{name}: two parameters share a name")
    result = _result(value.get("result"), types, name)
    if not isinstance(result, str) or not all([isinstance(type, str) for _, type in checked]):
        _check_call(value, checked, result, types, name)
    return Export(
        name,
        _address(value.get("address"), f"{name}: address"),
        _text(value.get("doc"), f"{name}: docstring"),
        _text(value.get("prototype"), f"{name}: prototype") or "",
        checked,
        result,
        classes,
    )


def _add_methods(types: Types, exports: Mapping[str, Export], classes: Classes) -> None:
    for type in types.found:
        if not isinstance(type, HandleType):
            continue
        for name, function in type.methods:
            params = exports[function].params if function in exports else ()
            check(params and params[0][1] == type, f"{type.name}.{name}: no export that takes the handle first")
        classes.add_methods(type, exports)


def _import(value: object, types: Types) -> Import:
    check(isinstance(value, dict), "an import is not an object")
    assert isinstance(value, dict)
    name = identifier(value.get("name"), "import name")
    type = types.ref(value.get("type"), f"{name}: type")
    check(isinstance(type, FunctionType), f"{name}: not a function")
    assert isinstance(type, FunctionType)
    prototype = _text(value.get("prototype"), f"{name}: prototype") or ""
    return Import(name, _address(value.get("address"), f"{name}: address"), prototype, type)


def _imports(value: object, types: Types) -> tuple[Import, ...]:
    check(isinstance(value, list) and len(value) <= IMPORTS_MAX, "imports are not a list of bounded length")
    assert isinstance(value, list)
    checked = tuple(_import(row, types) for row in value)
    check(len({i.name for i in checked}) == len(checked), "two imports share a name")
    check(len({i.address for i in checked}) == len(checked), "two imports share an address")
    return checked


def _functions(types: Types) -> Iterator[int]:
    for type in types.found:
        if isinstance(type, HandleType) and type.destroy:
            yield type.destroy
        if isinstance(type, StreamType):
            yield from (type.open, type.alloc, type.next, type.close)


def decode_note(data: bytes) -> Interface:
    """The interface in the bytes of a note section.  Raises PluginFormatError."""
    version, descriptor = _descriptor(data)
    try:
        body = json.loads(descriptor.decode())
    except (ValueError, RecursionError) as error:
        raise PluginFormatError(f"interface note: not JSON: {type(error).__name__}") from None
    check(isinstance(body, dict) and body.get("abi") == version, "not an object of this ABI")
    exports = body.get("exports")
    check(isinstance(exports, list) and len(exports) <= EXPORTS_MAX, "exports are not a list of bounded length")
    types = decode_types(body.get("types", []) if version > 1 else [])
    classes = Classes(types.found)
    checked = tuple(_export(export, types, classes) for export in exports)
    check(len({e.name for e in checked}) == len(checked), "two exports share a name")
    _add_methods(types, {e.name: e for e in checked}, classes)
    imports = _imports(body.get("imports", []) if version > 1 else [], types)
    doc, release = _text(body.get("doc"), "docstring"), _address(body.get("release"), "release")
    return Interface(doc, release, checked, imports, tuple(_functions(types)), classes, version)
