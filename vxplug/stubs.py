"""Type stubs (.pyi) of a plugin: its classes, then its functions."""

from __future__ import annotations

import enum
import re
from typing import Any

from .classes import MODULE, Handle, Union
from .interface import Export
from .plugin import Plugin

__all__ = ["stub_text"]

_HOME = re.compile(re.escape(MODULE) + r"\.|\btyping\.")


def spell(annotation: Any) -> str:
    """An annotation as source: names of the plugin's classes and of typing stand alone."""
    if annotation is None or isinstance(annotation, str):
        return str(annotation)
    return _HOME.sub("", annotation.__name__ if isinstance(annotation, type) and not hasattr(annotation, "__args__")
                     else str(annotation))


def _class(cls: Any) -> str:
    if issubclass(cls, enum.Enum):
        rows = [f"    {name} = {member.value}" for name, member in cls.__members__.items()]
        return "\n".join([f"class {cls.__name__}(IntEnum):", *rows])
    if issubclass(cls, Union):
        rows = [f"    @property\n    def {name}(self) -> Any: ..." for name in cls.__layout__.members]
        return "\n".join([f"class {cls.__name__}:", "    def __init__(self, **member: Any) -> None: ...", *rows])
    if issubclass(cls, Handle):
        base = ["    closed: bool", "    def close(self) -> None: ...", f"    def __enter__(self) -> {cls.__name__}: ...",
                "    def __exit__(self, *exception: object) -> None: ..."]
        return "\n".join([f"class {cls.__name__}:", *base, *(_method(m) for m in vars(cls).values() if hasattr(m, "export"))])
    rows = [f"    {name}: {spell(field.type)}" for name, field in cls.__dataclass_fields__.items()]
    return "\n".join(["@dataclass(frozen=True)", f"class {cls.__name__}:", *rows])


def _accepted(annotation: Any) -> str:
    """What a parameter takes: bytes stand for every bytes-like object."""
    return "Buffer" if annotation in (bytes, bytearray) else spell(annotation)


def _method(method: Any) -> str:
    parameters = "".join(f", {name}: {_accepted(annotation)}" for name, annotation in method.export.inputs[1:])
    return f"    def {method.__name__}(self{parameters}) -> {spell(method.export.signature.return_annotation)}: ..."


def _function(export: Export) -> str:
    parameters = ", ".join(f"{name}: {_accepted(annotation)}" for name, annotation in export.inputs)
    result = spell(export.signature.return_annotation)
    doc = f"\n    {export.doc!r}\n    ..." if export.doc else " ..."
    return f"def {export.name}({parameters}) -> {result}:{doc}"


_MODULES = ("array", "collections.abc")
# Type checkers bring typing_extensions along; nothing imports a stub.
_BUFFER = "from typing_extensions import Buffer"
_IMPORTS = "from dataclasses import dataclass\nfrom enum import IntEnum\nfrom typing import Any, Optional\n"


def stub_text(plugin: Plugin) -> str:
    """The whole stub file."""
    classes = [_class(cls) for cls in plugin.types.values()]
    functions = [_function(export) for export in plugin.exports.values()]
    text = "\n".join([*classes, *functions])
    head = [f"import {module}" for module in _MODULES if f"{module}." in text]
    head += [_BUFFER] if ": Buffer" in text else []
    head += [_IMPORTS] if classes or "Optional[" in text else []
    return "\n".join([*head, *classes, *functions])
