"""Random C structs and unions: one source of them for the guest and, compiled natively, for cffi.

The same seed makes the same source.  Each struct has functions that take and give it in each way.  What C
sees of one is written out as 64-bit words, a word for each member, all members of a union too; the native
side makes the struct of words, so that nothing rests on what cffi knows of layouts.
"""

from __future__ import annotations

import random
import re
import struct as packing
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

SCALARS = {
    "int8_t": "i8", "uint8_t": "u8", "int16_t": "i16", "uint16_t": "u16", "int32_t": "i32", "uint32_t": "u32",
    "int64_t": "i64", "uint64_t": "u64", "_Bool": "bool", "float": "f32", "double": "f64",
}
BIT_FIELDS = ("int8_t", "uint8_t", "int16_t", "uint16_t", "int32_t", "uint32_t", "int64_t", "uint64_t", "_Bool")
BITS = {ctype: int(ctype.strip("uint_")) if "int" in ctype else 1 for ctype in BIT_FIELDS}
ENUM = {"LOW": -7, "ZERO": 0, "ONE": 1, "HIGH": 2**31 - 1}


@dataclass(frozen=True)
class Scalar:
    ctype: str


@dataclass(frozen=True)
class Enum:
    ctype = "enum level"


@dataclass(frozen=True)
class Array:
    item: Any
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Member:
    name: str
    type: Any
    bits: int = 0  # of a bit-field, or 0
    align: int = 0


@dataclass(frozen=True)
class Struct:
    name: str  # of the class that it has in Python
    members: tuple[Member, ...]
    union: bool = False
    attribute: str = ""
    anonymous: bool = False  # without a name in C

    @property
    def ctype(self) -> str:
        return f"{'union' if self.union else 'struct'} {self.name}"


def flat(struct: Struct) -> list[Member]:
    """The members that Python sees: those of anonymous structs are their owner's."""
    found = []
    for member in struct.members:
        inner = member.type
        found += flat(inner) if isinstance(inner, Struct) and inner.anonymous and not inner.union else [member]
    return found


def _leaves(type: Any) -> list[str]:
    """The C types of all numbers in a type, arrays counted once."""
    if isinstance(type, Array):
        return _leaves(type.item)
    return [leaf for m in type.members for leaf in _leaves(m.type)] if isinstance(type, Struct) else [type.ctype]


class _Maker:
    """One struct in the making."""

    def __init__(self, rng: random.Random, name: str, earlier: list[Struct]) -> None:
        self.rng, self.name, self.count = rng, name, 0
        self.earlier = [s for s in earlier if len(_leaves(s)) < 15]

    def type(self, union: bool) -> Any:
        choice = self.rng.random()
        item: Any = Scalar(self.rng.choice(list(SCALARS)))
        if choice < 0.15:
            item = Enum()
        elif choice < 0.4 and self.earlier:
            item = self.rng.choice(self.earlier)
        if union and "_Bool" in _leaves(item):  # another member could leave it a byte that is no bool
            item = Scalar("double")
        if self.rng.random() < 0.25:
            return Array(item, tuple(self.rng.randint(1, 3) for _ in range(self.rng.randint(1, 2))))
        return item

    def member(self, union: bool) -> Member:
        self.count += 1
        name, choice = f"m{self.count}", self.rng.random()
        if choice < 0.3:
            ctype = self.rng.choice(BIT_FIELDS[:-1] if union else BIT_FIELDS)
            return Member(name, Scalar(ctype), self.rng.randint(1, BITS[ctype]))
        align = self.rng.choice((2, 4, 8, 16, 32)) if choice < 0.36 else 0
        return Member(name, self.type(union), align=align)

    def members(self, depth: int, union: bool, within_union: bool, owner: str, prefix: str = "") -> tuple[Member, ...]:
        """``owner`` and ``prefix`` are what an anonymous union's class and member are called by."""
        found = []
        for number in range(self.rng.randint(1, 6 - depth)):
            if depth == 3 or self.rng.random() > 0.15:
                found.append(self.member(within_union))
                continue
            inner_union, name = self.rng.random() < 0.5, f"anonymous{prefix}{number}"
            names = (f"{owner}_{name}", "") if inner_union else (owner, f"{prefix}{number}_")
            inner = self.members(depth + 1, inner_union, within_union or inner_union, *names)
            found.append(Member(name, Struct(names[0], inner, inner_union, anonymous=True)))
        return tuple(found)


