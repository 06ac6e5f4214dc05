"""From C prototypes, as DWARF has them, to the types of an interface."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .cdecl import bare_type, children, declare, lengths, name_of, number_of, parameters, place, spell, type_of
from .cnames import check_distinct, enumerator, python_name
from .errors import SdkError
from .extent import call_over_the_limits, over_the_limits, results_over_the_limits
from .interface import PARAMS_MAX, Export, Import
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
    fit_a_call,
    has_text,
    is_call_param,
    is_call_result,
    is_callable_here,
    is_input,
    outlives_call,
)

__all__ = ["Declarations", "export_of", "import_of"]


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
_PLAIN_STRUCT = "take a plain struct"
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
    place: str = "function, parameter"  # as VX_OUT and its like take it
    callback: bool = False  # of a function that the host gives
    stream: StreamType | None = None  # where a result may be one


class _Unsupported(Exception):
    """A C type with no place in an interface: which, why where it does not show, and what to write instead; in the type
    of a function also of which part it is."""

    def __init__(self, what: str, advice: str = "", why: str = "", part: str = "") -> None:
        super().__init__(what, advice, why, part)
        self.what, self.advice, self.why, self.part = what, advice, why, part

    def __str__(self) -> str:
        why, advice = f", {self.why}," if self.why else "", f": {self.advice}" if self.advice else ""
        return f"type {self.what}{why} is not supported{advice}"


def _base_code(die: Any) -> str:
    encoding = _DWARF_ENCODINGS.get(number_of(die, "DW_AT_encoding"), "")
    size = number_of(die, "DW_AT_byte_size")
    code = _INTEGERS.get((encoding, size))
    if code is None or number_of(die, "DW_AT_bit_size", 8 * size) != 8 * size:  # _BitInt(40): what stands above is anything
        floating = encoding == "DW_ATE_float"
        raise _Unsupported(f"'{name_of(die)}'", "use double" if floating else "numbers are integers of 8 to 64 bits, bool, float, double")
    return code


# --- what stands in memory ----------------------------------------------------------------------------


def _plain(die: Any, owner: str) -> Type:
    """A number, enum, struct, union or array; ``owner`` names what has no name of its own."""
    bare, name, _ = bare_type(die)
    if bare is None:
        raise _Unsupported("'void'")
    if bare.tag == "DW_TAG_base_type":
        return _base_code(bare)
    if bare.tag == "DW_TAG_enumeration_type":
        return _enum(bare, name_of(bare) or name)
    if bare.tag in ("DW_TAG_structure_type", "DW_TAG_union_type", "DW_TAG_class_type"):
        return _struct(bare, name_of(bare) or name or owner)
    if bare.tag == "DW_TAG_array_type":
        return _array(bare, owner)
    if bare.tag == "DW_TAG_pointer_type" and _is_const_text(bare):
        return TEXT
    raise _Unsupported(f"'{spell(die)}'", "in memory the only pointers are const char *; hold an address that only C uses as a uint32_t")


def _enum(die: Any, name: str | None) -> Type:
    holder = type_of(die)
    size = number_of(die, "DW_AT_byte_size", 4)
    members = [(enumerator(m, name, die), number_of(m, "DW_AT_const_value")) for m in children(die, "DW_TAG_enumerator")]
    negative = any(value < 0 for _, value in members)
    base = _base_code(bare_type(holder)[0]) if holder is not None else f"{'i' if negative else 'u'}{8 * size}"
    if name is None or not members or base == "bool":
        return base  # nothing to call it by: its numbers
    if base[0] == "u":
        members = [(m, v % (1 << 8 * size)) for m, v in members]  # DWARF may write a large one as negative
    listed = children(die, "DW_TAG_enumerator")
    check_distinct([(m, name_of(d) or m, place(die)) for (m, _), d in zip(members, listed, strict=True)], f"enumerator of {name}")
    return _bounded(EnumType(python_name(name, "enum", die), base, tuple(members), (name, place(die))), die)


def _struct(die: Any, name: str) -> Type:
    if "DW_AT_declaration" in die.attributes:
        raise _Unsupported(f"'{name}'", f"include what defines it, or say VX_HANDLE({name}, destroy)", "whose members are not known here")
    if number_of(die, "DW_AT_calling_convention") == _PASS_BY_REFERENCE:
        raise _Unsupported(f"'{name}'", _PLAIN_STRUCT, "a class with constructors or destructors")
    if children(die, "DW_TAG_inheritance"):
        raise _Unsupported(f"'{name}'", _PLAIN_STRUCT, "a class with a base")
    found = _members(die, name, 0)
    members = tuple(member for member, _ in found)
    if not members:
        raise _Unsupported(f"'{name}'", f"say VX_HANDLE({name}, destroy) of what only C looks into", "which has no members")
    if die.tag == "DW_TAG_union_type" and any(has_text(member.type) for member in members):
        raise _Unsupported(f"'{name}'", "nobody would know whether the text is there; put it beside the union", "a union with text")
    check_distinct([(m.name, name_of(d) or m.name, place(d)) for m, d in found], f"member of {name}")
    size, union = number_of(die, "DW_AT_byte_size"), die.tag == "DW_TAG_union_type"
    return _bounded(StructType(python_name(name, "struct", die), size, members, union, (name, place(die))), die)


def _bounded(type: Type, die: Any) -> Type:
    problem = over_the_limits(type)
    if problem is not None:
        raise _Unsupported(f"'{spell(die)}'", "take the bytes as vx_view or vx_mut, many numbers as a vx_array", problem)
    return type


def _members(die: Any, struct: str, base: int, path: str = "") -> list[tuple[Member, Any]]:
    """With their entries.  ``path`` is where an anonymous struct stands in its owners, so that what has no name in it
    gets one of its own."""
    found: list[tuple[Member, Any]] = []
    for number, child in enumerate(children(die, "DW_TAG_member")):
        if "DW_AT_external" in child.attributes or "DW_AT_declaration" in child.attributes:
            continue  # a static member of C++
        bit = base + _bit_offset(child)
        inner = bare_type(type_of(child))[0]
        name = name_of(child)
        if name is None and inner.tag == "DW_TAG_structure_type":
            found += _members(inner, struct, bit, f"{path}{number}_")  # C11: members of an anonymous struct are its owner's
            continue
        name = python_name(name or f"anonymous{path}{number}", f"member of {struct}", child)
        try:
            type = _plain(type_of(child), f"{struct}_{name}")
        except _Unsupported as error:
            raise _Unsupported(f"{error.what} of member {name}", error.advice, error.why) from None
        found.append((Member(name, type, bit, number_of(child, "DW_AT_bit_size")), child))
    return found


def _bit_offset(die: Any) -> int:
    if "DW_AT_bit_offset" in die.attributes:
        raise _Unsupported("a bit-field as old DWARF has it", "compile with -gdwarf-5")
    if "DW_AT_data_bit_offset" in die.attributes:
        return number_of(die, "DW_AT_data_bit_offset")
    return 8 * number_of(die, "DW_AT_data_member_location")


def _array(die: Any, owner: str) -> Type:
    counts = lengths(die)
    if not counts or 0 in counts:
        raise _Unsupported(f"'{spell(die)}'", "give it one, or take a vx_array", "an array without a length")
    item_die = type_of(die)
    item: Type = _plain(item_die, owner)
    bare = bare_type(item_die)[0]
    text = bare.tag == "DW_TAG_base_type" and name_of(bare) == "char"
    for count in reversed(counts):
        item = ArrayType(item, count, text)
        text = False
    return _bounded(item, die)


# --- parameters and results ---------------------------------------------------------------------------


def _is_char(die: Any) -> bool:
    bare = bare_type(die)[0]
    return bare is not None and bare.tag == "DW_TAG_base_type" and name_of(bare) == "char"


def _is_const_text(pointer: Any) -> bool:
    target = type_of(pointer)
    return _is_char(target) and bare_type(target)[2]


def _pointer(die: Any, context: _Context, owner: str) -> Type:
    """const tells what is read; what is written is a struct, or was declared so."""
    target = type_of(die)
    bare, name, _ = bare_type(target)
    if bare is None:
        return "u32"  # void *: an address, a number to Python
    if bare.tag == "DW_TAG_subroutine_type":
        return _function_pointer(die, bare, context, owner)
    handle = context.handles.get(name or "") or context.handles.get(name_of(bare) or "")
    if handle is not None:
        return handle
    if bare.tag == "DW_TAG_pointer_type" and "out" in context.words:
        given = _pointer(bare, _Context(frozenset(), context.handles, True), owner)
        if isinstance(given, HandleType) or given == TEXT:
            return PointerType(given, "out")
    if _is_const_text(die):
        return TEXT
    inner = _plain(target, owner)
    return _pointer_result(die, inner) if context.result else _pointer_parameter(die, inner, context)


def _pointer_result(die: Any, inner: Type) -> Type:
    if isinstance(inner, StructType):
        return PointerType(inner, "in")
    raise _Unsupported(f"'{spell(die)}'", "of pointers only those to structs, and const char *, are results; give vx_bytes or a vx_new_array")


def _pointer_parameter(die: Any, inner: Type, context: _Context) -> Type:
    words, const = context.words, bare_type(type_of(die))[2]
    if inner == TEXT:
        raise _Unsupported(f"'{spell(die)}'", f"a pointer to text is one that the function writes, VX_OUT({context.place})")
    mode = "out" if "out" in words else "inout" if "inout" in words or not const else "in"
    if const and mode != "in":
        raise _Unsupported(f"'{spell(die)}'", "take away const, or the declaration", "declared as written but const")
    one = isinstance(inner, StructType) or (context.callback and _is_one_number(inner))
    if not one and not words & {"out", "inout"}:
        raise _Unsupported(f"'{spell(die)}'", _values_advice(inner, const, context))
    return PointerType(inner, mode)


def _is_one_number(inner: Type) -> bool:
    """To a function of the host's, for which nothing can be declared.  A pointer to a byte is one to many."""
    return isinstance(inner, EnumType) or (isinstance(inner, str) and inner not in ("i8", "u8"))


