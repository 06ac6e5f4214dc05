"""Guest calls from asyncio: the loop goes on, cancelling ends the guest, and only the right one."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time

import pytest

import vxplug

GUEST = """
#include <vxplug.h>
static uint32_t calls;
VX_DOC(add, "The sum.");
VX_EXPORT int32_t add(int32_t a, int32_t b) { return a + b; }
VX_EXPORT uint32_t count(void) { return ++calls; }
VX_EXPORT uint32_t crash(void) { return *(volatile uint32_t *)0; }
VX_EXPORT void spin(void) { for (;;) __asm__ volatile(""); }
VX_EXPORT uint32_t work(uint32_t n) {
    uint32_t h = 1;
    for (uint32_t i = 0; i < n; i++) { h = h * 31 + i; __asm__ volatile("" : "+r"(h)); }
    return ++calls;
}
typedef struct counter { int32_t value; } counter;
static counter only;
VX_HANDLE(counter, NULL);
VX_METHOD(counter, counter_add, add);
VX_METHOD(counter, counter_spin, spin);
VX_EXPORT counter *counter_new(void) { return &only; }
VX_EXPORT int32_t counter_add(counter *self, int32_t n) { return self->value += n; }
VX_EXPORT void counter_spin(counter *self) { for (;;) __asm__ volatile("" : : "r"(self)); }
static uint32_t ended;
VX_EXPORT uint32_t count_ended(void) { return ended; }
VX_EXPORT vx_stream letters(uint32_t count, uint32_t spin_at) {
    for (uint32_t i = 0; i < count; i++) {
        while (i == spin_at) __asm__ volatile("");
        char letter = 'a' + i % 26;
        if (!vx_yield(&letter, 1)) break;
    }
    ended++;
    return VX_END;
}
VX_EXPORT vx_stream stubborn(void) {
    while (vx_yield("x", 1)) {}
    for (;;) __asm__ volatile("");
    return VX_END;
}
VX_EXPORT vx_stream broken(void) {
    vx_yield("a", 1);
    vx_raise(VX_ValueError, "no more");
    return VX_END;
}
"""
NEVER = 1 << 31


@pytest.fixture(scope="session")
def aio_plugin(build_plugin) -> vxplug.Plugin:
    return vxplug.open(build_plugin(GUEST))


@pytest.fixture
def box(aio_plugin):
    with aio_plugin.sandbox(timeout=30.0) as sandbox:
        yield sandbox


def test_results_and_errors_arrive(box):
    """An exception lost in a thread would leave a task waiting for ever."""
    async def main():
        assert await vxplug.aio.call(box.add, 1, b=2) == 3
        assert await box.aio.add(2, 3) == 5 and await box.aio["add"](2, 4) == 6
        with pytest.raises(vxplug.GuestFault) as caught:
            await box.aio.crash()
        assert caught.value.traceback[0][0] == "crash"
        with pytest.raises(TypeError, match="add"):
            await box.aio.add(1)

    asyncio.run(main())


def test_plain_to_thread_works(box):
    """It is what people know."""
    assert asyncio.run(asyncio.to_thread(box.add, 1, 2)) == 3


def test_the_loop_runs_meanwhile(box):
    """A blocked loop would stop everything else in the program."""
    async def main():
        task, turns = asyncio.ensure_future(box.aio.spin()), 0
        for _ in range(20):
            await asyncio.sleep(0.01)
            turns += 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return turns

    assert asyncio.run(main()) == 20


def test_cancelling_ends_the_guest(box):
    """A thread cannot be cancelled: without the interrupt the guest would use a processor to its limit."""
    async def main():
        started = time.monotonic()
        with pytest.raises((asyncio.TimeoutError, TimeoutError)):
            await asyncio.wait_for(box.aio.spin(), 0.2)
        assert time.monotonic() - started < 10
        assert await box.aio.add(1, 2) == 3

    asyncio.run(main())


def wait_and_cancel(work, spin, count):
    async def main():
        running = asyncio.ensure_future(work(150_000_000))
        await asyncio.sleep(0.05)
        waiting = asyncio.ensure_future(spin())
        await asyncio.sleep(0.05)
        waiting.cancel()
        assert await running == 1
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await count() == 2  # no fault: the sandbox was never reset

    asyncio.run(main())


def test_cancelling_a_call_that_waits_leaves_the_running_one_alone(box):
    """The interrupt goes to a sandbox, not to a task: the wrong call could end."""
    wait_and_cancel(box.aio.work, box.aio.spin, box.aio.count)


def test_the_same_of_functions_whose_sandbox_nobody_has(aio_plugin):
    """Turns are taken by guest memory: by the object that has it, each call could have a turn of its own."""
    box = aio_plugin.sandbox()
    functions = box.work, box.spin, box.count
    del box
    wait_and_cancel(*(functools.partial(vxplug.aio.call, function) for function in functions))


def test_cancelling_at_every_moment(box):
    """An interrupt that comes before the call has begun, or after it ended, must neither be lost nor stay."""
    async def main():
        for step in range(60):
            task = asyncio.ensure_future(box.aio.spin())
            await asyncio.sleep(step * 0.0002)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await box.aio.add(step, 1) == step + 1

    asyncio.run(main())


def test_many_calls_share_one_executor(aio_plugin):
    """A thread for each call would let a flood of requests use up the host's threads."""
    import threading

    async def main():
        boxes = [aio_plugin.sandbox() for _ in range(20)]
        results = await asyncio.gather(*(boxes[n % 20].aio.work(1000 + n) for n in range(400)))
        assert sorted(results) == sorted(list(range(1, 21)) * 20)

    asyncio.run(main())
    assert sum(thread.name.startswith("vxplug") for thread in threading.enumerate()) <= 36


