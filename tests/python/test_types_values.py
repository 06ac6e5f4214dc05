"""Generated values of every type but structs, both ways, against the same C compiled natively.

What C saw is compared, and what it gave, each by itself: ``see_`` gives the bits of an argument, ``give_`` makes
a value of bits.  Where cffi's conventions are others than ours, the test says whose word counts.
"""

from __future__ import annotations

import array
import math
import re
import struct

import pytest

pytest.importorskip("hypothesis", reason="needs hypothesis")
pytest.importorskip("cffi", reason="needs cffi, the oracle")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vxplug

from . import native, structs

EVERY = {**structs.SCALARS, "enum level": "level"}
NUMBERS = {ctype: code for ctype, code in structs.SCALARS.items() if ctype != "_Bool"}
FORMATS = dict(zip(NUMBERS, "bBhHiIqQfd", strict=True))
# T: the type, C: its code.  `f` is Python's, and `ask_C` is an import of the sandbox, a pointer natively.
SCALAR = """
IMPORT(T, ask_C, (T a, T b))
EXPORT uint64_t see_C(T v) { uint64_t bits = 0; memcpy(&bits, &v, sizeof v); return bits; }
EXPORT T give_C(uint64_t bits) { T v; memcpy(&v, &bits, sizeof v); return v; }
EXPORT T call_C(T (*f)(T, T), T a, T b) { return f(a, b); }
EXPORT T relay_C(T a, T b) { return ask_C(a, b); }
OUT(put_C, v) EXPORT void put_C(uint64_t bits, T *v) { *v = give_C(bits); }
INOUT(swap_C, a) INOUT(swap_C, b) EXPORT void swap_C(T *a, T *b) { T t = *a; *a = *b; *b = t; }
"""
ARRAY = """
EXPORT uint64_t hash_C(vx_array_C a) { return hash(1, a.ptr, a.len * sizeof *a.ptr); }
EXPORT void turn_C(vx_mut_array_C a) {
    for (size_t i = 0; i < a.len / 2; i++) { T t = a.ptr[i]; a.ptr[i] = a.ptr[a.len - 1 - i]; a.ptr[a.len - 1 - i] = t; }
}
"""
NEW_ARRAY = "VX_EXPORT vx_new_array_C new_C(vx_view v) { return vx_borrow_C(memcpy(kept, v.ptr, v.len), v.len / sizeof(T)); }\n"
BOTH = r"""
static uint64_t hash(uint64_t h, const void *data, size_t size) {
    for (size_t i = 0; i < size; i++) h = (h ^ ((const uint8_t *)data)[i]) * 0x100000001b3u;
    return h;
}
static char kept[1 << 16];
NULLABLE(text, t) EXPORT const char *text(const char *t) { return t ? strcpy(kept, t) : NULL; }
EXPORT const char *text_of(vx_view v) { memcpy(kept, v.ptr, v.len); kept[v.len] = 0; return kept; }
NULLABLE(seen, t) NULLABLE(seen, v) NULLABLE(seen, a)
EXPORT uint64_t seen(const char *t, vx_view v, vx_array_u16 a) {
    uint64_t h = hash(hash(1, v.ptr, v.len), a.ptr, 2 * a.len);
    return (t ? hash(h, t, strlen(t)) : h) * 8 + (t != NULL) + 2 * (v.ptr != NULL) + 4 * (a.ptr != NULL);
}
EXPORT void mask(vx_mut m, uint8_t key) { for (size_t i = 0; i < m.len; i++) ((uint8_t *)m.ptr)[i] ^= key + i; }
typedef struct stack { size_t count; int64_t items[64]; } stack;
static void stack_free(stack *s) { free(s); }
HANDLE(stack, stack_free)
EXPORT stack *stack_new(int64_t first) { stack *s = calloc(1, sizeof *s); s->items[s->count++] = first; return s; }
EXPORT bool stack_push(stack *s, int64_t v) { return s->count < 64 ? s->items[s->count++] = v, true : false; }
EXPORT int64_t stack_pop(stack *s) { return s->count ? s->items[--s->count] : -1; }
EXPORT uint64_t stack_move(stack *s, stack *from) {
    while (s != from && from->count && s->count < 64) s->items[s->count++] = from->items[--from->count];
    return s->count * 1000 + from->count;
}
"""
GUEST_HEAD = """
#include <stdlib.h>
#include <string.h>
#include <vxplug.h>
#define EXPORT VX_EXPORT
#define OUT(f, p) VX_OUT(f, p);
#define INOUT(f, p) VX_INOUT(f, p);
#define NULLABLE(f, p) VX_NULLABLE(f, p);
#define HANDLE(t, f) VX_HANDLE(t, f);
#define IMPORT(t, n, p) VX_IMPORT(t, n, p);
"""
GUEST_TAIL = r"""
VX_EXPORT vx_bytes same(vx_view v, bool taken) {
    return taken ? vx_take(memcpy(malloc(v.len + 1), v.ptr, v.len), v.len) : vx_borrow(memcpy(kept, v.ptr, v.len), v.len);
}
VX_EXPORT vx_stream pieces(vx_view v, vx_array_u16 sizes) {
    const char *at = v.ptr;
    for (size_t i = 0, left = v.len; i < sizes.len; i++) {
        size_t size = sizes.ptr[i] < left ? sizes.ptr[i] : left;
        if (!vx_yield(at, size)) break;
        at += size; left -= size;
    }
    return VX_END;
}
VX_EXPORT vx_bytes around(vx_view (*f)(const char *, vx_view, vx_mut), const char *t, vx_view v, vx_mut m) {
    vx_view got = f(t, v, m);
    return vx_borrow(memcpy(kept, got.ptr, got.len), got.len);
}
VX_EXPORT const char *renamed(const char *(*f)(const char *), const char *t) { return f(t); }
"""
VIEWS = "typedef struct vx_view { const void *ptr; size_t len; } vx_view; typedef struct vx_mut { void *ptr; size_t len; } vx_mut;\n"
VIEWS += "".join(
    f"typedef struct vx_array_{c} {{ const {t} *ptr; size_t len; }} vx_array_{c};"
    f"typedef struct vx_mut_array_{c} {{ {t} *ptr; size_t len; }} vx_mut_array_{c};\n" for t, c in NUMBERS.items()
)
NATIVE_HEAD = """
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#define EXPORT
#define OUT(f, p)
#define INOUT(f, p)
#define NULLABLE(f, p)
#define HANDLE(t, f)
#define IMPORT(t, n, p) t (*n) p;
""" + VIEWS
PROTOTYPES = """
uint64_t see_C(T v); T give_C(uint64_t bits); T call_C(T (*f)(T, T), T a, T b); extern T (*ask_C)(T, T);
T relay_C(T a, T b); void put_C(uint64_t bits, T *v); void swap_C(T *a, T *b);
"""
ARRAY_PROTOTYPES = "uint64_t hash_C(vx_array_C a); void turn_C(vx_mut_array_C a);\n"
OTHER_PROTOTYPES = """
const char *text(const char *t); const char *text_of(vx_view v); uint64_t seen(const char *t, vx_view v, vx_array_u16 a);
void mask(vx_mut m, uint8_t key); typedef struct stack stack; stack *stack_new(int64_t first);
bool stack_push(stack *s, int64_t v); int64_t stack_pop(stack *s); uint64_t stack_move(stack *s, stack *from);
"""
CHECKS = settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def each(text: str, types: dict[str, str]) -> str:
    """The text for each type; cffi and C know the enum by its own name."""
    return "".join(re.sub(r"\bT\b", t, text).replace("_C", f"_{c}") for t, c in types.items())