def generate(seed: int, count: int) -> list[Struct]:
    rng = random.Random(seed)
    structs: list[Struct] = []
    for number in range(count):
        union, name = rng.random() < 0.2, f"s{number}"
        attribute = rng.choice(("packed", "packed", "aligned(8)", "packed, aligned(2)", *[""] * 8))
        members = _Maker(rng, name, structs[-4:]).members(0, union, union, name)
        structs.append(Struct(name, members, union, attribute))
    return structs


# --- C ------------------------------------------------------------------------------------------------


def _declare(member: Member) -> str:
    type, name = member.type, member.name
    end = (f" : {member.bits}" if member.bits else "") + (f" __attribute__((aligned({member.align})))" if member.align else "") + ";"
    if isinstance(type, Array):
        return f"{type.item.ctype} {name}" + "".join(f"[{n}]" for n in type.counts) + end
    return f"{_body(type)};" if isinstance(type, Struct) and type.anonymous else f"{type.ctype} {name}{end}"


def _body(struct: Struct) -> str:
    head = "union" if struct.union else "struct"
    attribute = f" __attribute__(({struct.attribute}))" if struct.attribute else ""
    return f"{head} {'' if struct.anonymous else struct.name} {{ {' '.join(map(_declare, struct.members))} }}{attribute}"


def _walk(type: Any, at: str, number: Any, choose: bool) -> str:
    """Statements for each number in what is at ``at``; of a union for all members, or the one that a word chooses."""
    if isinstance(type, Struct):
        parts = [_walk(m.type, at if getattr(m.type, "anonymous", False) else f"{at}.{m.name}", number, choose) for m in flat(type)]
        if not (type.union and choose):
            return " ".join(parts)
        return "switch (*w++) { " + " ".join(f"case {i}: {part} break;" for i, part in enumerate(parts)) + " }"
    if isinstance(type, Array):
        names = [f"i{at.count('[') + k}" for k in range(len(type.counts))]
        loops = "".join(f"for (int {i} = 0; {i} < {n}; {i}++) " for i, n in zip(names, type.counts, strict=True))
        return f"{loops}{{ {_walk(type.item, at + ''.join(f'[{i}]' for i in names), number, choose)} }}"
    return number(type.ctype, at)


def _write(ctype: str, at: str) -> str:
    real = ctype in ("float", "double")
    return f"*w = 0; memcpy(w++, &({at}), sizeof({at}));" if real else f"*w++ = (uint64_t)(int64_t)({at});"


def _read(ctype: str, at: str) -> str:
    real = ctype in ("float", "double")
    return f"memcpy(&({at}), w++, sizeof({at}));" if real else f"{at} = ({ctype})*w++;"


# The native side has the types of 64 bits aligned as i386 has them.
HEAD = """
#ifdef NATIVE
#include <stdint.h>
#include <string.h>
#define ALIGNED __attribute__((aligned(4)))
typedef int64_t low_int64_t ALIGNED; typedef uint64_t low_uint64_t ALIGNED; typedef double low_double ALIGNED;
#define int64_t low_int64_t
#define uint64_t low_uint64_t
#define double low_double
#else
#include <string.h>
#include <vxplug.h>
#endif
"""
ENUM_TEXT = "enum level { " + ", ".join(f"{name} = {value}" for name, value in ENUM.items()) + " };\n"
GUEST = """
VX_EXPORT S echo_N(S v) { return v; }
VX_EXPORT uint32_t dump_N(S v, vx_mut_array_u64 out) { return write_N(&v, out.ptr); }
VX_EXPORT uint32_t dump_in_N(const S *v, vx_mut_array_u64 out) { return write_N(v, out.ptr); }
VX_EXPORT int32_t swap_N(S *a, S *b) { S t = *a; *a = *b; *b = t; return 7; }
VX_EXPORT const S *keep_N(const S *v) { static S kept; kept = *v; return &kept; }
VX_EXPORT S make_N(vx_array_u64 words) { S v; read_N(words.ptr, &v); return v; }
VX_EXPORT S through_N(S v, S (*f)(S, const S *)) { S w = v; return f(v, &w); }
"""
NATIVE = "uint32_t native_{0}(const unsigned long *words, unsigned long *out)"


