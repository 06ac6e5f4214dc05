"""Types of an interface beyond the codes of numbers, text and bytes, and their form in the note.

A type is a code (a string of ``csrc/py/codes.def``) or one of the classes below.  The note has them in one
list, ``types``; an entry refers to others by index, and only to earlier ones, so no type can contain
itself.  Sizes and offsets are those of i386, in bytes; the host believes none before it is checked here.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, Union

from .errors import PluginFormatError
from .records import Record

__all__ = [
    "ArrayType", "EnumType", "FunctionType", "HandleType", "Member", "NumbersType", "OptionalType", "PointerType",
    "StreamType", "StructType", "Type", "decode_types", "encode_types",
    "named_types",
]

SIZES = {
    "i8": 1, "u8": 1, "i16": 2, "u16": 2, "i32": 4, "u32": 4, "i64": 8, "u64": 8, "bool": 1, "f32": 4, "f64": 8,
}
INTEGERS = {
    code: (-(1 << 8 * size - 1), (1 << 8 * size - 1) - 1) if code[0] == "i" else (0, (1 << 8 * size) - 1)
    for code, size in SIZES.items()
    if code[0] in "iu"
}

TEXT = "str"  # in a struct: const char *, which may be NULL
TYPES_MAX = 4096
MEMBERS_MAX = 4096
# Members of all types together, each enum and struct counted as eight more: what the making of their classes costs.
ALL_MEMBERS_MAX = 1 << 14
# Bytes of one struct, and Python objects that its value may be made of: a result must not cost the host more
# than the guest memory that it came from is worth.
SIZE_MAX = 1 << 20
OBJECTS_MAX = 1 << 16
# Structs in structs; csrc/py bounds its recursion by the same number.
DEPTH_MAX = 32


class EnumType(Record, aside=("source",)):
    name: str
    base: str  # code of the integer that holds it
    members: tuple[tuple[str, int], ...]
    source: tuple[str, str] = ("", "")  # its name in C, and where it stands: for the build, as in the others


class Member(Record):
    """One member of a struct or union; ``bit`` is its offset in bits, ``bits`` the width of a bit-field or 0."""

    name: str
    type: Type
    bit: int
    bits: int = 0


class StructType(Record, aside=("source",)):
    """A struct, or a union, whose members overlap."""

    name: str
    size: int
    members: tuple[Member, ...]
    union: bool = False
    source: tuple[str, str] = ("", "")

    @cached_property
    def points(self) -> bool:
        """To text."""
        return any(has_text(member.type) for member in self.members)


class ArrayType(Record):
    """An array in a struct; ``text`` when its items are C's char."""

    item: Type
    count: int
    text: bool = False

    @cached_property
    def points(self) -> bool:
        return has_text(self.item)


class PointerType(Record):
    """A pointer to one value: ``in`` is read, ``out`` is written, ``inout`` both.  A result is ``in``, and may be NULL."""

    target: Type
    mode: str


class NumbersType(Record):
    """Many numbers, the vx_array structs: ``in`` and ``inout`` are parameters, ``out`` is a result."""

    item: str
    mode: str


class FunctionType(Record):
    """A function of the host's that C calls: a parameter that takes a callable, or an import."""

    params: tuple[Type, ...]
    result: Type


class HandleType(Record, aside=("source",)):
    """A pointer to an object that only the plugin looks into; ``destroy`` is its destructor's address, or 0.

    ``methods`` are (name in Python, export whose first parameter the handle is).
    """

    name: str
    destroy: int
    methods: tuple[tuple[str, str], ...] = ()
    source: tuple[str, str] = ("", "")


class StreamType(Record):
    """A result in pieces; the addresses are of the functions of ``sdk/lib/vx_stream.c`` in the plugin."""

    open: int
    alloc: int
    next: int
    close: int


class OptionalType(Record):
    """A parameter that may be None, which is NULL to C."""

    item: Type


Type = Union[str, EnumType, StructType, ArrayType, PointerType, NumbersType, FunctionType, HandleType, StreamType, OptionalType]

