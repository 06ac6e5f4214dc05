"""Pointers to single numbers that guest code hands to the host's functions, against the same C compiled natively."""

from __future__ import annotations

import pytest

pytest.importorskip("hypothesis", reason="needs hypothesis")
pytest.importorskip("cffi", reason="needs cffi, the oracle")

from hypothesis import given
from hypothesis import strategies as st

import vxplug
from vxplug.stubs import stub_text

from . import native, structs
from .test_types_values import CHECKS, EVERY, GUEST_HEAD, NATIVE_HEAD, _bits, _values, each

ONE = {ctype: code for ctype, code in EVERY.items() if code not in ("i8", "u8")}
BOTH = """
IMPORT(void, pass_C, (T *v))
INOUT(lend_C, b) INOUT(lend_C, c)
EXPORT int32_t lend_C(int32_t (*f)(const T *, T *, T *), T a, T *b, T *c, uint8_t null) {
    return f(null & 1 ? NULL : &a, null & 2 ? NULL : b, null & 4 ? NULL : c) * 3;
}
INOUT(relay_C, v) EXPORT void relay_C(T *v) { pass_C(v); }
"""
PROTOTYPES = """
extern void (*pass_C)(T *v); void relay_C(T *v);
int32_t lend_C(int32_t (*f)(const T *, T *, T *), T a, T *b, T *c, uint8_t null);
"""
GUEST_TAIL = """
static const int64_t fixed = 7;
static int16_t half(int16_t *n, const double *by) { int16_t old = *n; *n = by ? old * *by : old / 2; return old; }
VX_EXPORT int64_t forged(void (*f)(int64_t *), uint32_t at) { f((int64_t *)(uintptr_t)at); return at; }
VX_EXPORT uint32_t read_only(void) { return (uint32_t)&fixed; }
VX_EXPORT void odd(void (*f)(double *), vx_view v) { f((double *)((char *)v.ptr + 1)); }
VX_EXPORT int16_t (*halving(void))(int16_t *, const double *) { return half; }
static uint32_t calls;
VX_EXPORT uint32_t count(void) { return ++calls; }
"""


@pytest.fixture(scope="module")
def plugin(build_plugin):
    return vxplug.open(build_plugin(GUEST_HEAD + structs.ENUM_TEXT + each(BOTH, ONE) + GUEST_TAIL))


@pytest.fixture(scope="module")
def pair(plugin, tmp_path_factory):
    """(sandbox, cffi module, where an import finds what to do)."""
    text = structs.ENUM_TEXT + each(BOTH, ONE)
    module = native.load(tmp_path_factory.mktemp("native"), [(structs.ENUM_TEXT + each(PROTOTYPES, ONE), False)], NATIVE_HEAD + text)
    answers: dict[str, object] = {}
    imports = {f"pass_{c}": lambda v, c=c: answers[c](v) for c in ONE.values()}
    with plugin.sandbox(timeout=20.0, imports=imports) as box:
        yield box, module, answers


@pytest.fixture
def box(plugin):
    with plugin.sandbox(timeout=20.0, imports={name: lambda v: None for name in plugin.imports}) as sandbox:
        yield sandbox


def _pointer(module, ctype, value):
    return module.ffi.new(f"{ctype} *", int(value) if ctype == "enum level" else value)


def _value(module, ctype, pointer):
    """cffi gives the number of an enumerator by its name."""
    return int(module.ffi.cast("int32_t *", pointer)[0]) if ctype == "enum level" else pointer[0]


@given(data=st.data(), ctype=st.sampled_from(list(ONE)), null=st.integers(0, 7), leave=st.integers(0, 7), result=st.integers(-1000, 1000))
@CHECKS
def test_numbers_behind_pointers(pair, data, ctype, null, leave, result):
    """Without it a callable could see another number than C has there, or what it gives reach another pointer, or none."""
    box, module, _ = pair
    code, ffi = ONE[ctype], module.ffi
    a, b, c, second, third = (data.draw(_values(ctype)) for _ in range(5))
    leave |= null  # for NULL there is nothing to give
    seen, wanted = [], []

    def got(*values):
        seen.extend(None if value is None else _bits(ctype, value) for value in values)
        return result, None if leave & 2 else second, None if leave & 4 else third

    def want(*pointers):
        wanted.extend(_bits(ctype, _value(module, ctype, p)) if p else None for p in pointers)
        for bit, to, value in ((2, pointers[1], second), (4, pointers[2], third)):
            if not leave & bit:
                to[0] = _pointer(module, ctype, value)[0]
        return result

    x, y, z = (_pointer(module, ctype, value) for value in (a, b, c))
    total = getattr(module.lib, f"lend_{code}")(ffi.callback(f"int32_t({ctype} *, {ctype} *, {ctype} *)", want), x[0], y, z, null)
    ours = box[f"lend_{code}"](got, a, b, c, null)
    assert (ours[0], seen) == (total, wanted)
    assert [_bits(ctype, v) for v in ours[1:]] == [_bits(ctype, _value(module, ctype, p)) for p in (y, z)]


