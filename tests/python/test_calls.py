"""Marshalling: every code at its limits, matching of arguments, results, errors a plugin raises."""

from __future__ import annotations

import array
import ctypes
import inspect
import math
import pydoc
import re
import sys

import pytest

import vxplug
from vxplug import GuestFault, GuestMemoryError, _vx

INTEGERS = {
    "i8": (-(2**7), 2**7 - 1, "int8_t"),
    "u8": (0, 2**8 - 1, "uint8_t"),
    "i16": (-(2**15), 2**15 - 1, "int16_t"),
    "u16": (0, 2**16 - 1, "uint16_t"),
    "i32": (-(2**31), 2**31 - 1, "int32_t"),
    "u32": (0, 2**32 - 1, "uint32_t"),
    "i64": (-(2**63), 2**63 - 1, "int64_t"),
    "u64": (0, 2**64 - 1, "uint64_t"),
}


class Index:
    """An integer by __index__ only."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class Real:
    """A number by __float__ only."""

    def __float__(self) -> float:
        return 2.5


class Failing:
    """Fails in every conversion, with an exception that only it raises."""

    class Error(Exception):
        pass

    def __index__(self) -> int:
        raise self.Error("index")

    def __float__(self) -> float:
        raise self.Error("float")

    def __bool__(self) -> bool:
        raise self.Error("bool")


def error_text(kind: type[BaseException], function, *args, **kwargs) -> str:
    with pytest.raises(kind) as caught:
        function(*args, **kwargs)
    assert type(caught.value) is kind
    return str(caught.value)


# ---- integers ----


@pytest.mark.parametrize("code", INTEGERS)
def test_integer_limits(box, code):
    """Without it a wrong sign extension, a lost upper word or an off-by-one limit goes unseen."""
    low, high, ctype = INTEGERS[code]
    echo = box[f"echo_{code}"]
    near = {low, low + 1, -1, 0, 1, 2**30 - 1, 2**30, 2**31, 2**60, high // 2, high - 1, high}
    for value in (v for v in near if low <= v <= high):
        assert echo(value) == value
    for value in (low - 1, high + 1, -(2**64), 2**64, 2**100):
        text = error_text(OverflowError, echo, value)
        assert text == (
            f"echo_{code}() argument 'value': {value} is out of range for {ctype} ({low} to {high})"
        )


def test_huge_integer_is_refused_quickly(box):
    """Without it the message of a range error could take minutes, or fail for its own size."""
    text = error_text(OverflowError, box.add, 1 << 10_000_000, 0)
    assert "an int of 10000001 bits is out of range for int32_t" in text


@pytest.mark.parametrize("code", INTEGERS)
def test_integer_types(box, code):
    """Without it floats or text could be cut to integers silently."""
    echo = box[f"echo_{code}"]
    assert echo(True) == 1
    assert echo(Index(5)) == 5
    assert type(echo(True)) is int
    for value, name in ((1.0, "float"), ("1", "str"), (None, "NoneType"), (b"1", "bytes")):
        text = error_text(TypeError, echo, value)
        assert text == f"echo_{code}() argument 'value': expected int, got {name}"
    error_text(Failing.Error, echo, Failing())
    assert "out of range" in error_text(OverflowError, echo, Index(2**70))


@pytest.mark.parametrize(
    ("code", "value"), [("i8", -128), ("u8", 128), ("i16", -32768), ("u16", 32768), ("bool", False)]
)
def test_narrow_results_ignore_upper_bits(box, code, value):
    """Without it a compiler that leaves garbage above a narrow result changes what Python sees."""
    result = box[f"garbage_{code}"]()
    assert result == value
    assert type(result) is type(value)


# ---- bool and floats ----


def test_bool_is_truth(box):
    """Without it `bool` could refuse what `if` accepts, or come back as an int."""
    for value in (True, 1, "x", [0], 2**100, 0.5, math.nan):
        assert box.echo_bool(value) is True
    for value in (False, 0, "", [], None, 0.0):
        assert box.echo_bool(value) is False
    error_text(Failing.Error, box.echo_bool, Failing())


@pytest.mark.parametrize("code", ["f32", "f64"])
def test_float_values(box, code):
    """Without it the x87 result path could lose infinities, zeros' signs or NaN."""
    echo = box[f"echo_{code}"]
    for value in (0.0, 1.0, -2.5, 2.0**-126, 2.0**127, math.inf, -math.inf):
        assert echo(value) == value
    assert math.copysign(1, echo(-0.0)) == -1
    assert math.isnan(echo(math.nan))
    assert echo(3) == 3.0
    assert echo(True) == 1.0
    assert echo(Real()) == 2.5
    assert echo(Index(4)) == 4.0
    error_text(Failing.Error, echo, Failing())


