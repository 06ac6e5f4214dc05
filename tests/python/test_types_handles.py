"""Handles: objects of the plugin that Python holds; they go only where they belong, and end once."""

from __future__ import annotations

import gc
import inspect
import json
import pickle
import struct
import sys
import threading
import weakref

import pytest

import vxplug
from vxplug.interface import decode_note

GUEST = r"""
#include <stdio.h>
#include <stdlib.h>
#include <vxplug.h>
VX_MODULE_DOC("Counters.");
typedef struct counter { int32_t value; bool bad; } counter;
typedef struct other other;
struct part { int32_t x; };
typedef struct part part;
static int32_t made, freed;
static counter *last;
static void counter_free(counter *c) {
    freed++;
    if (c->bad) *(volatile int *)16 = 0;
    if (c->value == -7) vx_raise(VX_ValueError, "destructor says no");
    if (c->value == -8) for (;;) __asm__ volatile("");
    if (c->value == -9) for (volatile unsigned i = 0; i < 60000000; i++);
    if (c->value == -10) printf("%400d\n", 1), fflush(stdout);
    if (c->value == -11) vx_raise(VX_ValueError, "\x1b]0;owned\x07");
    free(c);
}
VX_HANDLE(counter, counter_free);
static void other_free(other *o) { freed += 100; free(o); }
VX_HANDLE(other, other_free);
VX_HANDLE(part, NULL);
VX_METHOD(counter, counter_add, add);
VX_METHOD(counter, counter_part, part);
VX_DOC(counter_add, "Add to the counter.");
VX_EXPORT counter *counter_new(int32_t value) {
    if (value == -1) return NULL;
    counter *c = malloc(sizeof *c);
    made++; c->value = value; c->bad = value == -6; last = c;
    return c;
}
VX_EXPORT int32_t counter_add(counter *self, int32_t n) { return self->value += n; }
VX_EXPORT part *counter_part(counter *c) { return (part *)&c->value; }
VX_EXPORT int32_t part_value(const part *p) { return p->x; }
VX_EXPORT counter *newest(void) { return last; }
VX_EXPORT other *other_new(void) { return malloc(8); }
VX_EXPORT other *other_at(uint32_t address) { return (other *)(uintptr_t)address; }
VX_EXPORT counter *counter_at(uint32_t address) { return (counter *)(uintptr_t)address; }
VX_OUT(counter_open, result);
VX_EXPORT int32_t counter_open(int32_t value, counter **result) { *result = counter_new(value); return value * 2; }
VX_NULLABLE(sum, b);
VX_EXPORT int32_t sum(counter *a, counter *b) { return a->value + (b ? b->value : 1000); }
VX_EXPORT int32_t each(void (*f)(counter *, int32_t), int32_t n) {
    for (int32_t i = 0; i < n; i++) f(counter_new(i), i);
    return freed;
}
VX_EXPORT int32_t during(counter *c, int32_t (*f)(int32_t)) { c->value = f(1); return freed; }
VX_EXPORT int32_t count_made(void) { return made; }
VX_EXPORT int32_t count_freed(void) { return freed; }
VX_EXPORT void crash(void) { *(volatile int *)16 = 0; }
"""


@pytest.fixture(scope="module")
def plugin(build_plugin):
    return vxplug.open(build_plugin(GUEST))


@pytest.fixture
def box(plugin):
    with plugin.sandbox(timeout=20.0) as sandbox:
        yield sandbox


def _refused(call, *args) -> str:
    with pytest.raises(vxplug.Error) as caught:
        call(*args)
    assert type(caught.value) is vxplug.Error
    return str(caught.value)


def test_life(box):
    """Without it a handle could be freed never, twice, or while it is in use."""
    counter = box.counter_new(5)
    assert type(counter) is box.counter and repr(counter) == "<counter handle>" and not counter.closed
    assert box.counter_add(counter, 2) == 7 == counter.add(0) and counter.add(n=3) == 10
    assert box.sum(counter, None) == 1010 and box.sum(counter, counter) == 20
    counter.close()
    counter.close()
    assert box.count_freed() == 1 and counter.closed and repr(counter) == "<counter handle, is closed>"
    assert _refused(counter.add, 1) == "counter_add() argument 'self': the counter is closed"
    with box.counter_new(1) as second:
        assert second.add(1) == 2
    assert box.count_freed() == 2
    third = box.counter_new(1)
    del third
    gc.collect()
    assert box.count_freed() == 3 == box.count_made()
    assert box.counter_new(-1) is None and box.counter_open(-1) == (-2, None)
    value, fourth = box.counter_open(9)
    assert value == 18 and fourth.add(0) == 9


