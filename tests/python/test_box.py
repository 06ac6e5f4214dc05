"""Running: output, re-entry, threads, signals, faults and what follows them, closing, leaks."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import sysconfig
import textwrap
import threading
import time
import weakref

import pytest

from vxplug import Error, GuestFault, GuestMemoryError, GuestTimeout, _vx


class Boom(Exception):
    """Raised by callbacks; nothing else does."""


def limits(**changes):
    """Arguments of a Box besides its plugin, for tests that need the bare type."""
    given = {
        "memory": 64 << 20, "stack": 1 << 20, "timeout": 20.0, "init_timeout": 5.0, "poison": False,
        "output": 0, "free": 0, "write": lambda fd, data: None, "trap": lambda info: Boom(info),
        "linux": None, "trace": None, "raw": False, "imports": (), "new_life": None,
    }
    return given | changes


def export(box, plugin, name):
    found = plugin.exports[name]
    return _vx.Function(box, name, found.address, found.params, found.result)


def run_python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    """What could take the process down runs in one of its own."""
    command = [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


# ---- output ----


def test_output_streams(calls_plugin):
    """Without it a plugin's output could be lost, mixed up or cut."""
    out, err = [], []
    with calls_plugin.sandbox(stdout=out.append, stderr=err.append) as box:
        box.say("one")
        box.say_error("two")
        box.say("x" * 100_000)
    assert b"".join(out) == b"one\n" + b"x" * 100_000 + b"\n"
    assert b"".join(err) == b"two"
    assert all(type(part) is bytes for part in out + err)


def test_exception_of_a_callback_is_unchanged(calls_plugin):
    """Without it a callback's exception could be wrapped, replaced or dropped."""
    boom = Boom("the one")

    def write(_):
        raise boom

    with calls_plugin.sandbox(stdout=write) as box:
        with pytest.raises(Boom) as caught:
            box.say("text")
        assert caught.value is boom
        names = [entry.name for entry in caught.traceback]
        assert "write" in names
        assert box.add(1, 2) == 3


def test_exception_of_a_callback_after_the_first_tick(calls_plugin):
    """Without it the hook's way back to a released GIL is not tried."""
    parts = []

    def write(data):
        parts.append(data)
        if fail:
            raise Boom

    with calls_plugin.sandbox(stdout=write) as box:
        fail = False
        box.spin_and_say(30_000_000)
        assert b"".join(parts) == b"done\n"
        fail = True
        with pytest.raises(Boom):
            box.spin_and_say(30_000_000)


# ---- re-entry ----


def test_nested_call(calls_plugin):
    """Without it a call from an output callback could spoil the memory of the running one."""
    nested = []

    def write(data):
        if data.strip() == b"now":
            nested.append((box.add(1, 2), box.sum(b"\1" * 1000), box.taken(3), box.echo_f64(0.5)))

    with calls_plugin.sandbox(stdout=write) as box:
        assert box.sum_around_output(b"\2" * 1000) == 2000
    assert nested == [(3, 1000, b"xxx", 0.5)]


def test_endless_nesting_ends(calls_plugin):
    """Without it a callback that always calls again could exhaust the host's stack."""
    depth = []

    def write(_):
        depth.append(1)
        box.say("again")

    with calls_plugin.sandbox(stdout=write) as box:
        with pytest.raises((Error, RuntimeError)):
            box.say("first")
        assert 1 < len(depth) < 1000
        depth.clear()
        assert box.add(1, 2) == 3


def test_close_and_reset_inside_a_call(calls_plugin):
    """Without it a callback could free the memory its own call runs in."""
    errors = []

    def write(_):
        for action in (box.close, box.reset):
            with pytest.raises(RuntimeError, match="running a call") as caught:
                action()
            errors.append(str(caught.value))

    with calls_plugin.sandbox(stdout=write) as box:
        box.say("x")
        assert box.sum(b"\1") == 1
    assert "close" in errors[0] and "reset" in errors[1]


def test_hidden_fault_of_a_nested_call(calls_plugin):
    """Without it the outer call would go on in memory that a crash left in disorder."""
    hidden = []

    def write(_):
        try:
            box.crash()
        except GuestFault as fault:
            hidden.append(fault)

    with calls_plugin.sandbox(stdout=write) as box:
        assert box.count() == 1
        with pytest.raises(Error, match="callback faulted"):
            box.say("x")
        assert len(hidden) == 1
        assert box.count() == 1, "the sandbox was reset once the outer call was over"


