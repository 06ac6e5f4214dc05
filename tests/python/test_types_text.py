"""Text that structs point to, text given back through pointers, and functions given by their address."""

from __future__ import annotations

import gc
import pickle
import threading
import weakref
from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vxplug
from vxplug.sdk import SdkError, build

SOURCE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vxplug.h>

struct person { uint8_t kind; const char *name; int32_t age; const char *home; };
struct group { struct person head; const char *tags[3]; };

static char kept[4][100000];
static const char *keep(int slot, const char *text) {
    if (!text) return NULL;
    snprintf(kept[slot], sizeof kept[slot], "%s", text);
    return kept[slot];
}
static struct person grown(const struct person *p) {
    return (struct person){p->kind, keep(0, p->home), p->age + 1, keep(1, p->name)};
}
VX_EXPORT struct person swap(const struct person *p) { return grown(p); }
VX_EXPORT void swap_in_place(struct person *p) { *p = grown(p); }
VX_INOUT(swap_in_place, p);
VX_EXPORT void leave(struct person *p) { p->age = 7; }
VX_INOUT(leave, p);
VX_EXPORT void make(int32_t age, struct person *p) { *p = (struct person){1, "made", age, NULL}; }
VX_OUT(make, p);
VX_EXPORT const struct person *find(int32_t nothing) {
    static const struct person p = {3, "static", 4, "\xc3\xa4"};
    return nothing ? NULL : &p;
}
VX_EXPORT struct group rotate(const struct group *g) {
    struct group out = *g;
    out.tags[0] = keep(0, g->tags[1]);
    out.tags[1] = keep(1, g->tags[2]);
    out.tags[2] = keep(2, g->tags[0]);
    out.head.name = keep(3, g->head.name);
    out.head.home = NULL;
    return out;
}
VX_EXPORT bool what(int32_t n, const char **text) { *text = n ? keep(0, n > 0 ? "positive" : "negative") : NULL; return n; }
VX_OUT(what, text);
VX_EXPORT int32_t visit(int32_t n, int32_t (*each)(const struct person *, struct person)) {
    struct person p = {0, "pointed", n, NULL}, v = {0, NULL, n, "passed"};
    return each(&p, v);
}
VX_EXPORT vx_stream names(const struct person *p) {
    vx_yield(p->name, strlen(p->name));
    vx_yield(p->home, strlen(p->home));
    return VX_END;
}

VX_EXPORT struct person hostile(uint32_t name, int32_t broken) {
    struct person p = {0, (const char *)name, 0, broken ? "\xff" : NULL};
    return p;
}
VX_EXPORT void hostile_out(uint32_t name, struct person *p) { *p = (struct person){0, (const char *)name, 0, NULL}; }
VX_OUT(hostile_out, p);
VX_EXPORT int32_t hostile_visit(uint32_t name, int32_t (*each)(const struct person *)) {
    struct person p = {0, (const char *)name, 0, NULL};
    return each(&p);
}
struct many { const char *text[1000]; };
VX_EXPORT struct many multiply(uint32_t size, uint32_t count) {
    struct many m = {{0}};
    char *text = memset(malloc(size + 1), 'x', size);
    text[size] = 0;
    for (uint32_t i = 0; i < count; i++) m.text[i] = text;
    return m;
}