def _values_advice(inner: Type, const: bool, context: _Context) -> str:
    """Of a pointer to numbers nobody knows how many there are."""
    many = f"vx_{'' if const else 'mut_'}array_{inner}" if isinstance(inner, str) and inner != "bool" else "a vx_array"
    one = "take it without the pointer" if const else f"say VX_OUT({context.place}) or VX_INOUT({context.place})"
    if context.callback and not const:
        one = "take a pointer to a struct that has it"
    return f"for one value {one}, for many take {many}"


def _function_pointer(die: Any, function: Any, context: _Context, owner: str) -> Type:
    try:
        type = _function(function, owner, context.handles)
    except _Unsupported as error:
        why = f"whose {error.part} is {error.what}" + (f", {error.why}" if error.why else "") if error.part else error.why
        raise _Unsupported(f"'{spell(die)}'", error.advice, why) from None
    if (context.result or context.callback) and not is_callable_here(type):
        raise _Unsupported(f"'{spell(die)}'", "it may not give vx_view or a vx_array, nor take a struct with text by value",
                           "a function that Python cannot call")
    return type


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
    raise _Unsupported(f"'{spell(die)}'", "only pointers, vx_view, vx_mut and vx_arrays can be NULL", "declared VX_NULLABLE")


def _function(die: Any, owner: str, handles: Mapping[str, HandleType]) -> FunctionType:
    """The type of a function that the host gives; what is refused names its part."""
    if children(die, "DW_TAG_unspecified_parameters"):
        raise _Unsupported(f"'{spell(die)}'", "declare each parameter", "a function with variable arguments")
    listed = children(die, "DW_TAG_formal_parameter")
    params = tuple(_call_part(p, number, owner, handles) for number, p in enumerate(listed, 1))
    if not fit_a_call(params):
        raise _Unsupported(f"'{spell(die)}'", "take pointers to them", "a function with larger structs by value than a call takes")
    type = FunctionType(params, _call_part(die, 0, f"{owner}_result", handles))
    problem = call_over_the_limits(type)
    if problem is not None:
        raise _Unsupported(f"'{spell(die)}'", "pass bytes as vx_view, many numbers as a vx_array", problem)
    return type


