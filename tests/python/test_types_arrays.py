"""Arrays of numbers through the buffer protocol, and None for what may be NULL."""

from __future__ import annotations

import array
import ctypes
import inspect
import struct
from typing import Optional

import pytest

pytest.importorskip("hypothesis", reason="needs hypothesis")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vxplug

from .leaks import growth

ITEMS = {
    "i8": ("int8_t", "b"), "u8": ("uint8_t", "B"), "i16": ("int16_t", "h"), "u16": ("uint16_t", "H"),
    "i32": ("int32_t", "i"), "u32": ("uint32_t", "I"), "i64": ("int64_t", "q"), "u64": ("uint64_t", "Q"),
    "f32": ("float", "f"), "f64": ("double", "d"),
}
GUEST = r"""
#include <stdlib.h>
#include <string.h>
#include <vxplug.h>
#define ARRAYS(code, type) \
    VX_EXPORT vx_new_array_##code echo_##code(vx_array_##code a) { \
        type *out = malloc(a.len * sizeof *out + 1); \
        memcpy(out, a.ptr, a.len * sizeof *out); \
        return vx_take_##code(out, a.len); \
    } \
    VX_EXPORT uint32_t reverse_##code(vx_mut_array_##code a) { \
        for (size_t i = 0; i < a.len / 2; i++) { \
            type t = a.ptr[i]; a.ptr[i] = a.ptr[a.len - 1 - i]; a.ptr[a.len - 1 - i] = t; } \
        return a.len; \
    } \
    VX_EXPORT vx_new_array_##code forged_##code(uint32_t at, uint32_t len, uint32_t owner) { \
        vx_new_array_##code a = {(type *)(uintptr_t)at, len, owner}; return a; \
    }
""" + "\n".join(f"ARRAYS({code}, {ctype})" for code, (ctype, _) in ITEMS.items()) + r"""
typedef struct pair { int32_t a, b; } pair;
static double table[3] = {0.5, 1.5, 2.5};
VX_EXPORT vx_new_array_f64 lent(void) { return vx_borrow_f64(table, 3); }
VX_EXPORT vx_new_array_f64 failing(void) { vx_raise(VX_ValueError, "no"); return vx_take_f64(malloc(8), 1); }
VX_EXPORT double dot(vx_array_f64 a, vx_array_f64 b) {
    double t = 0;
    if (a.len != b.len) { vx_raise(VX_ValueError, "lengths differ"); return 0; }
    for (size_t i = 0; i < a.len; i++) t += a.ptr[i] * b.ptr[i];
    return t;
}
VX_NULLABLE(given, text); VX_NULLABLE(given, view); VX_NULLABLE(given, mut); VX_NULLABLE(given, numbers);
VX_NULLABLE(given, in); VX_NULLABLE(given, inout);
VX_EXPORT uint32_t given(const char *text, vx_view view, vx_mut mut, vx_array_i32 numbers, const pair *in, pair *inout) {
    if (inout) inout->a++;
    return (text != NULL) | (view.ptr != NULL) << 1 | (mut.ptr != NULL) << 2 | (numbers.ptr != NULL) << 3 |
           (in != NULL) << 4 | (inout != NULL) << 5 | (uint32_t)(view.len + mut.len + numbers.len) << 8;
}
VX_EXPORT size_t needed(const char *text) { return strlen(text); }
"""


@pytest.fixture(scope="module")
def plugin(build_plugin):
    return vxplug.open(build_plugin(GUEST))


@pytest.fixture(scope="module")
def shared(plugin):
    with plugin.sandbox(timeout=20.0) as sandbox:
        yield sandbox


@pytest.fixture
def box(plugin):
    with plugin.sandbox(timeout=20.0) as sandbox:
        yield sandbox


def _values(code):
    if code[0] == "f":
        return st.floats(width=int(code[1:]), allow_nan=False)
    bits = int(code[1:])
    return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1) if code[0] == "i" else st.integers(0, (1 << bits) - 1)


@given(data=st.data(), code=st.sampled_from(list(ITEMS)))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_both_ways(shared, data, code):
    """Without it a width, a count or an order could be wrong for some type of number."""
    typecode = ITEMS[code][1]
    values = array.array(typecode, data.draw(st.lists(_values(code), max_size=50)))
    result = shared[f"echo_{code}"](values)
    assert type(result) is array.array and result.typecode == typecode and result == values
    packed = memoryview(struct.pack(f"={len(values)}{typecode}", *values)).cast("B").cast(typecode)
    assert shared[f"echo_{code}"](packed) == values
    mirrored = array.array(typecode, values)
    assert shared[f"reverse_{code}"](mirrored) == len(values)
    assert mirrored.tolist() == values.tolist()[::-1]


