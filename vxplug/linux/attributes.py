"""Changing what is said of a file: mode, owner, size, times."""

from __future__ import annotations

import errno
import os
import stat
import struct
import time

from .calls import serves, signed
from .descriptors import DirectoryHandle, HostFile
from .paths import Found, fail
from .process import AT_FDCWD, AT_SYMLINK_NOFOLLOW, GUEST_ID, MODE, Process


def _change_mode(found: Found, mode: int) -> None:
    found.check_writable()
    if stat.S_ISLNK(found.mode):
        raise fail(errno.EOPNOTSUPP)
    os.chmod(found.host, mode & MODE)


@serves("chmod")
def chmod(p: Process, path: int, mode: int) -> None:
    fchmodat(p, AT_FDCWD, path, mode)


@serves("fchmodat")
def fchmodat(p: Process, dirfd: int, path_at: int, mode: int) -> None:
    with p.find(dirfd, p.path(path_at)) as found:
        _change_mode(found, mode)


def _opened(p: Process, fd: int) -> HostFile | DirectoryHandle:
    """A descriptor of a file in a mapped directory that may be changed."""
    description = p.table.get(fd)
    if not isinstance(description, (HostFile, DirectoryHandle)):
        raise fail(errno.EPERM)
    if description.mount is None or not description.mount.writable:
        raise fail(errno.EROFS)
    return description


@serves("fchmod")
def fchmod(p: Process, fd: int, mode: int) -> None:
    description = _opened(p, fd)
    if isinstance(description, DirectoryHandle) and description.path_only:
        raise fail(errno.EBADF)
    os.chmod(f"/proc/self/fd/{description.fd}", mode & MODE)


def _check_owner(user: int, group: int) -> None:
    """A guest gives nothing away: only what changes nothing succeeds."""
    if user not in (GUEST_ID, 0xFFFFFFFF) or group not in (GUEST_ID, 0xFFFFFFFF):
        raise fail(errno.EPERM)


@serves("chown", "chown32")
def chown(p: Process, path: int, user: int, group: int) -> None:
    p.find(AT_FDCWD, p.path(path)).close()
    _check_owner(user, group)


@serves("lchown", "lchown32")
def lchown(p: Process, path: int, user: int, group: int) -> None:
    p.find(AT_FDCWD, p.path(path), follow=False).close()
    _check_owner(user, group)


@serves("fchown", "fchown32")
def fchown(p: Process, fd: int, user: int, group: int) -> None:
    p.table.get(fd)
    _check_owner(user, group)


@serves("fchownat")
def fchownat(p: Process, dirfd: int, path: int, user: int, group: int, flags: int) -> None:
    p.find(dirfd, p.path(path), not flags & AT_SYMLINK_NOFOLLOW).close()
    _check_owner(user, group)


@serves("truncate")
def truncate(p: Process, path: int, size: int) -> None:
    truncate64(p, path, size, 0xFFFFFFFF if signed(size) < 0 else 0)


@serves("truncate64")
def truncate64(p: Process, path_at: int, low: int, high: int) -> None:
    size = signed(high) << 32 | low
    if size < 0:
        raise fail(errno.EINVAL)
    with p.find(AT_FDCWD, p.path(path_at)) as found:
        if not stat.S_ISREG(found.mode):
            raise fail(errno.EISDIR if stat.S_ISDIR(found.mode) else errno.EINVAL)
        found.check_writable()
        p.charge_storage(max(0, size - found.status.st_size if found.status else 0))
        fd = os.open(found.host, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.ftruncate(fd, size)
    finally:
        os.close(fd)


@serves("umask")
def umask(p: Process, mask: int) -> int:
    old, p.umask = p.umask, mask & 0o777
    return old


# --- times of files

UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2


def _moments(p: Process, address: int, layout: str, unit: int) -> list[int] | None:
    """The two times as nanoseconds; UTIME_NOW and UTIME_OMIT as -1 and -2.  None: now."""
    if not address:
        return None
    fields = struct.unpack(layout, p.read(address, struct.calcsize(layout)))
    out = []
    for seconds, part in zip(fields[::2], fields[1::2], strict=True):
        part &= 0xFFFFFFFF
        if unit == 1 and part in (UTIME_NOW, UTIME_OMIT):
            out.append(-1 if part == UTIME_NOW else -2)
        elif part * unit >= 10**9:
            raise fail(errno.EINVAL)
        else:
            out.append(seconds * 10**9 + part * unit)
    return out


def _set_times(host: str, status: os.stat_result, moments: list[int] | None) -> None:
    now = time.time_ns()
    times = moments or [-1, -1]
    old = status.st_atime_ns, status.st_mtime_ns
    try:
        _put_times(host, times, old, now)
    except OverflowError:
        raise fail(errno.EINVAL) from None


def _put_times(host: str, times: list[int], old: tuple[int, int], now: int) -> None:
    read, changed = (now if t == -1 else was if t == -2 else t for t, was in zip(times, old, strict=True))
    os.utime(host, ns=(read, changed))


def _touch(p: Process, dirfd: int, path_at: int, moments: list[int] | None, follow: bool = True) -> None:
    if not path_at:
        description = _opened(p, dirfd)
        _set_times(f"/proc/self/fd/{description.fd}", os.stat(description.fd), moments)
        return
    with p.find(dirfd, p.path(path_at), follow) as found:
        found.check_writable()
        if stat.S_ISLNK(found.mode):
            raise fail(errno.EOPNOTSUPP)
        assert found.status is not None
        _set_times(found.host, found.status, moments)


@serves("utime")
def utime(p: Process, path: int, address: int) -> None:
    moments = None
    if address:
        moments = [seconds * 10**9 for seconds in struct.unpack("<ii", p.read(address, 8))]
    _touch(p, AT_FDCWD, _path_given(path), moments)


def _path_given(path_at: int) -> int:
    if not path_at:
        raise fail(errno.EFAULT)
    return path_at


@serves("utimes")
def utimes(p: Process, path: int, address: int) -> None:
    _touch(p, AT_FDCWD, _path_given(path), _moments(p, address, "<iiii", 1000))


@serves("futimesat")
def futimesat(p: Process, dirfd: int, path: int, address: int) -> None:
    _touch(p, dirfd, path, _moments(p, address, "<iiii", 1000))


@serves("utimensat")
def utimensat(p: Process, dirfd: int, path: int, address: int, flags: int) -> None:
    _touch(p, dirfd, path, _moments(p, address, "<iiii", 1), not flags & AT_SYMLINK_NOFOLLOW)


@serves("utimensat_time64")
def utimensat_time64(p: Process, dirfd: int, path: int, address: int, flags: int) -> None:
    _touch(p, dirfd, path, _moments(p, address, "<qqqq", 1), not flags & AT_SYMLINK_NOFOLLOW)