static int32_t total = 0;
static int32_t add(int32_t n) { return total += n; }
static int32_t crash(int32_t n) { return *(volatile int32_t *)n; }
static int32_t negate(int32_t n) { return n < 0 ? vx_raise(VX_ValueError, "below"), 0 : -n; }
VX_EXPORT int32_t (*operation(const char *name))(int32_t) {
    return !strcmp(name, "add") ? add : !strcmp(name, "crash") ? crash : !strcmp(name, "negate") ? negate : NULL;
}
typedef int32_t (*any)(int32_t);
VX_EXPORT any anywhere(uint32_t address) { return (any)address; }
VX_EXPORT any same(int32_t (*f)(int32_t)) { return f; }
static const char *greet(const struct person *p, vx_view greeting) {
    static char text[200];
    snprintf(text, sizeof text, "%.*s %s", (int)greeting.len, (const char *)greeting.ptr, p->name);
    return text;
}
VX_EXPORT const char *(*greeter(void))(const struct person *, vx_view) { return greet; }
"""

TEXT = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


@pytest.fixture(scope="module")
def plugin(build_plugin):
    return vxplug.open(build_plugin(SOURCE))


@pytest.fixture(scope="module")
def box(plugin):
    with plugin.sandbox(timeout=20.0) as sandbox:
        yield sandbox


# ---- text in structs ----


@given(name=TEXT, home=TEXT, age=st.integers(-(2**31), 2**31 - 2))
def test_every_text_passes_both_ways(box, name, home, age):
    """In, out and back, also none, the empty one and what is more than ASCII."""
    person = box.person(kind=1, name=name, age=age, home=home)
    swapped = box.person(kind=1, name=home, age=age + 1, home=name)
    assert box.swap(person) == box.swap_in_place(person) == swapped
    assert box.leave(person) == box.person(1, name, 7, home)


@given(tags=st.tuples(TEXT, TEXT, TEXT), name=TEXT)
def test_nested_and_in_arrays(box, tags, name):
    """A text is found wherever in the struct its pointer is."""
    group = box.group(head=box.person(0, name, 1, "gone"), tags=tags)
    assert box.rotate(group) == box.group(box.person(0, name, 1, None), (tags[1], tags[2], tags[0]))


def test_results_and_outputs(box):
    """Each road out of the guest reads the texts before anything can change them."""
    assert box.make(5) == box.person(1, "made", 5, None)
    assert box.find(0) == box.person(3, "static", 4, "ä") and box.find(1) is None
    assert [box.what(n) for n in (1, -1, 0)] == [(True, "positive"), (True, "negative"), (False, None)]


def test_callbacks_get_text(box):
    """By pointer and by value."""
    seen = []
    assert box.visit(3, lambda pointed, passed: seen.append((pointed, passed)) or 9) == 9
    assert seen == [(box.person(0, "pointed", 3, None), box.person(0, None, 3, "passed"))]


def test_a_stream_keeps_its_texts(box):
    """Its arguments live as long as it does, what they point to as well."""
    stream = box.names(box.person(0, "first" * 100, 0, "second" * 100))
    box.swap(box.person(0, "x" * 5000, 0, "y" * 5000))
    assert list(stream) == [b"first" * 100, b"second" * 100]


@pytest.mark.parametrize(("name", "error", "says"), [
    (5, TypeError, r"swap\(\) argument 'p\.name': expected str or None, got int"),
    (b"x", TypeError, "expected str or None, got bytes"),
    ("a\0b", ValueError, r"'p\.name': embedded null character"),
    ("\ud800", UnicodeEncodeError, "surrogates not allowed"),
])
def test_what_is_no_text(box, name, error, says):
    """The message leads to the member; nothing reaches the guest."""
    with pytest.raises(error, match=says):
        box.swap(box.person(0, name, 0, None))


def test_large_texts_and_the_memory_limit(plugin):
    """As any other argument: what does not fit is refused, and the sandbox is as it was."""
    with plugin.sandbox(memory=16 << 20) as box:
        long = "x" * 90000
        assert box.swap(box.person(0, long, 0, None)).home == long
        before = box.memory_used
        for _ in range(20):
            with pytest.raises(vxplug.GuestMemoryError, match=r"swap\(\) argument 'p': 35651602 bytes do not fit"):
                box.swap(box.person(0, "x" * (32 << 20), 0, "y" * (2 << 20)))
        assert box.memory_used == before and box.find(1) is None


@pytest.mark.parametrize("address", [1, 0x1000, 0xFFFFF000, 0xFFFFFFFF, 0xFFFE0000, 0x7FFFFFFF])
def test_pointers_to_no_text(plugin, address):
    """Read nowhere but in the guest's memory: a fault that says where."""
    with plugin.sandbox() as box:
        for call in (lambda: box.hostile(address, 0), lambda: box.hostile_out(address), lambda: box.hostile_visit(address, len)):
            with pytest.raises(vxplug.GuestFault) as caught:
                call()
            assert caught.value.kind == "memory" and caught.value.address == address
            assert box.find(1) is None