def test_double_is_exact(box):
    """Without it a double could pass through a float, or through 64-bit integers."""
    for value in (0.1, math.pi, 5e-324, 1.7976931348623157e308, 2.0**53 + 2):
        assert box.echo_f64(value) == value


def test_float_limits(box):
    """Without it a finite number could become infinity, or a str a number."""
    largest = 3.4028234663852886e38
    assert box.echo_f32(largest) == largest
    text = error_text(OverflowError, box.echo_f32, 1e39)
    assert text == "echo_f32() argument 'value': 1e+39 is out of range for float"
    text = error_text(OverflowError, box.echo_f64, 10**400)
    assert text == "echo_f64() argument 'value': int too large for a float"
    for value in ("1.0", None, b"1", 1j):
        text = error_text(TypeError, box.echo_f64, value)
        assert text == f"echo_f64() argument 'value': expected float, got {type(value).__name__}"


# ---- matching ----


def test_position_and_keyword(box):
    """Without it keywords could bind to the wrong parameter."""
    assert box.add(2, -5) == box.add(2, b=-5) == box.add(b=-5, a=2) == -3
    keyword = "".join(["b"])  # equal to the parameter's name, perhaps not the same object
    assert box.add(2, **{keyword: 3}) == 5


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((), {}, "add() missing required argument: 'a' (pos 1)"),
        ((1,), {}, "add() missing required argument: 'b' (pos 2)"),
        ((), {"b": 1}, "add() missing required argument: 'a' (pos 1)"),
        ((1, 2, 3), {}, "add() takes 2 positional arguments but 3 were given"),
        ((1, 2), {"x": 1}, "add() got an unexpected keyword argument 'x'"),
        ((1, 2), {"a": 1}, "add() got multiple values for argument 'a'"),
        ((1, "x"), {}, "add() argument 'b': expected int, got str"),
    ],
)
def test_mismatches(box, args, kwargs, text):
    """Without it a wrong call could read arguments that are not there, or say something unclear."""
    assert error_text(TypeError, box.add, *args, **kwargs) == text


def test_arity_of_one_and_none(box):
    """Without it the plural of the arity error is only tried for two."""
    text = error_text(TypeError, box.echo_i32)
    assert text == "echo_i32() missing required argument: 'value' (pos 1)"
    text = error_text(TypeError, box.echo_i32, 1, 2)
    assert text == "echo_i32() takes 1 positional argument but 2 were given"
    text = error_text(TypeError, box.count, 1)
    assert text == "count() takes 0 positional arguments but 1 was given"


def test_first_wrong_argument_is_named(box):
    """Without it the report could name a later parameter than the first wrong one."""
    text = error_text(TypeError, box.mixed, 1, 2, 3, 4, b"", "x", 1, 1, 1, 1)
    assert text == "mixed() argument 'e': expected str, got bytes"


def test_mixed_parameters(box):
    """Without it a parameter of two words could shift the ones after it."""
    expected = -1 + 2 * 2**40 + 3 + 5 * 0.5 + 7 * 3 + 11 * 0.25 + 13 * -300 + 17 * 9 + 19 * -(2**35) + 23 * 200
    args = (-1, 2**40, True, 0.5, "abc", 0.25, -300, b"\0\x09", -(2**35), 200)
    assert box.mixed(*args) == expected
    names = list(inspect.signature(box.mixed).parameters)
    assert box.mixed(**dict(reversed(list(zip(names, args))))) == expected


# ---- str ----


@pytest.mark.parametrize("text", ["", "a", "grüße", "\U0001f600" * 1000, "\x01\x7f"])
def test_str(box, text):
    """Without it text outside ASCII, or the empty string, could be damaged."""
    assert box.echo_str(text) == text


def test_str_refusals(box):
    """Without it a NUL would silently cut the text the plugin sees."""
    text = error_text(ValueError, box.echo_str, "a\0b")
    assert text == "echo_str() argument 'value': embedded null character"
    text = error_text(TypeError, box.echo_str, b"x")
    assert text == "echo_str() argument 'value': expected str, got bytes"
    error_text(TypeError, box.echo_str, None)
    error_text(UnicodeEncodeError, box.echo_str, "\udc80")


