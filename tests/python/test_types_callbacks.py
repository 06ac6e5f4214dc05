"""Host functions that guest code calls: callbacks, lent for a call, and imports, for a sandbox's life."""

from __future__ import annotations

import array
import functools
import gc
import pickle
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("hypothesis", reason="needs hypothesis")
pytest.importorskip("cffi", reason="needs cffi, the oracle")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vxplug

from . import native, structs
from .leaks import growth

SCALARS = {ctype: code for ctype, code in structs.SCALARS.items() if ctype != "_Bool"}
# Each callback value is used in a sum with another one, so that a lost register or x87 slot shows.
RELAY = """
EXPORT {t} relay_{c}({t} (*f)({t}, {t}), {t} a, {t} b) {{ {t} r = f(a, b); return ({t})(r - f(b, ({t})(a + r))); }}
"""
ORACLE = "".join(RELAY.format(t=t, c=c) for t, c in SCALARS.items())
GUEST = """
#include <stdlib.h>
#include <string.h>
#include <vxplug.h>
#define EXPORT VX_EXPORT
""" + ORACLE + r"""
typedef struct pos { int16_t x; double y; } pos;
typedef enum { RED, GREEN } color;
typedef int32_t (*number)(int32_t);

VX_IMPORT(int32_t, lookup, (const char *key, vx_view value));
VX_IMPORT(pos, shift, (pos p, const pos *q, color c, bool b));
VX_IMPORT(double, now, (void));
VX_EXPORT int32_t find(const char *key, vx_view value) { return lookup(key, value); }
VX_EXPORT pos shifted(pos p, bool null) { return shift(p, null ? NULL : &p, GREEN, null); }
VX_EXPORT double twice(void) { return now() + now(); }

static number kept;
VX_NULLABLE(call, f);
VX_EXPORT int32_t call(number f, int32_t n) { return f ? f(n) : -1; }
VX_EXPORT bool truth(bool (*f)(void)) { return f(); }
VX_EXPORT void keep(number f) { kept = f; }
VX_EXPORT int32_t use(void) { return kept(1); }
VX_EXPORT int32_t keep_and_call(number f) { kept = f; return f(0); }
VX_EXPORT int32_t call_at(uint32_t address, int32_t n) { return ((number)(uintptr_t)address)(n); }
VX_EXPORT uint32_t address_of(number f) { return (uint32_t)(uintptr_t)f; }
VX_EXPORT void forever(void) { for (;;) __asm__ volatile(""); }
VX_EXPORT int32_t tail(number f, int32_t n) { return f(n); }
VX_EXPORT int32_t sum_to(number f, int32_t n) { int32_t t = 0; for (int32_t i = 0; i < n; i++) t += f(i); return t; }
VX_EXPORT double floats(double (*f)(double), float (*g)(float), double x) { return f(x) * 1000 + g((float)x) + f(x + 1) * g(2) / f(3); }
VX_EXPORT color paint(color (*f)(color), color c) { return f(c); }
VX_EXPORT uint32_t fill(void (*read)(vx_mut), uint32_t size) {
    unsigned char *b = calloc(1, size + 1); uint32_t t = 0;
    read((vx_mut){b, size});
    for (uint32_t i = 0; i < size; i++) t += b[i];
    free(b); return t;
}
VX_EXPORT vx_bytes gather(vx_view (*more)(uint32_t), const char *(*name)(const char *)) {
    vx_view one = more(1), two = more(2);
    const char *text = name("key");
    size_t size = text ? strlen(text) : 0;
    char *out = malloc(one.len + two.len + size + 1);
    memcpy(out, one.ptr, one.len); memcpy(out + one.len, two.ptr, two.len); memcpy(out + one.len + two.len, text, size);
    return vx_take(out, one.len + two.len + size);
}
VX_EXPORT void hoard(vx_view (*more)(uint32_t)) { for (uint32_t i = 0;; i++) more(i); }
VX_EXPORT void forged_view(void (*f)(vx_view), uint32_t at, uint32_t size) { f((vx_view){(void *)(uintptr_t)at, size}); }
VX_EXPORT void forged_mut(void (*f)(vx_mut), uint32_t at, uint32_t size) { f((vx_mut){(void *)(uintptr_t)at, size}); }
VX_EXPORT void forged_text(void (*f)(const char *), uint32_t at) { f((const char *)(uintptr_t)at); }
VX_EXPORT void forged_struct(void (*f)(const pos *), uint32_t at) { f((const pos *)(uintptr_t)at); }
static __attribute__((naked, noinline)) void result_at(pos (*f)(void), uint32_t at) {
    __asm__("movl 4(%esp), %eax\n\tpushl 8(%esp)\n\tcall *%eax\n\tret"); }
static __attribute__((naked, noinline)) void stack_at(number f, uint32_t esp) {
    __asm__("movl 4(%esp), %eax\n\tmovl 8(%esp), %esp\n\tjmp *%eax"); }
static __attribute__((naked, noinline)) void import_at(uint32_t stub) {
    __asm__("movl 4(%esp), %ecx\n\tmovl $2, %eax\n\tint $0x30\n\tret"); }
VX_EXPORT void forged_result(pos (*f)(void), uint32_t at) { result_at(f, at); }
VX_EXPORT void forged_stack(number f, uint32_t esp) { stack_at(f, esp); }
VX_EXPORT void forged_import(uint32_t stub) { import_at(stub); }
VX_EXPORT int32_t spin(number f) { f(0); for (;;) __asm__ volatile(""); }
VX_EXPORT int32_t raise_after(number f) { int32_t r = f(1); vx_raise(VX_KeyError, "guest %d", (int)r); return 0; }
static uint32_t calls;
VX_EXPORT uint32_t count(void) { return ++calls; }
"""
IMPORTS = {"lookup": lambda key, value: len(key) * 100 + len(value), "shift": lambda p, q, c, b: p, "now": lambda: 1.5}