def test_methods_look_like_methods(box):
    """Without it help() and inspect would show functions that want a self."""
    counter = box.counter_new(5)
    assert list(inspect.signature(counter.add).parameters) == ["n"]
    assert list(inspect.signature(box.counter.add).parameters) == ["self", "n"]
    assert counter.add.__doc__ == "Add to the counter." == box.counter.add.__doc__
    assert box.counter.add(counter, 1) == 6
    with pytest.raises(TypeError, match="made by the plugin's functions only"):
        box.counter()
    with pytest.raises(TypeError, match="cannot pickle 'counter' object"):
        pickle.dumps(counter)


def test_one_object_an_address(box):
    """Without it two handles of one object would free it twice."""
    counter = box.counter_new(5)
    assert box.newest() is counter and box.newest() is counter
    gone = weakref.ref(counter)
    del counter
    gc.collect()
    assert gone() is None and box.count_freed() == 1
    dangling = box.newest()
    assert type(dangling) is box.counter
    part_owner = box.counter_new(8)
    part = part_owner.part()
    assert box.part_value(part) == 8 and type(part) is box.part and part is not part_owner
    again = box.newest()
    assert box.sum(again, None) == 1008, "of a part and its whole at one address the latest is known"
    part.close()
    assert part.closed and box.count_freed() == 1, "what has no destructor only ends for Python"


def test_of_other_types_and_sandboxes(box, plugin):
    """Without it a handle could be passed as another type, or an address of one sandbox used in another."""
    counter, other = box.counter_new(1), box.other_new()
    for wrong, name in ((other, "other"), (5, "int"), (None, "NoneType"), (object(), "object"), (box.counter, "type")):
        with pytest.raises(TypeError, match=f"'self': expected counter, got {name}"):
            box.counter_add(wrong, 1)
    with plugin.sandbox() as second:
        assert _refused(second.counter_add, counter, 1) == "counter_add() argument 'self': the counter belongs to another sandbox"
        assert _refused(second.sum, second.counter_new(1), counter).endswith("'b': the counter belongs to another sandbox")
        mine = second.counter_new(3)
        assert mine.add(1) == 4 and counter.add(1) == 2

    class Fake(box.counter):
        pass

    with pytest.raises(TypeError, match="made by the plugin's functions only"):
        Fake()
    with pytest.raises(TypeError):
        object.__new__(box.counter)
    other.close()
    assert box.count_freed() == 100


@pytest.mark.parametrize("end", ["reset", "crash", "poison", "close"])
def test_death_with_the_sandbox(plugin, end):
    """Without it a handle could lead into memory that has been replaced."""
    with plugin.sandbox(on_fault="poison" if end == "poison" else "reset") as box:
        counter = box.counter_new(5)
        if end in ("crash", "poison"):
            with pytest.raises(vxplug.GuestFault):
                box.crash()
        else:
            getattr(box, end)()
        assert counter.closed
        text = _refused(counter.add, 1)
        assert {"close": "closed", "poison": "poisoned"}.get(end, "the counter died when its sandbox was reset") in text
        if end == "poison":
            box.reset()
            assert "died when its sandbox was reset" in _refused(counter.add, 1)
        counter.close()
        with counter:
            pass
        del counter
        gc.collect()
        if end != "close":
            assert box.count_freed() == 0, "nothing is called for what is gone"
            assert box.counter_new(1).add(1) == 2