# ---- threads ----


def test_second_thread_waits(calls_plugin):
    """Without it two threads could run in one memory, or the second be refused."""
    inside, go_on = threading.Event(), threading.Event()

    def write(_):
        inside.set()
        assert go_on.wait(20)

    with calls_plugin.sandbox(stdout=write) as box:
        results = []
        first = threading.Thread(target=lambda: (box.say("x"), results.append("first")))
        first.start()
        assert inside.wait(20)
        others = [threading.Thread(target=lambda: results.append(box.add(1, 2))) for _ in range(4)]
        for thread in others:
            thread.start()
        time.sleep(0.3)
        assert results == []
        go_on.set()
        for thread in [first, *others]:
            thread.join(20)
        assert sorted(results, key=str) == [3, 3, 3, 3, "first"]


def test_many_threads_on_one_box(box):
    """Without it the hand-over between waiting threads could lose a wakeup or a result."""
    results = []

    def work(number):
        results.append([box.add(number, i) - i for i in range(300)])
        results.append([box.sum(bytes([number])) for _ in range(100)])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 16
    assert all(len(set(result)) == 1 for result in results)


def test_long_calls_release_the_gil(box):
    """Without it one endless plugin stops every thread of the program."""
    caught = []

    def spin():
        with pytest.raises(GuestFault) as info:
            box.spin()
        caught.append(info.value.kind)

    thread = threading.Thread(target=spin)
    thread.start()
    for _ in range(20):
        time.sleep(0.01)
    box.interrupt()
    thread.join(20)
    assert caught == ["interrupt"]


def test_close_waits_for_a_call(calls_plugin):
    """Without it close() could pull the memory from under another thread's call."""
    inside, go_on = threading.Event(), threading.Event()

    def write(_):
        inside.set()
        assert go_on.wait(20)

    box = calls_plugin.sandbox(stdout=write)
    results = []
    caller = threading.Thread(target=lambda: results.append(box.say("x")))
    caller.start()
    assert inside.wait(20)
    closer = threading.Thread(target=lambda: (box.close(), results.append("closed")))
    closer.start()
    time.sleep(0.2)
    assert results == []
    go_on.set()
    caller.join(20)
    closer.join(20)
    assert set(results) == {None, "closed"}


def test_first_sandboxes_of_a_plugin_in_threads(build_plugin):
    """Without it two threads that initialise one plugin could wait for each other for ever."""
    import vxplug

    source = """
    #include <stdio.h>
    #include <vxplug.h>
    __attribute__((constructor)) static void start(void) {
        for (volatile unsigned i = 0; i < 30000000; i++)
            ;
        puts("started");
    }
    VX_EXPORT int32_t one(void) { return 1; }
    """
    plugin = vxplug.open(build_plugin(source))
    output, results = [], []

    def use():
        with plugin.sandbox(stdout=output.append) as box:
            results.append(box.one())

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [1] * 4
    assert b"started\n" in b"".join(output)


# ---- signals ----


@pytest.fixture
def alarm():
    """Calls the given handler after a while; the main thread runs it."""
    old = signal.getsignal(signal.SIGALRM)

    def start(seconds, handler):
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    yield start
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, old)


def test_signal_ends_a_running_call(box, alarm):
    """Without it Ctrl-C does nothing while a plugin runs."""

    def handler(*_):
        raise KeyboardInterrupt("from the handler")

    alarm(0.2, handler)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt, match="from the handler"):
        box.spin()
    assert time.monotonic() - started < 10
    assert box.add(1, 2) == 3


def test_signal_handler_that_returns(box, alarm):
    """Without it a harmless signal could end or change a computation."""
    expected = box.work(40_000_000)
    seen = []
    alarm(0.05, lambda *_: seen.append(other.add(2, 2)))
    with box.plugin.sandbox() as other:
        while not seen:
            assert box.work(40_000_000) == expected
    assert seen == [4]


def test_signal_handler_cannot_use_the_interrupted_box(box, alarm):
    """Without it a handler could run guest code in the middle of an instruction sequence."""
    errors = []

    def handler(*_):
        for action in (lambda: box.add(1, 2), box.reset, box.close):
            with pytest.raises(RuntimeError) as caught:
                action()
            errors.append(str(caught.value))
        box.interrupt()

    alarm(0.2, handler)
    with pytest.raises(GuestFault) as caught:
        box.spin()
    assert caught.value.kind == "interrupt"
    assert len(errors) == 3 and errors[0].startswith("add()")


