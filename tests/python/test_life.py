"""Long life: interruptions at random moments, collection in any order, the end of the interpreter.

Everything that may kill or hang a process runs in one of its own.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from .life import GUEST, good

INTERRUPTIONS = """
    rng = random.Random(20)
    sent = received = 0
    armed = False

    def on_sigint(number, frame):
        global received
        received += 1
        if armed:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, on_sigint)
    orders, done = queue.Queue(), queue.Queue()

    def disturb():
        while True:
            how, delay = orders.get()
            time.sleep(delay)
            if how == 'ctrl-c':
                os.kill(os.getpid(), signal.SIGINT)
            elif how == 'interrupt':
                box.interrupt()
            done.put(None)
    threading.Thread(target=disturb, daemon=True).start()

    class Boom(Exception):
        pass
    fail_after = 0
    def write(data):
        global fail_after
        fail_after -= 1
        if fail_after == 0:
            raise Boom
        if fail_after % 3 == 0:
            box.add(1, 2)           # a call from inside the call
        if fail_after % 50 == 0:
            ends(box.crash)         # and one that faults: the outer call must end too

    def make():
        return plugin.sandbox(memory=32 << 20, timeout=0.03, stdout=write)

    def resets():
        for _ in range(50):
            box.reset()
            box.count()

    def calls():
        for n in range(3000):
            box.add(n, 1)

    def renew():
        global box
        for _ in range(5):
            box.close()
            box = make()

    def faults():
        for _ in range(20):
            ends(box.crash)

    moments = {
        'call': lambda: box.spin(), 'long': lambda: box.work(10_000_000), 'callback': lambda: box.say(2000),
        'reset': resets, 'short': calls, 'renew': renew, 'fault': faults, 'memory': lambda: box.fill(8 << 20),
    }
    seen = collections.Counter()

    def once():
        global armed, fail_after, sent
        how = rng.choice(['ctrl-c', 'interrupt', 'timeout', 'fault'])
        moment = rng.choice(sorted(moments))
        fail_after = rng.choice([0, rng.randrange(1, 40)])
        sent += how == 'ctrl-c'
        orders.put((how, rng.random() * 0.02))
        try:
            try:
                armed = True
                moments[moment]()
                if how == 'fault':
                    box.crash()
            finally:
                armed = False
        except (KeyboardInterrupt, Boom, vxplug.Error) as error:
            seen[type(error).__name__] += 1
            seen[moment] += 1
        armed = False
        done.get(timeout=30)
        while received < sent:
            time.sleep(0.0005)
        if box.closed:              # interrupted between close() and the next one
            globals()['box'] = make()
        fail_after = 0
        assert box.add(sent, 2) == sent + 2 and box.count() >= 1

    box = make()
    for _ in range(150):
        once()
    before = usage(), sys.getrefcount(plugin), sys.getrefcount(type(box._box))
    for _ in range(1000):
        once()
    after = usage(), sys.getrefcount(plugin), sys.getrefcount(type(box._box))
    (maps, fds, tasks, objects), (maps2, fds2, tasks2, objects2) = before[0], after[0]
    # Tables of lines and frame rules fill meanwhile, some eighty objects; a leak in one round of five would show.
    assert maps2 <= maps + 10 and (fds2, tasks2) == (fds, tasks) and objects2 <= objects + 200, (before, after)
    assert before[1:] == after[1:], (before, after)
    assert min(seen[name] for name in ('KeyboardInterrupt', 'GuestTimeout', 'GuestFault', 'Boom')) > 10, seen
    assert min(seen[name] for name in moments if name != 'memory') > 5, seen
    print('good')
