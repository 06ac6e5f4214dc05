"""What a hostile guest can make the host use: each limit with a measured bound, and named in the text.

Each measurement has a process of its own; bounds are the limit plus what the README and docs/embedding.md
state as overhead.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import vxplug
from vxplug.profile import Profile

GUEST = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <vxplug.h>
VX_EXPORT int32_t add(int32_t a, int32_t b) { return a + b; }
VX_EXPORT uint32_t eat_memory(void) {
    uint32_t total = 0;
    for (char *block; (block = malloc(1 << 20)) != NULL; total++) {
        memset(block, 1, 1 << 20);
        __asm__ volatile("" : : "r"(block) : "memory");
    }
    return total;
}
VX_EXPORT uint32_t eat_stack(uint32_t n) { volatile char room[4000]; room[0] = n; return eat_stack(n + 1) + room[0]; }
VX_EXPORT void spin(void) { for (;;) __asm__ volatile(""); }
VX_EXPORT void flood(void) { for (;;) fputs("0123456789abcdef0123456789abcdef\\n", stderr); }
VX_EXPORT void flood_at_once(uint32_t size) { char *b = calloc(size, 1); write(1, b, size); write(2, b, size); }
VX_EXPORT void flood_errors(void) { for (uint32_t n = 0; n < 200000; n++) vx_raise(VX_ValueError, "%01000u", (unsigned)n); }
VX_EXPORT void say(const char *text) { fputs(text, stdout); fflush(stdout); }
VX_EXPORT void write_bytes(vx_view data) { write(1, data.ptr, data.len); }
VX_EXPORT int32_t call_linux(uint32_t number) { return syscall(number, 0, 0, 0, 0, 0, 0); }
VX_EXPORT vx_bytes big(uint32_t size) { static char data[1 << 20]; return vx_borrow(data, size); }
VX_EXPORT void protect_for_ever(uint32_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (;;) mprotect(memory, size, PROT_READ | PROT_WRITE);
}
VX_EXPORT void copy_for_ever(vx_mut data) {
    for (;;) __asm__ volatile("rep movsb" : : "S"(data.ptr), "D"(data.ptr), "c"(data.len) : "memory");
}
"""
PRELUDE = """
import os, sys, sysconfig, threading, time
import vxplug
plugin = vxplug.open(sys.argv[1])
def status(name):
    return next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith(name + ':')) << 10
def fails(call, *arguments):
    try: call(*arguments)
    except Exception as error: return error
"""


@pytest.fixture(scope="session")
def limits_path(build_plugin):
    return build_plugin(GUEST)


@pytest.fixture(scope="session")
def limits_plugin(limits_path):
    return vxplug.open(limits_path)


