"""Callbacks of the host whose call is over: how they end, on the main thread and on others.

Everything that may kill or hang a process runs in one of its own.
"""

from __future__ import annotations

import textwrap

import pytest

from .life import good

WAITS = {
    "reading": "os.read(os.pipe()[0], 1)", "locked": "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "queue": "queue.Queue().get()", "joining": "t = threading.Thread(target=time.sleep, args=(20,), daemon=True); t.start(); t.join()",
    "a process": "import subprocess; subprocess.run(['sleep', '20'])",
    "sleeping": "time.sleep(20)", "select": "import select; select.select([], [], [], 20)",
    "computing": "while True: pass", "hiding the error": """while True:
    try: time.sleep(0.01)
    except Exception: seen.append(1)
    if len(seen) > 3: raise""",
}


@pytest.mark.parametrize("how", sorted(WAITS))
@pytest.mark.parametrize("end", ["timeout", "interrupt"])
def test_a_callback_that_waits_is_ended(run_life, how, end):
    """A time limit covers the whole call: on the main thread, callbacks that wait or compute end with it."""
    body = textwrap.indent(WAITS[how].replace("    if len(seen) > 3: raise", "    if len(seen) > 3: return"), "    ")
    good(run_life(f"""
seen = []
def write(data):
{body}
box = plugin.sandbox(timeout=0.2 if {end!r} == 'timeout' else None, stdout=write)
if {end!r} == 'interrupt': threading.Timer(0.2, box.interrupt).start()
started = time.monotonic()
try: box.say(1)
except vxplug.GuestTimeout as error: assert {end!r} == 'timeout' and '0.2 s' in str(error), error
except vxplug.GuestFault as error: assert {end!r} == 'interrupt' == error.kind, error
else: raise AssertionError('came back')
assert time.monotonic() - started < 10
assert box.add(1, 2) == 3
print('good')
"""))


# ---- on other threads ----

# What a thread's callback does, and why it then ends.
ELSEWHERE = {
    "computing": "while True: pass", "waiting often": "while True: time.sleep(0.01)",
    "hiding the error": """while True:
    try: time.sleep(0.01)
    except Exception: seen.append(1)
    if len(seen) > 3: return 0""",
    "calling another sandbox": "while True: other.add(1, 2)",
    "inside another sandbox": "other.spin()",
}
# What the main thread does meanwhile, whose signal handler ends it.
MEANWHILE = {
    "joining": "thread.join()", "computing": "while thread.is_alive(): pass", "locked": "done.wait()",
    "sleeping": "time.sleep(60)", "selecting": "select.select([], [], [], 60)",
    "in a guest": "other.spin()", "calling guests": "while thread.is_alive(): other.add(1, 2)",
    "in asyncio": "asyncio.run(asyncio.to_thread(thread.join))",
}


def ends_twice(end: str) -> str:
    """The part of a script that has ``run`` call ``box`` in a thread, again after the reset, and looks how that ended."""
    return f"""
import pickle
for _ in range(2):
    if {end!r} == 'interrupt': threading.Timer(0.2, box.interrupt).start()
    thread = threading.Thread(target=run)
    thread.start(); thread.join()
    (error,) = ended
    if {end!r} == 'timeout': assert type(error) is vxplug.GuestTimeout and 'time limit of 0.2 s' in str(error), repr(error)
    else: assert type(error) is vxplug.GuestFault and error.kind == 'interrupt', repr(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    ended.clear()
    assert box.add(1, 2) == 3
"""


@pytest.mark.parametrize("how", sorted(ELSEWHERE))
@pytest.mark.parametrize("end", ["timeout", "interrupt"])
@pytest.mark.parametrize("by", ["function", "output"])
def test_a_callback_of_another_thread_is_ended(run_life, how, end, by):
    """Without it a thread of a pool would be lost to a callback that goes on, whatever the time limit."""
    body = textwrap.indent(ELSEWHERE[how], "    ")
    good(run_life(f"""
seen, ended = [], []
def callback(given):
{body}
def run():
    started = time.monotonic()
    seen.clear()
    try: box.apply(callback, 1) if {by!r} == 'function' else box.say(1)
    except Exception as error: ended.append(error)
    assert time.monotonic() - started < 10
other = plugin.sandbox()
box = plugin.sandbox(timeout=0.2 if {end!r} == 'timeout' else None, stdout=callback)
{ends_twice(end)}
assert other.add(1, 2) == 3
print('good')
"""))