def _functions(struct: Struct) -> str:
    write = _walk(struct, "(*v)", _write, False)
    return f"""
static uint32_t write_N(const S *v, uint64_t *out) {{ uint64_t *w = out; {write} return (uint32_t)(w - out); }}
static void read_N(const uint64_t *w, S *v) {{ memset(v, 0, sizeof *v); {_walk(struct, "(*v)", _read, True)} }}
#ifdef NATIVE
{NATIVE.format("N")} {{ S v; read_N((const uint64_t *)words, &v); return write_N(&v, (uint64_t *)out); }}
#else{GUEST}#endif
"""


def source(structs: list[Struct]) -> str:
    texts = [f"{_body(s)};\n" + re.sub(r"\bS\b", s.ctype, _functions(s).replace("_N", f"_{s.name}")) for s in structs]
    return HEAD + ENUM_TEXT + "".join(texts)


# --- values -------------------------------------------------------------------------------------------


def _integers(bits: int, signed: bool) -> st.SearchStrategy[int]:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return st.integers(low, high)


def values(type: Any, bits: int = 0) -> st.SearchStrategy[Any]:
    """Plain values: numbers, lists, dicts; of a union a dict with one member."""
    if isinstance(type, Struct):
        members = {m.name: values(m.type, m.bits) for m in flat(type)}
        return st.one_of([st.fixed_dictionaries({n: v}) for n, v in members.items()]) if type.union else st.fixed_dictionaries(members)
    if isinstance(type, Array):
        return st.lists(values(_items(type)), min_size=type.counts[0], max_size=type.counts[0])
    if isinstance(type, Enum):
        return st.one_of(st.sampled_from(list(ENUM.values())), _integers(32, True))
    if type.ctype == "_Bool":
        return st.booleans()
    if type.ctype in ("float", "double"):
        return st.floats(width=32 if type.ctype == "float" else 64, allow_nan=False)
    return _integers(bits or BITS[type.ctype], type.ctype[0] == "i")


def _items(type: Array) -> Any:
    return type.item if len(type.counts) == 1 else replace(type, counts=type.counts[1:])


def to_python(type: Any, value: Any, classes: Any) -> Any:
    """A plain value as the plugin's classes have it."""
    if isinstance(type, Struct):
        given = {m.name: to_python(m.type, value[m.name], classes) for m in flat(type) if m.name in value}
        return classes[type.name](**given)
    if isinstance(type, Array):
        items = [to_python(_items(type), item, classes) for item in value]
        return bytes(items) if _items(type) == Scalar("uint8_t") else tuple(items)
    if isinstance(type, Enum):
        return classes["level"](value) if value in ENUM.values() else value
    return value


def words(type: Any, value: Any) -> list[int]:
    """What read_N takes for a plain value, or, of an object of the classes, what write_N gives."""
    if isinstance(type, Struct) and isinstance(value, dict):
        chosen = [(i, m) for i, m in enumerate(flat(type)) if m.name in value]
        return [word for i, m in chosen for word in [i] * type.union + words(m.type, value[m.name])]
    if isinstance(type, Struct):
        return [word for m in flat(type) for word in words(m.type, getattr(value, m.name))]
    if isinstance(type, Array):
        return [word for item in value for word in words(_items(type), item)]
    if type.ctype in ("float", "double"):
        size = 4 if type.ctype == "float" else 8
        return [int.from_bytes(packing.pack("<f" if size == 4 else "<d", value), "little")]
    return [int(value) % 2**64]