def test_text_that_is_no_utf8(box):
    """As for a str result: the decoder's error, not a guess."""
    with pytest.raises(UnicodeDecodeError):
        box.hostile(0, 1)


def test_one_text_pointed_to_from_everywhere(plugin):
    """Without a bound on the sum, a megabyte of guest memory would cost the host a gigabyte."""
    with plugin.sandbox() as box:
        assert box.multiply(1000, 1000).text == ("x" * 1000,) * 1000
        assert box.multiply((1 << 20) - 1, 1).text[0] == "x" * ((1 << 20) - 1)
        for size, count in ((1 << 20, 1), (1 << 19, 3), (2000, 1000)):
            with pytest.raises(vxplug.GuestFault, match="str in a struct without an end in readable memory, or all of them longer than 1 MiB"):
                box.multiply(size, count)


def test_annotations_and_stubs(plugin, build_plugin):
    """What may be None says so."""
    assert plugin.types["person"].__annotations__["name"] == Optional[str]
    from vxplug.stubs import stub_text

    text = stub_text(plugin)
    assert "    name: Optional[str]\n" in text and "tags: tuple[Optional[str], Optional[str], Optional[str]]" not in text
    assert "def what(n: int) -> tuple[bool, Optional[str]]: ..." in text
    assert "def operation(name: str) -> Optional[collections.abc.Callable[[int], int]]: ..." in text


@pytest.mark.parametrize(("source", "says"), [
    ("struct p { char *name; };\nVX_EXPORT int32_t f(const struct p *p) { return 0; }", "type 'char *' of member name is not supported"),
    ("struct p { const char *name; };\nVX_EXPORT int32_t f(struct p p) { return 0; }",
     "type 'struct p' by value with text is not supported: nobody could keep what its text points to; take a pointer to it"),
    ("union p { const char *name; int32_t n; };\nVX_EXPORT int32_t f(const union p *p) { return 0; }",
     "type 'p', a union with text, is not supported: nobody would know whether the text is there; put it beside the union"),
    ("struct p { const char *name; };\nVX_EXPORT void f(struct p (*g)(void)) { g(); }", "type 'struct p (*)(void)', whose result is 'struct p', is not supported: a function of the host's gives no structs with text"),
    ("VX_EXPORT void f(const char **text) {}", "type 'const char **' is not supported: a pointer to text is one that the function writes, VX_OUT(f, text)"),
    ("struct p { int32_t (*f)(int32_t); };\nVX_EXPORT int32_t f(const struct p *p) { return 0; }", "of member f is not supported"),
    ("struct p { const struct p *next; };\nVX_EXPORT int32_t f(const struct p *p) { return 0; }", "of member next is not supported"),
    ("VX_EXPORT vx_view (*f(void))(void) { return 0; }", "f(): result type 'vx_view (*)(void)', a function that Python cannot call, is not supported: it may not give vx_view"),
])
def test_what_the_build_refuses(tmp_path, source, says):
    """An author learns at the build which member or type it is, and what to do."""
    (tmp_path / "p.c").write_text("#include <vxplug.h>\n" + source + "\n")
    with pytest.raises(SdkError) as caught:
        build([tmp_path / "p.c"], tmp_path / "p.vxm")
    assert says in str(caught.value)


# ---- functions ----


def test_functions_as_results(plugin):
    """A function of the plugin's is called as an export is: arguments, results, errors, state."""
    with plugin.sandbox() as box:
        add, negate = box.operation("add"), box.operation("negate")
        assert [add(1), add(2), add(arg0=3)] == [1, 3, 6] and negate(5) == -5
        assert box.operation("unknown") is None
        with pytest.raises(ValueError, match="below"):
            negate(-1)
        with pytest.raises(OverflowError, match=r"result of operation\(\)\(\) argument 'arg0'"):
            add(1 << 40)
        with pytest.raises(TypeError):
            add()
        assert box.greeter()(box.person(0, "Ada", 0, None), b"Hello") == "Hello Ada"
        assert repr(add) == "<sandboxed function result of operation()(arg0)>"