PLAIN = (EnumType, StructType, ArrayType)
POINTERS = (PointerType, NumbersType, FunctionType, HandleType)
# Names that a handle has from its base.
HANDLE_NAMES = ("close", "closed")
METHODS_MAX = 1024
MODES = ("in", "out", "inout")
# What C may be given as NULL.
NULLABLE = ("str", "view", "mut")
# What C passes to a function of the host's, and takes from it, besides plain types.
CALL_PARAMS = ("str", "view", "mut")
CALL_RESULTS = ("none", "str", "view")
CALL_PARAMS_MAX = 64
WORDS_MAX = 2 * 127 + 1  # MAX_WORDS of csrc/py/binding.h


def size_of(type: Type) -> int:
    """Bytes in guest memory."""
    if isinstance(type, str):
        return 4 if type == TEXT else SIZES[type]
    if isinstance(type, EnumType):
        return SIZES[type.base]
    if isinstance(type, StructType):
        return type.size
    if isinstance(type, ArrayType):
        return type.count * size_of(type.item)
    return 4


def has_text(type: Type) -> bool:
    """Whether memory of the type points to text."""
    return type.points if isinstance(type, (StructType, ArrayType)) else type == TEXT


def is_callable_here(type: FunctionType) -> bool:
    """Whether Python can call such a function of the plugin's, as it calls exports."""
    lent = type.result == "view" or isinstance(type.result, NumbersType)
    return not lent and not any(isinstance(p, StructType) and has_text(p) for p in type.params)


def is_call_param(type: Type) -> bool:
    """Whether C can pass it to a function of the host's.  What Python gives for a pointer is written back."""
    if isinstance(type, str):
        return type in SIZES or type in CALL_PARAMS
    if isinstance(type, PointerType):
        return type.mode == "in" or (type.mode == "inout" and not has_text(type.target))
    if isinstance(type, NumbersType):
        return type.mode != "out"
    return isinstance(type, (EnumType, StructType, HandleType)) or (isinstance(type, FunctionType) and is_callable_here(type))


def is_call_result(type: Type) -> bool:
    """Whether a function of the host's can give it to C."""
    if isinstance(type, str):
        return type in SIZES or type in CALL_RESULTS
    if isinstance(type, (PointerType, NumbersType)):
        return type.mode == "in" and not (isinstance(type, PointerType) and has_text(type.target))
    return isinstance(type, (EnumType, HandleType)) or (isinstance(type, StructType) and not has_text(type))


def outlives_call(type: Type) -> bool:
    """Whether a parameter of the type can belong to a stream: nothing of it is lent for the call alone."""
    inner = type.item if isinstance(type, OptionalType) else type
    if isinstance(inner, (PointerType, NumbersType)):
        return inner.mode == "in"
    return not isinstance(inner, FunctionType) and inner != "mut"


def is_input(type: Type) -> bool:
    """Whether a parameter of the type is passed from Python."""
    return not isinstance(type, (PointerType, NumbersType)) or type.mode != "out"


def is_output(type: Type) -> bool:
    """Whether a parameter of the type is given back as a result."""
    inner = type.item if isinstance(type, OptionalType) else type
    return isinstance(inner, PointerType) and inner.mode != "in"


def is_packed(type: ArrayType) -> bool:
    """Whether Python has it as bytes."""
    return type.text or type.item == "u8"


# --- writing ------------------------------------------------------------------------------------------

Ref = Union[str, int]


class _Table:
    """Types in an order in which each comes after those it is made of."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.index: dict[Type, int] = {}

    def ref(self, type: Type) -> Ref:
        if isinstance(type, str):
            return type
        if type not in self.index:
            row = self._row(type)
            self.index[type] = len(self.rows)
            self.rows.append(row)
        return self.index[type]

    def _row(self, type: Type) -> dict[str, Any]:
        if isinstance(type, EnumType):
            return {"kind": "enum", "name": type.name, "base": type.base, "members": [list(m) for m in type.members]}
        if isinstance(type, StructType):
            members = [[m.name, self.ref(m.type), m.bit, m.bits] for m in type.members]
            kind = "union" if type.union else "struct"
            return {"kind": kind, "name": type.name, "size": type.size, "members": members}
        if isinstance(type, ArrayType):
            return {"kind": "array", "item": self.ref(type.item), "count": type.count, "text": type.text}
        if isinstance(type, FunctionType):
            params = [self.ref(param) for param in type.params]
            return {"kind": "function", "params": params, "result": self.ref(type.result)}
        if isinstance(type, HandleType):
            methods = [list(method) for method in type.methods]
            return {"kind": "handle", "name": type.name, "destroy": type.destroy, "methods": methods}
        if isinstance(type, StreamType):
            return {"kind": "stream", "open": type.open, "alloc": type.alloc, "next": type.next, "close": type.close}
        if isinstance(type, OptionalType):
            return {"kind": "optional", "item": self.ref(type.item)}
        if isinstance(type, NumbersType):
            return {"kind": "numbers", "item": type.item, "mode": type.mode}
        assert isinstance(type, PointerType)
        return {"kind": "pointer", "target": self.ref(type.target), "mode": type.mode}


def encode_types(types: Iterable[Type]) -> tuple[list[dict[str, Any]], list[Ref]]:
    """The rows of the note's table, and a reference for each of ``types``."""
    table = _Table()
    refs = [table.ref(type) for type in types]
    return table.rows, refs


