"""Type stubs (.pyi) of a plugin: its classes, then its functions."""

from __future__ import annotations

import collections.abc
import enum
import re
import types
import typing
from collections.abc import Iterator
from typing import Any

from .classes import MODULE, Handle, Union
from .interface import Export
from .plugin import Plugin
from .types import StreamType

__all__ = ["stub_text"]

# What stubs name, and where it is from.  Type checkers bring typing_extensions along; nothing imports a stub.
_NAMES = {
    "array": "", "collections.abc": "", "Buffer": "typing_extensions", "dataclass": "dataclasses", "IntEnum": "enum",
    "Optional": "typing", "overload": "typing", "Sandbox": "vxplug", "Stream": "vxplug.classes",
    **dict.fromkeys(("int", "float", "bool", "str", "bytes", "tuple", "object", "property"), "builtins"),
}
_NAME = re.compile(r"(?<![\w.])(" + "|".join(map(re.escape, _NAMES)) + r")\b")
_TYPING = re.compile(r"\btyping\.")
_HOME = re.compile(re.escape(MODULE) + r"\.(\w+)")
_OF_ENUMS = {*dir(int), "is_integer", "name", "value"}  # of any version of Python


def _members(cls: Any) -> Iterator[str]:
    """Names inside a class, which hide those outside."""
    if issubclass(cls, Union):
        yield from cls.__layout__.members
    yield from getattr(cls, "__dataclass_fields__", ())
    yield from (name for name, value in vars(cls).items() if hasattr(value, "export"))