@pytest.fixture
def measure(limits_path):
    def run(script: str) -> None:
        command = [sys.executable, "-c", PRELUDE + textwrap.dedent(script), str(limits_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=150)
        assert (done.returncode, done.stdout, done.stderr) == (0, "good\n", ""), done

    return run


def ended(function, *arguments) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - its kind is what the tests look at
        function(*arguments)
    return caught.value


# ---- memory ----


@pytest.mark.parametrize("limit", [16, 64, 192])
def test_memory(measure, limit):
    """Threat 48: resident memory grows by the limit, and 8 MiB for a sandbox and its code cache at most."""
    measure(f"""
        plugin.sandbox().add(1, 2)
        box, before = plugin.sandbox(memory={limit} << 20, stack=1 << 20, timeout=60.0), status('VmRSS')
        eaten = box.eat_memory()
        grown = status('VmHWM') - before
        assert {limit} - 6 <= eaten < {limit}, eaten
        assert eaten << 20 < grown < ({limit} + 8) << 20, grown
        assert box.memory_used <= {limit} << 20
        box.close()
        assert status('VmRSS') - before < 8 << 20
        print('good')
    """)


def test_memory_after_many_faults(measure):
    """A fault's copies and reports must go with it, at once: a cycle would keep 256 KiB of stack each until the
    garbage collector comes."""
    measure("""
        import gc
        box = plugin.sandbox(stack=1 << 20)
        for _ in range(20): fails(box.eat_stack, 0)
        gc.collect()
        gc.disable()
        before = status('VmRSS')
        for _ in range(300): fails(box.eat_stack, 0)
        # A free-threaded Python leaves the code of guest frames to the collector, and gives memory back late.
        free_threaded = bool(sysconfig.get_config_var('Py_GIL_DISABLED'))
        assert status('VmRSS') - before < (16 << 20 if free_threaded else 2 << 20), status('VmRSS') - before
        assert free_threaded or gc.collect() < 300
        print('good')
    """)


def test_memory_of_errors(measure):
    """Threat 48: two hundred thousand errors of one call cost as much as one."""
    measure("""
        box = plugin.sandbox(timeout=120.0)
        fails(box.flood_errors)
        before = status('VmHWM')
        error = fails(box.flood_errors)
        assert type(error) is ValueError and len(str(error)) <= 4096
        assert status('VmHWM') - before < 1 << 20
        print('good')
    """)


def test_memory_limit_in_the_text(limits_plugin):
    """Without the number nobody knows which limit to raise."""
    with limits_plugin.sandbox(memory=4 << 20, stack=1 << 20) as box:
        error = ended(box.copy_for_ever, bytearray(5 << 20))
    assert isinstance(error, vxplug.GuestMemoryError) and str(4 << 20) in str(error)


@pytest.mark.parametrize("stack", [64 << 10, 1 << 20])
def test_stack(limits_plugin, stack):
    """The guest's recursion ends where its stack does, and says how large that was."""
    with limits_plugin.sandbox(stack=stack) as box:
        error = ended(box.eat_stack, 0)
        assert error.kind == "stack-overflow" and f"limit of {stack} bytes" in str(error)
        assert error.registers["esp"] >= 0xFFFE0000 - stack - 8192


# ---- time ----


def test_little_memory_has_a_stack(limits_plugin):
    """Without it memory=4 MiB would be an error about a stack that nobody asked for."""
    with limits_plugin.sandbox(memory=4 << 20) as box:
        assert box.add(1, 2) == 3
        with pytest.raises(vxplug.GuestFault, match="limit of 2097152 bytes"):
            box.eat_stack(0)
    with pytest.raises(ValueError, match="stack: 8388608 is not between 4096 and 4194304"):
        limits_plugin.sandbox(memory=4 << 20, stack=8 << 20)


def test_limits_are_for_life(limits_plugin):
    """Without it `box.timeout = 1` would look as if it did something."""
    with limits_plugin.sandbox() as box:
        for name in ("timeout", "add", "anything"):
            with pytest.raises(AttributeError, match=f"{name}: a sandbox's limits are those it was made with"):
                setattr(box, name, 1)


@pytest.mark.parametrize("export", ["spin", "copy_for_ever", "flood"])
@pytest.mark.parametrize("limit", [0.05, 0.5])
def test_time(limits_plugin, export, limit):
    """Threat 47: the limit and some ticks of 5 ms; the bound is wide for machines that are busy."""
    arguments = (bytearray(1 << 20),) if export == "copy_for_ever" else ()
    with limits_plugin.sandbox(timeout=limit, output=None, stderr=lambda data: None) as box:
        started = time.monotonic()
        error = ended(box[export], *arguments)
        spent = time.monotonic() - started
    assert isinstance(error, vxplug.GuestTimeout) and f"time limit of {limit} s" in str(error)
    assert limit * 0.9 < spent < limit + 3


def test_a_guest_in_system_calls_lets_others_run(limits_plugin):
    """Threat 47: nearly all of its time is the core's, where no tick interrupts it.  Without it other threads, and so whoever
    would interrupt it, and Ctrl-C would wait for its time limit."""
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with limits_plugin.sandbox(timeout=20) as box:
        threading.Timer(0.3, box.interrupt).start()
        with pytest.raises(vxplug.GuestFault, match="interrupt"):
            box.protect_for_ever(128 << 20)
        before = signal.signal(signal.SIGALRM, stop)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(KeyboardInterrupt):
                box.protect_for_ever(128 << 20)
        finally:
            signal.signal(signal.SIGALRM, before)


def test_a_guest_in_system_calls_is_sampled(limits_plugin):
    """Without it a profile would not have what the core does for a guest, or place it anywhere."""
    with limits_plugin.sandbox(timeout=1.0) as box, Profile(box) as profile:
        with pytest.raises(vxplug.GuestTimeout):
            box.protect_for_ever(128 << 20)
    found = sum(count for stack, count in profile.stacks.items() if stack[0] == "protect_for_ever")
    assert found > 3 and found > profile.samples * 0.9, profile.stacks


def test_time_of_initialisation(build_plugin):
    """Threat 47: a constructor that never ends is reached by opening a file."""
    source = "#include <vxplug.h>\n__attribute__((constructor)) static void early(void) { for (;;) __asm__ volatile(\"\"); }\n" \
             "VX_EXPORT void f(void) {}\n"
    started = time.monotonic()
    error = ended(lambda: vxplug.open(build_plugin(source)).sandbox(init_timeout=0.1))
    assert isinstance(error, vxplug.GuestTimeout) and "time limit of 0.1 s" in str(error)
    assert "during initialisation" in str(error) and time.monotonic() - started < 30


# ---- output ----


@pytest.mark.parametrize("limit", [1, 100, 16384, 16385, 100_000])
def test_output(limits_plugin, limit):
    """Threat 48: exactly as many bytes arrive as may, and the text says how many."""
    got = []
    with limits_plugin.sandbox(output=limit, stderr=got.append, stdout=got.append) as box:
        error = ended(box.flood)
        assert error.kind == "output-limit" and f"limit of {limit} bytes" in str(error)
        assert sum(map(len, got)) == limit
        got.clear()
        assert ended(box.flood_at_once, 200_000).kind == "output-limit"
        assert sum(map(len, got)) == limit
        got.clear()
        box.flood_at_once(limit // 2)  # each call anew, both streams together
        assert sum(map(len, got)) == limit // 2 * 2


def test_output_through_a_nested_call(limits_plugin):
    """A callback's call of the same sandbox must not give the guest a fresh allowance."""
    got = []

    def write(data: bytes) -> None:
        got.append(data)
        if len(got) < 50:
            box.say("x" * 100)

    with limits_plugin.sandbox(output=1000, stdout=write) as box:
        ended(box.say, "x" * 100)
    assert sum(map(len, got)) <= 1000


# ---- depth ----


def test_depth(limits_plugin):
    """Guest, host, guest, host …: the host's stack is finite, and the message says where it ended."""
    seen = []

    def write(data: bytes) -> None:
        seen.append(data)
        box.say("again")

    with limits_plugin.sandbox(stdout=write) as box:
        error = ended(box.say, "first")
        assert isinstance(error, RecursionError) and "deeper than 16" in str(error)
    assert len(seen) == 16


# ---- descriptors, threads ----

DANGEROUS = {"fork": 2, "open": 5, "pipe": 42, "dup": 41, "socketcall": 102, "clone": 120, "vfork": 190,
             "timer_create": 259, "eventfd2": 328, "memfd_create": 356, "clone3": 435, "io_uring_setup": 425}


def test_descriptors_and_threads(measure):
    """Threat 48: no call makes any; forty sandboxes of a plugin share its few descriptors and one thread."""
    measure(f"""
        boxes = [plugin.sandbox()]
        boxes[0].add(1, 2)
        def counts(): return len(os.listdir('/proc/self/fd')), len(os.listdir('/proc/self/task'))
        before = counts()
        for number in {list(DANGEROUS.values())}:
            assert isinstance(fails(boxes[0].call_linux, number), vxplug.PolicyError), number
        boxes += [plugin.sandbox() for _ in range(39)]
        for box in boxes: box.add(1, 2)
        assert counts() == before, (before, counts())
        assert before[0] <= 12 and before[1] <= 2, before
        print('good')
    """)


# ---- where output goes ----


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class BinaryTerminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


class Trickle(io.RawIOBase):
    """A raw file that takes three bytes at a time, as a pipe may."""

    def __init__(self) -> None:
        self.got = b""

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:  # type: ignore[override]
        self.got += bytes(data)[:3]
        return min(3, len(data))


TEXT = "plain é \x1b[2J\x07 \u202e \x9b end\n"


@pytest.mark.parametrize("kind", [io.BytesIO, io.StringIO, Terminal, BinaryTerminal, Trickle])
def test_output_to_files(limits_plugin, kind):
    """Threat 42: a terminal obeys what it is sent, through a text file or a binary one; others get every byte."""
    target = kind()
    with limits_plugin.sandbox(stdout=target) as box:
        box.say(TEXT)
    written = target.got if kind is Trickle else target.getvalue()
    text = written.decode() if isinstance(written, bytes) else written
    if kind in (Terminal, BinaryTerminal):
        assert text == "plain é \\x1b[2J\\x07 \\u202e \\x9b end\n"
    else:
        assert text == TEXT


@pytest.mark.parametrize(("encoding", "errors", "written"), [
    ("ascii", "strict", b"say \\xe9 \\u20ac \\U0001f600"),
    ("latin-1", "strict", b"say \xe9 \\u20ac \\U0001f600"),
    ("ascii", "surrogateescape", b"say \\xe9 \\u20ac \\U0001f600"),
    ("ascii", "replace", b"say ? ? ?"),
    ("utf-16-le", "strict", "say é € \U0001f600".encode("utf-16-le")),
])
def test_output_to_narrow_text_files(limits_plugin, encoding, errors, written):
    """Without it a guest could end its call in UnicodeEncodeError, which an application takes for its own mistake."""
    target = io.TextIOWrapper(io.BytesIO(), encoding, errors)
    with limits_plugin.sandbox(stdout=target) as box:
        for piece in ("say é ", "€ \U0001f600"):
            box.say(piece)
    target.flush()
    assert target.buffer.getvalue() == written


def test_output_that_would_block(limits_plugin):
    """A raw file that does not block says so by None: without the error the rest would be gone, and nobody would know."""
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with open(ours, "rb", buffering=0) as reader, open(theirs, "wb", buffering=0) as full:
        with limits_plugin.sandbox(stdout=full) as box:
            with pytest.raises(BlockingIOError, match="takes no more now"):
                box.say("z" * 200_000)
        assert len(reader.read(1 << 20)) >= 65_536


def test_a_character_in_pieces(limits_plugin):
    """write() may cut a character: half of one must not become two replacement marks."""
    target = io.StringIO()
    target.encoding  # noqa: B018 - a text file has it
    with limits_plugin.sandbox(stdout=target) as box:
        for piece in ("a", "é", "€", "\U0001f600"):
            box.say(piece * 9000)
    assert target.getvalue() == "a" * 9000 + "é" * 9000 + "€" * 9000 + "\U0001f600" * 9000


@pytest.mark.parametrize("how", ["reset", "fault"])
def test_half_a_character_is_forgotten_with_its_life(limits_plugin, how):
    """Without it the first text of one tenant would begin with the last bytes of the one before."""
    target = io.StringIO()
    with limits_plugin.sandbox(stdout=target, stack=64 << 10) as box:
        box.write_bytes(b"old\xf0\x9f")
        if how == "reset":
            box.reset()
        else:
            ended(box.eat_stack, 0)
        box.write_bytes(b"\x98\x80new")
    assert target.getvalue() == "old\ufffd\ufffdnew"