def test_only_exported_functions(box):
    """Another callable has no guest to interrupt: cancelling would hang."""
    with pytest.raises(TypeError, match="exported function"):
        asyncio.run(vxplug.aio.call(len, []))
    with pytest.raises(AttributeError, match="no export 'nothing'"):
        box.aio.nothing  # noqa: B018
    assert "add" in dir(box.aio)


def test_methods_of_handles(box):
    """A plugin of objects has nothing else to call: without it such a plugin would block the loop."""
    async def main():
        counter = await box.aio.counter_new()
        assert [await vxplug.aio.call(counter.add, 2), await vxplug.aio.call(counter.add, n=3)] == [2, 5]
        task = asyncio.ensure_future(vxplug.aio.call(counter.spin))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert counter.closed and await box.aio.add(1, 2) == 3  # the sandbox is back where it began
        with pytest.raises(vxplug.Error, match="died when its sandbox was reset"):
            await vxplug.aio.call(counter.add, 1)
        with pytest.raises(TypeError, match="exported function, got method"):
            await vxplug.aio.call(contextlib.ExitStack().close)

    asyncio.run(main())


def test_pieces_of_a_stream(box):
    """A stream read in the loop would stop everything else for as long as each piece takes."""
    async def main():
        stream = await box.aio.letters(5, NEVER)
        assert [piece async for piece in vxplug.aio.iterate(stream)] == [b"a", b"b", b"c", b"d", b"e"]
        assert stream.closed and box.count_ended() == 1
        assert [piece async for piece in vxplug.aio.iterate(stream)] == []
        got = []
        with pytest.raises(ValueError, match="no more"):
            async for piece in vxplug.aio.iterate(box.broken()):
                got.append(piece)
        assert got == [b"a"]
        with pytest.raises(TypeError, match="expected a stream"):
            vxplug.aio.iterate(iter([b""]))

    asyncio.run(main())


def test_streams_and_calls_in_turn(box):
    """Between pieces the sandbox is free for other tasks."""
    async def letters():
        return b"".join([piece async for piece in vxplug.aio.iterate(box.letters(26, NEVER))])

    async def main():
        *texts, count = await asyncio.gather(letters(), letters(), letters(), box.aio.count())
        assert texts == [b"abcdefghijklmnopqrstuvwxyz"] * 3 and count == 1

    asyncio.run(main())


def test_cancelling_a_stream_ends_the_guest(box):
    """Without the interrupt the guest would go on making a piece that nobody waits for."""
    got = []

    async def read():
        async for piece in vxplug.aio.iterate(box.letters(5, 2)):
            got.append(piece)

    async def main():
        with pytest.raises((asyncio.TimeoutError, TimeoutError)):
            await asyncio.wait_for(read(), 0.3)
        assert got == [b"a", b"b"] and await box.aio.add(1, 2) == 3
        assert [piece async for piece in vxplug.aio.iterate(box.letters(2, NEVER))] == [b"a", b"b"]

    started = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - started < 10


def test_a_stream_that_is_left_early_is_closed(box):
    """Without it the plugin's function would keep what it holds as long as the generator lives."""
    async def main():
        stream = box.letters(5, NEVER)
        async with contextlib.aclosing(vxplug.aio.iterate(stream)) as pieces:
            async for piece in pieces:
                assert piece == b"a"
                break
        assert stream.closed and box.count_ended() == 1
        await box.aio.count()  # the sandbox was not reset
        assert box.count_ended() == 1 and box.count() == 2

    asyncio.run(main())


def test_cancelling_while_a_stream_is_closed(box):
    """A function that never ends when it is told that nobody wants more would hold the task to the time limit."""
    async def leave():
        async with contextlib.aclosing(vxplug.aio.iterate(box.stubborn())) as pieces:
            async for piece in pieces:
                break

    async def main():
        with pytest.raises((asyncio.TimeoutError, TimeoutError)):
            await asyncio.wait_for(leave(), 0.3)
        assert await box.aio.add(1, 2) == 3

    started = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - started < 10