@pytest.mark.parametrize("what", sorted(MEANWHILE))
def test_whatever_the_main_thread_does(run_life, what):
    """Its handler ends the others' callbacks: without the signal that wakes it, it would first have to finish."""
    good(run_life(f"""
import asyncio, select
done, ended = threading.Event(), []
other, box = plugin.sandbox(timeout=None), plugin.sandbox(timeout=0.2)
main = threading.main_thread().ident
def callback(x):
    while True: pass
def run():
    try: box.apply(callback, 1)
    except vxplug.GuestTimeout: ended.append(True)
    done.set()
    if {what!r} in ('sleeping', 'selecting', 'in a guest'): signal.pthread_kill(main, signal.SIGINT)
thread = threading.Thread(target=run)
thread.start()
try:
    {MEANWHILE[what]}
except KeyboardInterrupt:
    assert ended
thread.join()
print('good' if ended else 'came back')
"""))


def test_nothing_is_raised_after_the_callback(run_life):
    """CPython raises at some later time: without taking it back, in what else vxplug, or the thread, then runs."""
    good(run_life("""
        import functools
        taken = threading.Lock()
        taken.acquire()
        waits = functools.partial(taken.acquire, True)  # C code for a second: what is to be raised has to wait
        box, kinds, finished = plugin.sandbox(timeout=0.1), [], []
        def run():
            for _ in range(3):
                try: box.apply(waits, 1)
                except vxplug.GuestTimeout as error: kinds.append(str(error))
                for _ in range(200_000): pass
            finished.append(True)
        thread = threading.Thread(target=run)
        thread.start(); thread.join()
        assert finished and len(kinds) == 3, (kinds, finished)
        assert not any('callback' in kind for kind in kinds), kinds  # what the guest met when it ran again
        print('good')
    """))


def test_a_fork_while_others_are_in_callbacks(run_life):
    """A child has none of its parent's threads: without forgetting what they ran it would read the stacks they had."""
    good(run_life("""
        go, inside, ended = threading.Event(), threading.Semaphore(0), []
        def waits(x):
            inside.release()
            return go.wait() and 7
        def spins(x):
            while True: pass
        def run():
            try: plugin.sandbox(timeout=0.1).apply(spins, 1)
            except vxplug.GuestTimeout: ended.append(True)
        answers = []
        held = [threading.Thread(target=lambda: answers.append(plugin.sandbox().apply(waits, 1))) for _ in range(8)]
        for thread in held: thread.start(); inside.acquire()
        child = os.fork()
        threads = [threading.Thread(target=run) for _ in range(12)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        if child == 0:
            os._exit(len(ended))
        go.set()
        for thread in held: thread.join()
        assert (len(ended), answers) == (12, [7] * 8) and os.waitpid(child, 0)[1] == 12 << 8
        print('good')
    """))


def test_threads_that_wait_for_each_others_sandboxes(run_life):
    """Without it each would wait in a callback for a sandbox that the other one's call has: for ever, whatever the limits."""
    good(run_life("""
        meet, boxes, ends = threading.Barrier(2), {}, []
        def calls(other):
            met = []
            def take(data):
                if not met: met.append(meet.wait(10))  # output may come in pieces
                boxes[other].add(1, 2)
            return take
        for name, other in (('a', 'b'), ('b', 'a')):
            boxes[name] = plugin.sandbox(timeout=0.3, stdout=calls(other))
        def run(name):
            try: boxes[name].say(1)
            except vxplug.GuestTimeout as error: ends.append(str(error))
            except vxplug.GuestFault as error: ends.append(error.kind)
        threads = [threading.Thread(target=run, args=(name,), daemon=True) for name in boxes]
        for thread in threads: thread.start()
        for thread in threads: thread.join(20)
        assert ends and not any(thread.is_alive() for thread in threads), ends
        assert all('time limit of 0.3 s' in end for end in ends), ends
        assert [box.add(1, 2) for box in boxes.values()] == [3, 3]
        print('good')
    """))