"""


def test_a_thousand_interruptions(run_life):
    """Ctrl-C, interrupt(), time limits and faults in calls, callbacks, resets and creation, seeded: each could
    leak a reference, a mapping or a descriptor, leave a lock taken, or break the sandbox."""
    good(run_life(INTERRUPTIONS))


def test_interrupts_from_many_threads(run_life):
    """interrupt() is the one thing any thread may do at any time, closing included."""
    good(run_life("""
        box, stop = plugin.sandbox(timeout=60.0), False
        def poke():
            while not stop:
                box.interrupt()
        threads = [threading.Thread(target=poke) for _ in range(6)]
        [t.start() for t in threads]
        kinds = collections.Counter(ends(box.spin) for _ in range(60))
        for _ in range(50):
            old, box = box, plugin.sandbox(timeout=60.0)
            old.close()
        stop = True
        [t.join() for t in threads]
        assert kinds == {'interrupt': 60}, kinds
        assert box.add(1, 2) == 3
        print('good')
    """))


def test_an_interrupt_is_not_kept(run_life):
    """One that came while nothing ran would end the next call, which nobody meant."""
    good(run_life("""
        box = plugin.sandbox()
        box.interrupt()
        assert box.work(20_000_000) == plugin.sandbox().work(20_000_000)
        print('good')
    """))


def test_control_c_while_waiting_for_another_threads_call(run_life):
    """A thread that waits for a sandbox must be as easy to stop as one that runs in it."""
    good(run_life("""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        box = plugin.sandbox(timeout=None)
        thread = threading.Thread(target=lambda: ends(box.spin)); thread.start()
        time.sleep(0.05)
        threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        try: box.add(1, 2); print('came back')
        except KeyboardInterrupt: pass
        box.interrupt(); thread.join()
        assert box.add(1, 2) == 3
        print('good')
    """))


COLLECTED = """
        class Sink:
            def __init__(self, box=None): self.box = box
            def write(self, data): pass
        rng, gone = random.Random(7), []
        before = None
        for round in range(150):
            if round == 50: before = usage()
            sinks = [Sink() for _ in range(3)]
            boxes = [plugin.sandbox(stdout=sink) for sink in sinks]
            for sink, box in zip(sinks, rng.sample(boxes, 3)):
                sink.box = box          # cycles, through other sandboxes too
            parts = boxes + sinks + [box.add for box in boxes] + [box._box for box in boxes] + [vxplug.open(sys.argv[1])]
            gone += [weakref.ref(part) for part in boxes]
            rng.shuffle(parts)
            del boxes, sinks, sink, box
            while parts:
                part = parts.pop()
                if rng.random() < 0.1: gc.collect()
                del part
        after = usage()
        assert all(ref() is None for ref in gone)
        assert after[0] <= before[0] + 10 and after[1] <= before[1] + 1 and after[2] == before[2], (before, after)
        print('good')
"""


def test_sandboxes_collected_in_any_order(run_life):
    """Boxes, functions, plugins and callbacks refer to each other: some order could free memory in use."""
    good(run_life(COLLECTED))


def test_a_sandbox_goes_with_its_last_reference(run_life):
    """Without it a loop that makes sandboxes would keep their memory until Python looks for cycles, which counts objects,
    not bytes."""
    good(run_life("""
        gc.disable()
        boxes = [plugin.sandbox(stdout=lambda data: None, trace=lambda line: None) for _ in range(8)]
        for box in boxes:
            box.say(1)
            assert ends(box.crash) == 'memory' and box.add(1, 2) == 3
        cores = [weakref.ref(box._box) for box in boxes]
        del box, boxes
        assert [core() for core in cores] == [None] * 8
        print('good')
    """))


def test_functions_that_are_left_of_a_sandbox(run_life):
    """They have its memory, its limits and its output; whoever asks for their sandbox gets one of that memory."""
    good(run_life("""
        import pickle
        from vxplug.pickling import sandbox_of
        gc.disable()
        lines = []
        box = plugin.sandbox(stdout=lines.append, timeout=0.2)
        say, count, spin, gone = box.say, box.count, box.spin, weakref.ref(box)
        assert count() == 1
        del box
        assert gone() is None
        say(2)
        assert b''.join(lines).split() == [b'a', b'line'] * 2
        assert ends(spin) == 'timeout' and count() == 1     # the timeout was a reset
        sandbox = sandbox_of(say)
        assert sandbox is sandbox_of(count) and sandbox.count() == 2 and sandbox.plugin is plugin
        del sandbox
        copy = pickle.loads(pickle.dumps(plugin.sandbox().count))
        assert copy() == 1 and count() == 3
        print('good')
    """))


def test_a_callback_that_drops_the_last_reference(run_life):
    """The sandbox would be freed under the running call."""
    good(run_life("""
        def write(data):
            global box
            box = None
            gc.collect()
        box = plugin.sandbox(stdout=write)
        say = box.say
        say(3)
        del say
        gc.collect()
        print('good')
    """))


@pytest.mark.parametrize("how", ["in a call", "in a callback", "waiting", "in initialisation"])
def test_interpreter_exit(run_life, how):
    """Daemon threads in every state while the interpreter goes down: none may crash or keep it."""
    start = {
        "in a call": "threading.Thread(target=plugin.sandbox(timeout=None).spin, daemon=True).start()",
        "in a callback": """box = plugin.sandbox(timeout=None, stdout=lambda data: time.sleep(100))
