"""Enums, structs, unions and pointers to them: against the same C compiled natively, and by hand."""

from __future__ import annotations

import array
import dataclasses
import enum
import gc
import inspect
import pickle
import sys

import pytest

pytest.importorskip("hypothesis", reason="needs hypothesis")
pytest.importorskip("cffi", reason="needs cffi, the oracle")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vxplug

from . import native, structs

STRUCTS = structs.generate(2024, 60)
SOURCE = structs.source(STRUCTS)
ROOM = 4096  # more words than any of them has


@pytest.fixture(scope="module")
def pair(build_plugin, tmp_path_factory):
    """(sandbox, cffi module) of the generated structs."""
    declarations = [(f"{structs.NATIVE.format(s.name)};", False) for s in STRUCTS]
    module = native.load(tmp_path_factory.mktemp("native"), declarations, SOURCE)
    with vxplug.open(build_plugin(SOURCE)).sandbox() as box:
        yield box, module


@given(data=st.data())
@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_generated_structs(pair, data):
    """Without it an offset, a width, a sign or a direction could be wrong for some shape of struct or union."""
    box, module = pair
    struct = data.draw(st.sampled_from(STRUCTS))
    name, room = struct.name, array.array("Q", bytes(8 * ROOM))
    plain = [data.draw(structs.values(struct)) for _ in range(2)]
    one, two = (structs.to_python(struct, value, box.plugin.types) for value in plain)
    words = array.array("Q", structs.words(struct, plain[0]))
    count = getattr(module.lib, f"native_{name}")(*(module.ffi.from_buffer("unsigned long[]", a) for a in (words, room)))
    expected = room[:count].tolist()
    for function in ("dump", "dump_in"):
        assert room[: box[f"{function}_{name}"](one, room)].tolist() == expected
    seen = []
    relayed = box[f"through_{name}"](one, lambda *given: seen.extend(given) or two)
    results = (box[f"make_{name}"](words), box[f"echo_{name}"](one), box[f"keep_{name}"](one), *seen)
    for result in results:
        assert structs.words(struct, result) == expected and type(result) is box.plugin.types[name] and result == one
    assert box[f"swap_{name}"](one, two) == (7, two, one) and relayed == two


GUEST = r"""
#include <stdlib.h>
#include <string.h>
#include <vxplug.h>
typedef enum { RED, GREEN = 5, BLUE = -1, CRIMSON = 0 } color;
enum wide { SMALL, LARGE = 0xffffffff };
typedef union number { int32_t i; float f; uint8_t raw[8]; double d; struct { uint16_t low, high; } parts; unsigned bits : 5; } number;
typedef struct pos { int16_t x; double y; } pos;
struct inner { int8_t a; struct { int32_t b, c; }; union { int32_t d; float e; }; };
struct twins { struct { union { int32_t a; float b; }; }; struct { union { int32_t c; float d; }; }; };
typedef struct named { char name[8]; uint8_t raw[4]; int8_t list[3]; number n; color c; color c3 : 3; } named;
struct __attribute__((packed)) packed { uint8_t a; uint64_t b; uint16_t c; };
struct aligned { uint8_t a; uint32_t b __attribute__((aligned(16))); };
typedef struct big { uint32_t words[250]; } big;

VX_EXPORT color next(color c) { return c == RED ? GREEN : c == GREEN ? BLUE : (color)77; }
VX_EXPORT enum wide widen(enum wide w) { return w == SMALL ? LARGE : SMALL; }
VX_EXPORT named echo_named(named n) { return n; }
VX_EXPORT struct inner echo_inner(struct inner i) { return i; }
VX_EXPORT struct twins echo_twins(struct twins t) { return t; }
VX_EXPORT number echo_number(number n) { return n; }
VX_EXPORT uint64_t packed_sum(struct packed p, struct aligned q) { return p.a + p.b + p.c + q.a + q.b; }
VX_EXPORT uint32_t big_sum(big b) { uint32_t t = 0; for (int i = 0; i < 250; i++) t += b.words[i]; return t; }
VX_EXPORT double weigh(int8_t a, pos p, int64_t b, const pos *q, vx_view v, double c) {
    return a + 2 * p.x + 3 * p.y + 5 * (double)b + 7 * q->x + 11 * q->y + 13 * (double)v.len + 17 * c;
}
VX_OUT(divide, quotient); VX_OUT(divide, remainder);
VX_EXPORT void divide(int32_t a, int32_t *quotient, int32_t b, int32_t *remainder) {
    if (b == 0) { vx_raise(VX_ZeroDivisionError, "by zero"); return; }
    *quotient = a / b; *remainder = a % b;
}
VX_INOUT(step, at); VX_OUT(step, where);
VX_EXPORT bool step(pos *where, uint8_t *at) { where->x = *at; where->y = -1; ++*at; return *at != 0; }
VX_OUT(only, c);
VX_EXPORT void only(color *c) { *c = BLUE; }
VX_EXPORT void move(pos *p) { p->x++; p->y /= 2; }
VX_EXPORT const pos *forged(uint32_t address) { return (const pos *)(uintptr_t)address; }
VX_EXPORT pos *fresh(void) { static pos p = {1, 2}; p.x++; return &p; }
VX_EXPORT void crash(pos *p) { p->x = 9; *(volatile int *)16 = 0; }
VX_EXPORT uint32_t address_of(pos *p) { return (uint32_t)(uintptr_t)p; }
VX_EXPORT __attribute__((naked)) pos moved_result(void) { __asm__("movl 4(%esp), %eax\n\tret $4"); }
"""