def named_types(types: Iterable[Type]) -> list[EnumType | StructType | HandleType]:
    """Those that Python has classes for, each once, with what they are made of."""
    table = _Table()
    for type in types:
        table.ref(type)
    return [type for type in table.index if isinstance(type, (EnumType, StructType, HandleType))]


# --- reading ------------------------------------------------------------------------------------------


def malformed(problem: str) -> PluginFormatError:
    return PluginFormatError(f"interface note: {problem}")


def check(condition: object, problem: str) -> None:
    """Where every import of a plugin comes by, the condition stands before the text is made: see identifier."""
    if not condition:
        raise malformed(problem)


def identifier(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise malformed(f"{what} is not text")
    if not (value.isascii() and value.isidentifier() and len(value) <= 255):
        raise malformed(f"{what} is not a C identifier")
    if keyword.iskeyword(value):
        raise malformed(f"{what} {value!r} is a Python keyword")
    if value.startswith("__") and value.endswith("__"):
        raise malformed(f"{what} {value!r} is reserved by Python")
    return value


def integer(value: object, low: int, high: int, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise malformed(f"{what} is not a number")
    if not low <= value <= high:
        raise malformed(f"{what} is not between {low} and {high}")
    return value


def flag(value: object, what: str) -> bool:
    check(isinstance(value, bool), f"{what} is not true or false")
    return bool(value)


def rows(value: object, width: int, limit: int, what: str) -> list[list[Any]]:
    """A bounded list of lists of one width."""
    check(isinstance(value, list) and len(value) <= limit, f"{what} are not a list of at most {limit}")
    assert isinstance(value, list)
    check(all(isinstance(row, list) and len(row) == width for row in value), f"{what} are not lists of {width}")
    return value


def unique(names: Iterable[str], what: str) -> None:
    listed = list(names)
    check(len(set(listed)) == len(listed), f"{what} share a name")


def fit_a_call(params: Iterable[Type]) -> bool:
    """Do the parameters, and the address of a result, go on the stack of one call?"""
    words = sum((type.size + 3) // 4 if isinstance(type, StructType) else 2 for type in params)
    return 1 + words < WORDS_MAX


class Types:
    """The checked rows of a note: later ones find earlier ones by index."""

    def __init__(self) -> None:
        self.found: list[Type] = []
        self._same: dict[Type, Type] = {}  # equal rows are one type: comparing them again looks no deeper
        self._costs: list[tuple[int, int]] = []  # Python objects of a value, depth
        self._members = 0
        self._names: set[str] = set()

    def ref(self, value: object, what: str) -> Type:
        if isinstance(value, str):
            return value
        index = integer(value, 0, (1 << 32) - 1, what)
        if index >= len(self.found):
            raise malformed(f"{what} refers to a type that does not come before it")
        return self.found[index]

    def plain(self, value: object, what: str) -> Type:
        """What can stand in memory: a number, text, an enum, a struct, an array."""
        type = self.ref(value, what)
        known = type == TEXT or type in SIZES if isinstance(type, str) else isinstance(type, PLAIN)
        check(known, f"{what} is not a type that memory can hold")
        return type

    def parts(self, value: object) -> int:
        """Of how many Python objects a value of a type that was found here may be made, the type given as a note does."""
        return self._cost(value)[0]

    def _cost(self, value: object) -> tuple[int, int]:
        return (1, 0) if isinstance(value, str) else self._costs[int(value)]  # type: ignore[call-overload]

    def add(self, row: object, number: int) -> None:
        check(isinstance(row, dict), f"type {number} is not an object")
        assert isinstance(row, dict)
        kind = row.get("kind")
        check(isinstance(kind, str) and kind in _READERS, f"type {number} is of an unknown kind")
        type, cost, depth = _READERS[str(kind)](self, row, f"type {number}")
        check(cost <= OBJECTS_MAX, f"type {number} has values of more than {OBJECTS_MAX} parts")
        check(depth <= DEPTH_MAX, f"type {number} is nested more than {DEPTH_MAX} deep")
        self._take_name(type)
        self._members += 8 + len(type.members) if isinstance(type, (EnumType, StructType)) else 0
        check(self._members <= ALL_MEMBERS_MAX, f"type {number}: enums and structs have too many members, or are too many")
        self.found.append(self._same.setdefault(type, type))
        self._costs.append((cost, depth))

    def _take_name(self, type: Type) -> None:
        """At once: two enums of one name could have one hash, as -1 and -2 have, and all that is made of them too."""
        if isinstance(type, (EnumType, StructType, HandleType)):
            check(type.name not in self._names, f"two types are called {type.name}")
            self._names.add(type.name)

    def read_enum(self, row: dict[str, Any], what: str) -> tuple[Type, int, int]:
        name, base = identifier(row.get("name"), f"{what}: name"), row.get("base")
        check(isinstance(base, str) and base in INTEGERS, f"{name}: base is not an integer")
        low, high = INTEGERS[str(base)]
        members = rows(row.get("members"), 2, MEMBERS_MAX, f"{name}: members")
        checked = tuple(
            (_enumerator(m, f"{name}: member"), integer(v, low, high, f"{name}: value")) for m, v in members
        )
        check(checked, f"{name}: an enum without members")
        unique((m for m, _ in checked), f"{name}: two members")
        return EnumType(name, str(base), checked), 1, 0

    def read_struct(self, row: dict[str, Any], what: str) -> tuple[Type, int, int]:
        name = identifier(row.get("name"), f"{what}: name")
        size = integer(row.get("size"), 1, SIZE_MAX, f"{name}: size")
        listed = rows(row.get("members"), 4, MEMBERS_MAX, f"{name}: members")
        members = tuple(self._member(m, size, name) for m in listed)
        check(members, f"{name}: a struct without members")
        unique((m.name for m in members), f"{name}: two members")
        costs = [self._cost(m[1]) for m in listed]
        struct = StructType(name, size, members, row["kind"] == "union")
        check(not (struct.union and has_text(struct)), f"{name}: text in a union")
        return struct, 1 + sum(c for c, _ in costs), 1 + max(d for _, d in costs)

    def _member(self, value: list[Any], size: int, struct: str) -> Member:
        name = identifier(value[0], f"{struct}: member name")
        what = f"{struct}.{name}"
        type = self.plain(value[1], what)
        bit = integer(value[2], 0, 8 * SIZE_MAX, f"{what}: offset")
        bits = integer(value[3], 0, 64, f"{what}: width")
        width = 8 * size_of(type)
        if bits:
            code = type.base if isinstance(type, EnumType) else type
            check(code == "bool" or (isinstance(code, str) and code in INTEGERS), f"{what}: not a type of bit-fields")
            check(bits <= width, f"{what}: wider than its type")
        else:
            check(bit % 8 == 0, f"{what}: not at a byte")
        check(bit + (bits or width) <= 8 * size, f"{what} lies outside {struct}")
        return Member(name, type, bit, bits)

    def read_array(self, row: dict[str, Any], what: str) -> tuple[Type, int, int]:
        item = self.plain(row.get("item"), f"{what}: item")
        count = integer(row.get("count"), 1, SIZE_MAX, f"{what}: count")
        check(count * size_of(item) <= SIZE_MAX, f"{what} is larger than {SIZE_MAX} bytes")
        array = ArrayType(item, count, flag(row.get("text"), f"{what}: text"))
        check(not array.text or item == "i8" or item == "u8", f"{what}: text of something other than char")
        cost, depth = self._cost(row.get("item"))
        return array, 1 if is_packed(array) else 1 + count * cost, depth + 1

    def read_pointer(self, row: dict[str, Any], what: str) -> tuple[Type, int, int]:
        mode = _mode(row, what)
        target = self.ref(row.get("target"), f"{what}: target")
        check(target != TEXT or mode == "out", f"{what} points to text that is not given back")
        if not (isinstance(target, HandleType) and mode == "out"):
            target = self.plain(row.get("target"), f"{what}: target")
        check(not isinstance(target, ArrayType), f"{what} points to an array")
        return PointerType(target, mode), *self._cost(row.get("target"))

    def read_handle(self, row: dict[str, Any], what: str) -> tuple[Type, int, int]:
        name = identifier(row.get("name"), f"{what}: name")
        destroy = integer(row.get("destroy"), 0, (1 << 32) - 1, f"{name}: destroy")
        listed = rows(row.get("methods"), 2, METHODS_MAX, f"{name}: methods")
        methods = tuple((identifier(m, f"{name}: method"), identifier(e, f"{name}: method")) for m, e in listed)
        unique((m for m, _ in methods), f"{name}: two methods")
        check(not any(m in HANDLE_NAMES for m, _ in methods), f"{name}: a method is called close or closed")
        return HandleType(name, destroy, methods), 1, 0

    def read_numbers(self, row: dict[str, Any], what: str) -> tuple[Type, int, int]:
        item = row.get("item")
        check(isinstance(item, str) and item in SIZES and item != "bool", f"{what}: item is not a number")
        return NumbersType(str(item), _mode(row, what)), 1, 0

    def read_function(self, row: dict[str, Any], what: str) -> tuple[Type, int, int]:
        listed = row.get("params")
        check(isinstance(listed, list) and len(listed) <= CALL_PARAMS_MAX, f"{what}: params are not a short list")
        assert isinstance(listed, list)
        params = tuple(self.ref(param, f"{what}: parameter") for param in listed)
        result = self.ref(row.get("result"), f"{what}: result")
        check(all(is_call_param(param) for param in params), f"{what}: a parameter that no callback has")
        check(is_call_result(result), f"{what}: a result that no callback has")
        check(fit_a_call(params), f"{what}: structs by value are larger than a call may have")
        costs = [(self._cost(ref), param) for ref, param in zip(listed, params, strict=True)]
        depth = max((d for (_, d), param in costs if isinstance(param, FunctionType)), default=0)
        return FunctionType(params, result), 1 + sum(c for (c, _), _ in costs), 1 + depth

    def read_stream(self, row: dict[str, Any], what: str) -> tuple[Type, int, int]:
        part = (integer(row.get(n), 1, (1 << 32) - 1, f"{what}: {n}") for n in ("open", "alloc", "next", "close"))
        return StreamType(*part), 1, 0

    def read_optional(self, row: dict[str, Any], what: str) -> tuple[Type, int, int]:
        item = self.ref(row.get("item"), f"{what}: item")
        known = item in NULLABLE if isinstance(item, str) else isinstance(item, POINTERS)
        check(known, f"{what}: an item that cannot be NULL")
        check(is_input(item), f"{what}: an item that is not passed")
        return OptionalType(item), *self._cost(row.get("item"))


_READERS: dict[str, Callable[[Types, dict[str, Any], str], tuple[Type, int, int]]] = {
    "enum": Types.read_enum,
    "struct": Types.read_struct,
    "union": Types.read_struct,
    "array": Types.read_array,
    "pointer": Types.read_pointer,
    "numbers": Types.read_numbers,
    "function": Types.read_function,
    "handle": Types.read_handle,
    "stream": Types.read_stream,
    "optional": Types.read_optional,
}


def _mode(row: dict[str, Any], what: str) -> str:
    mode = row.get("mode")
    check(isinstance(mode, str) and mode in MODES, f"{what}: unknown mode")
    return str(mode)


def _enumerator(value: object, what: str) -> str:
    """A name that enum.Enum takes: none of its own."""
    name = identifier(value, what)
    check(name != "mro" and not (name.startswith("_") and name.endswith("_")), f"{what} {name!r} is reserved by Python")
    return name


def decode_types(value: object) -> Types:
    """The types of a note.  Raises PluginFormatError."""
    check(isinstance(value, list) and len(value) <= TYPES_MAX, "types are not a list of bounded length")
    assert isinstance(value, list)
    types = Types()
    for number, row in enumerate(value):
        types.add(row, number)
    return types
