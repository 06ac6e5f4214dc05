"""Type stubs (.pyi) of a plugin: its classes, then its functions."""

from __future__ import annotations

import enum
import re
from typing import Any

from .classes import MODULE, Union
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
    rows = [f"    {name}: {spell(field.type)}" for name, field in cls.__dataclass_fields__.items()]
    return "\n".join(["@dataclass(frozen=True)", f"class {cls.__name__}:", *rows])


def _accepted(annotation: Any) -> str:
    """What a parameter takes: bytes stand for every bytes-like object."""
    return "Buffer" if annotation in (bytes, bytearray) else spell(annotation)


def _function(export: Export) -> str:
    parameters = ", ".join(f"{name}: {_accepted(annotation)}" for name, annotation in export.inputs)
    result = spell(export.signature.return_annotation)
    doc = f"\n    {export.doc!r}\n    ..." if export.doc else " ..."
    return f"def {export.name}({parameters}) -> {result}:{doc}"


# Type checkers bring typing_extensions along; nothing imports a stub.
_BUFFER = "from typing_extensions import Buffer"
_IMPORTS = "from dataclasses import dataclass\nfrom enum import IntEnum\nfrom typing import Any, Optional\n"


def stub_text(plugin: Plugin) -> str:
    """The whole stub file."""
    classes = [_class(cls) for cls in plugin.types.values()]
    functions = [_function(export) for export in plugin.exports.values()]
    head = [_BUFFER] if any(": Buffer" in function for function in functions) else []
    head += [_IMPORTS] if classes else []
    return "\n".join([*head, *classes, *functions])