def test_str_results(box):
    """Without it a wild pointer as result could be read, or bad UTF-8 pass as text."""
    assert box.forged_string(0) is None
    error_text(UnicodeDecodeError, box.not_utf8)
    for address in (1, 0xFFFFFFFF, 0xFFFE0000):
        with pytest.raises(GuestFault, match="str result") as caught:
            box.forged_string(address)
        assert (caught.value.kind, caught.value.address) == ("memory", address)


# ---- buffers ----


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01\x02",
        bytearray(b"abc"),
        memoryview(b"abcdef")[2:4],
        array.array("I", [1, 2, 3]),
        bytes(range(256)) * 4096,
    ],
)
def test_view(box, data):
    """Without it a kind of bytes-like object, or the empty one, could be refused or misread."""
    assert box.sum(data) == sum(bytes(data))


def test_view_refusals(box):
    """Without it strided memory would be read as if it were contiguous."""
    text = error_text(TypeError, box.sum, "text")
    assert text == "sum() argument 'data': expected a bytes-like object, got str"
    text = error_text(BufferError, box.sum, memoryview(b"abcd")[::2])
    assert text.startswith("sum() argument 'data': ")


def test_view_is_not_changed_and_let_go(box):
    """Without it a plugin could change immutable bytes, or a bytearray stay locked after a call."""
    data = bytearray(b"abc")
    box.sum(data)
    data.append(1)
    assert data == b"abc\x01"


def test_mut(box):
    """Without it changes a plugin makes could be lost, or reach beyond the buffer."""
    data = bytearray(b"abcdef")
    assert box.increment(memoryview(data)[2:4]) is None
    assert data == b"abdeef"
    numbers = array.array("H", [0, 1])
    box.increment(numbers)
    assert numbers.tolist() == [0x0101, 0x0102]
    box.increment(bytearray())


def test_mut_refusals(box):
    """Without it read-only memory could be written."""
    for value in (b"abc", memoryview(b"abc")):
        text = error_text(TypeError, box.increment, value)
        assert text == (
            "increment() argument 'data': expected a writable bytes-like object, "
            f"got read-only {type(value).__name__}"
        )
    text = error_text(TypeError, box.increment, 5)
    assert text == "increment() argument 'data': expected a writable bytes-like object, got int"
    error_text(BufferError, box.increment, memoryview(bytearray(4))[::2])


NAMED = """
#include <vxplug.h>
struct named { char name[16]; };
VX_EXPORT struct named echo(struct named value) { return value; }
VX_EXPORT uint32_t ask(vx_view (*give)(void)) { return give().len; }
"""


def test_pointers_to_python_objects_are_no_bytes(box, build_plugin):
    """Without it a plugin would read where the host's objects lie, and the host crash on the pointers that one writes."""
    objects = (ctypes.py_object * 2)(None, None)
    text = error_text(TypeError, box.increment, objects)
    assert text == "increment() argument 'data': expected a bytes-like object, got py_object_Array_2 of Python objects"
    assert list(objects) == [None, None]
    for value in (objects, memoryview(objects)):
        assert "of Python objects" in error_text(TypeError, box.sum, value)
    with vxplug.open(build_plugin(NAMED)).sandbox() as other:
        assert "argument 'value.name': expected" in error_text(TypeError, other.echo, other.named(name=objects))
        assert error_text(TypeError, other.ask, lambda: objects).endswith("got py_object_Array_2 of Python objects")
        assert other.ask(lambda: bytes(objects)[:3]) == 3


def test_records_with_python_objects_are_no_bytes(box):
    """Without it such a pointer would pass between other members; a member's name makes none."""
    numpy = pytest.importorskip("numpy", reason="needs numpy")
    for fields in ([("n", "i4"), ("o", "O")], [("O", [("inner", "O")])]):
        assert "of Python objects" in error_text(TypeError, box.increment, numpy.zeros(2, dtype=fields))
    box.increment(numpy.zeros(2, dtype=[("O", "i4"), ("OO", "f8")]))
    dates = numpy.zeros(2, "M8[s]")  # for which NumPy has no format
    box.increment(dates)
    assert dates.tobytes() == b"\1" * 16