def test_signal_ends_waiting(box, alarm):
    """Without it Ctrl-C does nothing in a thread that waits for a sandbox."""
    thread = threading.Thread(target=lambda: pytest.raises(GuestFault, box.spin))
    thread.start()
    time.sleep(0.1)

    def handler(*_):
        raise Boom

    alarm(0.2, handler)
    with pytest.raises(Boom):
        box.add(1, 2)
    box.interrupt()
    thread.join(20)
    assert box.add(1, 2) == 3


# ---- faults and after ----


def test_reset_after_a_fault(box):
    """Without it calls after a crash would run in what it left behind."""
    assert [box.count(), box.count()] == [1, 2]
    with pytest.raises(GuestFault) as caught:
        box.crash()
    assert (caught.value.kind, caught.value.address) == ("memory", 16)
    assert caught.value.registers["eip"] == caught.value.eip
    assert box.count() == 1


def test_explicit_reset(box):
    """Without it reset() might keep what calls wrote, or close the sandbox."""
    assert [box.count(), box.count()] == [1, 2]
    box.reset()
    assert box.count() == 1


def test_poison(calls_plugin):
    """Without it a sandbox whose owner wants no second chance gets one."""
    with calls_plugin.sandbox(on_fault="poison") as box:
        with pytest.raises(GuestFault):
            box.crash()
        for _ in range(2):
            with pytest.raises(Error, match=r"poisoned by an earlier fault: crash\(\): access to") as caught:
                box.add(1, 2)
            assert type(caught.value) is Error
        box.reset()
        assert box.add(1, 2) == 3


def test_timeout(calls_plugin):
    """Without it an endless loop never ends; or ends and leaves a sandbox that does not work."""
    with calls_plugin.sandbox(timeout=0.2) as box:
        started = time.monotonic()
        with pytest.raises(GuestTimeout):
            box.spin()
        assert 0.1 < time.monotonic() - started < 10
        assert box.add(1, 2) == 3


