"""Many threads at once: what the GIL guards elsewhere, and what csrc/py/lock.h guards on a free-threaded Python.

Each script is a process of its own, which has to end by itself: a crash or a deadlock fails its test alone.  They run on
every build; without a GIL they are what shows that nothing relied on it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest

GUEST = Path(__file__).parent / "guests" / "threads.c"
SECONDS = float(os.environ.get("VXPLUG_STRESS", "0.5"))  # of each storm
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

PRELUDE = """
import gc, os, random, sys, threading, time, traceback
import vxplug
plugin, seconds = vxplug.open(sys.argv[1]), float(sys.argv[2])
sys.setswitchinterval(0.0001)  # with a GIL, so that threads alternate all the same
wrong = []

def storm(*workers, each=1):
    '''Every worker over and over in `each` threads, all at once, until the time is over or something is wrong.'''
    end = time.monotonic() + seconds
    def run(worker, number):
        chance = random.Random(number)
        try:
            while time.monotonic() < end and not wrong:
                worker(chance)
        except BaseException as error:
            wrong.append((worker.__name__, traceback.extract_tb(error.__traceback__)[-1].lineno, repr(error)))
    threads = [threading.Thread(target=run, args=(worker, 100 * i + j))
               for i, worker in enumerate(workers) for j in range(each)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert not wrong, wrong
"""


@pytest.fixture(scope="module")
def good(build_plugin):
    guest = build_plugin(GUEST)

    def run(script: str) -> None:
        quiet = ("-W", "ignore:This process:DeprecationWarning")  # of any fork beside the watchdog, from 3.12 on
        command = [sys.executable, "-W", "error", *quiet, "-X", "faulthandler", "-c", PRELUDE + textwrap.dedent(script)]
        done = subprocess.run([*command, str(guest), str(SECONDS)], capture_output=True, text=True, timeout=60 + 5 * SECONDS)
        assert (done.returncode, done.stdout, done.stderr) == (0, "good\n", ""), done.stderr

    return run


@pytest.mark.skipif(not FREE_THREADED, reason="this Python has a GIL: a free-threaded one is needed")
def test_the_gil_stays_disabled(good):
    """Without it a free-threaded program that imports vxplug would run on one processor."""
    good("""
        assert not sys._is_gil_enabled()
        assert plugin.sandbox().add(1, 2) == 3 and not sys._is_gil_enabled()
        print('good')
    """)


def test_one_sandbox_for_all(good):
    """Without it two threads could be in one guest, an argument of one call could reach another, or an object of the
    plugin could end twice, or never."""
    good("""
        box = plugin.sandbox(timeout=30.0)
        functions = [getattr(box, name) for name in plugin.exports]
        held, data = [], bytes(range(256)) * 8
        def numbers(chance):
            a, b = chance.randrange(1 << 20), chance.randrange(1 << 20)
            assert box.add(a, b) == a + b and box.alone(chance.randrange(300)) == 0
        def memory(chance):
            n = chance.randrange(len(data))
            assert box.sum(data[:n]) == sum(data[:n])
            array = bytearray(n)
            box.fill(array, n % 256)
            assert array == bytes([n % 256]) * n
        def callbacks(chance):
            n = chance.randrange(1000)
            assert box.apply(lambda x: box.add(x, 1), n) == n + 2
            try: box.bad()
            except KeyError as error: assert error.args == ('bad',)
            else: raise AssertionError
        def handles(chance):
            n = chance.randrange(1000)
            item = box.item_new(n)
            assert box.item_value(item) == n
            if chance.random() < 0.3: held.append(item)
            elif chance.random() < 0.3: item.close()
            elif chance.random() < 0.1:
                ring = [item]
                ring.append(ring)
        def droppers(chance):
            try: item = held.pop()
            except IndexError: return
            if chance.random() < 0.5:
                item.close()
                assert item.closed
        def collectors(chance):
            gc.collect()
            assert box.memory_used > 0 and not box.closed
            time.sleep(0.01)
        before = [sys.getrefcount(f) for f in (*functions, box._box)]
        storm(numbers, memory, callbacks, handles, droppers, collectors, each=2)
        held.clear()
        gc.collect()
        assert (box.mistakes_made(), box.items_alive()) == (0, 0), (box.mistakes_made(), box.items_alive())
        after = [sys.getrefcount(f) for f in (*functions, box._box)]
        assert after == before, (before, after)
        print('good')
    """)


def test_one_object_of_the_plugin_many_threads(good):
    """Without it a handle that one thread lets go of could be given to another, or its destructor could run twice."""
    good("""
        box = plugin.sandbox(timeout=30.0)
        items, reached = [box.item_new(1) for _ in range(int(2000 * seconds))], [-1, -1]
        def close_all(me):
            for number, item in enumerate(items):
                reached[me] = number
                while reached[1 - me] < number: pass  # both at the same moment: no lock would let go of both
                item.close()
        threads = [threading.Thread(target=close_all, args=(me,)) for me in range(2)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert (box.mistakes_made(), box.items_alive()) == (0, 0)
        keep = [box.item_new(number) for number in range(4)]  # of which those dropped below are not
        first = next(n for n in range(65536) if (got := box.item_at(n)) is not None and got is keep[0])
        def look(chance):
            number = chance.randrange(4)
            item = box.item_at(first + number)
            assert item is keep[number] and not item.closed and box.item_value(item) == number
        storm(look, each=4)
        print('good')
    """)


def test_sandboxes_that_change_under_calls(good):
    """Without it a reset, a fault, an interrupt, a profiler or close() could meet another thread's call half way."""
    good("""
        boxes = [plugin.sandbox(timeout=5.0) for _ in range(3)]
        def allowed(call, *arguments):
            '''What a call gives, or None where the sandbox went away.'''
            try: return call(*arguments)
            except vxplug.Error: return None
        def some(chance): return boxes[chance.randrange(len(boxes))]
        def call(chance):
            box, n = some(chance), chance.randrange(1000)
            assert allowed(box.add, n, 1) in (n + 1, None)
            assert allowed(box.apply, lambda x: x, n) in (n + 1, None)
            assert allowed(box.sum, bytes(n)) in (0, None)
        def objects(chance):
            box = some(chance)
            item = allowed(box.item_new, 7)
            if item is not None: allowed(box.item_value, item), allowed(item.close)
        def faults(chance):
            box = some(chance)
            allowed(box.crash)
            time.sleep(0.002)
        def resets(chance):
            allowed(some(chance).reset)
            time.sleep(0.002)
        def interrupts(chance):
            allowed(some(chance).interrupt)
            some(chance).memory_used, some(chance).closed
        def spins(chance):
            box = some(chance)
            timer = threading.Timer(0.01, box.interrupt)
            timer.start()
            box.interrupt()
            allowed(box.alone, 100_000)
            timer.join()
        def samples(chance):
            box = some(chance)
            box._box.profile(lambda info: None)
            box._box.profile(None)
        def closes(chance):
            n = chance.randrange(len(boxes))
            old, boxes[n] = boxes[n], plugin.sandbox(timeout=5.0)
            old.close()
            assert old.closed
            time.sleep(0.003)
        storm(call, call, objects, faults, resets, interrupts, spins, samples, closes)
        for box in boxes:
            box.reset()
            assert box.add(20, 22) == 42
        print('good')
    """)


def test_shared_memory_given_back_while_in_use(good):
    """Without it a Buffer or a Mapping could be unmapped under a call or a view, or stay for ever."""
    good("""
        import tempfile
        box = plugin.sandbox(memory=64 << 20, timeout=30.0)
        file = tempfile.NamedTemporaryFile(buffering=0)
        file.write(bytes([1]) * 10_000)
        box.sum(b''), gc.collect()
        used = box.memory_used
        shared = [box.buffer(4096) for _ in range(3)]
        mapped = [box.map(file.name) for _ in range(3)]
        def gone(call, *arguments):
            try: return call(*arguments)
            except (BufferError, ValueError): return None
        def use(chance):
            buffer = shared[chance.randrange(3)]
            gone(box.fill, buffer, 3)
            assert gone(box.sum, buffer) in (0, 3 * 4096, None), 'not of one call'
        def view(chance):
            try:
                with memoryview(shared[chance.randrange(3)]) as seen: assert seen[0] in (0, 3) and len(seen) == 4096
            except ValueError: pass
        def read(chance):
            mapping = mapped[chance.randrange(3)]
            assert gone(box.sum, mapping) in (10_000, None)
            assert gone(bytes, mapping) in (bytes([1]) * 10_000, None)
            assert len(mapping) in (10_000, 0) and repr(mapping)
        def renew(chance):
            n = chance.randrange(3)
            old, shared[n] = shared[n], box.buffer(4096)
            gone(old.release)
            old, mapped[n] = mapped[n], box.map(file.name)
            gone(old.close)
            assert len(old) in (10_000, 0)
        def private(chance):
            data = bytes([chance.randrange(256)]) * 4096
            assert box.sum(data) == 4096 * data[0]
        storm(use, use, view, read, renew, renew, private)
        shared.clear(), mapped.clear()
        gc.collect()
        box.sum(b'')
        assert box.memory_used == used, (box.memory_used, used)
        file.close()
        print('good')
    """)


def test_arguments_that_other_threads_change(good):
    """Without it an item could be freed between a look into a list and its use."""
    good("""
        boxes = [plugin.sandbox() for _ in range(2)]
        values = [1000, 2000, 3000, 4000]
        def change(chance):
            values[:] = [chance.randrange(1000, 1 << 20) for _ in range(4)]
            values.append(5000)
            values.pop(0)
        def call(chance):
            box = boxes[chance.randrange(2)]
            try: total = box.sum_four(box.four(values))
            except (ValueError, RuntimeError, IndexError): return
            assert total >= 4000, total
        storm(change, change, call, call)
        print('good')
    """)


def test_a_plugin_for_all_a_sandbox_for_each(good):
    """Without it translation, its links, kept reservations or the first snapshot could be torn by threads."""
    good("""
        def own(chance):
            with vxplug.open(sys.argv[1]).sandbox(timeout=30.0) as box: work(box, chance)
        def of_one_plugin(chance):
            with plugin.sandbox(timeout=30.0) as box: work(box, chance)
        def work(box, chance):
            for _ in range(chance.randrange(1, 60)):
                n = chance.randrange(1000)
                assert box.add(n, n) == 2 * n and box.apply(lambda x: x, n) == n + 1 and box.alone(n) == 0
            assert box.item_value(box.item_new(5)) == 5 and box.mistakes_made() == 0
        storm(own, of_one_plugin, of_one_plugin)
        print('good')
    """)


def test_who_stops_the_world_does_not_wait_for_a_guest(good):
    """Without it one long call would hold up every collection of a free-threaded program, and every fork."""
    good("""
        box, ended = plugin.sandbox(timeout=60.0), threading.Event()
        def spin():
            try: box.spin()
            except vxplug.GuestFault as fault: ended.set() if fault.kind == 'interrupt' else None
        thread = threading.Thread(target=spin)
        thread.start()
        time.sleep(0.1)
        waits = []
        while len(waits) < 20:
            started = time.perf_counter()
            gc.collect()
            waits.append(time.perf_counter() - started)
        box.interrupt()
        thread.join()
        assert ended.is_set() and sorted(waits)[10] < 0.2 and max(waits) < 5, waits
        print('good')
    """)


def test_forks_beside_calls(good):
    """Without it a child could wait for a lock that nobody there holds, or use a box in the middle of a call."""
    good("""
        box, mine = plugin.sandbox(timeout=30.0), plugin.sandbox(timeout=30.0)
        def call(chance):
            n = chance.randrange(1000)
            assert box.add(n, n) == 2 * n and box.alone(2000) == 0
            box.item_new(n)
        def child():
            try: lost = box.add(1, 1) != 2
            except vxplug.Error as error: lost = 'lost' not in str(error)
            os._exit(10 if lost else 0 if mine.add(2, 3) == 5 and plugin.sandbox().add(3, 4) == 7 else 11)
        def fork(chance):
            pid = os.fork()
            if pid == 0: child()
            status = os.waitpid(pid, 0)[1]
            assert status == 0, status
            time.sleep(0.02)
        storm(call, call, fork)
        print('good')
    """)