@pytest.fixture(scope="module")
def plugin(build_plugin):
    return vxplug.open(build_plugin(GUEST))


@pytest.fixture
def box(plugin):
    with plugin.sandbox(timeout=20.0, imports=IMPORTS) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def pair(plugin, tmp_path_factory):
    declarations = [(f"{t} relay_{c}({t} (*f)({t}, {t}), {t} a, {t} b);", False) for t, c in SCALARS.items()]
    source = "#include <stdint.h>\n#define EXPORT static\n" + ORACLE
    module = native.load(tmp_path_factory.mktemp("native"), declarations, source)
    with plugin.sandbox(imports=IMPORTS) as box:
        yield box, module


@given(data=st.data())
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
def test_numbers_both_ways(pair, data):
    """Without it an argument or a result of a callback could be cut, swapped or lose its sign."""
    box, module = pair
    ctype = data.draw(st.sampled_from(list(SCALARS)))
    values = structs.values(structs.Scalar(ctype))
    a, b, first, second = (data.draw(values) for _ in range(4))

    def run(relay, wrap):
        seen, results = [], iter((first, second))

        def callback(x, y):
            seen.append((x, y))
            return next(results)

        return relay(wrap(callback), a, b), seen

    got = run(box[f"relay_{SCALARS[ctype]}"], lambda f: f)
    signature = f"{ctype}({ctype}, {ctype})"
    want = run(getattr(module.lib, f"relay_{SCALARS[ctype]}"), functools.partial(module.ffi.callback, signature))
    if ctype not in ("float", "double"):
        assert got == want
    else:  # the x87 computes with more digits and range: what was passed must be exact, sums nearly so
        assert got[1][0] == want[1][0] == (a, b) and got[1][1][0] == want[1][1][0] == b


def test_floats(box):
    """Without it a callback's floating-point result could disturb what the guest computes around it."""
    assert box.floats(lambda x: x * 2, lambda x: x / 4, 8.0) == 16002.0 + 18 * 0.5 / 6
    assert box.twice() == 3.0
    assert box.floats(lambda x: box.floats(lambda y: y, lambda y: y, x), lambda x: x, 1.0) > 0, "x87 state is kept"


def test_types(box):
    """Without it structs, enums, text or bytes could be wrong in callbacks alone."""
    pos, color = box.pos, box.color
    assert box.paint(lambda c: color.GREEN if c is color.RED else 7, 0) is color.GREEN
    assert box.paint(lambda c: 7, 1) == 7
    assert box.truth(lambda: "yes") is True and box.truth(lambda: []) is False
    assert box.find("four", b"123") == 403
    seen = []

    def shift(p, q, c, b):
        seen.append((p, q, c, b))
        return pos(p.x + 1, p.y * 2)

    with box.plugin.sandbox(imports={**IMPORTS, "shift": shift}) as other:
        assert other.shifted(pos(1, 2.0), False) == pos(2, 4.0) and other.shifted(pos(-5, 0.5), True) == pos(-4, 1.0)
    assert seen == [(pos(1, 2.0), pos(1, 2.0), color.GREEN, False), (pos(-5, 0.5), None, color.GREEN, True)]
    assert box.call(None, 5) == -1