@pytest.fixture(scope="module")
def pair(build_plugin, tmp_path_factory):
    """(sandbox, cffi module, where an import finds what to do)."""
    both = structs.ENUM_TEXT + BOTH + each(SCALAR, EVERY) + each(ARRAY, NUMBERS)
    declared = structs.ENUM_TEXT + VIEWS + OTHER_PROTOTYPES + each(PROTOTYPES, EVERY) + each(ARRAY_PROTOTYPES, NUMBERS)
    module = native.load(tmp_path_factory.mktemp("native"), [(declared, False)], NATIVE_HEAD + both)
    guest = GUEST_HEAD + both + GUEST_TAIL + each(NEW_ARRAY, NUMBERS)
    answers: dict[str, object] = {}
    imports = {f"ask_{c}": lambda a, b, c=c: answers[c](a, b) for c in EVERY.values()}
    with vxplug.open(build_plugin(guest)).sandbox(timeout=20.0, imports=imports) as box:
        yield box, module, answers


def _values(ctype: str) -> st.SearchStrategy:
    if ctype in ("float", "double"):
        return st.floats(width=32 if ctype == "float" else 64)
    return structs.values(structs.Enum() if ctype == "enum level" else structs.Scalar(ctype))


def _bits(ctype: str, value) -> bytes:
    """As memory has it, so that NaN equals itself and -0.0 is not 0.0."""
    if ctype in ("float", "double"):
        return struct.pack("d", math.nan if math.isnan(value) else value)
    return int(value).to_bytes(9, "little", signed=True)


