"""Time, where the policy allows it: clocks, sleeping, timers, use of the processor."""

from __future__ import annotations

import errno
import struct
import time

from .calls import serves, signed
from .paths import fail
from .process import Process

CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS, CLOCK_THREAD, CLOCK_RAW = range(5)
CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME = 5, 6, 7
TIMER_ABSTIME = 1
TICKS = 100  # USER_HZ
GIGA = 10**9


def _now(p: Process, clock: int) -> int:
    """Nanoseconds.  Monotonic time begins with the guest: the host's uptime is not its business."""
    p.use_time()
    if clock in (CLOCK_REALTIME, CLOCK_REALTIME_COARSE):
        return time.time_ns()
    if clock in (CLOCK_MONOTONIC, CLOCK_RAW, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME):
        return int((time.monotonic() - p.started) * GIGA) + GIGA
    if clock in (CLOCK_PROCESS, CLOCK_THREAD):
        return _processor(p)
    raise fail(errno.EINVAL)


def _processor(p: Process) -> int:
    return max(0, time.thread_time_ns() - p.started_processor)


def _put(p: Process, address: int, layout: str, seconds: int, part: int) -> None:
    try:
        p.write(address, struct.pack(layout, seconds, part))
    except struct.error:
        raise fail(errno.EOVERFLOW) from None


@serves("clock_gettime")
def clock_gettime(p: Process, clock: int, address: int) -> None:
    _put(p, address, "<ii", *divmod(_now(p, clock), GIGA))


@serves("clock_gettime64")
def clock_gettime64(p: Process, clock: int, address: int) -> None:
    _put(p, address, "<qq", *divmod(_now(p, clock), GIGA))


@serves("clock_getres")
def clock_getres(p: Process, clock: int, address: int) -> None:
    _now(p, clock)
    if address:
        _put(p, address, "<ii", 0, 1)


@serves("clock_getres_time64")
def clock_getres_time64(p: Process, clock: int, address: int) -> None:
    _now(p, clock)
    if address:
        _put(p, address, "<qq", 0, 1)


@serves("gettimeofday")
def gettimeofday(p: Process, address: int, zone: int) -> None:
    seconds, part = divmod(_now(p, CLOCK_REALTIME), GIGA)
    if address:
        _put(p, address, "<ii", seconds, part // 1000)
    if zone:
        _put(p, zone, "<ii", 0, 0)


@serves("time")
def time_(p: Process, address: int) -> int:
    seconds = _now(p, CLOCK_REALTIME) // GIGA
    if address:
        p.write(address, struct.pack("<I", seconds & 0xFFFFFFFF))
    return seconds


@serves("times")
def times(p: Process, address: int) -> int:
    p.use_time()
    if address:
        p.write(address, struct.pack("<4I", _processor(p) * TICKS // GIGA, 0, 0, 0))
    return _now(p, CLOCK_MONOTONIC) * TICKS // GIGA & 0x7FFFFFFF


RUSAGE_SELF, RUSAGE_CHILDREN, RUSAGE_THREAD = 0, -1, 1


@serves("getrusage")
def getrusage(p: Process, who: int, address: int) -> None:
    p.use_time()
    if signed(who) not in (RUSAGE_SELF, RUSAGE_CHILDREN, RUSAGE_THREAD):
        raise fail(errno.EINVAL)
    used = 0 if signed(who) == RUSAGE_CHILDREN else _processor(p)
    seconds, part = divmod(used, GIGA)
    p.write(address, struct.pack("<18i", seconds, part // 1000, *[0] * 16))


# --- sleeping


def _span(p: Process, address: int, layout: str) -> int:
    seconds: int
    part: int
    seconds, part = struct.unpack(layout, p.read(address, struct.calcsize(layout)))
    part &= 0xFFFFFFFF
    if seconds < 0 or part >= GIGA:
        raise fail(errno.EINVAL)
    return seconds * GIGA + part


def _sleep(p: Process, clock: int, flags: int, request: int, remain: int, layout: str) -> None:
    span = _span(p, request, layout)
    if flags & TIMER_ABSTIME:
        span = max(0, span - _now(p, clock))
    p.use_time()
    until = time.monotonic() + span / GIGA
    try:
        p.wait(lambda: None, {}, until)
    except InterruptedError:
        if remain and not flags & TIMER_ABSTIME:
            left = max(0, int((until - time.monotonic()) * GIGA))
            _put(p, remain, layout, *divmod(left, GIGA))
        raise


@serves("nanosleep")
def nanosleep(p: Process, request: int, remain: int) -> None:
    _sleep(p, CLOCK_MONOTONIC, 0, request, remain, "<ii")


@serves("clock_nanosleep")
def clock_nanosleep(p: Process, clock: int, flags: int, request: int, remain: int) -> None:
    _sleep(p, clock, flags, request, remain, "<ii")


@serves("clock_nanosleep_time64")
def clock_nanosleep_time64(p: Process, clock: int, flags: int, request: int, remain: int) -> None:
    _sleep(p, clock, flags, request, remain, "<qq")


# --- timers, which the core keeps


@serves("alarm")
def alarm(p: Process, seconds: int) -> None:
    p.use_time()


@serves("setitimer")
def setitimer(p: Process, which: int, new: int, old: int) -> None:
    """Asked before a timer is set; stopping one tells nothing."""
    p.use_time()
