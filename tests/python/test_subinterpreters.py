"""Subinterpreters: each has its own module state, with a shared GIL and with one of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

if sys.version_info < (3, 12):
    pytest.skip("interpreters with state of their own came with Python 3.12", allow_module_level=True)

GUEST = """
#include <vxplug.h>
VX_EXPORT int32_t add(int32_t a, int32_t b) { return a + b; }
VX_EXPORT uint32_t crash(void) { return *(volatile uint32_t *)0; }
VX_EXPORT void spin(void) { for (;;) __asm__ volatile(""); }
VX_EXPORT void refuse(void) { __asm__ volatile(""); vx_raise(VX_ValueError, "no"); }
VX_EXPORT uint32_t work(uint32_t n) {
    uint32_t h = 1;
    for (uint32_t i = 0; i < n; i++) { h = h * 31 + i; __asm__ volatile("" : "+r"(h)); }
    return h;
}
"""
PRELUDE = """
import faulthandler, os, sys, threading, time
faulthandler.dump_traceback_later(100, exit=True)
path = sys.argv[1]
try:
    import _interpreters as interpreters
    def create(kind): return interpreters.create(kind)
except ImportError:
    import _xxsubinterpreters as interpreters
    def create(kind): return interpreters.create(isolated=kind == 'isolated')
def run(interpreter, code):
    failed = interpreters.run_string(interpreter, PREFIX + code)
    assert failed is None, failed
PREFIX = f'''
import sys
sys.path[:] = {sys.path!r}
import vxplug
plugin = vxplug.open({path!r})
def kind(call, *arguments):
    try: call(*arguments)
    except vxplug.GuestEnd as error: return error.details['kind'], error.traceback[0][0]
'''
WORK = '''
box = plugin.sandbox(timeout=0.2)
for n in range(20):
    assert box.add(n, 1) == n + 1
    assert kind(box.crash) == ('memory', 'crash')
    try: box.refuse()
    except ValueError as error: assert str(error) == 'no'
assert kind(box.spin) == ('timeout', 'spin')
'''
"""
# Python 3.12.1 dies of "free(): invalid pointer" at its end after isolated interpreters that import parts of
# its own library, without vxplug.
ISOLATED = pytest.param("isolated", marks=pytest.mark.skipif(sys.version_info < (3, 13), reason="needs Python 3.13"))
KINDS = pytest.mark.parametrize("kind", ["legacy", ISOLATED])


@pytest.fixture(scope="session")
def run_script(build_plugin):
    guest = build_plugin(GUEST)

    def run(script: str, kind: str) -> subprocess.CompletedProcess[str]:
        code = PRELUDE + f"kind = {kind!r}\n" + textwrap.dedent(script)
        return subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(guest)],
                              capture_output=True, text=True, timeout=120)

    return run


def good(done: subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, done.stdout, done.stderr) == (0, "good\n", ""), done


@KINDS
def test_each_interpreter_has_its_own(run_script, kind):
    """Exception classes or types of another interpreter would come out of calls, and die with it."""
    good(run_script("""
        import vxplug
        box = vxplug.open(path).sandbox()
        for _ in range(3):
            interpreter = create(kind)
            run(interpreter, WORK)
            interpreters.destroy(interpreter)
            assert box.add(1, 2) == 3
            try: box.crash()
            except vxplug.GuestFault as fault: assert fault.traceback[0][0] == 'crash'
        print('good')
    """, kind))


@KINDS
def test_interpreters_in_parallel(run_script, kind):
    """With a GIL each they truly run at once: what is shared is the core alone."""
    good(run_script("""
        failures = []
        def work():
            interpreter = create(kind)
            try: run(interpreter, WORK * 3)
            except BaseException as error: failures.append(error)
            interpreters.destroy(interpreter)
        threads = [threading.Thread(target=work) for _ in range(4)]
        [t.start() for t in threads]; [t.join() for t in threads]
        assert not failures, failures
        print('good')
    """, kind))


@KINDS
def test_an_interpreter_that_ends_with_sandboxes_in_it(run_script, kind):
    """They are freed with its module, while the core and its watchdog live on."""
    good(run_script("""
        before = None
        for round in range(12):
            interpreter = create(kind)
            run(interpreter, "boxes = [plugin.sandbox() for _ in range(5)]; cycle = [boxes]; cycle.append(cycle)\\n"
                             "assert boxes[0].work(3_000_000)")
            interpreters.destroy(interpreter)
            maps = open('/proc/self/maps').read().count('\\n'), len(os.listdir('/proc/self/fd'))
            before = maps if round == 3 else before
        assert maps[0] <= before[0] + 24 and maps[1] == before[1], (before, maps)
        print('good')
    """, kind))