def _native(module, ctype: str, value):
    return module.ffi.cast(ctype, value) if ctype == "enum level" else value


@given(data=st.data(), ctype=st.sampled_from(list(EVERY)))
@CHECKS
def test_scalars_both_ways(pair, data, ctype):
    """Without it a width, a sign, a bit of a double or an order could be lost on some road between C and Python."""
    box, module, answers = pair
    code, lib = EVERY[ctype], module.lib
    a, b, answer = (data.draw(_values(ctype)) for _ in range(3))
    x, y = _native(module, ctype, a), _native(module, ctype, b)
    see, give = getattr(lib, f"see_{code}"), getattr(lib, f"give_{code}")
    bits = see(x)
    assert box[f"see_{code}"](a) == bits
    given_back = _bits(ctype, give(bits))
    out = [box[f"give_{code}"](bits), box[f"put_{code}"](bits)]
    swapped = box[f"swap_{code}"](a, b)
    assert [_bits(ctype, v) for v in (*out, swapped[1])] == [given_back] * 3 and _bits(ctype, swapped[0]) == _bits(ctype, give(see(y)))

    def run(function, wrap=lambda f: f, values=(a, b)):
        seen = []
        callback = wrap(lambda *got: seen.extend(_bits(ctype, v) for v in got) or answer)
        return _bits(ctype, function(callback, *values)), seen

    def relay(callback, *values):
        answers[code] = callback
        return box[f"relay_{code}"](*values)

    wanted = run(getattr(lib, f"call_{code}"), lambda f: module.ffi.callback(f"{ctype}({ctype}, {ctype})", f), (x, y))
    assert run(box[f"call_{code}"]) == run(relay) == wanted


EDGES = [0, *(sign * 2**bits for sign in (1, -1) for bits in (7, 8, 15, 16, 31, 32, 63, 64, 1024))]


def _outcome(call, *args):
    try:
        return call(*args)
    except (OverflowError, TypeError) as error:
        return type(error)


def _as_natively(pair, ctype, value) -> bool:
    box, module, _ = pair
    native = getattr(module.lib, f"see_{NUMBERS[ctype]}")
    if ctype == "float" and isinstance(value, (int, float)):  # cffi makes infinity of what is too large; the struct module is strict
        def native(value):
            return int.from_bytes(struct.pack("<f", float(value)), "little")
    return _outcome(box[f"see_{NUMBERS[ctype]}"], value) == _outcome(native, value)


@pytest.mark.parametrize("ctype", NUMBERS)
def test_bounds(pair, ctype):
    """Without it the first number out of range could be taken, or the last one in it refused."""
    assert [n for edge in EDGES for n in range(edge - 2, edge + 3) if not _as_natively(pair, ctype, n)] == []


NO_INTEGERS = st.one_of(st.none(), st.text(max_size=2), st.binary(max_size=2), st.just(()), st.floats())


@given(ctype=st.sampled_from(list(NUMBERS)), value=st.integers() | NO_INTEGERS)
@CHECKS
def test_what_is_no_value(pair, ctype, value):
    """Without it a number out of range could be cut in silence, or something else taken for a number."""
    assert _as_natively(pair, ctype, value)


@given(value=st.one_of(st.integers(), st.text(), st.none(), st.floats(), st.lists(st.none(), max_size=1)))
@CHECKS
def test_truth(pair, value):
    """Without it bool could be other than Python's; cffi takes only 0 and 1, so Python is the oracle."""
    assert pair[0].see_bool(value) == bool(value)


TEXT = st.text(st.characters(), max_size=60) | st.text(st.sampled_from("a\0\ud800é€\U0001f600"), max_size=6)


@given(text=st.none() | TEXT, raw=st.binary(max_size=60))
@CHECKS
def test_text(pair, text, raw):
    """Without it text beyond ASCII, none, or what is no text could come through as something else."""
    box, module, _ = pair
    if text is not None and ("\0" in text or any(0xD800 <= ord(c) < 0xE000 for c in text)):
        kind = UnicodeEncodeError if any(0xD800 <= ord(c) < 0xE000 for c in text) else ValueError
        for call in (lambda: box.text(text), lambda: box.renamed(lambda _: text, "")):
            with pytest.raises(kind):
                call()
        return
    native = module.lib.text(module.ffi.NULL if text is None else text.encode())
    expected = None if native == module.ffi.NULL else module.ffi.string(native).decode()
    assert box.text(text) == box.renamed(lambda got: text, "") == expected == text
    got = module.ffi.string(module.lib.text_of((module.ffi.from_buffer(raw), len(raw))))
    try:
        decoded = got.decode()
    except UnicodeDecodeError:
        with pytest.raises(UnicodeDecodeError):
            box.text_of(raw)
    else:
        assert box.text_of(raw) == decoded


