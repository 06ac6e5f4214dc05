"""A guest without `time` looks for a clock, by every call that could be one; with it each is one."""

from __future__ import annotations

import errno
import struct

import pytest

import vxplug
from vxplug import Directory, LinuxPolicy

SOURCE = r"""
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>
#include <vxplug.h>

static unsigned char room[1024];
VX_EXPORT uint32_t room_at(void) { return (uint32_t)room; }
VX_EXPORT void fill(vx_view data) { memset(room, 0, sizeof room); memcpy(room, data.ptr, data.len); }
VX_EXPORT vx_bytes seen(void) { void *copy = malloc(sizeof room); memcpy(copy, room, sizeof room); return vx_take(copy, sizeof room); }
VX_EXPORT int32_t call(int32_t number, uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t e, uint32_t f) {
    long result = syscall(number, a, b, c, d, e, f);
    return result < 0 ? -errno : (int32_t)result;
}
static volatile int rung;
static void ring(int signal) { (void)signal; rung++; }
/* Counts its own instructions against a timer's signals. */
VX_EXPORT int32_t count_rings(void) {
    struct itimerval every = {{0, 10000}, {0, 10000}}, none = {{0, 0}, {0, 0}};
    signal(SIGALRM, ring);
    if (setitimer(ITIMER_REAL, &every, NULL)) return -errno;
    while (rung < 3) {}
    setitimer(ITIMER_REAL, &none, NULL);
    return rung;
}
VX_EXPORT int32_t pipe_with_a_byte(void) {
    int ends[2];
    return pipe(ends) || write(ends[1], "x", 1) != 1 ? -errno : ends[0];
}
VX_EXPORT int32_t make(const char *path) { return open(path, O_CREAT | O_RDWR | O_TRUNC, 0600); }
"""
EPERM, ETIMEDOUT = -errno.EPERM, -errno.ETIMEDOUT
NUMBERS = {row[1]: row[0] for row in vxplug._vx.linux_rows()}
SHORT32, SHORT64 = struct.pack("<ii", 0, 20_000), struct.pack("<qq", 0, 20_000)
DATA = 512  # where a file's or a structure's answer goes


@pytest.fixture(scope="module")
def plugin(build_plugin):
    return vxplug.open(build_plugin(SOURCE))


@pytest.fixture(params=[False, True], ids=["without", "with"])
def box(request, plugin, tmp_path):
    policy = LinuxPolicy(directories={"/": Directory(tmp_path, writable=True)}, time=request.param)
    with plugin.sandbox(linux=policy, timeout=20) as box:
        box._has_time = request.param
        yield box


def call(box, name, *arguments):
    """A call by name; "room" and "data" are addresses."""
    at = {"room": box.room_at(), "data": box.room_at() + DATA}
    words = [at.get(word, word) & 0xFFFFFFFF for word in arguments]
    return box.call(NUMBERS[name], *words, *[0] * (6 - len(words)))


def test_a_timer_does_not_ring(box):
    """Without it a guest could count what it does between two signals."""
    assert box.count_rings() == (3 if box._has_time else EPERM)
    assert call(box, "alarm", 1) == (0 if box._has_time else EPERM)
    assert call(box, "alarm", 0) == (1 if box._has_time else 0)


def test_a_timer_is_not_told(box):
    """Without it getitimer, or a timer's old value, would be a clock that runs backwards."""
    box.fill(struct.pack("<4i", 0, 0, 1000, 0))
    assert call(box, "setitimer", 0, "room", 0) == (0 if box._has_time else EPERM)
    assert call(box, "getitimer", 0, "data") == 0
    assert any(box.seen()[DATA:]) == box._has_time
    box.fill(bytes(16))
    assert call(box, "setitimer", 0, "room", "data") == 0
    assert any(box.seen()[DATA:]) == box._has_time


