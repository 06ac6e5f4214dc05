"""vxplug.Buffer: memory that a sandbox and Python share, whoever lives longer."""

from __future__ import annotations

import array
import gc
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from pathlib import Path

import pytest

import vxplug

SOURCE = Path(__file__).parents[1] / "attack" / "buffer.c"
PAGE = 4096
MIB = 1 << 20


@pytest.fixture(scope="module")
def plugin(build_plugin):
    return vxplug.open(build_plugin(SOURCE))


@pytest.fixture
def box(plugin):
    with plugin.sandbox(memory=64 * MIB, timeout=10.0) as made:
        yield made


def test_both_sides_see_the_same_bytes(box):
    """Without it a Buffer could be two memories that differ."""
    with box.buffer(100_000) as buffer:
        view = memoryview(buffer)
        assert (len(buffer), view.readonly, view.nbytes, bytes(view[:4])) == (100_000, False, 100_000, bytes(4))
        view[:] = bytes(range(250)) * 400
        assert box.sum(buffer) == sum(range(250)) * 400
        box.fill(buffer, 7)
        assert bytes(view) == b"\7" * 100_000
        view.release()


def test_calls_get_the_bytes_themselves(box):
    """Without it a call would copy: the address would be another one's, and change from call to call."""
    with box.buffer(10 * PAGE) as buffer:
        start = box.where(buffer)
        assert start % PAGE == 0
        assert box.where(memoryview(buffer)) == start
        assert box.where(memoryview(buffer)[5:9]) == start + 5
        assert box.where(buffer) == start
        assert box.same(buffer, buffer) == 1
        assert box.where(bytes(10 * PAGE)) != start


def test_slices_are_written_in_place(box):
    """Without it a slice could be filled at the wrong offset, or as a copy."""
    with box.buffer(2 * PAGE) as buffer, memoryview(buffer) as view:
        box.fill(view[100:200], 9)
        assert (bytes(view[99:101]), bytes(view[199:201])) == (b"\0\x09", b"\x09\0")


def test_arrays_lie_in_buffers(box):
    """Without it arrays of numbers could be read from the wrong place."""
    with box.buffer(4000) as buffer, memoryview(buffer).cast("i") as numbers:
        for i in range(1000):
            numbers[i] = i
        assert box.total(numbers) == sum(range(1000))
        assert box.total(numbers[10:]) == sum(range(10, 1000))
        assert box.total(array.array("i", [1, 2])) == 3


def test_numpy_arrays_lie_in_buffers(box):
    """Without it arrays over a Buffer would be copied."""
    numpy = pytest.importorskip("numpy")
    with box.buffer(4000) as buffer:
        numbers = numpy.frombuffer(buffer, dtype=numpy.int32)
        numbers[:] = numpy.arange(1000)
        assert box.total(numbers) == sum(range(1000))
        assert box.where(numbers) == box.where(buffer)
        del numbers


def test_a_read_only_view_of_it_is_not_written_to(box):
    """Without it a call could write through a view that says it is read-only."""
    with box.buffer(PAGE) as buffer, memoryview(buffer).toreadonly() as view:
        assert box.sum(view) == 0
        with pytest.raises(TypeError, match="writable"):
            box.fill(view, 1)


def test_results_are_copies(box):
    """Without it a result could change when the guest writes again."""
    with box.buffer(PAGE) as buffer, memoryview(buffer) as view:
        view[:6] = b"hello\0"
        result, text = box.echo(view[:5]), box.text(view)
        box.fill(buffer, 0)
        assert (result, text) == (b"hello", "hello")


def test_to_another_sandbox_it_is_bytes_like_any(plugin, box):
    """Without it one sandbox could be given an address that only means something in another."""
    with plugin.sandbox() as other, box.buffer(PAGE) as buffer:
        box.fill(buffer, 3)
        assert other.sum(buffer) == 3 * PAGE
        other.fill(buffer, 4)
        assert box.sum(buffer) == 4 * PAGE
        other.keep(buffer)
        other.poke(0, 9)
        assert memoryview(buffer)[0] == 4


def test_it_counts_against_the_memory_limit(box):
    """Without it an application could give a guest more than its limit."""
    before = box.memory_used
    with box.buffer(10 * MIB + 1):
        assert box.memory_used == before + 10 * MIB + PAGE
        with pytest.raises(vxplug.GuestMemoryError, match=r"buffer\(\): 62914560 bytes"):
            box.buffer(60 * MIB)
    assert box.memory_used == before


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-1, ValueError), (1 << 32, ValueError),
                                             (1 << 80, OverflowError), (1.5, TypeError)])
def test_sizes_that_are_none(box, size, error):
    """Without it a size out of range could wrap."""
    with pytest.raises(error):
        box.buffer(size)


def test_it_is_made_by_a_sandbox_only():
    """Without it there could be one that has no memory."""
    with pytest.raises(TypeError, match="cannot create"):
        vxplug.Buffer()


def test_release_waits_for_views(box):
    """Threat 40: without it a view could lead to memory that is gone."""
    buffer = box.buffer(PAGE)
    view = memoryview(buffer)
    with pytest.raises(BufferError, match="1 view"):
        buffer.release()
    view.release()
    buffer.release()
    buffer.release()
    assert (buffer.released, len(buffer), repr(buffer)) == (True, 0, "<released vxplug.Buffer>")
    with pytest.raises(ValueError, match="released"):
        memoryview(buffer)
    with pytest.raises(BufferError, match="buffer is released"):
        box.sum(buffer)