def test_buffers(box):
    """Without it bytes could be lost between a callback and its guest."""

    def read(buffer):
        assert type(buffer) is bytearray and bytes(buffer) == bytes(len(buffer))
        buffer[:] = bytes(range(len(buffer)))

    assert box.fill(read, 200) == sum(range(200)) and box.fill(read, 0) == 0
    with pytest.raises(BufferError, match="resized"):
        box.fill(lambda buffer: buffer.append(1), 10)
    assert box.gather(lambda n: b"x" * n, lambda key: key + "!") == b"xxxkey!"
    assert box.gather(lambda n: memoryview(array.array("B", [n])), lambda key: None) == b"\1\2"
    big = bytes(range(256)) * 4096
    assert box.gather(lambda n: big, lambda key: "é") == big + big + "é".encode()
    with pytest.raises(vxplug.GuestMemoryError, match=r"result of hoard\(\) argument 'more': no guest memory left for 1048576 bytes"):
        box.hoard(lambda n: big)
    assert box.count() == 1, "no reset"


@pytest.mark.parametrize(
    ("name", "result", "kind", "text"),
    [
        ("call", "5", TypeError, r"result of call\(\) argument 'f': expected int, got str"),
        ("call", None, TypeError, r"result of call\(\) argument 'f': expected int, got NoneType"),
        ("call", 2**31, OverflowError, r"result of call\(\) argument 'f': 2147483648 is out of range for int32_t"),
        ("text", b"x", TypeError, r"result of gather\(\) argument 'name': expected str, got bytes"),
        ("text", "a\0b", ValueError, r"result of gather\(\) argument 'name': embedded null character"),
        ("view", "x", TypeError, r"result of gather\(\) argument 'more': expected a bytes-like object, got str"),
        ("struct", (1, 2.0), TypeError, "result of 'shift': expected pos, got tuple"),
    ],
)
def test_wrong_results(box, name, result, kind, text):
    """Without it what a callback must not give could reach the guest as something else."""
    calls = {
        "call": lambda: box.call(lambda n: result, 1), "text": lambda: box.gather(lambda n: b"", lambda key: result),
        "view": lambda: box.gather(lambda n: result, lambda key: None),
    }
    with pytest.raises(kind, match=text), box.plugin.sandbox(imports={**IMPORTS, "shift": lambda *a: result}) as other:
        calls.get(name, lambda: other.shifted(other.pos(1, 1.0), True))()


def test_exceptions_pass_unchanged(box):
    """Without it an exception could be replaced, swallowed, or let the guest go on after it."""
    error = LookupError("mine")

    def fail(n):
        raise error

    with pytest.raises(LookupError) as caught:
        box.sum_to(fail, 5)
    assert caught.value is error and caught.traceback[-1].name == "fail"
    assert box.count() == 1, "the guest call was ended, so the sandbox began again"
    with pytest.raises(SystemExit):
        box.call(lambda n: sys.exit(3), 0)
    with pytest.raises(LookupError) as caught:
        box.call(lambda n: box.call(lambda m: box.call(fail, 0), 0), 0)
    assert caught.value is error
    with pytest.raises(KeyError, match="guest 8"):
        box.raise_after(lambda n: n + 7)
    hidden = []

    def hide(n):
        try:
            box.call(fail, 0)
        except LookupError as inner:
            hidden.append(inner)
        return 1

    with pytest.raises(vxplug.Error, match="a call made by the sandbox's callback faulted"):
        box.call(hide, 0)
    assert hidden == [error]

    def catch(n):
        try:
            return box.raise_after(lambda m: m)
        except KeyError:
            return 42

    assert box.call(catch, 0) == 42, "an error that the plugin raised is no fault"


def test_nesting(box):
    """Without it guest and host could call each other until a stack of the host's is exhausted."""
    depth = 0

    def descend(n):
        nonlocal depth
        depth = max(depth, n)
        return box.call(descend, n + 1)

    with pytest.raises(RecursionError, match="nest deeper"):
        box.call(descend, 1)
    assert 8 <= depth <= 32
    assert box.call(lambda n: box.call(lambda m: m + n, 10) + box.tail(lambda m: m * 2, 4), 5) == 23
    plugin = box.plugin

    def elsewhere(n):
        with plugin.sandbox(imports=IMPORTS) as other:
            return other.call(elsewhere, n + 1)

    with pytest.raises(RecursionError, match="nest deeper"):
        box.call(elsewhere, 1)
    assert box.sum_to(lambda n: box.sum_to(lambda m: 1, n), 100) == sum(range(100))