def test_trap_information(calls_plugin):
    """Without it the dict that faults are reported from can lose a part unnoticed."""
    seen = []

    def trap(info):
        seen.append(info)
        return Boom("made by trap")

    box = _vx.Box(calls_plugin._core, **limits(trap=trap))
    with pytest.raises(Boom, match="made by trap"):
        export(box, calls_plugin, "crash")()
    (info,) = seen
    assert set(info) == {
        "kind", "text", "function", "address", "eip", "registers", "bytes", "code", "signal", "stack",
        "stack_at", "stderr",
    }
    assert (info["kind"], info["function"], info["address"]) == ("memory", "crash", 16)
    names = {"eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "eip", "eflags"}
    assert set(info["registers"]) == names
    assert info["registers"]["eip"] == info["eip"] != 0
    assert type(info["bytes"]) is bytes and info["bytes"]


@pytest.mark.parametrize(("trap", "kind"), [(lambda info: 1 // 0, ZeroDivisionError), (len, TypeError)])
def test_trap_that_fails(calls_plugin, trap, kind):
    """Without it a failing or wrong `trap` could leave a call without an exception: a SystemError."""
    box = _vx.Box(calls_plugin._core, **limits(trap=trap))
    with pytest.raises(kind):
        export(box, calls_plugin, "crash")()
    assert export(box, calls_plugin, "add")(1, 2) == 3


# ---- creation and closing ----


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout", -1.0), ("timeout", float("nan")), ("timeout", float("inf")), ("timeout", 1e30),
        ("init_timeout", -0.5), ("memory", -1), ("memory", 2**64), ("stack", 2**32), ("free", 2**32),
    ],
)
def test_invalid_limits(calls_plugin, name, value):
    """Without it a limit could wrap around into another one, or into none."""
    with pytest.raises(ValueError):
        _vx.Box(calls_plugin._core, **limits(**{name: value}))


def test_limits_that_do_not_hold_the_plugin(calls_plugin):
    """Without it a sandbox that is too small could be made and fail in strange ways."""
    with pytest.raises(GuestMemoryError):
        _vx.Box(calls_plugin._core, **limits(memory=4096, stack=4096))


def test_invalid_plugins():
    """Without it numbers a core cannot take could be cut to 32 bits and accepted."""
    page = bytes(4096)
    good = (0x10000, 4096, 5, 0, page)
    for segments, entry in (
        ([], 0x10000),
        ([(2**32, 4096, 5, 0, page)], 0),
        ([(0x10000, 2**33, 5, 0, page)], 0x10000),
        ([(-1, 4096, 5, 0, page)], 0),
        ([(0x10000, 10, 5, 0, page)], 0x10000),
        ([(0x10000, 4096, 7, 0, page)], 0x10000),
        ([(0x10000, 4096, 5, 1, page)], 0x10000),
        ([(0x10000, 4096, 5, 4097, b"")], 0x10000),
        ([good, good], 0x10000),
        ([good], 2**32),
    ):
        with pytest.raises(ValueError):
            _vx.Plugin(segments, entry)
    for segments in (5, [5], [(1, 2)], [(0x10000, 4096, 5, 0, "text")]):
        with pytest.raises(TypeError):
            _vx.Plugin(segments, 0x10000)
    assert set(_vx.Plugin([good], 0x10000).stats()) == {
        "blocks", "guest_bytes", "code_bytes", "flushes"
    }


def test_close(calls_plugin):
    """Without it a call, reset or second close after close() could touch freed memory."""
    box = calls_plugin.sandbox()
    function = box.add
    assert box.memory_used > 0
    box.close()
    box.close()
    box.interrupt()
    assert box.closed and box.memory_used == 0
    for action in (lambda: function(1, 2), box.reset):
        with pytest.raises(Error, match="sandbox is closed"):
            action()


def test_functions_keep_their_box(calls_plugin):
    """Without it a function kept longer than its sandbox would call freed memory."""
    function = calls_plugin.sandbox().add
    gc.collect()
    assert function(1, 2) == 3


def test_cycles_are_collected(calls_plugin):
    """Without it a sandbox whose callback refers to it is never freed: 4 GiB of addresses each."""

    class Holder:
        pass

    holder = Holder()
    holder.box = calls_plugin.sandbox(stdout=lambda data, holder=holder: None)
    dead = [weakref.ref(holder.box), weakref.ref(holder.box._box), weakref.ref(holder.box.add)]
    del holder
    gc.collect()
    assert [reference() for reference in dead] == [None] * 3


def test_no_reference_leaks(calls_plugin):
    """Without it a path that forgets one reference leaks a little with every call."""
    data, buffer, text = bytes(1000), bytearray(1000), "text" * 10
    sink = []

    def write(part):
        if b"fail" in part:
            raise Boom
        sink.append(part)

    def failing(function, *args, **kwargs):
        try:
            function(*args, **kwargs)
        except Exception:
            return
        raise AssertionError("did not fail")

    def round_trip():
        assert (box.add(1, 2), box.add(b=1, a=2), box.echo_u64(2**64 - 1)) == (3, 3, 2**64 - 1)
        assert (box.sum(data), box.echo_str(text), box.taken(500)) == (0, text, b"x" * 500)
        box.increment(buffer)
        box.say("text")
        failing(box.add, "x", 1)
        failing(box.add, 2**40, 1)
        failing(box.add, 1, c=2)
        failing(box.sum, 5)
        failing(box.increment, data)
        failing(box.increment, memoryview(buffer)[::2])
        failing(box.fill_two, buffer, data)
        failing(box.echo_str, "\udc80")
        failing(box.not_utf8)
        failing(box.forged_bytes, 0, 5, 0)
        failing(box.forged_string, 5)
        failing(box.raise_named, "ValueError", "x")
        failing(box.raise_named, "Nonsense", "x")
        failing(box.raise_and_take, 10)
        failing(box.say, "fail")
        failing(box.crash)
        sink.clear()

    def measure():
        gc.collect()
        return [sys.getrefcount(o) for o in (box._box, box.add, data, buffer, text, Boom)], sys.getallocatedblocks()

    with calls_plugin.sandbox(stdout=write) as box:
        for _ in range(30):
            round_trip()
        growth = []
        for _ in range(6):
            counts, blocks = measure()
            for _ in range(200):
                round_trip()
            after, blocks_after = measure()
            assert after == counts
            growth.append(blocks_after - blocks)
    # Python's own caches grow now and then; a leak grows every time.  A free-threaded 3.13 frees no code that was made
    # after its first thread: each of a round's faults has frames of the guest, which take nine blocks in all.
    most = 100 if not sysconfig.get_config_var("Py_GIL_DISABLED") else 200 * 9 + 100
    assert min(growth) < most, f"blocks in 200 rounds: {growth}"


def test_sandboxes_leave_nothing(calls_plugin):
    """Without it programs that make a sandbox for each request run out of memory."""

    def mappings():
        with open("/proc/self/maps") as maps:
            return len(maps.readlines())

    boxes = [calls_plugin.sandbox() for _ in range(20)]  # of which some are kept for new ones
    for box in boxes:
        box.add(1, 1)
    for box in boxes:
        box.close()
    del boxes
    gc.collect()
    before = mappings()
    for number in range(200):
        box = calls_plugin.sandbox()
        assert box.add(number, 1) == number + 1
        if number % 2:
            box.close()
        del box
    gc.collect()
    assert mappings() <= before + 5


# ---- processes ----


def test_fork_during_a_call_of_another_thread(calls_path):
    """Without it a child would wait for ever for a thread that it does not have."""
    done = run_python(
        """
        import os, sys, threading, vxplug
        plugin = vxplug.open(sys.argv[1])
        inside, go_on = threading.Event(), threading.Event()
        def write(_):
            inside.set()
            go_on.wait(20)
        box, other = plugin.sandbox(stdout=write), plugin.sandbox()
        thread = threading.Thread(target=box.say, args=("x",))
        thread.start()
        inside.wait(20)
        child = os.fork()
        if child == 0:
            try:
                box.add(1, 2)
            except vxplug.Error as error:
                lost = str(error)
            box.close()
            ok = "forked" in lost and other.add(1, 2) == 3 and plugin.sandbox().add(2, 2) == 4
            os._exit(0 if ok else 1)
        status = os.waitpid(child, 0)[1]
        go_on.set()
        thread.join()
        print(status, box.add(1, 2), other.add(1, 3))
        """,
        str(calls_path),
    )
    assert (done.stdout, done.returncode) == ("0 3 4\n", 0), done.stderr


def test_fork_inside_a_callback(calls_path):
    """Without it a child born in a callback could not finish the call it is in."""
    done = run_python(
        """
        import os, sys, vxplug
        children = []
        def write(_):
            if not children:
                children.append(os.fork())
        box = vxplug.open(sys.argv[1]).sandbox(stdout=write)
        total = box.sum_around_output(b"abc")
        again = box.add(1, 2)
        if children == [0]:
            os._exit(0 if (total, again) == (294, 3) else 1)
        print(total, again, os.waitpid(children[0], 0)[1])
        """,
        str(calls_path),
    )
    assert (done.stdout, done.returncode) == ("294 3 0\n", 0), done.stderr


def test_exit_while_a_daemon_thread_runs(calls_path):
    """Without it a program that exits during a call could crash or hang in its last moments."""
    done = run_python(
        """
        import sys, threading, time, vxplug
        plugin = vxplug.open(sys.argv[1])
        boxes = [plugin.sandbox(timeout=0.5 + n / 10) for n in range(3)]
        for box in boxes:
            threading.Thread(target=box.spin, daemon=True).start()
        time.sleep(0.2)
        print("end")
        """,
        str(calls_path),
    )
    assert (done.stdout, done.stderr, done.returncode) == ("end\n", "", 0)


def test_calls_during_finalisation(calls_path):
    """Without it a plugin used by a destructor at exit could wait for a GIL nobody gives back."""
    done = run_python(
        """
        import os, sys, vxplug
        box = vxplug.open(sys.argv[1]).sandbox()
        class Late:
            def __init__(self): self.box, self.write, self.ending = box, os.write, sys.is_finalizing
            def __del__(self):
                results = self.box.add(1, 2), self.box.work(30_000_000) != 0, self.ending()
                self.write(1, repr(results).encode())
        late = Late()
        """,
        str(calls_path),
    )
    assert (done.stdout, done.stderr, done.returncode) == ("(3, True, True)", "", 0)


def test_interrupt_by_the_terminal(calls_path):
    """Without it Ctrl-C in a real program is only known to work with a test's own timer."""
    code = """
        import signal, sys, vxplug
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits SIG_IGN
        box = vxplug.open(sys.argv[1]).sandbox(timeout=60.0)
        print("ready", flush=True)
        try:
            box.spin()
        except KeyboardInterrupt:
            print("stopped", box.add(1, 2))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(calls_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGINT)
        assert process.communicate(timeout=30)[0] == "stopped 3\n"
    assert process.returncode == 0


def test_a_sandbox_that_was_never_made(box):
    """What looks at any object (copy, a debugger, repr) must not recurse for ever in one without its parts."""
    half = object.__new__(type(box))
    assert repr(half) == "<unfinished vxplug.Sandbox>" and not hasattr(half, "add")