def test_objects_among_what_has_no_format(box):
    """Without it an object beside a date would hide its pointer, and text of any length what it points to."""
    numpy = pytest.importorskip("numpy", reason="needs numpy")
    records = numpy.zeros(2, dtype=[("when", "M8[s]"), ("o", "O")])
    for value in (records, records[0], numpy.array(["long " * 50], dtype="T")):
        for function in (box.increment, box.sum):
            assert "of Python objects" in error_text(TypeError, function, value)
    assert records["o"][0] == 0


class Row(ctypes.Structure):
    _fields_ = (("P", ctypes.c_int), ("text", ctypes.c_char_p))


class Plain(ctypes.Structure):
    _fields_ = (("P", ctypes.c_int), ("Zz", ctypes.c_double))


@pytest.mark.parametrize(
    "kind", [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_wchar_p, ctypes.POINTER(ctypes.c_int), ctypes.CFUNCTYPE(None), Row]
)
def test_pointers_of_c_are_no_bytes(box, kind):
    """Without it the host would follow a pointer that a plugin wrote as soon as it looks at the item."""
    items = (kind * 2)()
    for function in (box.increment, box.sum):
        assert error_text(TypeError, function, items).endswith("of pointers")
    assert bytes(items) == bytes(len(bytes(items)))


def test_what_only_looks_like_pointers(box):
    """Without it names of members, and complex numbers, would be refused with what they look like."""
    box.increment((Plain * 2)())
    box.sum(memoryview(array.array("d", [1.0])))
    numpy = pytest.importorskip("numpy", reason="needs numpy")
    box.increment(numpy.zeros(2, "c16"))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="needs exporters of buffers in Python")
def test_a_call_faults_while_a_view_is_given_back(box):
    """Without it the call would go on in what the fault left, and its result be believed."""
    hidden = []

    class Exporter:
        def __buffer__(self, flags):
            return memoryview(b"abc")

        def __release_buffer__(self, view):
            with pytest.raises((GuestFault, vxplug.Error)) as caught:
                box.crash()
            hidden.append(caught.type)

    box.count()
    assert "a call made by the sandbox's callback faulted" in error_text(vxplug.Error, box.sum, Exporter())
    assert GuestFault in hidden and box.count() == 1


def test_mut_is_held_during_the_call(calls_plugin):
    """Without it a callback could free the memory that the result is copied to."""
    seen = []

    def resize(_):
        with pytest.raises(BufferError):
            data.append(0)
        seen.append(len(data))

    data = bytearray(b"abc")
    with calls_plugin.sandbox(stdout=resize) as box:
        function = _vx.Function(
            box._box, "f", calls_plugin.exports["sum_around_output"].address, [("data", "mut")], "u32"
        )
        assert function(data) == sum(b"abc")
    assert seen
    data.append(0)


def test_same_mut_twice(box):
    """Without it the documented rule, the later parameter wins, is anyone's guess."""
    data = bytearray(3)
    box.fill_two(data, data)
    assert data == b"\x02\x02\x02"


def test_more_leases_than_inline(box):
    """Without it the path that allocates its leases is never run."""
    assert box.total_of_six(b"\1", b"\2", b"\3", b"\4", b"\5", b"\6") == 21
    text = error_text(TypeError, box.total_of_six, b"", b"", b"", b"", b"", 6)
    assert "'f'" in text


def test_argument_larger_than_memory(calls_plugin):
    """Without it an argument could be cut, or take memory beyond the sandbox's limit."""
    with calls_plugin.sandbox(memory=32 << 20) as box:
        text = error_text(GuestMemoryError, box.sum, bytes(40 << 20))
        assert re.match(
            r"sum\(\) argument 'data': 41943040 bytes do not fit the sandbox's memory limit of "
            r"33554432 bytes \(\d+ used\)$",
            text,
        )
        assert box.sum(b"\1\2") == 3
        used = box.memory_used
        for _ in range(20):
            box.sum(bytes(8 << 20))
        assert box.memory_used <= used + (9 << 20)


# ---- bytes results ----


def test_bytes_results(box):
    """Without it a result's length or ownership could be misread."""
    assert box.taken(0) == b""
    assert box.taken(5) == b"xxxxx"
    assert box.taken(1 << 20) == b"x" * (1 << 20)
    assert box.borrowed() == b"lent"
    assert type(box.borrowed()) is bytes


