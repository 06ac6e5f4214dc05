"""What guest code and the host's functions hand each other besides numbers and text: arrays, pointers, functions, handles."""

from __future__ import annotations

import array
import inspect

import pytest

pytest.importorskip("hypothesis", reason="needs hypothesis")
pytest.importorskip("cffi", reason="needs cffi, the oracle")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vxplug
from vxplug.stubs import stub_text

from . import native
from .leaks import growth

TYPES = "typedef struct point { int16_t x; double y; uint8_t tag[3]; } point;\n"
ARRAYS = """
typedef struct vx_array_i32 { const int32_t *ptr; size_t len; } vx_array_i32;
typedef struct vx_mut_array_f64 { double *ptr; size_t len; } vx_mut_array_f64;
"""
ORACLE = r"""
EXPORT int64_t sums(int64_t (*f)(vx_array_i32), vx_array_i32 v) {
    return f(v) * 3 + f((vx_array_i32){v.ptr + v.len / 2, v.len - v.len / 2}); }
EXPORT double scaled(void (*f)(vx_mut_array_f64, double), vx_mut_array_f64 v, double by) {
    double t = 0; f(v, by); for (size_t i = 0; i < v.len; i++) t += v.ptr[i] * (double)(i + 1); return t; }
EXPORT double moved(int32_t (*f)(point *, int32_t, point *), point *p, bool second) {
    point q = {9, 0.5, {1, 2, 3}}; int32_t r = f(p, 7, second ? &q : 0); return r + q.x + q.y * 4 + q.tag[2]; }
EXPORT double moved_one(void (*f)(point *), point *p) { f(p); return p->x + p->y; }
static int32_t square(int32_t n) { return n * n; }
EXPORT int32_t applied(int32_t (*f)(int32_t (*)(int32_t), int32_t), int32_t n, bool null) { return f(null ? 0 : square, n) + 1; }
"""
GUEST = "#include <stdlib.h>\n#include <vxplug.h>\n#define EXPORT VX_EXPORT\n" + TYPES + ORACLE + r"""
typedef struct thing { int32_t n; } thing;
static int32_t gone;
static void thing_free(thing *t) { gone++; free(t); }
VX_HANDLE(thing, thing_free);
VX_EXPORT thing *thing_new(int32_t n) { thing *t = malloc(sizeof *t); t->n = n; return t; }
VX_IMPORT(vx_array_f64, weights, (vx_array_u8 key, vx_mut_array_i16 rest));
VX_IMPORT(thing *, pick, (thing *first));
VX_IMPORT(const point *, origin, (int32_t n));
VX_EXPORT double weigh(vx_array_u8 key, vx_mut_array_i16 rest) {
    vx_array_f64 w = weights(key, rest), v = weights(key, rest);
    double t = v.len * 1000.0;
    for (size_t i = 0; i < w.len; i++) t += w.ptr[i];
    return t;
}
VX_EXPORT int32_t picked(thing *t) { thing *p = pick(t); return p ? p->n : -1; }
VX_EXPORT double from_origin(int32_t n) { const point *p = origin(n), *q = origin(n + 1); return p ? p->x * 100 + p->y + q->x : -1; }
static int32_t three(void (*f)(point *), point *(*g)(void)) { point p = {1, 2, {0}}; f(&p); return p.x + g()->x; }
VX_EXPORT int32_t (*taking(void))(void (*)(point *), point *(*)(void)) { return three; }
VX_EXPORT int32_t again(int32_t (*f)(int32_t (*)(int32_t), int32_t)) { return f((int32_t (*)(int32_t))f, 1); }

typedef void (*wanderer)(int32_t (*)(int32_t));
static const point fixed = {1, 1, {1}};
VX_EXPORT void forged_numbers(void (*f)(vx_array_f64), uint32_t at, uint32_t count) { f((vx_array_f64){(void *)(uintptr_t)at, count}); }
VX_EXPORT void forged_mut(void (*f)(vx_mut_array_f64), uint32_t at, uint32_t count) { f((vx_mut_array_f64){(void *)(uintptr_t)at, count}); }
VX_EXPORT void forged_point(void (*f)(point *), uint32_t at) { f((point *)(uintptr_t)at); }
VX_EXPORT void forged_function(wanderer f, uint32_t at) { f((int32_t (*)(int32_t))(uintptr_t)at); }
VX_EXPORT uint32_t read_only(void) { return (uint32_t)&fixed; }
VX_EXPORT void numbers_of_fixed(void (*f)(vx_mut_array_u8)) { f((vx_mut_array_u8){(uint8_t *)&fixed, 4}); }
VX_EXPORT uint32_t stack_end(void) { return ((uint32_t)__builtin_frame_address(0) + 0x10000) & ~0xffffu; }
VX_EXPORT int32_t dropped(void) { return gone; }
static uint32_t calls;
VX_EXPORT uint32_t count(void) { return ++calls; }
"""
IMPORTS = {"weights": lambda key, rest: array.array("d"), "pick": lambda first: first, "origin": lambda n: None}