@pytest.mark.parametrize("address", [1, 16, 0x10000, 0xFFFDFFFF, 0xFFFE0000, 0xFFFFFFFF])
def test_forged_addresses(box, address):
    """Without it an address that the guest made up could harm the host when it comes back."""
    handle = box.other_at(address)
    assert type(handle) is box.other and box.other_at(address) is handle
    with pytest.raises(TypeError):
        box.counter_add(handle, 1)
    counter = box.counter_at(address)
    with pytest.raises(vxplug.GuestFault):
        counter.close()
    assert counter.closed and handle.closed, "the fault reset the sandbox"


def test_destructors_that_fail(box, monkeypatch):
    """Without it a destructor's failure could be lost, or come out of an unrelated call."""
    for value, kind in ((-7, ValueError), (-6, vxplug.GuestFault)):
        with pytest.raises(kind):
            box.counter_new(value).close()
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    for value, kind in ((-7, ValueError), (-6, vxplug.GuestFault)):
        counter = box.counter_new(value)
        del counter
        gc.collect()
        assert unraisable.pop().exc_type is kind and not unraisable
    assert box.count_made() == 0, "the crash reset the sandbox"

    def drop(n):
        handles.clear()
        return n

    handles = [box.counter_new(-7)]
    anchor = box.counter_new(1)
    assert box.during(anchor, drop) == 0 and box.count_freed() == 1
    assert unraisable.pop().exc_type is ValueError


def test_destructor_has_a_time_limit(plugin, monkeypatch):
    """Without it an object that nobody holds could stop the program for ever."""
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    with plugin.sandbox(timeout=0.1) as box:
        counter = box.counter_new(-8)
        del counter
        gc.collect()
        assert unraisable.pop().exc_type is vxplug.GuestTimeout


def _drop_in_a_call(box, value, count):
    handles = [box.counter_new(value) for _ in range(count)]
    anchor = box.counter_new(0)
    box.during(anchor, lambda n: handles.clear() or n)


def test_destructors_have_the_limits_of_one_call(plugin, monkeypatch):
    """Without it a guest would take its limits once more for each object that it gives to a callback: hours of one call,
    gigabytes of output, as many lines of its choice on the program's stderr."""
    unraisable, shown = [], []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    with plugin.sandbox(timeout=0.6, output=1000, stdout=shown.append) as box:
        _drop_in_a_call(box, -9, 20)
        assert unraisable.pop().exc_type is vxplug.GuestTimeout and not unraisable
        assert box.count_freed() == 0, "the sandbox was reset"
        _drop_in_a_call(box, -10, 20)
        assert sum(map(len, shown)) <= 1000 and "more output" in str(unraisable.pop().exc_value)
        _drop_in_a_call(box, -11, 20)
        assert str(unraisable.pop().exc_value) == r"\x1b]0;owned\x07" and not unraisable


def test_each_close_is_a_call(plugin):
    """Without it what earlier calls wrote would count against the destructors that a program runs by itself."""
    shown = []
    with plugin.sandbox(output=1000, stdout=shown.append) as box:
        handles = [box.counter_new(-10) for _ in range(6)]
        for handle in handles[:3]:
            handle.close()
        del handle
        handles.clear()
        assert sum(map(len, shown)) == 6 * 401 and box.count_freed() == 6


def test_forgotten_objects_poison(plugin, monkeypatch):
    """Without it a sandbox that is to refuse work after a fault would go on after one in a destructor."""
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    with plugin.sandbox(on_fault="poison") as box:
        _drop_in_a_call(box, -6, 2)
        assert unraisable.pop().exc_type is vxplug.GuestFault and not unraisable
        assert "poisoned" in _refused(box.count_made)


def test_dropped_during_a_call(box):
    """Without it a destructor could run in the middle of guest code that uses what it frees."""
    handles = [box.counter_new(i) for i in range(10)]
    anchor = box.counter_new(0)

    def drop(n):
        handles.clear()
        gc.collect()
        assert box.count_freed() == 0, "not while the outer call runs"
        return n

    assert box.during(anchor, drop) == 0
    assert box.count_freed() == 10 and anchor.add(0) == 1
    with pytest.raises(vxplug.GuestFault):
        handles.append(box.counter_new(1))
        box.during(anchor, lambda n: handles.clear() or box.crash())
    assert box.count_freed() == 0