@pytest.mark.parametrize("action", ["close", "reset"])
def test_callbacks_cannot_pull_the_rug(box, action):
    """Without it a callback could free the memory that the guest code above it runs in."""
    with pytest.raises(RuntimeError, match=f"cannot {action} the sandbox: it is running a call"):
        box.call(lambda n: getattr(box, action)(), 0)
    assert box.call(lambda n: n, 3) == 3


def test_stale_and_forged(box):
    """Without it a function pointer could be called when nobody lends it, or another's be guessed."""
    address = box.address_of(lambda n: 1)
    for call in (lambda: box.call_at(address, 1), lambda: box.call_at(0xFFFE0000 + 4 * 9000, 1), lambda: box.call_at(address + 1, 1)):
        with pytest.raises(vxplug.GuestFault, match="not, or no longer, lent") as caught:
            call()
        assert caught.value.kind == "execute" and caught.value.address == caught.value.eip >= 0xFFFE0000
    assert box.keep_and_call(lambda n: 7) == 7
    with pytest.raises(vxplug.GuestFault, match="not, or no longer, lent"):
        box.use()
    box.keep(lambda n: 1)
    with pytest.raises(vxplug.GuestFault, match="not, or no longer, lent"):
        box.call(lambda n: box.use(), 0)
    with box.plugin.sandbox(imports=IMPORTS) as other:
        with pytest.raises(vxplug.GuestFault, match="not, or no longer, lent"):
            other.call(lambda n: box.call_at(other.address_of(lambda m: m), 0), 0)
    for address in (0, 0x10000, 0xFFFF0000, 0xFFFFFFFF):
        with pytest.raises(vxplug.GuestFault):
            box.call_at(address, 0)
    for stub in (0, 0xFFFE0000, 0xFFFFFFFF, box.plugin.imports["now"].address + 1):
        with pytest.raises(vxplug.GuestFault, match="not, or no longer, lent"):
            box.forged_import(stub)
    addresses = {box.address_of(lambda n: 1) for _ in range(1000)}
    assert len(addresses) == 1000, "an address comes again only after all others"


@pytest.mark.parametrize("at", [1, 0xFFFF, 0xFFFDFFFF, 0xFFFE0000, 0xFFFFFFFF])
@pytest.mark.parametrize("name", ["forged_view", "forged_mut", "forged_text", "forged_struct", "forged_result", "forged_stack"])
def test_forged_pointers(box, name, at):
    """Without it a guest could have the host read or write outside its memory through a callback."""
    if name == "forged_text" and at == 0xFFFDFFFF:
        pytest.skip("the last byte of the stack is a string")
    reached = []
    results = {"forged_result": box.pos(1, 1.0)}
    size = (2**32 - at,) if name in ("forged_view", "forged_mut") else ()
    with pytest.raises(vxplug.GuestFault) as caught:
        box[name](lambda *a: reached.append(a) or results.get(name), at, *size)
    assert caught.value.kind in ("memory", "stack-overflow", "execute")
    assert not reached or name in ("forged_result", "forged_stack")
    assert box.count() == 1


def test_huge_and_empty_views(box):
    """Without it a length could wrap, or an empty view at a wild address be an error."""
    got = []
    box.forged_view(got.append, 0xFFFFFFFF, 0)
    box.forged_mut(got.append, 1, 0)
    assert got == [b"", bytearray()]
    for size in (2**31, 2**32 - 1):
        with pytest.raises(vxplug.GuestFault, match="memory that is not all its own"):
            box.forged_view(got.append, 0x10000, size)


def test_time_limit_covers_callbacks(plugin):
    """Without it a guest could live on behind a callback that takes its time."""
    with plugin.sandbox(timeout=0.2, imports=IMPORTS) as box:
        with pytest.raises(vxplug.GuestTimeout):
            box.spin(lambda n: 0)
        with pytest.raises(vxplug.GuestTimeout):
            box.sum_to(lambda n: threading.Event().wait(0.05) or 0, 1000)
        assert box.call(lambda n: n, 1) == 1