BUFFERS = (bytes, bytearray, memoryview, lambda data: memoryview(b"xx" + data + b"x")[2:-1], lambda data: array.array("b", data))


@given(data=st.binary(max_size=300), make=st.sampled_from(BUFFERS), key=st.integers(0, 255),
       sizes=st.lists(st.integers(0, 100), max_size=8))
@CHECKS
def test_bytes(pair, data, make, key, sizes):
    """Without it bytes of some kind of buffer could be cut, moved or not given back, in arguments, callbacks or streams."""
    box, module, _ = pair
    ffi = module.ffi
    assert box.same(make(data), True) == box.same(make(data), False) == data
    ours, theirs = bytearray(data), bytearray(data)
    box.mask(ours, key)
    module.lib.mask((ffi.from_buffer(theirs), len(theirs)), key)
    assert ours == theirs
    cuts = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    pieces = list(box.pieces(make(data), array.array("H", sizes)))
    assert pieces == [data[a:b] for a, b in zip(cuts, cuts[1:], strict=False) if data[a:b]], "an empty piece is none"

    def callback(text, view, mut):
        assert (text, view, mut) == ("é", data, theirs)
        mut[:] = bytes(reversed(mut))
        return make(view)

    assert box.around(callback, "é", data, ours) == data and ours == theirs[::-1]


@given(text=st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9), view=st.none() | st.binary(max_size=9),
       numbers=st.none() | st.lists(st.integers(0, 65535), max_size=5))
@CHECKS
def test_nullable(pair, text, view, numbers):
    """Without it None and what is empty could be the same to C, or one parameter take another's place."""
    box, module, _ = pair
    null, values = module.ffi.NULL, None if numbers is None else array.array("H", numbers)
    pointers = [(null, 0) if v is None else (module.ffi.cast("void *", module.ffi.from_buffer(v or b"x")), len(v)) for v in (view, values)]
    expected = module.lib.seen(null if text is None else text.encode(), *pointers)
    assert box.seen(text, view, values) == expected


@given(data=st.data(), ctype=st.sampled_from(list(NUMBERS)))
@CHECKS
def test_arrays(pair, data, ctype):
    """Without it what C sees of an array, and not only what comes back, could be wrong."""
    box, module, _ = pair
    code, lib = NUMBERS[ctype], module.lib
    ours = array.array(FORMATS[ctype], data.draw(st.lists(_values(ctype), max_size=30)))
    theirs = array.array(FORMATS[ctype], ours)
    where = (module.ffi.from_buffer(f"{ctype}[]", theirs), len(theirs))
    assert box[f"hash_{code}"](ours) == getattr(lib, f"hash_{code}")(where)
    getattr(lib, f"turn_{code}")(where)
    box[f"turn_{code}"](ours)
    assert ours.tobytes() == theirs.tobytes() == box[f"new_{code}"](theirs.tobytes()).tobytes()


OPERATIONS = st.tuples(
    st.sampled_from(["push", "pop", "move", "new", "close"]), st.integers(0, 3), st.integers(0, 3), _values("int64_t")
)


@given(operations=st.lists(OPERATIONS, max_size=40))
@CHECKS
def test_handles(pair, operations):
    """Without it a handle could lead to another object, or to one that is closed; the native stacks tell what is right."""
    box, module, _ = pair
    lib = module.lib
    ours = [box.stack_new(i) for i in range(4)]
    theirs = [lib.stack_new(i) for i in range(4)]
    for name, i, j, value in operations:
        if name == "new":
            ours[i], theirs[i] = box.stack_new(value), lib.stack_new(value)
        elif name == "close":
            ours[i].close()
        elif ours[i].closed or (name == "move" and ours[j].closed):
            args = (ours[j],) if name == "move" else (value,) * (name == "push")
            with pytest.raises(vxplug.Error, match="closed"):
                box[f"stack_{name}"](ours[i], *args)
        else:
            args = {"push": (value,), "pop": (), "move": None}[name]
            got = box[f"stack_{name}"](ours[i], *((ours[j],) if args is None else args))
            assert got == getattr(lib, f"stack_{name}")(theirs[i], *((theirs[j],) if args is None else args))