def test_numpy(box):
    """Without it NumPy arrays could be refused, or read in the wrong order."""
    numpy = pytest.importorskip("numpy", reason="needs numpy")
    for code, (_, typecode) in ITEMS.items():
        values = numpy.arange(24, dtype=typecode)
        result = numpy.asarray(box[f"echo_{code}"](values.reshape(2, 3, 4)))
        assert result.dtype == values.dtype and (result == values).all()
        assert box[f"reverse_{code}"](values) == 24 and values[0] == 23
    matrix = numpy.arange(6.0).reshape(2, 3)
    assert box.dot(matrix, matrix) == 55.0
    assert box.dot(numpy.array(3.0), numpy.array(2.0)) == 6.0, "no dimension is one number"
    with pytest.raises(BufferError, match=r"dot\(\) argument 'a': .*contiguous"):
        box.dot(matrix.T, matrix)
    with pytest.raises(BufferError, match=r"argument 'a': .*contiguous"):
        box.dot(numpy.arange(6.0)[::2], matrix)
    with pytest.raises(TypeError, match="expected numbers of format 'd', got format '>d'"):
        box.dot(matrix.astype(">f8"), matrix)
    values = numpy.arange(3, dtype="i4")
    values.flags.writeable = False
    assert box.echo_i32(values) == array.array("i", [0, 1, 2])
    with pytest.raises(TypeError, match="expected a writable bytes-like object, got read-only numpy.ndarray"):
        box.reverse_i32(values)
    with pytest.raises(BufferError, match=r"reverse_i32\(\) argument '\w+': cannot include dtype 'M'"):
        box.reverse_i32(numpy.zeros(2, "M8[s]"))  # not read-only: it has no format


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (array.array("i", [1]), "got format 'i'"), (array.array("f", [1]), "got format 'f'"),
        (b"12345678", "got format 'B'"), (memoryview(b"1234").cast("c"), "got format 'c'"),
        ((ctypes.c_double.__ctype_be__ * 1)(), "got format '>d'"), (memoryview(b"1").cast("?"), "got format"),
    ],
)
def test_formats_are_checked(box, value, text):
    """Without it numbers of one type could be read as another."""
    with pytest.raises(TypeError, match=r"dot\(\) argument 'a': expected numbers of format 'd', " + text):
        box.dot(value, array.array("d", [1]))


def test_same_formats(box):
    """Without it the other names of a type's format would be refused."""
    for kind in (ctypes.c_long, ctypes.c_longlong, ctypes.c_ssize_t):
        assert box.echo_i64((kind * 2)(1, -2)).tolist() == [1, -2]
    assert box.echo_u64((ctypes.c_size_t * 1)(2**64 - 1)).tolist() == [2**64 - 1]
    assert box.echo_u8(b"\0\xff").tolist() == [0, 255]
    for wrong in ([1.0], (1.0,), 1.0, "d", None):
        with pytest.raises(TypeError, match="expected a bytes-like object, got"):
            box.dot(wrong, b"")


def test_no_numbers(box):
    """Without it an empty array could be a NULL that the plugin takes for none, or a range error."""
    assert box.echo_f64(array.array("d")) == array.array("d")
    assert box.forged_f64(0, 0, 0) == box.forged_f64(0xFFFFFFFF, 0, 0) == array.array("d")
    assert box.lent().tolist() == [0.5, 1.5, 2.5]
    with pytest.raises(ValueError, match="^no$"):
        box.failing()
    with pytest.raises(ValueError, match="lengths differ"):
        box.dot(array.array("d"), array.array("d", [1.0]))


@pytest.mark.parametrize(
    ("at", "count", "owner"),
    [(16, 1, 0), (0x10000, 1 << 29, 0), (0x10000, 0xFFFFFFFF, 0), (0xFFFDFFF8, 2, 0), (0xFFFFFFF8, 1, 0), (0, 1, 1),
     (0xFFFDFFFC, 1, 1)],
)
def test_forged_counts(box, at, count, owner):
    """Without it a count could wrap when multiplied, or make the host allocate gigabytes before it looks."""
    with pytest.raises(vxplug.GuestFault, match="not all readable memory") as caught:
        box.forged_f64(at, count, owner)
    assert caught.value.kind == "memory" and caught.value.address == at
    with pytest.raises(vxplug.GuestFault, match="unknown owner"):
        box.forged_i8(0x10000, 0, 7)


def test_buffers_are_held(box):
    """Without it an array could be resized while the plugin's changes are written to it."""
    values = array.array("i", range(1000))

    class Resizing:
        def __index__(self) -> int:
            values.extend([1])
            return 1

    assert box.reverse_i32(values) == 1000
    values.append(1)
    with pytest.raises(BufferError):
        box.given(None, None, memoryview(values).cast("B"), values, box.pair(Resizing(), 1), None)
    values.append(1)  # nothing is held after a failed call


def test_none(box):
    """Without it a pointer that may be NULL could not be, or one that may not could."""
    pair = box.pair(1, 2)
    assert box.given(None, None, None, None, None, None) == (0, None)
    data = bytearray(3)
    assert box.given("", b"", data, array.array("i", [1, 2]), pair, pair) == (0b111111 | 5 << 8, box.pair(2, 2))
    for position, bit in enumerate((1, 2, 4, 8, 16, 32)):
        values = ["x", b"y", data, array.array("i", [1]), pair, pair]
        values[position] = None
        assert box.given(*values)[0] & 63 == 63 - bit
    for call in (lambda: box.needed(None), lambda: box.echo_i8(None)):
        with pytest.raises(TypeError, match="NoneType"):
            call()
    signature = inspect.signature(box.given)
    assert signature.parameters["text"].annotation == Optional[str]
    assert signature.parameters["in_"].annotation == Optional[box.pair] if "in_" in signature.parameters else True


def test_references(box):
    """Without it buffers could stay locked, or arrays leak."""
    values, pair = array.array("d", [1.0, 2.0, 3.0]), box.pair(1, 2)

    def work() -> None:
        for _ in range(300):
            box.dot(values, values)
            box.echo_f64(values)
            box.given(None, b"1", bytearray(3), array.array("i", [1]), pair, pair)
            for wrong in (b"12345678", array.array("i", [1]), None, memoryview(values)[::2]):
                with pytest.raises((TypeError, BufferError)):
                    box.dot(values, wrong)

    references, blocks = growth(work, (values, pair, array.array, box.pair))
    assert references < 20 and blocks < 300, "less than one a round"
    values.append(1.0)  # no export is left