threading.Thread(target=box.say, args=(1,), daemon=True).start()""",
        "waiting": """box = plugin.sandbox(timeout=None)
for _ in range(3): threading.Thread(target=box.spin, daemon=True).start()""",
        "in initialisation": """for _ in range(8):
    threading.Thread(target=lambda: [plugin.sandbox(stdout=len).say(10) for _ in range(10**6)], daemon=True).start()""",
    }[how]  # no thread writes to Python's stdout: CPython itself dies of that at exit
    done = run_life(start + "\ntime.sleep(0.15); sys.stderr.write('good')")
    assert (done.returncode, done.stderr) == (0, "good"), done


def test_atexit_and_module_globals(run_life):
    """Sandboxes in globals die after most of the interpreter; atexit handlers call them before."""
    good(run_life("""
        import atexit
        box = plugin.sandbox()
        cycle = [box]; cycle.append(cycle)
        atexit.register(lambda: print('good' if box.add(1, 2) == 3 and ends(box.crash) == 'memory' else 'bad'))
    """))


def test_a_finaliser_that_calls(run_life):
    """__del__ runs at any allocation, in the middle of another sandbox's call too."""
    good(run_life("""
        class Last:
            def __init__(self): self.box = plugin.sandbox()
            def __del__(self): results.append(self.box.add(1, 2)); self.box.close()
        results = []
        def write(data):
            Last()
        with plugin.sandbox(stdout=write) as box:
            box.say(20)
        assert len(results) >= 20 and set(results) == {3}, results
        print('good')
    """))


def test_errors_of_many_kinds_leave_nothing(run_life):
    """Every road out of a call that makes an exception, two thousand times."""
    good(run_life("""
        box = plugin.sandbox(memory=16 << 20, timeout=5.0, stdout=lambda data: 1 // 0)
        def fails(call, *arguments):
            try: call(*arguments)
            except Exception as error: return type(error).__name__
        roads = [(box.crash,), (box.refuse,), (box.say, 1), (box.add, 1), (box.add, 1, 2**40), (box.fill, 1 << 30)]
        for _ in range(20): kinds = [fails(*road) for road in roads]
        assert kinds == ['GuestFault', 'ValueError', 'ZeroDivisionError', 'TypeError', 'OverflowError', 'MemoryError'], kinds
        before = usage()
        for _ in range(2000): [fails(*road) for road in roads]
        after = usage()
        # A mapping left in one round of a hundred would be 20; AddressSanitizer's allocator takes some of its own.
        assert after[0] < before[0] + 20 and after[1:3] == before[1:3] and after[3] <= before[3] + 10, (before, after)
        print('good')
    """))


def test_the_applications_own_use_of_the_signal(run_life):
    """SIGURG means urgent data on a socket: a program that handles it keeps its handler."""
    good(run_life("""
        got = []
        signal.signal(signal.SIGURG, lambda *a: got.append(a))
        box = plugin.sandbox(timeout=0.1)
        assert ends(box.spin) == 'timeout' and not got
        os.kill(os.getpid(), signal.SIGURG)
        time.sleep(0.01)
        assert len(got) == 1, got
        print('good')
    """))


def test_import_outside_the_main_thread(build_plugin):
    """There no signal handler can be installed; importing must work all the same."""
    script = "import threading; t = threading.Thread(target=__import__, args=('vxplug',)); t.start(); t.join(); " \
             "import vxplug, sys; print(vxplug.open(sys.argv[1]).sandbox(timeout=1.0).add(1, 2))"
    done = subprocess.run([sys.executable, "-c", script, str(build_plugin(GUEST))], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("3\n", "")