def test_a_function_lives_with_its_sandbox(plugin):
    """It says how it died, and no other sandbox or life is ever called in its place."""
    box = plugin.sandbox()
    add, crash = box.operation("add"), box.operation("crash")
    assert add(1) == 1
    box.reset()
    with pytest.raises(vxplug.Error, match=r"result of operation\(\) died when its sandbox was reset"):
        add(1)
    crash = box.operation("crash")
    with pytest.raises(vxplug.GuestFault, match="memory"):
        crash(0)
    with pytest.raises(vxplug.Error, match="died when its sandbox was reset"):
        crash(0)
    add = box.operation("add")
    box.close()
    with pytest.raises(vxplug.Error, match=r"result of operation\(\) died with its sandbox"):
        add(1)


def test_a_function_keeps_its_sandbox_alive(plugin):
    """As an export does; and both go when the last of them goes."""
    box = plugin.sandbox()
    inner = weakref.ref(box._box)
    add = box.operation("add")
    del box
    gc.collect()
    assert add(4) == 4
    del add
    gc.collect()
    assert inner() is None


@pytest.mark.parametrize("address", [1, 0x10, 0xFFFE0000, 0xFFFE0004, 0xFFFEFFFC, 0xFFFFFFFF, 0x7FFFFFFF])
def test_addresses_of_no_function(plugin, address):
    """The guest's word is a jump of its own: whatever is there faults in the sandbox."""
    with plugin.sandbox() as box:
        with pytest.raises(vxplug.GuestFault):
            box.anywhere(address)(1)
        assert box.find(1) is None


def test_the_return_page_as_a_function(plugin):
    """It returns at once, with nothing of the host in the result."""
    with plugin.sandbox() as box:
        assert {box.anywhere(0xFFFFF000)(1) for _ in range(3)} == {0}


def test_a_callback_given_back_is_gone(plugin):
    """A callable is lent for one call; its address means nothing after it."""
    with plugin.sandbox() as box:
        given = box.same(lambda n: n)
        with pytest.raises(vxplug.GuestFault, match="not, or no longer, lent"):
            given(1)


def test_functions_do_not_travel(plugin):
    """Their address means nothing in another sandbox, so a pickle says no rather than something else."""
    with plugin.sandbox() as box:
        with pytest.raises(vxplug.Error, match=r"result of operation\(\) lives in its sandbox only and cannot be pickled"):
            pickle.dumps(box.operation("add"))


def test_functions_in_threads(plugin):
    """One call at a time, whatever it came from."""
    with plugin.sandbox() as box:
        add = box.operation("add")
        threads = [threading.Thread(target=lambda: [add(1) for _ in range(500)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert add(0) == 2000


def test_no_references_are_lost(plugin):
    """Each road through texts and functions gives back what it took."""
    import sys

    with plugin.sandbox() as box:
        person, text = box.person(0, "a" * 50, 1, None), "b" * 50
        other = box.person(0, text, 1, 5)
        add = box.operation("add")

        def once():
            box.swap(person)
            box.operation("add")(1)
            for call in (lambda: box.swap(other), lambda: add("x"), lambda: box.hostile(0, 1), lambda: box.operation("negate")(-1)):
                with pytest.raises((TypeError, ValueError)):
                    call()

        for _ in range(3):
            once()
        gc.collect()
        watched = [person, text, type(person), box._box, person.name, add]
        before = [sys.getrefcount(thing) for thing in watched]
        for _ in range(200):
            once()
        gc.collect()
        assert [after - count for after, count in zip([sys.getrefcount(thing) for thing in watched], before, strict=True)] == [0] * 6
