"""How much there is of a type: what a note's reader would refuse, the build refuses by its C name."""

from __future__ import annotations

from collections.abc import Iterable

from .types import (
    DEPTH_MAX,
    MEMBERS_MAX,
    OBJECTS_MAX,
    SIZE_MAX,
    ArrayType,
    EnumType,
    FunctionType,
    OptionalType,
    PointerType,
    StructType,
    Type,
    is_output,
    is_packed,
    size_of,
)

__all__ = ["call_over_the_limits", "over_the_limits", "results_over_the_limits"]


def _parts(type: Type) -> int:
    """Python objects of a value, as a note's reader counts them."""
    if isinstance(type, StructType):
        return 1 + sum(_parts(member.type) for member in type.members)
    if isinstance(type, FunctionType):
        return 1 + sum(_parts(param) for param in type.params)
    if isinstance(type, PointerType):
        return _parts(type.target)
    if isinstance(type, OptionalType):
        return _parts(type.item)
    return 1 + type.count * _parts(type.item) if isinstance(type, ArrayType) and not is_packed(type) else 1


def _depth(type: Type) -> int:
    if isinstance(type, StructType):
        return 1 + max(_depth(member.type) for member in type.members)
    return 1 + _depth(type.item) if isinstance(type, ArrayType) else 0


def over_the_limits(type: Type) -> str | None:
    """Which limit of a note a type that is made of checked ones breaks, in words; or None."""
    if size_of(type) > SIZE_MAX:
        return f"of {size_of(type)} bytes where {SIZE_MAX} are the limit"
    if isinstance(type, (EnumType, StructType)) and len(type.members) > MEMBERS_MAX:
        return f"of {len(type.members)} members where {MEMBERS_MAX} are the limit"
    if _parts(type) > OBJECTS_MAX:
        return f"of {_parts(type)} numbers and other parts where {OBJECTS_MAX} are the limit"
    return f"nested more than {DEPTH_MAX} deep" if _depth(type) > DEPTH_MAX else None


def call_over_the_limits(type: FunctionType) -> str | None:
    """The same for what a function of the host's gets in one call."""
    if _parts(type) <= OBJECTS_MAX:
        return None
    return f"whose parameters have {_parts(type)} numbers and other parts where {OBJECTS_MAX} are the limit"


def results_over_the_limits(params: Iterable[Type], result: Type) -> str | None:
    """The same for what a function of the plugin's gives back."""
    parts = sum(_parts(type) for type in params if is_output(type)) + (0 if isinstance(result, str) else _parts(result))
    return None if parts <= OBJECTS_MAX else f"{parts} numbers and other parts where {OBJECTS_MAX} are the limit"