def _call_part(die: Any, number: int, owner: str, handles: Mapping[str, HandleType]) -> Type:
    """A parameter, or as number 0 the result."""
    part = f"parameter {name_of(die) or number}" if number else "result"
    try:
        type = _any(type_of(die), _Context(frozenset(), handles, result=not number, callback=True), owner)
        if not (is_call_param(type) if number else is_call_result(type)):
            raise _Unsupported(f"'{spell(type_of(die))}'", _call_advice(type, number == 0))
    except _Unsupported as error:
        raise _Unsupported(error.what, error.advice, error.why, part) from None
    return type


def _call_advice(type: Type, result: bool) -> str:
    """What to write instead of a type that functions of the host's do not take, or do not give."""
    verb = "gives" if result else "takes"
    if isinstance(type, NumbersType):
        return f"a function of the host's {verb} numbers as vx_array_{type.item}"
    if isinstance(type, FunctionType):
        return "a function of the host's gives no functions, which would end with the call; take one as a parameter of an export"
    if isinstance(type, str):
        return f"a function of the host's {verb} bytes as vx_view"
    if result:
        return "a function of the host's gives no structs with text; let it give the text as const char *"
    return "text that a function of the host's changed would have no owner; make the pointer const"


def _any(die: Any, context: _Context, owner: str) -> Type:
    bare, name, _ = bare_type(die)
    if bare is None:
        return "none"
    if bare.tag == "DW_TAG_pointer_type":
        return _pointer(bare, context, owner)
    if bare.tag == "DW_TAG_enumeration_type" and (name_of(bare) or name) == "vx_stream":
        if context.stream is None:
            raise _Unsupported("'vx_stream'", "only an exported function gives one, as its result")
        return context.stream
    if bare.tag == "DW_TAG_structure_type":
        known = _sdk_struct(name_of(bare) or name or "")
        if known is not None:
            return known
    type = _plain(die, owner)
    if isinstance(type, ArrayType):
        raise _Unsupported(f"'{spell(die)}'", "arrays stand in structs only")
    return type


