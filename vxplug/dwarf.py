"""From C prototypes, as DWARF has them, to the types of an interface."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import Error
from .interface import Export, Import
from .types import (
    NULLABLE,
    POINTERS,
    TEXT,
    ArrayType,
    EnumType,
    FunctionType,
    HandleType,
    Member,
    NumbersType,
    OptionalType,
    PointerType,
    StreamType,
    StructType,
    Type,
    has_text,
    is_call_param,
    is_call_result,
    is_callable_here,
    is_input,
    outlives_call,
)

__all__ = ["Declarations", "SdkError", "export_of", "import_of"]


class SdkError(Error):
    """The build failed; the text is what the compiler or linker printed, or what is wrong."""


_INTEGERS = {
    ("DW_ATE_signed", 1): "i8", ("DW_ATE_unsigned", 1): "u8", ("DW_ATE_signed_char", 1): "i8",
    ("DW_ATE_unsigned_char", 1): "u8", ("DW_ATE_signed", 2): "i16", ("DW_ATE_unsigned", 2): "u16",
    ("DW_ATE_signed", 4): "i32", ("DW_ATE_unsigned", 4): "u32", ("DW_ATE_signed", 8): "i64",
    ("DW_ATE_unsigned", 8): "u64", ("DW_ATE_boolean", 1): "bool", ("DW_ATE_float", 4): "f32",
    ("DW_ATE_float", 8): "f64",
}
_DWARF_ENCODINGS = {2: "DW_ATE_boolean", 4: "DW_ATE_float", 5: "DW_ATE_signed", 6: "DW_ATE_signed_char",
                    7: "DW_ATE_unsigned", 8: "DW_ATE_unsigned_char"}
_STRUCTS = {"vx_view": "view", "vx_mut": "mut", "vx_bytes": "bytes"}
_QUALIFIERS = ("DW_TAG_const_type", "DW_TAG_volatile_type", "DW_TAG_typedef", "DW_TAG_restrict_type")
_PASS_BY_REFERENCE = 4  # DW_CC_pass_by_reference: a C++ class with a constructor or destructor of its own


@dataclass(frozen=True)
class Declarations:
    """What VX_OUT, VX_HANDLE and their like say."""

    words: Mapping[tuple[str, str], frozenset[str]]  # of (function, parameter): "out", "inout", "nullable"
    handles: Mapping[str, HandleType]
    stream: StreamType


@dataclass(frozen=True)
class _Context:
    """Of one parameter or result."""

    words: frozenset[str]
    handles: Mapping[str, HandleType]
    result: bool = False
    stream: StreamType | None = None  # where a result may be one


class _Unsupported(Exception):
    """A C type with no place in an interface; the text says what of it, where that is not the whole."""


def _name(die: Any) -> str | None:
    attribute = die.attributes.get("DW_AT_name")
    return None if attribute is None else attribute.value.decode("utf-8", "replace")


def _number(die: Any, attribute: str, default: int = 0) -> int:
    found = die.attributes.get(attribute)
    return default if found is None or not isinstance(found.value, int) else found.value


def _type_of(die: Any) -> Any:
    return die.get_DIE_from_attribute("DW_AT_type") if "DW_AT_type" in die.attributes else None


def _children(die: Any, tag: str) -> list[Any]:
    return [child for child in die.iter_children() if child.tag == tag]


def _spell(die: Any) -> str:
    """The C spelling of a type, for prototypes and errors."""
    if die is None:
        return "void"
    if die.tag == "DW_TAG_array_type":
        return f"{_spell(_type_of(die))}[]"
    if die.tag == "DW_TAG_subroutine_type":
        return _declare(_type_of(die), "", _children(die, "DW_TAG_formal_parameter"))
    if die.tag == "DW_TAG_pointer_type" and getattr(_type_of(die), "tag", "") == "DW_TAG_subroutine_type":
        function = _type_of(die)
        return _declare(_type_of(function), "(*)", _children(function, "DW_TAG_formal_parameter"))
    inner = _spell(_type_of(die)) if die.tag in ("DW_TAG_const_type", "DW_TAG_pointer_type") else ""
    if die.tag == "DW_TAG_const_type":
        return f"const {inner}"
    if die.tag == "DW_TAG_pointer_type":
        return f"{inner} *".replace("* *", "**")
    prefix = {"DW_TAG_structure_type": "struct ", "DW_TAG_union_type": "union ",
              "DW_TAG_enumeration_type": "enum "}.get(die.tag, "")
    return prefix + (_name(die) or "(unnamed)")


def _declare(result: Any, name: str, parameters: list[Any]) -> str:
    spelled = [_spell_parameter(_spell(_type_of(p)), _name(p) or "") for p in parameters]
    return f"{_spell(result)} {name}({', '.join(spelled) or 'void'})".replace("* ", "*")


def _spell_parameter(type: str, name: str) -> str:
    if "(*)" in type:
        return type.replace("(*)", f"(*{name})", 1)
    return f"{type} {name}".strip().replace("* ", "*")


def _bare(die: Any) -> tuple[Any, str | None, bool]:
    """A type without typedefs and qualifiers, the outermost name it has, and whether const was among them."""
    name, const = None, False
    while die is not None and die.tag in _QUALIFIERS:
        const |= die.tag == "DW_TAG_const_type"
        name = name or (_name(die) if die.tag == "DW_TAG_typedef" else None)
        die = _type_of(die)
    return die, name, const


def _base_code(die: Any) -> str:
    encoding = _DWARF_ENCODINGS.get(_number(die, "DW_AT_encoding"), "")
    code = _INTEGERS.get((encoding, _number(die, "DW_AT_byte_size")))
    if code is None:
        raise _Unsupported(f"'{_name(die)}'")
    return code


def _python_name(name: str) -> str:
    return name + "_" if keyword.iskeyword(name) else name  # PEP 8's way out


# --- what stands in memory ----------------------------------------------------------------------------


def _plain(die: Any, owner: str) -> Type:
    """A number, enum, struct, union or array; ``owner`` names what has no name of its own."""
    bare, name, _ = _bare(die)
    if bare is None:
        raise _Unsupported("'void'")
    if bare.tag == "DW_TAG_base_type":
        return _base_code(bare)
    if bare.tag == "DW_TAG_enumeration_type":
        return _enum(bare, _name(bare) or name)
    if bare.tag in ("DW_TAG_structure_type", "DW_TAG_union_type", "DW_TAG_class_type"):
        return _struct(bare, _name(bare) or name or owner)
    if bare.tag == "DW_TAG_array_type":
        return _array(bare, owner)
    if bare.tag == "DW_TAG_pointer_type" and _is_const_text(bare):
        return TEXT
    raise _Unsupported(f"'{_spell(die)}'")


def _enum(die: Any, name: str | None) -> Type:
    holder = _type_of(die)
    size = _number(die, "DW_AT_byte_size", 4)
    members = [(_python_name(_name(m) or ""), _number(m, "DW_AT_const_value")) for m in _children(die, "DW_TAG_enumerator")]
    negative = any(value < 0 for _, value in members)
    base = _base_code(_bare(holder)[0]) if holder is not None else f"{'i' if negative else 'u'}{8 * size}"
    if name is None or not members or base == "bool":
        return base  # nothing to call it by: its numbers
    if base[0] == "u":
        members = [(m, v % (1 << 8 * size)) for m, v in members]  # DWARF may write a large one as negative
    return EnumType(name, base, tuple(members))


def _struct(die: Any, name: str) -> Type:
    if "DW_AT_declaration" in die.attributes:
        raise _Unsupported(f"'{name}', whose members are not known here")
    if _number(die, "DW_AT_calling_convention") == _PASS_BY_REFERENCE:
        raise _Unsupported(f"'{name}', a class with constructors or destructors")
    if _children(die, "DW_TAG_inheritance"):
        raise _Unsupported(f"'{name}', a class with a base")
    members = tuple(_members(die, name, 0))
    if not members:
        raise _Unsupported(f"'{name}', which has no members")
    if die.tag == "DW_TAG_union_type" and any(has_text(member.type) for member in members):
        raise _Unsupported(f"'{name}', a union with text, of which nobody knows whether it is there,")
    return StructType(name, _number(die, "DW_AT_byte_size"), members, die.tag == "DW_TAG_union_type")


def _members(die: Any, struct: str, base: int) -> list[Member]:
    found: list[Member] = []
    for number, child in enumerate(_children(die, "DW_TAG_member")):
        if "DW_AT_external" in child.attributes or "DW_AT_declaration" in child.attributes:
            continue  # a static member of C++
        bit = base + _bit_offset(child)
        inner = _bare(_type_of(child))[0]
        name = _name(child)
        if name is None and inner.tag == "DW_TAG_structure_type":
            found += _members(inner, struct, bit)  # C11: members of an anonymous struct are its owner's
            continue
        name = _python_name(name or f"anonymous{number}")
        try:
            type = _plain(_type_of(child), f"{struct}_{name}")
        except _Unsupported as error:
            raise _Unsupported(f"{error} of member {name}") from None
        found.append(Member(name, type, bit, _number(child, "DW_AT_bit_size")))
    return found


def _bit_offset(die: Any) -> int:
    if "DW_AT_bit_offset" in die.attributes:
        raise _Unsupported("a bit-field as old DWARF has it (compile with -gdwarf-5)")
    if "DW_AT_data_bit_offset" in die.attributes:
        return _number(die, "DW_AT_data_bit_offset")
    return 8 * _number(die, "DW_AT_data_member_location")


def _array(die: Any, owner: str) -> Type:
    counts = []
    for dimension in _children(die, "DW_TAG_subrange_type"):
        upper = _number(dimension, "DW_AT_upper_bound", -1)
        counts.append(_number(dimension, "DW_AT_count", upper + 1))
    if not counts or 0 in counts:
        raise _Unsupported("an array without a length")
    item_die = _type_of(die)
    item: Type = _plain(item_die, owner)
    bare = _bare(item_die)[0]
    text = bare.tag == "DW_TAG_base_type" and _name(bare) == "char"
    for count in reversed(counts):
        item = ArrayType(item, count, text)
        text = False
    return item


# --- parameters and results ---------------------------------------------------------------------------


def _is_char(die: Any) -> bool:
    bare = _bare(die)[0]
    return bare is not None and bare.tag == "DW_TAG_base_type" and _name(bare) == "char"


def _is_const_text(pointer: Any) -> bool:
    target = _type_of(pointer)
    return _is_char(target) and _bare(target)[2]


def _pointer(die: Any, context: _Context, owner: str) -> Type:
    """const tells what is read; what is written is a struct, or was declared so."""
    target, const = _type_of(die), _bare(_type_of(die))[2]
    bare, name, _ = _bare(target)
    words, result = context.words, context.result
    if bare is None:
        return "u32"  # void *: an address, a number to Python
    if bare.tag == "DW_TAG_subroutine_type":
        function = _function(bare, owner, context.handles)
        if result and not is_callable_here(function):
            raise _Unsupported(f"'{_spell(die)}', a function that takes or gives what Python cannot pass")
        return function
    handle = context.handles.get(name or "") or context.handles.get(_name(bare) or "")
    if handle is not None:
        return handle
    if bare.tag == "DW_TAG_pointer_type" and "out" in words:
        given = _pointer(bare, _Context(frozenset(), context.handles, True), owner)
        if isinstance(given, HandleType) or given == TEXT:
            return PointerType(given, "out")
    if _is_const_text(die):
        return TEXT
    inner = _plain(target, owner)
    if result:
        if not isinstance(inner, StructType):
            raise _Unsupported(f"'{_spell(die)}': of pointers, only those to structs and const char * are results")
        return PointerType(inner, "in")
    if inner == TEXT:
        raise _Unsupported(f"'{_spell(die)}': a pointer to text is one that the function writes, VX_OUT")
    mode = "out" if "out" in words else "inout" if "inout" in words or not const else "in"
    if const and mode != "in":
        raise _Unsupported(f"'{_spell(die)}', declared as written but const")
    if not isinstance(inner, StructType) and not words & {"out", "inout"}:
        raise _Unsupported(f"'{_spell(die)}': for one value say VX_OUT or VX_INOUT, for many take a vx_array")
    return PointerType(inner, mode)


_ARRAY_NAME = re.compile(r"vx_(array|mut_array|new_array)_([iuf]\d+)")
_ARRAY_MODES = {"array": "in", "mut_array": "inout", "new_array": "out"}


def _sdk_struct(name: str) -> Type | None:
    """The structs of vxplug.h that are more than their members."""
    array = _ARRAY_NAME.fullmatch(name)
    if array is not None:
        return NumbersType(array[2], _ARRAY_MODES[array[1]])
    return _STRUCTS.get(name)


def _optional(type: Type, die: Any) -> Type:
    if (isinstance(type, str) and type in NULLABLE) or (isinstance(type, POINTERS) and is_input(type)):
        return OptionalType(type)
    raise _Unsupported(f"'{_spell(die)}', declared VX_NULLABLE, which it cannot be")


def _function(die: Any, owner: str, handles: Mapping[str, HandleType]) -> FunctionType:
    if _children(die, "DW_TAG_unspecified_parameters"):
        raise _Unsupported("a function with variable arguments")
    context = _Context(frozenset(), handles)
    listed = [_any(_type_of(p), context, owner) for p in _children(die, "DW_TAG_formal_parameter")]
    result = _any(_type_of(die), context, f"{owner}_result")
    for type, usable in [*((p, is_call_param(p)) for p in listed), (result, is_call_result(result))]:
        if not usable:
            raise _Unsupported(f"a function that takes or gives what a callback cannot ({type})")
    return FunctionType(tuple(listed), result)


def _any(die: Any, context: _Context, owner: str) -> Type:
    bare, name, _ = _bare(die)
    if bare is None:
        return "none"
    if bare.tag == "DW_TAG_pointer_type":
        return _pointer(bare, context, owner)
    if bare.tag == "DW_TAG_enumeration_type" and (_name(bare) or name) == "vx_stream":
        if context.stream is None:
            raise _Unsupported("'vx_stream', which only the result of an exported function is,")
        return context.stream
    if bare.tag == "DW_TAG_structure_type":
        known = _sdk_struct(_name(bare) or name or "")
        if known is not None:
            return known
    type = _plain(die, owner)
    if isinstance(type, ArrayType):
        raise _Unsupported(f"'{_spell(die)}'")
    return type


def _parameter(die: Any, number: int, function: str, declared: Declarations) -> tuple[str, Type]:
    name = _name(die) or f"arg{number}"
    words = declared.words.get((function, name), frozenset())
    try:
        type = _any(_type_of(die), _Context(words, declared.handles), f"{function}_{name}")
        if isinstance(type, StructType) and has_text(type):
            raise _Unsupported(f"'{_spell(_type_of(die))}' by value, whose text nobody could keep: take a pointer to it;")
        if type in ("none", "bytes") or (isinstance(type, NumbersType) and type.mode == "out"):
            raise _Unsupported(f"'{_spell(_type_of(die))}'")
        if words & {"out", "inout"} and not isinstance(type, PointerType):
            raise _Unsupported(f"'{_spell(_type_of(die))}', declared as written, which only a pointer can be")
        if "nullable" in words:
            type = _optional(type, _type_of(die))
    except _Unsupported as error:
        raise SdkError(f"{function}(): parameter {name}: type {error} is not supported") from None
    return _python_name(name), type


def _result(die: Any, function: str, declared: Declarations) -> Type:
    try:
        context = _Context(frozenset(), declared.handles, True, declared.stream)
        type = _any(_type_of(die), context, f"{function}_result")
        if type in ("view", "mut") or (isinstance(type, NumbersType) and type.mode != "out"):
            raise _Unsupported(f"'{_spell(_type_of(die))}'")
    except _Unsupported as error:
        raise SdkError(f"{function}(): result type {error} is not supported") from None
    return type


def _prototype(die: Any, name: str, parameters: list[Any]) -> str:
    return _declare(_type_of(die), name, parameters)


def _check_declarations(name: str, parameters: list[Any], declared: Declarations) -> None:
    known = {_name(p) for p in parameters}
    for function, parameter in declared.words:
        if function == name and parameter not in known:
            raise SdkError(f"{name}(): VX_OUT, VX_INOUT or VX_NULLABLE of {parameter}, which is no parameter")


def export_of(die: Any, name: str, address: int, doc: str | None, declared: Declarations) -> Export:
    """The export of a function's DWARF entry.  Raises SdkError with function, parameter and type."""
    parameters = _children(die, "DW_TAG_formal_parameter")
    if _children(die, "DW_TAG_unspecified_parameters"):
        raise SdkError(f"{name}(): variable arguments are not supported")
    _check_declarations(name, parameters, declared)
    result = _result(die, name, declared)
    params = tuple(_parameter(p, number, name, declared) for number, p in enumerate(parameters))
    for parameter, type in params:
        if isinstance(result, StreamType) and not outlives_call(type):
            raise SdkError(f"{name}(): parameter {parameter}: a stream has no outputs and no callbacks")
    return Export(name, address, doc, _prototype(die, name, parameters), params, result)


def import_of(die: Any, name: str, address: int, declared: Declarations) -> Import:
    """The import whose VX_IMPORT made the variable of this DWARF entry, a pointer to the function."""
    function = _bare(_type_of(_bare(_type_of(die))[0]))[0]
    try:
        type = _function(function, name, declared.handles)
    except _Unsupported as error:
        raise SdkError(f"import {name}(): type {error} is not supported") from None
    assert isinstance(type, FunctionType)
    return Import(name, address, _prototype(function, name, _children(function, "DW_TAG_formal_parameter")), type)
