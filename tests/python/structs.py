"""Random C structs, one source of them for the guest and, compiled natively, for cffi.

The same seed makes the same source.  Each struct has functions that take and give it in each way, and
one that hashes its members by value, so that a mistake in one direction is not undone by the other.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
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
class Struct:
    name: str
    members: tuple[tuple[str, Any, int], ...]  # name, type, width of a bit-field or 0
    packed: bool

    @property
    def ctype(self) -> str:
        return f"struct {self.name}"


def _member_type(rng: random.Random, earlier: list[Struct]) -> Any:
    choice = rng.random()
    item: Any = Scalar(rng.choice(list(SCALARS)))
    if choice < 0.15:
        item = Enum()
    elif choice < 0.35 and earlier:
        item = rng.choice(earlier)
    if rng.random() < 0.25:
        return Array(item, tuple(rng.randint(1, 3) for _ in range(rng.randint(1, 2))))
    return item


def _member(rng: random.Random, earlier: list[Struct], packed: bool) -> tuple[Any, int]:
    if not packed and rng.random() < 0.3:
        ctype = rng.choice(BIT_FIELDS)
        return Scalar(ctype), rng.randint(1, BITS[ctype])
    return _member_type(rng, earlier), 0


def generate(seed: int, count: int) -> list[Struct]:
    rng = random.Random(seed)
    structs: list[Struct] = []
    for number in range(count):
        packed = rng.random() < 0.2
        members = tuple((f"m{i}", *_member(rng, structs[-4:], packed)) for i in range(rng.randint(1, 6)))
        structs.append(Struct(f"s{number}", members, packed))
    return structs


# --- C ------------------------------------------------------------------------------------------------


def _declare(name: str, type: Any, bits: int) -> str:
    if isinstance(type, Array):
        return f"{type.item.ctype} {name}" + "".join(f"[{n}]" for n in type.counts) + ";"
    return f"{type.ctype} {name}" + (f" : {bits}" if bits else "") + ";"


def declaration(struct: Struct, attributes: bool) -> str:
    body = " ".join(_declare(*member) for member in struct.members)
    packed = " __attribute__((packed))" if struct.packed and attributes else ""
    return f"struct {struct.name} {{ {body} }}{packed};\n"


def _mix(type: Any, expression: str, depth: int = 0) -> str:
    if isinstance(type, Struct):
        return f"h = hash_{type.name}_(h, &{expression});"
    if isinstance(type, Array):
        loops = "".join(f"for (int i{k} = 0; i{k} < {n}; i{k}++) " for k, n in enumerate(type.counts))
        return loops + _mix(type.item, expression + "".join(f"[i{k}]" for k in range(len(type.counts))))
    if type.ctype in ("float", "double"):
        return f"h = mix(h, bits_of({expression}));"
    return f"h = mix(h, (uint64_t)(int64_t){expression});"


HELPERS = """
static inline uint64_t mix(uint64_t h, uint64_t v) { return (h ^ v) * 0x100000001b3u; }
static inline uint64_t bits_of(double v) { union { double d; uint64_t u; } u = {v}; return u.u; }
"""
ENUM_TEXT = "enum level { " + ", ".join(f"{name} = {value}" for name, value in ENUM.items()) + " };\n"


def prototypes(struct: Struct) -> list[str]:
    s, n = f"struct {struct.name}", struct.name
    return [f"{s} echo_{n}({s} v)", f"uint64_t hash_{n}({s} v)", f"uint64_t hash_in_{n}(const {s} *v)",
            f"int32_t swap_{n}({s} *a, {s} *b)", f"const {s} *keep_{n}(const {s} *v)"]


def functions(struct: Struct) -> str:
    s, n = f"struct {struct.name}", struct.name
    mixes = " ".join(_mix(type, f"v->{name}") for name, type, _ in struct.members)
    bodies = [
        "{ return v; }", f"{{ return hash_{n}_(1, &v); }}", f"{{ return hash_{n}_(1, v); }}",
        f"{{ {s} t = *a; *a = *b; *b = t; return 7; }}", f"{{ static {s} kept; kept = *v; return &kept; }}",
    ]
    helper = f"static uint64_t hash_{n}_(uint64_t h, const {s} *v) {{ {mixes} return h; }}\n"
    return helper + "".join(f"EXPORT {p} {b}\n" for p, b in zip(prototypes(struct), bodies, strict=True))


def source(structs: list[Struct]) -> str:
    head = "#ifdef NATIVE\n#include <stdint.h>\n#define EXPORT static\n#else\n#include <vxplug.h>\n"
    head += "#define EXPORT VX_EXPORT\n#endif\n" + ENUM_TEXT + HELPERS
    return head + "".join(declaration(s, True) + functions(s) for s in structs)


# --- values -------------------------------------------------------------------------------------------


def _integers(bits: int, signed: bool) -> st.SearchStrategy[int]:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return st.integers(low, high)


def values(type: Any, bits: int = 0) -> st.SearchStrategy[Any]:
    """Plain values: numbers, lists, dicts."""
    if isinstance(type, Struct):
        return st.fixed_dictionaries({name: values(t, b) for name, t, b in type.members})
    if isinstance(type, Array):
        inner = values(type.item) if len(type.counts) == 1 else values(Array(type.item, type.counts[1:]))
        return st.lists(inner, min_size=type.counts[0], max_size=type.counts[0])
    if isinstance(type, Enum):
        return st.one_of(st.sampled_from(list(ENUM.values())), _integers(32, True))
    if type.ctype == "_Bool":
        return st.booleans()
    if type.ctype in ("float", "double"):
        return st.floats(width=32 if type.ctype == "float" else 64, allow_nan=False)
    return _integers(bits or BITS[type.ctype], type.ctype[0] == "i")


def to_python(type: Any, value: Any, classes: Any) -> Any:
    """A plain value as the plugin's classes have it."""
    if isinstance(type, Struct):
        return classes[type.name](**{name: to_python(t, value[name], classes) for name, t, _ in type.members})
    if isinstance(type, Array):
        inner = type.item if len(type.counts) == 1 else Array(type.item, type.counts[1:])
        items = [to_python(inner, item, classes) for item in value]
        return bytes(items) if inner == Scalar("uint8_t") else tuple(items)
    if isinstance(type, Enum):
        return classes["level"](value) if value in ENUM.values() else value
    return value