def _parameter(die: Any, number: int, function: str, declared: Declarations) -> tuple[str, Type]:
    name = name_of(die) or f"arg{number}"
    words = declared.words.get((function, name), frozenset())
    context = _Context(words, declared.handles, place=f"{function}, {name}")
    try:
        type = _any(type_of(die), context, f"{function}_{name}")
        _check_parameter(type, type_of(die), words)
        if "nullable" in words:
            type = _optional(type, type_of(die))
    except _Unsupported as error:
        raise SdkError(f"{function}(): parameter {name}: {error}") from None
    return python_name(name, f"{function}(): parameter", die), type


def _check_parameter(type: Type, die: Any, words: frozenset[str]) -> None:
    shown = f"'{spell(die)}'"
    if isinstance(type, StructType) and has_text(type):
        raise _Unsupported(f"{shown} by value with text", "nobody could keep what its text points to; take a pointer to it")
    if isinstance(type, StructType) and not fit_a_call([type]):
        raise _Unsupported(f"{shown} by value", f"{type.size} bytes are more than a call takes; take a pointer to it")
    if type == "bytes" or (isinstance(type, NumbersType) and type.mode == "out"):
        taken = "vx_view" if isinstance(type, str) else f"vx_array_{type.item}"  # type: ignore[union-attr]
        raise _Unsupported(shown, f"that is a result; take {taken}")
    if words & {"out", "inout"} and not isinstance(type, PointerType):
        raise _Unsupported(shown, "only what a pointer leads to can be", "declared as written")


def _result(die: Any, function: str, declared: Declarations) -> Type:
    try:
        context = _Context(frozenset(), declared.handles, True, stream=declared.stream)
        type = _any(type_of(die), context, f"{function}_result")
        if type in ("view", "mut") or (isinstance(type, NumbersType) and type.mode != "out"):
            given = "vx_bytes" if isinstance(type, str) else f"vx_new_array_{type.item}"  # type: ignore[union-attr]
            raise _Unsupported(f"'{spell(type_of(die))}'", f"nobody would know who frees it; give {given}")
    except _Unsupported as error:
        raise SdkError(f"{function}(): result {error}") from None
    return type


def export_of(die: Any, name: str, address: int, doc: str | None, declared: Declarations) -> Export:
    """The export of a function's DWARF entry.  Raises SdkError with function, parameter and type."""
    listed = children(die, "DW_TAG_formal_parameter")
    if children(die, "DW_TAG_unspecified_parameters"):
        raise SdkError(f"{name}(): variable arguments are not supported: declare each parameter")
    if len(listed) > PARAMS_MAX:
        raise SdkError(f"{name}(): {len(listed)} parameters are more than {PARAMS_MAX}: take a struct")
    result = _result(die, name, declared)
    params = tuple(_parameter(p, number, name, declared) for number, p in enumerate(listed))
    check_distinct([(p, name_of(d) or p, place(d)) for (p, _), d in zip(params, listed, strict=True)], f"parameter of {name}()")
    if not fit_a_call(type for _, type in params):
        raise SdkError(f"{name}(): its structs by value are more than a call takes: take pointers to them")
    problem = results_over_the_limits((type for _, type in params), result)
    if problem is not None:
        raise SdkError(f"{name}(): its results have {problem}: give bytes as vx_bytes, many numbers as a vx_new_array")
    for parameter, type in params:
        if isinstance(result, StreamType) and not outlives_call(type):
            raise SdkError(f"{name}(): parameter {parameter}: a stream has no outputs and no callbacks")
    return Export(python_name(name, "function", die), address, doc, declare(type_of(die), name, listed), params, result)


def import_of(die: Any, name: str, address: int, declared: Declarations) -> Import:
    """The import whose VX_IMPORT made the variable of this DWARF entry, a pointer to the function."""
    function = bare_type(type_of(bare_type(type_of(die))[0]))[0]
    try:
        type = _function(function, name, declared.handles)
    except _Unsupported as error:
        raise SdkError(f"import {name}(): {error.part + ': ' if error.part else ''}{error}") from None
    return Import(python_name(name, "import", die), address, declare(type_of(function), name, parameters(function)), type)