def test_closed_in_a_callback(box):
    """Without it close() inside a call could wait for itself."""
    counter = box.counter_new(1)
    helper = box.counter_new(2)
    assert box.during(counter, lambda n: helper.close() or 9) == 1 and counter.add(0) == 9
    got = []
    assert box.each(lambda c, i: got.append((c, c.add(1) - i)), 5) == 1
    assert [n for _, n in got] == [1] * 5 and len({id(c) for c, _ in got}) == 5
    box.each(lambda c, i: c.close(), 3)
    assert box.count_freed() == 4


def test_closed_in_a_call_that_uses_it(box):
    """Without it a callback could free what the guest code that called it goes on to use."""
    counter = box.counter_new(1)
    refused = []

    def close(n):
        with pytest.raises(RuntimeError, match="cannot close the counter: a call that is running has it as an argument") as caught:
            counter.close()
        refused.append(caught.value)
        return n

    def deeper(n):
        box.during(box.counter_new(2), close)
        return n

    assert box.during(counter, close) == 0 and not counter.closed and counter.add(0) == 1
    assert box.during(counter, deeper) == 0, "what the callback dropped is freed when its call is over"
    assert box.count_freed() == 1 and len(refused) == 2 and counter.add(1) == 2
    counter.close()
    assert counter.closed and box.count_freed() == 2


def test_dropped_by_another_thread(box):
    """Without it a thread that drops a handle would wait for, or run into, another thread's call."""
    handles, inside, dropped = [box.counter_new(1)], threading.Event(), threading.Event()

    def work(n):
        inside.set()
        assert dropped.wait(20)
        return n

    def drop():
        assert inside.wait(20)
        handles.clear()
        dropped.set()

    thread = threading.Thread(target=drop)
    thread.start()
    anchor = box.counter_new(0)
    assert box.during(anchor, work) == 0
    thread.join()
    assert box.count_freed() == 1


def test_references(plugin):
    """Without it handles, their functions or their sandbox could stay for ever."""
    box = plugin.sandbox()

    def work() -> None:
        for i in range(300):
            with box.counter_new(i) as counter:
                counter.add(1)
            box.counter_new(i).add(2)
            box.counter_open(i)

    work()
    gc.collect()
    before = sys.getallocatedblocks(), sys.getrefcount(box.counter), sys.getrefcount(box._box)
    work()
    gc.collect()
    after = sys.getallocatedblocks(), sys.getrefcount(box.counter), sys.getrefcount(box._box)
    assert after[0] - before[0] < 300, "less than one a round"
    assert abs(after[1] - before[1]) < 5 and abs(after[2] - before[2]) < 5
    assert box.count_made() == box.count_freed() == 1800
    counter, gone = box.counter_new(1), weakref.ref(box)
    counter.add(1)
    del box, work
    gc.collect()
    assert counter.add(1) == 3, "a handle keeps the sandbox that it lives in"
    del counter
    gc.collect()
    assert gone() is None


HANDLE = {"kind": "handle", "name": "h", "destroy": 0, "methods": [["m", "f"]]}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"methods": [["close", "f"]]}, "called close or closed"), ({"methods": [["m", "g"]]}, "no export that takes"),
        ({"methods": [["m", "f"], ["m", "f"]]}, "share a name"), ({"methods": [["__del__", "f"]]}, "reserved by Python"),
        ({"methods": [["m"]]}, "not lists of 2"), ({"destroy": -1}, "is not between"), ({"destroy": 1 << 32}, "is not between"),
        ({"name": "a b"}, "not a C identifier"), ({}, None),
    ],
)
def test_hostile_notes(change, text):
    """Without it a note could give a handle methods that take something else, or replace its own."""
    export = {"name": "f", "address": 65536, "doc": None, "prototype": "", "params": [["a", 0]], "result": "none"}
    body = {"abi": 2, "doc": None, "release": 0, "types": [{**HANDLE, **change}], "exports": [export]}
    data = json.dumps(body).encode()
    note = struct.pack("<III", 7, len(data), 2) + b"vxplug\0\0" + data + b"\0" * (-len(data) % 4)
    if text is None:
        assert decode_note(note).exports[0].name == "f"
        return
    with pytest.raises(vxplug.PluginFormatError, match=text):
        decode_note(note)
