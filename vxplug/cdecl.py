"""Declarations of C as DWARF has them: their parts, how C spells them, and where they stand."""

from __future__ import annotations

import os
from typing import Any

__all__ = ["bare_type", "children", "declare", "lengths", "name_of", "number_of", "parameters", "place", "spell", "type_of"]

_QUALIFIERS = ("DW_TAG_const_type", "DW_TAG_volatile_type", "DW_TAG_typedef", "DW_TAG_restrict_type")
_MORE = "DW_TAG_unspecified_parameters"
_WORDS = {"DW_TAG_const_type": "const", "DW_TAG_volatile_type": "volatile", "DW_TAG_restrict_type": "restrict"}
_MARKS = {"DW_TAG_pointer_type": "*", "DW_TAG_reference_type": "&", "DW_TAG_rvalue_reference_type": "&&"}


def name_of(die: Any) -> str | None:
    attribute = die.attributes.get("DW_AT_name")
    return None if attribute is None else attribute.value.decode("utf-8", "replace")


def number_of(die: Any, attribute: str, default: int = 0) -> int:
    found = die.attributes.get(attribute)
    return default if found is None or not isinstance(found.value, int) else found.value


def type_of(die: Any) -> Any:
    return die.get_DIE_from_attribute("DW_AT_type") if "DW_AT_type" in die.attributes else None


def children(die: Any, *tags: str) -> list[Any]:
    return [child for child in die.iter_children() if child.tag in tags]


def parameters(function: Any) -> list[Any]:
    """The last may be the three dots."""
    return children(function, "DW_TAG_formal_parameter", _MORE)


def lengths(array: Any) -> list[int]:
    """Of each dimension; 0 where C leaves it open."""
    found = []
    for dimension in children(array, "DW_TAG_subrange_type"):
        upper = number_of(dimension, "DW_AT_upper_bound", -1)
        found.append(number_of(dimension, "DW_AT_count", upper + 1))
    return found


def bare_type(die: Any) -> tuple[Any, str | None, bool]:
    """A type without typedefs and qualifiers, the outermost name it has, and whether const was among them."""
    name, const = None, False
    while die is not None and die.tag in _QUALIFIERS:
        const |= die.tag == "DW_TAG_const_type"
        name = name or (name_of(die) if die.tag == "DW_TAG_typedef" else None)
        die = type_of(die)
    return die, name, const


def spell(die: Any) -> str:
    """The C spelling of a type, for prototypes and errors."""
    if die is None:
        return "void"
    if die.tag == "DW_TAG_array_type":
        return f"{spell(type_of(die))} " + "".join(f"[{count or ''}]" for count in lengths(die))
    if die.tag == "DW_TAG_subroutine_type":
        return declare(type_of(die), "", parameters(die))
    if die.tag == "DW_TAG_pointer_type" and getattr(type_of(die), "tag", "") == "DW_TAG_subroutine_type":
        return declare(type_of(type_of(die)), "(*)", parameters(type_of(die)))
    if die.tag in _WORDS:
        inner, word = spell(type_of(die)), _WORDS[die.tag]
        return f"{inner}{word}" if inner.endswith("*") else f"{word} {inner}"
    if die.tag in _MARKS:
        return f"{spell(type_of(die))} {_MARKS[die.tag]}".replace("* *", "**").replace("* &", "*&")
    prefix = {"DW_TAG_structure_type": "struct ", "DW_TAG_union_type": "union ",
              "DW_TAG_enumeration_type": "enum "}.get(die.tag, "")
    return prefix + (name_of(die) or "(unnamed)")


def declare(result: Any, name: str, taken: list[Any]) -> str:
    spelled = [_spell_parameter(p) for p in taken]
    return f"{spell(result)} {name}({', '.join(spelled) or 'void'})".replace("* ", "*")


def _spell_parameter(die: Any) -> str:
    type, name = spell(type_of(die)), name_of(die) or ""
    if die.tag == _MORE:
        return "..."
    if "(*)" in type:
        return type.replace("(*)", f"(*{name})", 1)
    return f"{type} {name}".strip().replace("* ", "*").replace("& ", "&")


def place(die: Any) -> str:
    """``file.c:3``, where the declaration stands, as far as debug information says."""
    number, line = number_of(die, "DW_AT_decl_file", -1), number_of(die, "DW_AT_decl_line")
    program = die.dwarfinfo.line_program_for_CU(die.cu)
    files = [] if program is None else program.header.file_entry
    index = number - (0 if program is None or program.header.version >= 5 else 1)
    if number < 0 or not 0 <= index < len(files):
        return "(unknown file)"
    return f"{os.path.basename(files[index].name.decode('utf-8', 'replace'))}:{line}"