@pytest.mark.parametrize("export", ["call_back", "view_back"])
def test_a_call_holds_it(box, export):
    """Without it a callback could release what the running call was lent."""
    with box.buffer(PAGE) as buffer:

        def release():
            with pytest.raises(BufferError):
                buffer.release()
            return 1

        assert box[export](buffer, release) == 1


def test_a_callback_may_make_and_release_others(box):
    """Without it the list of Buffers could break when it changes during a call."""
    with box.buffer(PAGE) as outer:

        def make() -> int:
            with box.buffer(PAGE) as inner:
                box.fill(inner, 2)
                return box.sum(inner) // PAGE

        assert box.call_back(outer, make) == 2


def test_it_survives_a_reset(box):
    """Its bytes are the host's: kept, but out of the guest's reach until it is passed again."""
    with box.buffer(PAGE) as buffer, memoryview(buffer) as view:
        box.keep(buffer)
        box.fill(buffer, 5)
        used = box.memory_used
        box.reset()
        assert box.memory_used < used
        assert bytes(view) == b"\5" * PAGE
        assert box.sum(buffer) == 5 * PAGE
        box.fill(buffer, 6)
        assert bytes(view) == b"\6" * PAGE


@pytest.mark.parametrize("on_fault", ["reset", "poison"])
def test_it_survives_a_fault(plugin, on_fault):
    """Without it a fault could take the bytes, or the sandbox could keep a stale address."""
    with plugin.sandbox(on_fault=on_fault) as box, box.buffer(PAGE) as buffer, memoryview(buffer) as view:
        view[0] = 8
        with pytest.raises(vxplug.GuestFault):
            box.fault(buffer)
        assert view[0] == 8
        if on_fault == "poison":
            with pytest.raises(vxplug.Error, match="poisoned"):
                box.sum(buffer)
            with pytest.raises(vxplug.Error, match="poisoned"):
                box.buffer(PAGE)
            box.reset()
        assert box.sum(buffer) == 8


def test_views_outlive_the_sandbox(plugin):
    """Threat 40: without memory of its own a view would lead to pages that are gone, or another's."""
    box = plugin.sandbox()
    buffer = box.buffer(3 * PAGE)
    view = memoryview(buffer)
    box.fill(buffer, 1)
    box.close()
    others = [plugin.sandbox() for _ in range(3)]
    view[PAGE:] = b"\2" * (2 * PAGE)
    assert bytes(view) == b"\1" * PAGE + b"\2" * (2 * PAGE)
    with pytest.raises(vxplug.Error, match="closed"):
        box.sum(buffer)
    with pytest.raises(vxplug.Error, match="closed"):
        box.buffer(1)
    gone = weakref.ref(buffer)
    del box, buffer
    gc.collect()
    assert gone() is not None and view[0] == 1
    view.release()
    gc.collect()
    assert gone() is None
    for other in others:
        other.close()


def test_nothing_is_left_of_forgotten_ones(box):
    """Without it each Buffer that is never released would stay mapped in the sandbox."""
    before = box.memory_used
    for _ in range(1000):
        box.sum(box.buffer(MIB))
    assert box.memory_used == before


def test_released_while_another_thread_is_inside(plugin):
    """Without it mappings could change under a running guest, or stay for ever."""
    with plugin.sandbox(timeout=None) as box:
        first, second = box.buffer(PAGE), box.buffer(PAGE)
        used = box.memory_used
        ended = []

        def spin():
            with pytest.raises(vxplug.GuestFault) as caught:
                box.spin(first)
            ended.append(caught.value.kind)

        thread = threading.Thread(target=spin)
        with memoryview(first) as view:
            thread.start()
            while view[PAGE - 1] == 0:
                time.sleep(0.001)
            with pytest.raises(BufferError):
                first.release()
            second.release()
            seen = view[PAGE - 1]
            went_on = any(time.sleep(0.001) or view[PAGE - 1] != seen for _ in range(20_000))
            box.interrupt()
            thread.join()
        assert ended == ["interrupt"] and went_on
        first.release()
        assert box.memory_used < used


def test_threads_make_and_release(plugin):
    """Without it two threads could lose pages, or each other's."""
    with plugin.sandbox(memory=64 * MIB) as box:
        before = box.memory_used

        def work(value: int) -> None:
            for _ in range(200):
                with box.buffer(3 * PAGE) as buffer:
                    box.fill(buffer, value)
                    assert box.sum(buffer) == value * 3 * PAGE

        threads = [threading.Thread(target=work, args=(value,)) for value in (1, 2, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert box.memory_used == before


def test_a_forked_child_goes_on(plugin):
    """In a process of its own: the child shares the bytes, as of any shared mapping, and has its own sandbox."""
    program = textwrap.dedent("""
        import os, sys, vxplug
        with vxplug.open(sys.argv[1]).sandbox() as box, box.buffer(4096) as buffer:
            box.fill(buffer, 1)
            if (child := os.fork()) == 0:
                box.fill(buffer, 2)
                os._exit(0 if box.sum(buffer) == 2 * 4096 else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert box.sum(buffer) == 2 * 4096
    """)
    done = subprocess.run([sys.executable, "-c", program, str(plugin.path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