@pytest.mark.parametrize(("name", "arguments", "limit"), [
    ("poll", (0, 0, 20), b""),
    ("ppoll", (0, 0, "room"), SHORT32),
    ("ppoll", (0, 0, "room"), struct.pack("<ii", 0, 1)),
    ("ppoll_time64", (0, 0, "room"), SHORT64),
    ("_newselect", (0, 0, 0, 0, "room"), SHORT32),
    ("pselect6", (0, 0, 0, 0, "room"), SHORT32),
    ("pselect6_time64", (0, 0, 0, 0, "room"), SHORT64),
    ("futex", ("data", 0, 0, "room"), SHORT32),
    ("nanosleep", ("room", 0), SHORT32),
    ("clock_nanosleep", (1, 0, "room", 0), SHORT32),
    ("clock_nanosleep_time64", (1, 0, "room", 0), SHORT64),
], ids=lambda value: value if isinstance(value, str) else "")
def test_no_wait_ends_by_a_clock(box, name, arguments, limit):
    """Without it a guest could measure what happens outside by how often a known while passes, or the host by whether
    the least of them has passed already."""
    box.fill(limit)
    assert call(box, name, *arguments) == (EPERM if not box._has_time else ETIMEDOUT if name == "futex" else 0)
    box.fill(struct.pack("<5I", 0, 0, 0, 0, box.room_at() + 20) + SHORT32)
    assert call(box, "select", "room") == (0 if box._has_time else EPERM)


def test_waits_that_need_no_clock_are_as_ever(box):
    """Without it a program that asks what is ready would fail."""
    fd = box.pipe_with_a_byte()
    assert fd >= 3
    for limit in (0, 60_000, 0xFFFFFFFF):
        box.fill(struct.pack("<ihh", fd, 1, 0))
        assert call(box, "poll", "room", 1, limit) == 1
    box.fill(struct.pack("<ihh", fd, 0, 0))
    assert call(box, "poll", "room", 1, 0) == 0
    box.fill(bytes(8))
    assert call(box, "_newselect", 0, 0, 0, 0, "room") == 0


@pytest.mark.parametrize(("name", "arguments"), [
    *((name, (clock, "data")) for name in ("clock_gettime", "clock_gettime64", "clock_getres") for clock in range(8)),
    ("clock_getres_time64", (1, "data")), ("gettimeofday", ("data", 0)), ("time", ("data",)), ("times", ("data",)),
    ("getrusage", (0, "data")),
], ids=lambda value: value if isinstance(value, str) else str(value[0]))
def test_clocks_are_refused(box, name, arguments):
    """Without it there would be a clock."""
    box.fill(b"")
    result = call(box, name, *arguments)
    assert result >= 0 if box._has_time else result == EPERM
    assert box._has_time or not any(box.seen())


def test_the_system_does_not_age(box):
    """Without it sysinfo would count seconds."""
    box.fill(b"")
    assert call(box, "sysinfo", "data") == 0
    box._host.personality.current.started -= 100
    assert call(box, "sysinfo", "data") == 0
    assert struct.unpack_from("<i", box.seen(), DATA)[0] == (101 if box._has_time else 1)


STAT64_TIMES, STATX_TIMES = slice(64, 88), slice(64, 128)


@pytest.mark.parametrize(("name", "arguments", "times"), [
    ("stat64", ("room", "data"), STAT64_TIMES),
    ("lstat64", ("room", "data"), STAT64_TIMES),
    ("fstat64", ("fd", "data"), STAT64_TIMES),
    ("fstatat64", (-100, "room", "data", 0), STAT64_TIMES),
    ("statx", (-100, "room", 0, 0x7FF, "data"), STATX_TIMES),
])
@pytest.mark.parametrize("touched", [False, True], ids=["made", "touched"])
def test_files_have_no_times(box, name, arguments, times, touched):
    """Without it a file that is written again and again would be a clock, and any new one would tell the date."""
    fd = box.make("/file")
    box.fill(b"/file\0")
    assert fd >= 3 and (not touched or call(box, "utimensat", -100, "room", 0, 0) == 0)
    assert call(box, name, *(fd if word == "fd" else word for word in arguments)) == 0
    answer = box.seen()[DATA:]
    assert any(answer[:64]) and any(answer[times]) == box._has_time


def test_the_trace_says_what_would_allow_it(plugin):
    """Without it a user could not find out why a wait is refused."""
    trace = vxplug.Trace()
    with plugin.sandbox(linux=LinuxPolicy(basics=True), trace=trace) as box:
        assert call(box, "poll", 0, 0, 0) == 0 and call(box, "alarm", 0) == 0
        assert trace.policy() == LinuxPolicy(basics=True)
        assert call(box, "poll", 0, 0, 1) == EPERM
        assert trace.policy() == LinuxPolicy(time=True)