@pytest.fixture(scope="module")
def plugin(build_plugin):
    return vxplug.open(build_plugin(GUEST))


@pytest.fixture
def box(plugin):
    with plugin.sandbox(timeout=20.0, imports=IMPORTS) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def pair(plugin, tmp_path_factory):
    plain = "typedef struct { int16_t x; double y; uint8_t tag[3]; } point;\n" + ARRAYS
    declarations = [(plain, False), ("\n".join(line.partition("{")[0].removeprefix("EXPORT ") + ";" for line in ORACLE.splitlines()
                                               if line.startswith("EXPORT")), False)]
    source = "#include <stdint.h>\n#include <stdbool.h>\n#include <stddef.h>\n#define EXPORT static\n" + ARRAYS + TYPES + ORACLE
    module = native.load(tmp_path_factory.mktemp("native"), declarations, source)
    with plugin.sandbox(imports=IMPORTS) as box:
        yield box, module.ffi, module.lib


FEW = {"max_examples": 60, "deadline": None, "suppress_health_check": list(HealthCheck)}
exact = st.integers(-(2**20), 2**20).map(float)
points = st.tuples(st.integers(-(2**15), 2**15 - 1), exact, st.binary(min_size=3, max_size=3))


def _native_point(ffi, value):
    return ffi.new("point *", {"x": value[0], "y": value[1], "tag": list(value[2])})


def _tuple(p):
    return (p.x, p.y, bytes(p.tag))


@given(values=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=50))
@settings(**FEW)
def test_numbers_to_a_callback(pair, values):
    """Without it an array could reach Python cut, shifted, or as other numbers."""
    box, ffi, lib = pair
    seen, wanted = [], []

    def got(numbers):
        assert type(numbers) is array.array and numbers.typecode == "i"
        seen.append(numbers.tolist())
        return sum(numbers) - len(numbers)

    @ffi.callback("int64_t(vx_array_i32)")
    def want(numbers):
        wanted.append([numbers.ptr[i] for i in range(numbers.len)])
        return sum(wanted[-1]) - len(wanted[-1])

    memory = ffi.new("int32_t[]", values)
    assert box.sums(got, array.array("i", values)) == lib.sums(want, (memory, len(values)))
    assert seen == wanted


@given(values=st.lists(exact, max_size=50), by=exact)
@settings(**FEW)
def test_numbers_that_a_callback_writes(pair, values, by):
    """Without it what Python wrote to an array would be lost, or be written elsewhere."""
    box, ffi, lib = pair

    def got(numbers, factor):
        assert type(numbers) is array.array and numbers.typecode == "d"
        for i, number in enumerate(numbers):
            numbers[i] = number - factor

    @ffi.callback("void(vx_mut_array_f64, double)")
    def want(numbers, factor):
        for i in range(numbers.len):
            numbers.ptr[i] -= factor

    memory, lent = ffi.new("double[]", values), array.array("d", values)
    assert box.scaled(got, lent, by) == lib.scaled(want, (memory, len(values)), by)
    assert lent.tolist() == list(memory)


