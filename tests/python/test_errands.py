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


def test_a_callback_in_another_thread_ends_the_call_when_it_returns(run_life):
    """Python interrupts its main thread alone: elsewhere the limit holds from the callback's return on."""
    good(run_life("""
        box, ends_as = plugin.sandbox(timeout=0.1, stdout=lambda data: time.sleep(0.5)), []
        thread = threading.Thread(target=lambda: ends_as.append(ends(box.say, 1)))
        thread.start(); thread.join()
        assert ends_as == ['timeout'], ends_as
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