@pytest.fixture(scope="module")
def plugin(build_plugin):
    return vxplug.open(build_plugin(GUEST))


@pytest.fixture
def box(plugin):
    with plugin.sandbox(timeout=20.0) as sandbox:
        yield sandbox


def _refused(kind, call, *args) -> str:
    with pytest.raises(kind) as caught:
        call(*args)
    assert type(caught.value) is kind
    return str(caught.value)


def test_enums(box):
    """Without it an enum could be no IntEnum, or a number outside it an error."""
    color = box.color
    assert issubclass(color, enum.IntEnum)
    assert {m.name: m.value for m in color} == {"RED": 0, "GREEN": 5, "BLUE": -1} and color.CRIMSON is color.RED
    assert box.next(color.RED) is color.GREEN and box.next(5) is color.BLUE
    assert box.next(-1) == 77 and type(box.next(-1)) is int
    assert box.widen(box.wide.SMALL) is box.wide.LARGE and box.wide.LARGE == 2**32 - 1
    assert "expected int, got str" in _refused(TypeError, box.next, "RED")
    assert "out of range for int32_t" in _refused(OverflowError, box.next, 2**31)


def test_dataclasses(box, plugin):
    """Without it a struct could be mutable, or of another class in each sandbox."""
    pos = box.pos
    value = pos(x=1, y=2.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.x = 2
    assert [f.name for f in dataclasses.fields(pos)] == ["x", "y"]
    assert pos is plugin.types["pos"] and hash(value) == hash(pos(1, 2.5)) and repr(value) == "pos(x=1, y=2.5)"
    with plugin.sandbox() as other:
        assert other.pos is pos and other.fresh() == pos(2, 2.0)


def test_arrays_in_structs(box):
    """Without it text, bytes and numbers in arrays could be cut or padded in silence."""
    value = box.named(b"abc", b"\0\1\2\3", (-1, 0, 1), box.number(i=1), box.color.GREEN, box.color.BLUE)
    assert box.echo_named(value) == value
    assert box.echo_named(dataclasses.replace(value, name=bytearray(b"12345678"), list=[-1, 0, 1])).name == b"12345678"
    replace = dataclasses.replace
    cases = [
        (ValueError, replace(value, name=b"123456789"), "'n.name': expected at most 8 bytes, got 9"),
        (ValueError, replace(value, raw=b"123"), "'n.raw': expected 4 bytes, got 3"),
        (TypeError, replace(value, raw=(1, 2, 3, 4)), "'n.raw': expected a bytes-like object, got tuple"),
        (ValueError, replace(value, list=(1, 2)), "'n.list': expected 3 items, got 2"),
        (OverflowError, replace(value, list=(1, 128, 2)), "'n.list[1]': 128 is out of range for int8_t"),
        (TypeError, replace(value, list="abc"), "'n.list': expected a sequence of 3 items, got str"),
        (TypeError, replace(value, n=5), "'n.n': expected number, got int"),
        (OverflowError, replace(value, c3=4), "'n.c3': 4 is out of range for its bit-field (-4 to 3)"),
    ]
    for kind, wrong, text in cases:
        assert "echo_named() argument " + text in _refused(kind, box.echo_named, wrong)


def test_anonymous_members(box):
    """Without it members of anonymous structs could be lost or misplaced."""
    inner = box.inner
    assert [f.name for f in dataclasses.fields(inner)] == ["a", "b", "c", "anonymous2"]
    union = box.inner_anonymous2
    value = inner(1, 2, 3, union(e=1.5))
    result = box.echo_inner(value)
    assert result == value and result.anonymous2.e == 1.5 and result.anonymous2.d == 0x3FC00000
    twins = box.twins(box.twins_anonymous0_0(a=1), box.twins_anonymous1_0(d=1.5))
    assert box.echo_twins(twins) == twins and box.echo_twins(twins).anonymous1_0.c == 0x3FC00000


def test_unions(box):
    """Without it a union could lose bits that the last written member does not show."""
    number = box.number
    value = box.echo_number(number(d=2.5))
    assert value == number(d=2.5) and value.d == 2.5 and bytes(value) == value.raw == b"\0\0\0\0\0\0\x04@"
    assert number(parts=box.number_parts(1, 2)).i == 0x20001 and number(bits=31).i == 31
    assert hash(value) == hash(number(d=2.5)) and value != number(i=1) and value != value.raw
    assert repr(number(i=5)).startswith("number(i=5, f=")
    for change in (lambda: setattr(value, "i", 1), lambda: delattr(value, "i"), lambda: setattr(value, "__data__", b"")):
        with pytest.raises(AttributeError):
            change()
    assert "exactly one member" in _refused(TypeError, number)
    assert "no member 'x'" in _refused(TypeError, lambda: number(x=1))
    assert "'number.bits': 32 is out of range for its bit-field (0 to 31)" in _refused(
        OverflowError, lambda: number(bits=32)
    )
    hollow = object.__new__(number)
    for forged in (b"", b"123", "12345678"):
        object.__setattr__(hollow, "__data__", forged)
        assert "not made by its class" in _refused(TypeError, box.echo_number, hollow)


def test_words_of_structs(box):
    """Without it a struct among other parameters could push them to the wrong place."""
    pos = box.pos
    assert box.weigh(1, pos(2, 3.0), -4, pos(5, 6.0), b"seven", 0.5) == 1 + 4 + 9 - 20 + 35 + 66 + 65 + 8.5
    assert box.packed_sum(box.packed(1, 2**40, 3), box.aligned(4, 5)) == 2**40 + 13
    assert box.big_sum(box.big(tuple(range(250)))) == sum(range(250))


def test_outputs(box):
    """Without it what a function writes through pointers could be dropped or out of order."""
    assert box.divide(17, 5) == (3, 2) and box.divide(b=-5, a=17) == (-3, 2)
    assert _refused(ZeroDivisionError, box.divide, 1, 0) == "by zero"
    assert box.step(255) == (False, box.pos(255, -1.0), 0)
    assert box.only() is box.color.BLUE
    before = box.pos(3, 5.0)
    assert box.move(before) == box.pos(4, 2.5) and before == box.pos(3, 5.0)
    assert "takes 2 positional arguments but 4 were given" in _refused(TypeError, box.divide, 1, 2, 3, 4)
    assert str(box.plugin.exports["divide"].signature) == "(a: int, b: int) -> tuple[int, int]"
    assert list(inspect.signature(box.step).parameters) == ["at"]
    assert "unexpected keyword argument 'quotient'" in _refused(TypeError, lambda: box.divide(1, 2, quotient=3))


def test_pointer_results(box):
    """Without it a pointer that leads nowhere could make the host read what it must not."""
    assert box.forged(0) is None
    assert box.fresh() == box.pos(2, 2.0)
    for address in (1, 16, 0x10000 - 1, 0xFFFDFFFF, 0xFFFE0000, 0xFFFFFFFC, 0xFFFFFFFF):
        with pytest.raises(vxplug.GuestFault, match="struct result that is not all readable") as caught:
            box.forged(address)
        assert caught.value.kind == "memory" and caught.value.address == address
    assert box.fresh() == box.pos(2, 2.0), "no reset after the fault"


def test_hidden_pointer_is_the_hosts(box):
    """Without it a function that writes its result elsewhere could lead the host there."""
    assert box.moved_result() == box.pos(0, 0.0)


def test_nothing_is_given_after_a_crash(box):
    """Without it a half-written struct could come back from a call that failed."""
    with pytest.raises(vxplug.GuestFault):
        box.crash(box.pos(1, 1.0))


class Hostile:
    """A number that uses the sandbox while it is converted."""

    def __init__(self, action) -> None:
        self.action = action

    def __index__(self) -> int:
        self.action()
        return 1


def test_conversions_may_use_the_sandbox(box):
    """Without it Python code in a conversion could change memory that the call has already laid out."""
    pos, big = box.pos, tuple(range(250))
    for action in (box.reset, lambda: box.big_sum(box.big(big)), lambda: box.move(pos(1, 1.0))):
        assert box.move(pos(Hostile(action), 2.0)) == pos(2, 1.0)
    growing = [0] * 249
    value = box.big([*[0] * 249, 0])
    object.__setattr__(value, "words", growing)
    growing.append(Hostile(growing.clear))
    growing.insert(0, growing.pop())
    assert "changed size while it was read" in _refused(RuntimeError, box.big_sum, value)
    with pytest.raises(vxplug.Error, match="closed"):
        box.move(pos(Hostile(box.close), 2.0))


def test_fresh_zeros_behind_out(box):
    """Without it an out parameter could show what an earlier call left in guest memory."""
    first, address = box.address_of(box.pos(1, 1.0)), 0
    assert first[1] == box.pos(1, 1.0) and first[0] > address


def test_pickle_by_module(build_plugin, tmp_path, monkeypatch):
    """Without it values of an imported plugin could not travel between processes."""
    (tmp_path / "shapes.vxm").write_bytes(build_plugin(GUEST).read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    vxplug.install()
    try:
        import shapes

        for value in (shapes.pos(1, 2.0), shapes.number(d=2.5), shapes.color.BLUE):
            assert pickle.loads(pickle.dumps(value)) == value
        assert {"pos", "color", "number", "move"} <= set(shapes.__all__)
        assert shapes.pos.__module__ == "shapes"
    finally:
        vxplug.uninstall()
        sys.modules.pop("shapes", None)


def test_references(box):
    """Without it each call could leak what it converted."""
    value = box.named(b"abc", b"\0\1\2\3", (-1, 0, 1), box.number(i=1), box.color.GREEN, box.color.BLUE)

    def work() -> None:
        for _ in range(300):
            box.echo_named(value)
            box.divide(7, 2)
            box.move(box.pos(1, 2.0))
            for wrong in (5, dataclasses.replace(value, list=(1, 2, 300)), dataclasses.replace(value, n=None)):
                with pytest.raises((TypeError, OverflowError)):
                    box.echo_named(wrong)
            with pytest.raises(ZeroDivisionError):
                box.divide(1, 0)

    work()
    gc.collect()
    before = [sys.getrefcount(o) for o in (box.pos, box.named, box.number, box.color, value, None)]
    blocks = sys.getallocatedblocks()
    work()
    gc.collect()
    after = [sys.getrefcount(o) for o in (box.pos, box.named, box.number, box.color, value, None)]
    assert all(abs(a - b) < 20 for a, b in zip(after, before, strict=True))
    assert sys.getallocatedblocks() - blocks < 300, "less than one a round"