def test_taken_bytes_are_released(calls_plugin):
    """Without it every vx_take result would leak in the plugin's heap."""
    with calls_plugin.sandbox(memory=64 << 20) as box:
        for _ in range(200):
            assert len(box.taken(2 << 20)) == 2 << 20


@pytest.mark.parametrize(
    ("address", "size", "owner", "kind"),
    [
        (0, 1, 0, "memory"),
        (0xFFFFF000, 0xFFFFFFFF, 0, "memory"),
        (0x10000, 0xFFFFFFFF, 0, "memory"),
        (0x10000, 0x80000000, 1, "memory"),
        (0x10000, 4, 2, "memory"),
        (0x10000, 4, 0xFFFFFFFF, "memory"),
    ],
)
def test_forged_bytes(box, address, size, owner, kind):
    """Without it a plugin's pointer, length or owner could make the host read what is not its."""
    with pytest.raises(GuestFault, match="bytes result") as caught:
        box.forged_bytes(address, size, owner)
    assert caught.value.kind == kind
    assert box.add(1, 2) == 3


def test_forged_empty_bytes(box):
    """Without it an empty result could be refused for its meaningless pointer."""
    assert box.forged_bytes(0xFFFFFFFF, 0, 0) == b""


def test_release_of_forged_pointer_is_contained(box):
    """Without it a free() that goes wrong in the guest could take the host along."""
    try:
        box.forged_bytes(0x10008, 4, 1)
    except GuestFault as fault:
        assert fault.kind in ("memory", "illegal-instruction", "abort", "stack-overflow")
    assert box.taken(3) == b"xxx"


# ---- errors of the plugin ----


@pytest.mark.parametrize(
    "kind",
    [ValueError, EOFError, KeyError, MemoryError, OSError, StopIteration, ZeroDivisionError, Exception],
)
def test_raise(box, kind):
    """Without it a plugin's error could arrive as another type or without its text."""
    with pytest.raises(kind) as caught:
        box.raise_named(kind.__name__, "text at 5 %s")
    assert type(caught.value) is kind
    assert caught.value.args == ("text at 5 %s",)
    assert box.add(1, 1) == 2


@pytest.mark.parametrize(
    "name", ["SystemExit", "KeyboardInterrupt", "BaseException", "print", "Nonsense", "", "__import__"]
)
def test_raise_of_other_names(box, name):
    """Without it a plugin could end the program, or call any builtin."""
    assert error_text(RuntimeError, box.raise_named, name, "text") == f"{name}: text"


def test_raise_that_needs_more_arguments(box):
    """Without it the plugin's text would be lost in a TypeError about a constructor."""
    assert error_text(ValueError, box.raise_named, "UnicodeDecodeError", "text") == "text"


def test_raise_text_is_decoded_and_cut(box):
    """Without it guest bytes that are no UTF-8, or very many, reach the exception as they are."""
    assert error_text(ValueError, box.raise_raw, b"ValueError", b"a\xff\0b") == "a\ufffd\0b"
    assert error_text(RuntimeError, box.raise_raw, b"\xff", b"b") == "\ufffd: b"
    text = error_text(ValueError, box.raise_raw, b"ValueError", b"y" * 100_000)
    assert set(text) == {"y"} and 1000 <= len(text) <= 4096


def test_first_raise_wins(box):
    """Without it a later error, often a consequence, hides the cause; or a result does."""
    assert error_text(EOFError, box.raise_twice) == "first"


def test_raise_keeps_changes_and_releases(box):
    """Without it a mut buffer's state after an error, or a dropped result's memory, is undefined."""
    data = bytearray(b"abc")
    assert error_text(ValueError, box.increment_and_raise, data) == "after the change"
    assert data == b"bcd"
    for _ in range(200):
        error_text(ValueError, box.raise_and_take, 4 << 20)
    assert box.taken(1) == b"x"


def test_fault_after_raise_is_a_fault(box):
    """Without it a crash could be reported as the plugin's own orderly error."""
    with pytest.raises(GuestFault) as caught:
        box.raise_and_crash()
    assert caught.value.kind == "memory"


def test_no_change_on_a_fault(box):
    """Without it half-done changes of a crashed call would reach the caller."""
    data = bytearray(b"abc")
    with pytest.raises(GuestFault):
        box.crash_with(data)
    assert data == b"abc"
    data.append(1)


# ---- the function object ----