@pytest.mark.parametrize(("outer", "inner"), [(0.2, 25.0), (25.0, 0.2), (0.2, None)])
def test_a_time_limit_is_named_by_the_call_that_it_is_of(plugin, outer, inner):
    """Without it who reads the message would raise a limit that was never reached."""
    with plugin.sandbox(timeout=outer, imports=IMPORTS) as box, plugin.sandbox(timeout=inner, imports=IMPORTS) as other:
        with ThreadPoolExecutor(1) as pool, pytest.raises(vxplug.GuestTimeout, match="time limit of 0.2 s reached in forever"):
            pool.submit(box.call, lambda n: other.forever() or 0, 1).result()  # the main thread's callbacks end by a signal


def test_imports_are_checked_at_load(plugin):
    """Without it a missing function would show in the middle of a call, a mistyped one never."""
    with pytest.raises(vxplug.MissingImportError) as caught:
        plugin.sandbox(imports={"now": IMPORTS["now"]})
    assert caught.value.name is None and caught.value.path == plugin.path
    assert "were not given: int32_t lookup(const char *, vx_view); pos shift(pos, const pos *, color, _Bool)" in str(caught.value)
    with pytest.raises(vxplug.Error, match="no use for nwo, x; it imports lookup, now, shift"):
        plugin.sandbox(imports={**IMPORTS, "x": len, "nwo": len})
    with pytest.raises(TypeError, match="imports: now: expected a callable, got int"):
        plugin.sandbox(imports={**IMPORTS, "now": 5})
    assert list(plugin.imports) == ["lookup", "now", "shift"]


def test_imports_of_the_hook(build_plugin, tmp_path, monkeypatch):
    """Without it `install(imports=…)` would refuse every plugin that needs fewer of them."""
    (tmp_path / "importing.vxm").write_bytes(build_plugin(GUEST).read_bytes())
    plain = "#include <vxplug.h>\nVX_EXPORT int32_t one(void) { return 1; }\n"
    (tmp_path / "plain.vxm").write_bytes(build_plugin(plain).read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    vxplug.install(imports=IMPORTS)
    try:
        import importing
        import plain

        assert importing.twice() == 3.0 and plain.one() == 1
        del sys.modules["importing"]
        vxplug.install(imports={"now": IMPORTS["now"]})
        with pytest.raises(ImportError, match="needs host functions that were not given: int32_t lookup") as caught:
            import importing
        assert isinstance(caught.value, vxplug.Error) and "importing" not in sys.modules
        again = pickle.loads(pickle.dumps(caught.value))
        for error in (caught.value, again):
            assert (error.name, error.path) == ("importing", str(tmp_path / "importing.vxm"))
    finally:
        vxplug.uninstall()
        for name in ("importing", "plain"):
            sys.modules.pop(name, None)


def test_no_imports_while_initialising(build_plugin):
    """Without it what one tenant's function answered would be in every tenant's sandbox."""
    source = (
        "#include <vxplug.h>\nVX_IMPORT(int32_t, ask, (void));\nstatic int32_t answer;\n"
        "__attribute__((constructor)) static void start(void) { answer = ask(); }\n"
        "VX_EXPORT int32_t get(void) { return answer; }\n"
    )
    with pytest.raises(vxplug.PolicyError, match="import ask: not during initialisation"):
        vxplug.open(build_plugin(source)).sandbox(imports={"ask": lambda: 5})


class Callback:
    def __init__(self, result=0) -> None:
        self.result = result

    def __call__(self, *args):
        if self.result is ValueError:
            raise ValueError("x")
        return self.result


def test_references(box):
    """Without it a callback could live on in the sandbox, or arguments of callbacks leak."""
    good, bad, odd = Callback(3), Callback(ValueError), Callback("text")

    def work() -> None:
        for _ in range(200):
            box.call(good, 1)
            box.find("key", b"value")
            box.gather(Callback(b"12"), Callback("x"))
            box.fill(Callback(), 100)
            for wrong, kind in ((bad, ValueError), (odd, TypeError)):
                with pytest.raises(kind):
                    box.call(wrong, 1)

    references, blocks = growth(work, (good, bad, odd, box.pos))
    assert references < 5 and blocks < 200, "less than one a round"
    gone = weakref.ref(good)
    del good
    gc.collect()
    assert gone() is None


def test_a_sandbox_in_its_own_import_is_collected(plugin):
    """Without it an import that knows its sandbox would keep it for ever."""
    imports = dict(IMPORTS)
    box = plugin.sandbox(imports=imports)
    imports["self"] = box
    other = plugin.sandbox(imports={**IMPORTS, "now": functools.partial(lambda knows: 1.0, imports)})
    imports["other"] = other
    gone = weakref.ref(other)
    del box, other, imports
    gc.collect()
    assert gone() is None