@given(first=points, second=points, result=st.integers(-1000, 1000), there=st.booleans(), leave=st.booleans())
@settings(**FEW)
def test_structs_that_a_callback_answers(pair, first, second, result, there, leave):
    """Without it what Python answers for a pointer could reach another one, or not at all."""
    box, ffi, lib = pair
    point, seen, wanted = box.point, [], []

    def got(p, n, q):
        seen.append((_tuple(p), n, q and _tuple(q)))
        return result, None if leave else point(*second), point(*second) if there else None

    @ffi.callback("int32_t(point *, int32_t, point *)")
    def want(p, n, q):
        wanted.append((_tuple(p), n, _tuple(q) if q else None))
        for to in ([] if leave else [p]) + ([q] if q else []):
            to.x, to.y, to.tag = second[0], second[1], list(second[2])
        return result

    memory = _native_point(ffi, first)
    total, after = box.moved(got, point(*first), there)
    assert total == lib.moved(want, memory, there) and _tuple(after) == _tuple(memory) and seen == wanted
    one = box.moved_one(lambda p: None if leave else point(*second), point(*first))
    assert one == (sum((first if leave else second)[:2]), point(*(first if leave else second)))


@given(n=st.integers(-40000, 40000))
@settings(**FEW)
def test_functions_to_a_callback(pair, n):
    """Without it a guest's function could not be called by the callback that got it, or with other arguments."""
    box, ffi, lib = pair
    n = n if n * n < 2**31 else n % 1000
    want = ffi.callback("int32_t(int32_t (*)(int32_t), int32_t)", lambda g, m: g(m) // 3 if g else -m)
    for null in (False, True):
        assert box.applied(lambda g, m: g(m) // 3 if g else -m, n, null) == lib.applied(want, n, null)


def test_imports(plugin):
    """Without it imports could know fewer types than callbacks, or the guest get other numbers than were given."""
    seen = []

    def weights(key, rest):
        seen.append((key, array.array("h", rest)))
        rest[0] += 5
        return [array.array("d", [1.5, 2.5]), memoryview(array.array("d"))][len(seen) % 2 == 0]

    origins = {0: None, 1: (7, 0.25, b"abc"), 2: (-3, 0.0, b"abc")}
    things = []
    imports = {"weights": weights, "pick": lambda first: things[-1] if things else None,
               "origin": lambda n: origins[n] and box.point(*origins[n])}
    with plugin.sandbox(imports=imports) as box:
        rest = array.array("h", [1, 2])
        assert box.weigh(b"ab", rest) == 4.0 and rest.tolist() == [11, 2]
        assert seen == [(array.array("B", b"ab"), array.array("h", [1, 2])), (array.array("B", b"ab"), array.array("h", [6, 2]))]
        assert box.from_origin(1) == 700.25 - 3 and box.from_origin(0) == -1
        one, two = box.thing_new(1), box.thing_new(2)
        assert box.picked(one) == -1
        things.append(two)
        assert box.picked(one) == 2
        with plugin.sandbox(imports=IMPORTS) as other:
            things.append(other.thing_new(3))
            with pytest.raises(vxplug.Error, match="result of 'pick': the thing belongs to another sandbox"):
                box.picked(one)
        things.append(5)
        with pytest.raises(TypeError, match="result of 'pick': expected thing, got int"):
            box.picked(box.thing_new(1))
        things.append(box.thing_new(4))
        things[-1].close()
        with pytest.raises(vxplug.Error, match="the thing is closed"):
            box.picked(box.thing_new(1))


def test_functions_that_take_functions(box):
    """Without it a function of the plugin's could not be given callables with pointers of their own."""
    taking = box.taking()
    assert taking(lambda p: box.point(p.x + 10, p.y, p.tag), lambda: box.point(100, 0.0, bytes(3))) == 111
    assert taking(lambda p: None, lambda: box.point(100, 0.0, bytes(3))) == 101
    with pytest.raises(TypeError, match="expected a callable, got int"):
        taking(5, lambda: None)


def test_a_function_outlives_its_callback_but_not_a_reset(box):
    """Without it a function that Python kept could run in memory that is another one's."""
    kept = []
    assert box.applied(lambda g, n: kept.append(g) or g(n), 3, False) == 10
    assert kept[0](5) == 25 and repr(kept[0]) == "<sandboxed function argument of applied() argument 'f'(arg0)>"
    box.reset()
    with pytest.raises(vxplug.Error, match=r"argument of applied\(\) argument 'f' died when its sandbox was reset"):
        kept[0](5)


def test_a_callback_that_gets_itself(box):
    """Without it a callable passed through the guest and back could be called when nobody lends it."""
    kept = []
    assert box.again(lambda g, n: kept.append(g) or 5) == 5
    with pytest.raises(vxplug.GuestFault):
        kept[0](1)
    assert box.count() == 1, "the sandbox began again"


WRONG = [
    ("one", (1, 2.0, b"abc"), TypeError, r"result of moved_one\(\) argument 'f': expected point, got tuple"),
    ("one", lambda box: box.point(1 << 15, 0.0, bytes(3)), OverflowError, r"result of moved_one\(\) argument 'f.x': 32768 is out of range"),
    ("one", lambda box: box.point(1, 0.0, bytes(4)), ValueError, r"result of moved_one\(\) argument 'f.tag': expected 3 bytes, got 4"),
    ("two", 5, TypeError, r"result of moved\(\) argument 'f': expected a tuple of 3, the result and one for each pointer, got int$"),
    ("two", None, TypeError, "expected a tuple of 3, .*, got NoneType"),
    ("two", (1, None), TypeError, "got tuple of another size"),
    ("two", [1, None, None], TypeError, "got list"),
    ("two", ("1", None, None), TypeError, r"result of moved\(\) argument 'f\[0\]': expected int, got str"),
    ("two", (1, None, 5), TypeError, r"result of moved\(\) argument 'f\[2\]': expected None, for a pointer that was NULL, got int"),
    ("two", (1, 5, None), TypeError, r"result of moved\(\) argument 'f\[1\]': expected point, got int"),
]


@pytest.mark.parametrize(("name", "result", "kind", "text"), WRONG)
def test_wrong_answers(box, name, result, kind, text):
    """Without it what does not fit could be written to the guest's struct, or dropped without a word."""
    point = box.point(1, 2.0, b"abc")
    result = result(box) if callable(result) else result
    with pytest.raises(kind, match=text):
        if name == "one":
            box.moved_one(lambda p: result, point)
        else:
            box.moved(lambda *a: result, point, False)
    assert box.count() == 1


def test_wrong_numbers(plugin, box):
    """Without it numbers of another type could be given as they are, or an array change its size under the guest."""
    with pytest.raises(BufferError, match=r"scaled\(\) argument 'f' resized the buffer it was lent"):
        box.scaled(lambda numbers, by: numbers.append(1.0), array.array("d", [1.0]), 1.0)
    for wrong, kind in (([1.0], TypeError), (b"12345678", TypeError), (array.array("f", [1]), TypeError),
                        (memoryview(array.array("d", [1.0] * 4))[::2], BufferError), (None, TypeError)):
        with plugin.sandbox(imports={**IMPORTS, "weights": lambda key, rest, wrong=wrong: wrong}) as other:
            with pytest.raises(kind):
                other.weigh(b"", array.array("h"))


@pytest.mark.parametrize(
    ("at", "count"), [(16, 1), (0xFFFFFFF8, 1), (0x10000, 1 << 29), (0x10000, (1 << 29) + 1), (0x10000, 0xFFFFFFFF), (0xFFFE0000, 1)],
)
@pytest.mark.parametrize("name", ["forged_numbers", "forged_mut"])
def test_forged_arrays(box, name, at, count):
    """Without it a count could wrap when multiplied, or the host read what is not the guest's."""
    reached = []
    with pytest.raises(vxplug.GuestFault, match="memory that is not all its own") as caught:
        box[name](reached.append, at, count)
    assert caught.value.kind == "memory" and caught.value.address == at and not reached
    assert box.count() == 1
    box[name](reached.append, at, 0)
    assert reached == [array.array("d")], "nothing lies nowhere"


def test_forged_structs(box):
    """Without it a struct could be read or written over the end of memory, or where the guest itself must not write."""
    end, seen = box.stack_end(), []
    for at in (1, 16, end - 4, 0xFFFDFFFC, 0xFFFFFFFF):
        with pytest.raises(vxplug.GuestFault, match="memory that is not all its own") as caught:
            box.forged_point(seen.append, at)
        assert caught.value.kind == "memory" and caught.value.address == at and not seen
        assert box.count() == 1
    fixed = box.read_only()
    box.forged_point(seen.append, fixed)
    assert seen == [box.point(1, 1.0, b"\1\0\0")], "it can be read"
    with pytest.raises(vxplug.GuestFault, match="memory that is not all its own") as caught:
        box.forged_point(lambda p: p, fixed)
    assert caught.value.address == fixed
    with pytest.raises(vxplug.GuestFault, match="memory that is not all its own"):
        box.numbers_of_fixed(lambda numbers: None)
    box.forged_point(seen.append, 0)
    assert seen[-1] is None and box.count() == 1


@pytest.mark.parametrize("at", [1, 16, 0xFFFDFFFF, 0xFFFE0000 + 4 * 9000, 0xFFFFF004, 0xFFFFFFFF])
def test_forged_functions(box, at):
    """Without it the call of a function that points nowhere could be more than a fault of the guest's."""
    kept = []
    box.forged_function(kept.append, at)
    with pytest.raises(vxplug.GuestFault):
        kept[0](1)
    assert box.count() == 1
    with pytest.raises(vxplug.GuestFault):
        box.forged_function(lambda g: g(1), at)
    assert box.count() == 1


def test_signatures(plugin, box):
    """Without it nobody could see what a callable gets and what it is to give."""
    text = stub_text(plugin)
    assert "def sums(f: collections.abc.Callable[[array.array[int]], int], v: Buffer) -> int: ..." in text
    assert "f: collections.abc.Callable[[Optional[point], int, Optional[point]], tuple[int, Optional[point], Optional[point]]]" in text
    assert "f: collections.abc.Callable[[Optional[point]], Optional[point]]" in text
    assert "f: collections.abc.Callable[[Optional[collections.abc.Callable[[int], int]], int], int]" in text
    compile(text, "stub", "exec")
    assert len(inspect.signature(box.taking()).parameters) == 2


def test_references(box):
    """Without it arrays, structs or functions of callbacks could leak."""
    point, values = box.point(1, 2.0, b"abc"), array.array("d", [1.0, 2.0])

    def work():
        for _ in range(200):
            box.moved(lambda p, n, q: (1, p, q), point, True)
            box.scaled(lambda numbers, by: None, values, 1.0)
            box.applied(lambda g, n: g(n), 2, False)
            box.taking()(lambda p: p, lambda: point)
            for wrong in ((1, 5, None), 5):
                with pytest.raises(TypeError):
                    box.moved(lambda p, n, q, wrong=wrong: wrong, point, True)

    references, blocks = growth(work, (point, values, box.point, array.array))
    assert references < 5 and blocks < 200, "less than one a round"
