"""What a program asks about the system and itself."""

from __future__ import annotations

import errno
import os
import struct
import time

from .calls import serves
from .paths import fail
from .process import GUEST_ID, Process

PID = 1
RANDOM_MAX = 1 << 20
UNAME = (b"Linux", b"vxplug", b"6.1.0", b"#1 vxplug", b"i686", b"(none)")


@serves("getuid", "geteuid", "getgid", "getegid", "getuid32", "geteuid32", "getgid32", "getegid32")
def own_id(p: Process) -> int:
    return GUEST_ID


@serves("getresuid32", "getresgid32")
def three_ids(p: Process, real: int, effective: int, saved: int) -> None:
    for address in (real, effective, saved):
        p.write(address, struct.pack("<I", GUEST_ID))


@serves("getgroups32")
def getgroups32(p: Process, size: int, address: int) -> int:
    if size:
        p.write(address, struct.pack("<I", GUEST_ID))
    return 1


@serves("getppid")
def getppid(p: Process) -> int:
    return 0


@serves("getpgrp", "setsid")
def getpgrp(p: Process) -> int:
    return PID


@serves("getpgid", "getsid")
def getpgid(p: Process, pid: int) -> int:
    if pid not in (0, PID):
        raise fail(errno.ESRCH)
    return PID


@serves("setpgid")
def setpgid(p: Process, pid: int, group: int) -> None:
    if pid not in (0, PID) or group not in (0, PID):
        raise fail(errno.ESRCH)


@serves("getpriority")
def getpriority(p: Process, which: int, who: int) -> int:
    return 20  # the kernel's form of nice value 0


@serves("personality")
def personality(p: Process, persona: int) -> int:
    if persona not in (0, 0xFFFFFFFF):
        raise fail(errno.EINVAL)
    return 0


@serves("uname")
def uname(p: Process, address: int) -> None:
    p.write(address, b"".join(name.ljust(65, b"\0") for name in UNAME))


@serves("sysinfo")
def sysinfo(p: Process, address: int) -> None:
    total, free = p.memory_limit, max(0, p.memory_limit - p.box.memory_used)
    uptime = int(time.monotonic() - p.started) + 1 if p.policy.time else 1
    unit = 4096
    p.write(address, struct.pack("<i3I6IHxxIII8x", uptime, 0, 0, 0, total // unit, free // unit, 0, 0, 0, 0, 1, 0, 0, unit))


# --- limits

RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_DATA, RLIMIT_STACK, RLIMIT_CORE, RLIMIT_NPROC = 0, 1, 2, 3, 4, 6
RLIMIT_NOFILE, RLIMIT_AS, RLIMITS = 7, 9, 16
INFINITY = (1 << 64) - 1


def _limit_of(p: Process, resource: int) -> int:
    if resource >= RLIMITS:
        raise fail(errno.EINVAL)
    known = {RLIMIT_STACK: p.stack_limit, RLIMIT_CORE: 0, RLIMIT_NPROC: 1, RLIMIT_NOFILE: p.policy.descriptors,
             RLIMIT_AS: p.memory_limit, RLIMIT_DATA: p.memory_limit}
    return known.get(resource, INFINITY)


@serves("getrlimit", "ugetrlimit")
def getrlimit(p: Process, resource: int, address: int) -> None:
    limit = min(_limit_of(p, resource), 0xFFFFFFFF)
    p.write(address, struct.pack("<II", limit, limit))


def _check_unchanged(p: Process, resource: int, soft: int) -> None:
    if soft != _limit_of(p, resource):
        raise fail(errno.EPERM)


@serves("setrlimit")
def setrlimit(p: Process, resource: int, address: int) -> None:
    soft, _hard = struct.unpack("<II", p.read(address, 8))
    _check_unchanged(p, resource, INFINITY if soft == 0xFFFFFFFF else soft)


@serves("prlimit64")
def prlimit64(p: Process, pid: int, resource: int, new: int, old: int) -> None:
    if pid not in (0, PID):
        raise fail(errno.ESRCH)
    limit = _limit_of(p, resource)
    if new:
        _check_unchanged(p, resource, struct.unpack("<QQ", p.read(new, 16))[0])
    if old:
        p.write(old, struct.pack("<QQ", limit, limit))


# --- the rest


@serves("getrandom")
def getrandom(p: Process, address: int, size: int, flags: int) -> int:
    if not p.policy.random:
        raise fail(errno.EPERM)
    if flags & ~7:
        raise fail(errno.EINVAL)
    size = min(size, RANDOM_MAX)
    p.write(address, os.urandom(size))
    return size


PR_SET_NAME, PR_GET_NAME = 15, 16


@serves("prctl")
def prctl(p: Process, option: int, argument: int) -> int:
    if option == PR_SET_NAME:
        name = p.box.text(argument, 16)
        p.name = p.read(argument, 15) if name is None else name
        return 0
    if option == PR_GET_NAME:
        p.write(argument, p.name.ljust(16, b"\0"))
        return 0
    raise fail(errno.EINVAL)