@given(data=st.data(), ctype=st.sampled_from(list(ONE)), leave=st.booleans())
@CHECKS
def test_numbers_that_an_import_writes(pair, data, ctype, leave):
    """Without it imports could know fewer pointers than callbacks."""
    box, module, answers = pair
    code, seen = ONE[ctype], []
    first, second = data.draw(_values(ctype)), data.draw(_values(ctype))
    answers[code] = lambda v: seen.append(v) or (None if leave else second)
    after = box[f"relay_{code}"](first)
    assert _bits(ctype, seen[0]) == _bits(ctype, first)
    assert _bits(ctype, after) == _bits(ctype, first if leave else second)


def test_enums_are_members(box):
    """Without it a callable would get bare numbers where an export gives members."""
    seen = []
    member = next(iter(box.level))
    box.lend_level(lambda *values: seen.extend(values) or (0, None, None), member, member, 77, 0)
    assert seen[0] is seen[1] is member and (type(seen[2]), seen[2]) == (int, 77), "C lets an enum hold any number"


@pytest.mark.parametrize(("name", "give", "kind", "text"), [
    ("relay_i32", "1", TypeError, "result of 'pass_i32': expected int, got str"),
    ("relay_u16", 65536, OverflowError, "result of 'pass_u16': 65536 is out of range for uint16_t"),
    ("relay_u64", -1, OverflowError, "result of 'pass_u64': -1 is out of range for uint64_t"),
    ("relay_f32", 1e39, OverflowError, r"result of 'pass_f32': 1e\+39 is out of range for float"),
    ("relay_f64", (1.0,), TypeError, "result of 'pass_f64': expected float, got tuple"),
])
def test_what_does_not_fit(plugin, name, give, kind, text):
    """Without it a number could be cut on its way to where C reads it."""
    with plugin.sandbox(imports={each: lambda v: give for each in plugin.imports}) as box:
        with pytest.raises(kind, match=text):
            box[name](1)
        assert box.count() == 1, "the sandbox began again"


@pytest.mark.parametrize("at", [1, 0xFFFC, 0xFFFDFFFC, 0xFFFE0000, 0xFFFFFFFC])
def test_forged_pointers(box, at):
    """Without it a guest could have the host read or write outside its memory."""
    reached = []
    with pytest.raises(vxplug.GuestFault, match="memory that is not all its own"):
        box.forged(lambda v: reached.append(v), at)
    assert not reached and box.count() == 1
    assert box.forged(lambda v: None, 0) == 0
    with pytest.raises(TypeError, match="expected None, for a pointer that was NULL, got int"):
        box.forged(lambda v: 5, 0)


def test_memory_that_the_guest_may_not_write(box):
    """Without it the host would write where the guest itself cannot."""
    at, seen = box.read_only(), []
    assert box.forged(lambda v: seen.append(v), at) == at and seen == [7]
    with pytest.raises(vxplug.GuestFault, match="memory that is not all its own"):
        box.forged(lambda v: 8, at)
    box.forged(lambda v: seen.append(v), at)
    assert seen == [7, 7]


def test_at_any_address(box):
    """Without it a pointer that is not aligned, which i386 allows, would be undefined behaviour of the host's."""
    seen = []
    box.odd(lambda v: seen.append(v), b"\0" + b"\0\0\0\0\0\0\xf0\x3f")
    assert seen == [1.0]


def test_functions_of_the_plugins_take_them_too(box):
    """Without it what the plugin gives as a function could not have the type that it takes as a callback."""
    half = box.halving()
    assert half(10, 0.3) == (10, 3) and half(n := -7, 2.0) == (n, -14)


def test_stubs(plugin):
    """Without it a type checker would not know what a callable gets and gives."""
    text = stub_text(plugin)
    compile(text, "stub", "exec")
    optional = "Optional[int], Optional[int]"
    assert f"def lend_u64(f: collections.abc.Callable[[{optional}, Optional[int]], tuple[int, {optional}]], a: int, " in text
