"""Host functions that are left behind when the call that waits for them ends: `vxplug.abandonable`.

Everything that may hang a process runs in one of its own.
"""

from __future__ import annotations

import textwrap

import pytest

import vxplug

from .life import GUEST, good
from .test_errands import WAITS, ends_twice


@pytest.fixture
def box(build_plugin):
    return vxplug.open(build_plugin(GUEST)).sandbox(timeout=20)


@pytest.mark.parametrize("how", sorted(set(WAITS) - {"hiding the error", "joining", "select", "a process", "computing"}))
@pytest.mark.parametrize(("end", "by"), [("timeout", "function"), ("interrupt", "output"), ("timeout", "output of a policy")])
def test_a_wait_on_another_thread_ends_with_its_call(run_life, how, end, by):
    """Without it a sleep, a lock or a read of a callback keeps a thread of a pool for as long as the guest likes."""
    body = textwrap.indent(WAITS[how], "    ")
    good(run_life(f"""
ended = []
def callback(given):
{body}
callback = vxplug.abandonable(callback)
def run():
    started = time.monotonic()
    try: box.apply(callback, 1) if {by!r} == 'function' else box.say(1)
    except Exception as error: ended.append(error)
    assert time.monotonic() - started < 10
options = dict(linux=vxplug.LinuxPolicy(time=True)) if 'policy' in {by!r} else {{}}
box = plugin.sandbox(timeout=0.2 if {end!r} == 'timeout' else None, stdout=callback, **options)
{ends_twice(end)}
print('good')
"""))


def test_a_cancelled_task_ends_at_once(run_life):
    """asyncio's calls are on other threads, always: a task could not be cancelled before its host function returned."""
    good(run_life("""
        import asyncio
        box = plugin.sandbox(timeout=60)
        async def main():
            started = time.monotonic()
            try: await asyncio.wait_for(box.aio.apply(vxplug.abandonable(lambda x: time.sleep(40)), 1), 0.3)
            except asyncio.TimeoutError: pass
            assert time.monotonic() - started < 10
            return await box.aio.add(1, 2)
        assert asyncio.run(main()) == 3
        print('good')
    """))


def test_a_guest_that_is_ended_again_and_again_costs_16_threads(run_life):
    """Without a bound each call of a hostile guest would leave the host one thread more."""
    good(run_life("""
        go, before = threading.Event(), len(os.listdir('/proc/self/task'))
        waits = vxplug.abandonable(lambda x: go.wait() and 7)
        box, ends = plugin.sandbox(timeout=0.05), collections.Counter()
        for _ in range(40):
            try: box.apply(waits, 1)
            except vxplug.GuestTimeout: ends['time'] += 1
            except RuntimeError as error: ends[str(error)] += 1
        (refused,) = [text for text in ends if text != 'time']
        assert ends['time'] == 16 and '<lambda>() is not called: 16 calls' in refused, ends
        assert len(os.listdir('/proc/self/task')) <= before + 17  # and the watchdog
        assert box.apply(vxplug.abandonable(lambda x: x + 1), 1) == 2  # another function has its own
        go.set()
        while threading.active_count() > 1: time.sleep(0.01)
        assert box.apply(waits, 1) == 7
        print('good')
    """))


def test_a_system_without_threads(run_life):
    """A thread that never began must not count as one that was left: the function would be refused for ever."""
    good(run_life("""
        box, real = plugin.sandbox(), threading.Thread.start
        def start(thread): raise RuntimeError("can't start new thread")
        double = vxplug.abandonable(lambda x: 2 * x)
        threading.Thread.start = start
        for _ in range(20):
            try: box.apply(double, 1)
            except RuntimeError as error: assert 'new thread' in str(error)
            else: raise AssertionError('came back')
        threading.Thread.start = real
        assert box.apply(double, 4) == 8
        print('good')
    """))


def test_it_is_the_function_otherwise(box):
    """Results, the caller's context, names and exceptions are those of the function."""
    import contextvars
    import threading

    who = contextvars.ContextVar("who")
    who.set("caller")
    seen = []

    @vxplug.abandonable
    def triple(x):
        """Three times."""
        seen.append((who.get(), threading.current_thread() is threading.main_thread()))
        return 3 * x

    assert box.apply(triple, 5) == 15
    assert seen == [("caller", False)]
    assert (triple.__name__, triple.__doc__) == ("triple", "Three times.")

    class Odd(BaseException):
        pass

    def fails(x):
        raise Odd(x)

    with pytest.raises(Odd) as caught:
        box.apply(vxplug.abandonable(fails), 9)
    assert caught.value.args == (9,)
    assert caught.traceback[-1].name == "fails"
    assert box.apply(vxplug.abandonable(abs), -2) == 2
    with pytest.raises(TypeError, match=r"result of apply\(\) argument 'function'"):
        box.apply(vxplug.abandonable(str), 1)


def test_nothing_of_a_call_is_kept(box):
    """An error whose traceback has the frame that keeps it would keep the arguments until a garbage collection."""
    import gc
    import weakref

    class Value:
        def __index__(self):
            return 4

    value = Value()
    gone = weakref.ref(value)

    def fails(x, value=value):
        raise ValueError(x)

    gc.disable()
    try:
        with pytest.raises(ValueError):
            box.apply(vxplug.abandonable(fails), 1)
        del value, fails
        assert gone() is None
    finally:
        gc.enable()
