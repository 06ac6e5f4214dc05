"""poll, select and futex: waiting for descriptors, or for time alone."""

from __future__ import annotations

import errno
import select
import struct
from collections.abc import Callable

from .calls import serves, signed
from .descriptors import Description, HostStream
from .paths import fail
from .process import Process

POLLIN, POLLOUT, POLLERR, POLLHUP, POLLNVAL = select.POLLIN, select.POLLOUT, select.POLLERR, select.POLLHUP, select.POLLNVAL
ALWAYS = POLLERR | POLLHUP
FD_SETSIZE = 1024


def _now_ready(description: Description, events: int) -> int:
    if not isinstance(description, HostStream):
        return description.poll() & (events | ALWAYS)
    poll = select.poll()
    poll.register(description.fd, events)
    return next((mask for _fd, mask in poll.poll(0)), 0)


def _wait(p: Process, wanted: list[tuple[int, int]], until: float | None) -> list[int]:
    """The events that are there now of each (descriptor, events), once there are any."""
    hosts: dict[int, int] = {}
    for fd, events in wanted:
        description = p.table.find(fd)
        if isinstance(description, HostStream):
            hosts[description.fd] = hosts.get(description.fd, 0) | events

    def look() -> list[int] | None:
        now = []
        for fd, events in wanted:
            description = p.table.find(fd) if fd >= 0 else None
            now.append(_now_ready(description, events) if description else POLLNVAL if fd >= 0 else 0)
        return now if any(now) else None

    return p.wait(look, hosts, until) or [0] * len(wanted)


def _poll(p: Process, address: int, count: int, until: float | None) -> int:
    if count > p.policy.descriptors:
        raise fail(errno.EINVAL)
    asked = list(struct.iter_unpack("<ihh", p.read(address, 8 * count)))
    ready = _wait(p, [(fd, events & 0xFFFF) for fd, events, _old in asked], until)
    p.write(address, b"".join(
        struct.pack("<ihH", fd, events, now) for (fd, events, _old), now in zip(asked, ready, strict=True)))
    return sum(now != 0 for now in ready)


@serves("poll")
def poll(p: Process, address: int, count: int, milliseconds: int) -> int:
    span = signed(milliseconds)
    return _poll(p, address, count, None if span < 0 else p.moment(span / 1000))


def _limit(p: Process, address: int, layout: str, unit: float) -> float | None:
    """The moment that a relative time limit in guest memory ends; None: there is none."""
    if not address:
        return None
    seconds, part = struct.unpack(layout, p.read(address, struct.calcsize(layout)))
    part &= 0xFFFFFFFF
    if seconds < 0 or part * unit >= 1:
        raise fail(errno.EINVAL)
    return p.moment(seconds + part * unit)


@serves("ppoll")
def ppoll(p: Process, address: int, count: int, limit: int) -> int:
    return _poll(p, address, count, _limit(p, limit, "<ii", 1e-9))


@serves("ppoll_time64")
def ppoll_time64(p: Process, address: int, count: int, limit: int) -> int:
    return _poll(p, address, count, _limit(p, limit, "<qq", 1e-9))


# --- select

SETS = (POLLIN, POLLIN | POLLHUP | POLLERR), (POLLOUT, POLLOUT | POLLERR), (select.POLLPRI, select.POLLPRI)


def _read_sets(p: Process, count: int, addresses: tuple[int, int, int]) -> dict[int, int]:
    wanted: dict[int, int] = {}
    size = (count + 31) // 32 * 4
    for address, (event, _counts) in zip(addresses, SETS, strict=True):
        bits = int.from_bytes(p.read(address, size), "little") if address else 0
        for fd in range(count):
            if bits >> fd & 1:
                p.table.get(fd)
                wanted[fd] = wanted.get(fd, 0) | event
    return wanted


def _select(p: Process, count: int, addresses: tuple[int, int, int], until: float | None) -> int:
    if signed(count) < 0:
        raise fail(errno.EINVAL)
    count = min(count, FD_SETSIZE)
    wanted = _read_sets(p, count, addresses)
    asked = list(wanted.items())
    ready = dict(zip(wanted, _wait(p, asked, until), strict=True))
    total, size = 0, (count + 31) // 32 * 4
    for address, (event, counts) in zip(addresses, SETS, strict=True):
        if address:
            bits = sum(1 << fd for fd, now in ready.items() if wanted[fd] & event and now & counts)
            total += bits.bit_count()
            p.write(address, bits.to_bytes(size, "little"))
    return total


@serves("_newselect")
def newselect(p: Process, count: int, reads: int, writes: int, errors: int, limit: int) -> int:
    return _select(p, count, (reads, writes, errors), _limit(p, limit, "<ii", 1e-6))


@serves("select")
def old_select(p: Process, address: int) -> int:
    return newselect(p, *struct.unpack("<5I", p.read(address, 20)))


@serves("pselect6")
def pselect6(p: Process, count: int, reads: int, writes: int, errors: int, limit: int) -> int:
    return _select(p, count, (reads, writes, errors), _limit(p, limit, "<ii", 1e-9))


@serves("pselect6_time64")
def pselect6_time64(p: Process, count: int, reads: int, writes: int, errors: int, limit: int) -> int:
    return _select(p, count, (reads, writes, errors), _limit(p, limit, "<qq", 1e-9))


@serves("pause")
def pause(p: Process) -> None:
    p.wait(lambda: None, {})


# --- futex

FUTEX_WAIT, FUTEX_WAKE, FUTEX_WAIT_BITSET, FUTEX_WAKE_BITSET, COMMAND = 0, 1, 9, 10, 0x7F


@serves("futex")
def futex(p: Process, address: int, operation: int, value: int, limit: int) -> int:
    """There is one thread: nobody waits to be woken, and nobody wakes who waits."""
    command = operation & COMMAND
    if command in (FUTEX_WAKE, FUTEX_WAKE_BITSET):
        return 0
    if command not in (FUTEX_WAIT, FUTEX_WAIT_BITSET):
        raise fail(errno.ENOSYS)
    if struct.unpack("<I", p.read(address, 4))[0] != value:
        raise fail(errno.EAGAIN)
    never: Callable[[], None] = lambda: None  # noqa: E731
    p.wait(never, {}, _limit(p, limit, "<ii", 1e-9))
    raise fail(errno.ETIMEDOUT)