def test_attributes(box):
    """Without it help(), inspect and tracebacks could not show an export as a function."""
    assert box.add.__name__ == box.add.__qualname__ == "add"
    assert box.add.__doc__ == "The sum of two numbers."
    assert list(inspect.signature(box.add).parameters) == ["a", "b"]
    assert repr(box.add) == "<sandboxed function add(a, b)>"
    assert "add(a" in pydoc.plain(pydoc.render_doc(box.add))
    assert inspect.isroutine(box.add) and callable(box.add)
    for name in ("__name__", "__doc__", "__signature__", "__module__", "other"):
        with pytest.raises((AttributeError, TypeError)):
            setattr(box.add, name, "x")


def test_text_signature_serves_inspect(box, calls_plugin):
    """Without it a function made without a signature object would have none."""
    address = calls_plugin.exports["add"].address
    params = [("a", "i32"), ("b", "i32")]
    function = _vx.Function(box._box, "plus", address, params, "i32", doc="Adds.", module="m.n")
    assert str(inspect.signature(function)) == "(a, b)"
    assert (function.__module__, function.__doc__) == ("m.n", "Adds.")
    assert _vx.Function(box._box, "plus", address, params, "i32").__module__ is None
    assert function(1, 2) == 3


def test_unbound_functions(box, calls_plugin):
    """What an export is, without a sandbox: calling it would run on none, binding something else would share a box."""
    params = [("a", "i32"), ("b", "i32")]
    unbound = _vx.Function(None, "plus", calls_plugin.exports["add"].address, params, "i32", doc="Adds.", unbound=True)
    with pytest.raises(TypeError, match="plus is bound to no sandbox"):
        unbound(1, 2)
    bound = unbound.bind(box._box, "m.n")
    assert bound(1, b=2) == 3
    assert (bound.__module__, bound.__doc__, bound.__text_signature__) == ("m.n", "Adds.", "(a, b)")
    assert bound.box is box._box and unbound.box is None
    prototype = _vx.Function(None, "plus", 0, params, "i32")
    for other in (bound, prototype):
        with pytest.raises(TypeError, match="bound to none"):
            other.bind(box._box, None)
    for arguments in ((None, None), (box._box,), (box, None)):
        with pytest.raises(TypeError, match="bound to none"):
            unbound.bind(*arguments)
    with pytest.raises(TypeError, match="expected None"):
        _vx.Function(box._box, "plus", 0, params, "i32", unbound=True)
    with pytest.raises(ValueError, match="not a prototype"):
        _vx.Layout("function", prototype=unbound)


def test_does_not_bind(box):
    """Without it an export stored on a class would get `self` as its first argument."""
    holder = type("Holder", (), {"add": box.add})
    assert holder().add(1, 2) == 3


@pytest.mark.parametrize(
    ("params", "result", "kind"),
    [
        ([("a", "zz")], "i32", ValueError),
        ([("a", "bytes")], "i32", ValueError),
        ([("a", "none")], "i32", ValueError),
        ([("a", 5)], "i32", ValueError),
        ([], "view", ValueError),
        ([], "mut", ValueError),
        ([], "", ValueError),
        ([("a", "i32")] * 128, "i32", ValueError),
        ([(1, "i32")], "i32", TypeError),
        ([("a",)], "i32", TypeError),
        (5, "i32", TypeError),
    ],
)
def test_invalid_functions(box, params, result, kind):
    """Without it a wrong interface could index past the arrays of a call."""
    with pytest.raises(kind):
        _vx.Function(box._box, "f", 0x10000, params, result)


def test_most_parameters(box):
    """Without it the largest function allowed might not fit the arrays of a call."""
    params = [(f"p{i}", "i64") for i in range(127)]
    address = box.plugin.exports["count"].address
    function = _vx.Function(box._box, "f", address, params, "u32")
    assert function(*range(127)) == 1
    assert function(**{f"p{i}": i for i in range(127)}) == 2


@pytest.mark.parametrize("address", [0, 0x1000, 0xFFFFFFFF, 0xFFFE0000])
def test_call_of_no_code(box, address):
    """Without it a function address outside the plugin's code could be jumped to."""
    with pytest.raises(GuestFault) as caught:
        _vx.Function(box._box, "f", address, [], "none")()
    assert caught.value.kind == "execute"
    for wrong in (-1, 2**32, 2**64):
        with pytest.raises(ValueError):
            _vx.Function(box._box, "f", wrong, [], "none")