class _Stub:
    """Source text in which no name of the plugin is taken for one of Python's: those are then imported under another."""

    def __init__(self, plugin: Plugin) -> None:
        self._taken = {*plugin.exports, *plugin.types, *(name for cls in plugin.types.values() for name in _members(cls))}
        self._used: set[str] = set()
        self._hidden: frozenset[str] = frozenset()  # what members of the class that is being written hide
        self._aliases: set[str] = set()

    def name(self, name: str) -> str:
        """How the stub calls what Python calls so."""
        self._used.add(name)
        return f"_{name.replace('.', '_')}_" if name.split(".")[0] in self._taken else name

    def _own(self, name: str) -> str:
        """How the stub calls a class of the plugin's: in one with a member of that name, by another name of it."""
        if name not in self._hidden:
            return name
        self._aliases.add(name)
        return f"_{name}_"

    def spell(self, annotation: Any) -> str:
        """An annotation as source."""
        if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
            return self._own(annotation.__name__) if annotation.__module__ == MODULE else self.name(annotation.__name__)
        text = _TYPING.sub("", str(annotation)).replace("collections.abc.Buffer", "Buffer")
        return _HOME.sub(lambda match: self._own(match[1]), _NAME.sub(lambda match: self.name(match[0]), text))

    def accepted(self, annotation: Any) -> str:
        """What a parameter takes, a class is made of, or a callable gives: bytes stand for every bytes-like object, an enum for
        its numbers too, an array in a struct for every sequence."""
        if annotation in (bytes, bytearray):
            return self.name("Buffer")
        if isinstance(annotation, enum.EnumMeta):
            return f"{self.spell(annotation)} | {self.name('int')}"
        origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
        if origin in (typing.Union, types.UnionType):
            return f"{self.name('Optional')}[{self.accepted(parts[0])}]"
        if origin is tuple and Ellipsis in parts:
            return f"{self.name('collections.abc')}.Sequence[{self.accepted(parts[0])}]"
        if origin is tuple:
            return f"{self.name('tuple')}[{', '.join(map(self.accepted, parts))}]"
        if origin is collections.abc.Callable:
            taken = ", ".join(map(self.spell, parts[0]))
            return f"{self.name('collections.abc')}.Callable[[{taken}], {self.accepted(parts[1])}]"
        return self.spell(annotation)

    def result(self, export: Export) -> str:
        """What a call gives: a stream is more than the iterator that its signature shows."""
        return self.name("Stream") if isinstance(export.result, StreamType) else self.spell(export.signature.return_annotation)

    def imports(self) -> list[str]:
        lines = []
        for name, module in _NAMES.items():
            known = self.name(name) if name in self._used else name
            if name in self._used and (module != "builtins" or known != name):
                source = f"from {module} import {name}" if module else f"import {name}"
                lines.append(source if known == name else f"{source} as {known}")
        return lines

    def aliases(self) -> list[str]:
        return [f"_{name}_ = {name}" for name in sorted(self._aliases)]

    # --- classes

    def class_(self, cls: Any) -> str:
        self._hidden = frozenset(_members(cls))
        try:
            return self._class(cls)
        finally:
            self._hidden = frozenset()

    def _class(self, cls: Any) -> str:
        if issubclass(cls, enum.Enum):
            return self._enum(cls)
        if issubclass(cls, Union):
            return self._union(cls)
        return self._handle(cls) if issubclass(cls, Handle) else self._struct(cls)

    def _struct(self, cls: Any) -> str:
        """Members as results have them; where one is made of more than that, checkers are to know."""
        fields = {name: field.type for name, field in cls.__dataclass_fields__.items()}
        rows = [f"    {name}: {self.spell(type)}" for name, type in fields.items()]
        taken = {name: self.accepted(type) for name, type in fields.items()}
        if taken != {name: self.spell(type) for name, type in fields.items()}:
            itself = "_self_" if "self" in fields else "self"
            parameters = "".join(f", {name}: {type}" for name, type in taken.items())
            rows += [f"    def __init__({itself}{parameters}) -> None: ..."]
        return "\n".join([f"@{self.name('dataclass')}(frozen=True)", f"class {cls.__name__}:", *rows])

    def _enum(self, cls: Any) -> str:
        values = {name: member.value for name, member in cls.__members__.items()}
        if _OF_ENUMS.isdisjoint(values):
            return "\n".join([f"class {cls.__name__}({self.name('IntEnum')}):", *(f"    {n} = {v}" for n, v in values.items())])
        # In a class checkers would take it for an attribute of all enums, with a value of the wrong type.
        return f"{cls.__name__} = {self.name('IntEnum')}({cls.__name__!r}, {values})"

    def _union(self, cls: Any) -> str:
        members = {name: vars(cls)[name].fget.__annotations__["return"] for name in cls.__layout__.members}
        itself = "_self_" if "self" in members else "self"
        rows = []
        for name, annotation in members.items():
            rows += [f"    @{self.name('overload')}"] if len(members) > 1 else []  # of one, checkers take none
            rows += [f"    def __init__({itself}, *, {name}: {self.accepted(annotation)}) -> None: ..."]
        for name, annotation in members.items():
            rows += [f"    @{self.name('property')}", f"    def {name}(self) -> {self.spell(annotation)}: ..."]
        rows += [f"    def __bytes__(self) -> {self.name('bytes')}: ..."]
        return "\n".join([f"class {cls.__name__}:", *rows])

    def _handle(self, cls: Any) -> str:
        base = [
            f"    closed: {self.name('bool')}", "    def close(self) -> None: ...", f"    def __enter__(self) -> {cls.__name__}: ...",
            f"    def __exit__(self, *exception: {self.name('object')}) -> None: ...",
        ]
        return "\n".join([f"class {cls.__name__}:", *base, *(self._method(m) for m in vars(cls).values() if hasattr(m, "export"))])

    def _method(self, method: Any) -> str:
        parameters = "".join(f", {name}: {self.accepted(annotation)}" for name, annotation in method.export.inputs[1:])
        return f"    def {method.__name__}(self{parameters}) -> {self.result(method.export)}: ..."

    # --- functions

    def function(self, export: Export) -> str:
        parameters = ", ".join(f"{name}: {self.accepted(annotation)}" for name, annotation in export.inputs)
        doc = f"\n    {export.doc!r}\n    ..." if export.doc else " ..."
        return f"def {export.name}({parameters}) -> {self.result(export)}:{doc}"


def stub_text(plugin: Plugin) -> str:
    """The whole stub file."""
    stub = _Stub(plugin)
    sandbox = f"__sandbox__: {stub.name('Sandbox')}"
    body = [sandbox, *map(stub.class_, plugin.types.values()), *map(stub.function, plugin.exports.values())]
    return "\n".join([*stub.imports(), *body, *stub.aliases()])
