"""Asking about files: status, access, links."""

from __future__ import annotations

import errno
import os
import stat
import struct

from .calls import serves, signed
from .paths import NULL_DEVICE, fail
from .process import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, GUEST_ID, OTHER_ID, Process

_STAT64 = struct.Struct("<Q4xIIIIIQ4xqIQIIIIIIQ")
_STATX = struct.Struct("<IIQIIIHxxQQQQ" + "qIi" * 4 + "IIIIQ")
STATX_BASIC = 0x7FF


def _owner(host: int, own: int) -> int:
    """The guest is the user that runs the host program; nobody else has a name here."""
    return GUEST_ID if host == own else OTHER_ID


def _fields(p: Process, status: os.stat_result | None, mode: int, inode: int) -> dict[str, int]:
    """Without time a file has no times either: each change of it would be a tick of a clock."""
    if status is None:
        return dict(dev=1, ino=inode, mode=mode, nlink=1, uid=GUEST_ID, gid=GUEST_ID, rdev=0, size=0, blksize=4096,
                    blocks=0, atime=0, mtime=0, ctime=0)
    times = (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns) if p.policy.time else (0, 0, 0)
    return dict(
        dev=status.st_dev, ino=status.st_ino, mode=status.st_mode, nlink=status.st_nlink,
        uid=_owner(status.st_uid, os.geteuid()), gid=_owner(status.st_gid, os.getegid()), rdev=status.st_rdev,
        size=status.st_size, blksize=status.st_blksize, blocks=status.st_blocks,
        atime=times[0], mtime=times[1], ctime=times[2],
    )


def _moment(ns: int) -> tuple[int, int]:
    seconds, rest = divmod(ns, 10**9)
    return seconds & 0xFFFFFFFF, rest


def _pack_stat64(f: dict[str, int]) -> bytes:
    return _STAT64.pack(
        f["dev"], f["ino"] & 0xFFFFFFFF, f["mode"], f["nlink"], f["uid"], f["gid"], f["rdev"], f["size"],
        f["blksize"], f["blocks"], *_moment(f["atime"]), *_moment(f["mtime"]), *_moment(f["ctime"]), f["ino"],
    )


def _pack_statx(f: dict[str, int]) -> bytes:
    times = [(*divmod(f[name], 10**9), 0) for name in ("atime", "ctime", "ctime", "mtime")]
    times[1] = (0, 0, 0)  # no birth time
    return _STATX.pack(
        STATX_BASIC, f["blksize"], 0, f["nlink"], f["uid"], f["gid"], f["mode"], f["ino"], f["size"], f["blocks"], 0,
        *times[0], *times[1], *times[2], *times[3], os.major(f["rdev"]), os.minor(f["rdev"]), os.major(f["dev"]),
        os.minor(f["dev"]), 0,
    ).ljust(256, b"\0")


def _of_descriptor(p: Process, fd: int) -> dict[str, int]:
    description = p.table.get(fd)
    mode = stat.S_IFDIR | 0o555 if description.kind == stat.S_IFDIR else description.kind | 0o600
    return _fields(p, description.status(), mode, 2 + fd)


def _of_path(p: Process, dirfd: int, path_at: int, flags: int) -> dict[str, int]:
    path = p.path(path_at)
    if not path and flags & AT_EMPTY_PATH:
        if dirfd != AT_FDCWD:
            return _of_descriptor(p, dirfd)
        path = b"."
    with p.find(dirfd, path, not flags & AT_SYMLINK_NOFOLLOW) as found:
        return _fields(p, found.status, found.mode, 1)


@serves("stat64")
def stat64(p: Process, path: int, address: int) -> None:
    p.write(address, _pack_stat64(_of_path(p, AT_FDCWD, path, 0)))


@serves("lstat64")
def lstat64(p: Process, path: int, address: int) -> None:
    p.write(address, _pack_stat64(_of_path(p, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW)))


@serves("fstat64")
def fstat64(p: Process, fd: int, address: int) -> None:
    p.write(address, _pack_stat64(_of_descriptor(p, fd)))


@serves("fstatat64")
def fstatat64(p: Process, dirfd: int, path: int, address: int, flags: int) -> None:
    p.write(address, _pack_stat64(_of_path(p, dirfd, path, flags)))


@serves("statx")
def statx(p: Process, dirfd: int, path: int, flags: int, mask: int, address: int) -> None:
    p.write(address, _pack_statx(_of_path(p, dirfd, path, flags)))


UNSIGNED = (1 << 64) - 1  # CPython gives counts as signed numbers, and a host that has no count as -1


def _pack_statfs(fd: int) -> bytes:
    info = os.statvfs(fd)
    blocks = [count & UNSIGNED for count in (info.f_blocks, info.f_bfree, info.f_bavail, info.f_files, info.f_ffree)]
    return struct.pack("<II5QqIII4I", 0, info.f_bsize, *blocks, 0, info.f_namemax, info.f_frsize, 0, 0, 0, 0, 0)


STATFS64_SIZE = 84


@serves("statfs64")
def statfs64(p: Process, path: int, size: int, address: int) -> None:
    with p.find(AT_FDCWD, p.path(path)) as found:
        _put_statfs(p, found.fd, size, address)


@serves("fstatfs64")
def fstatfs64(p: Process, fd: int, size: int, address: int) -> None:
    description = p.table.get(fd)
    _put_statfs(p, description.fd if hasattr(description, "mount") else -1, size, address)


def _put_statfs(p: Process, fd: int, size: int, address: int) -> None:
    if size != STATFS64_SIZE:
        raise fail(errno.EINVAL)
    if fd < 0:
        raise fail(errno.ENOSYS)
    p.write(address, _pack_statfs(fd)[:STATFS64_SIZE])


@serves("access")
def access(p: Process, path: int, mode: int) -> None:
    faccessat2(p, AT_FDCWD, path, mode, 0)


@serves("faccessat")
def faccessat(p: Process, dirfd: int, path: int, mode: int) -> None:
    faccessat2(p, dirfd, path, mode, 0)


@serves("faccessat2")
def faccessat2(p: Process, dirfd: int, path_at: int, mode: int, flags: int) -> None:
    if mode & ~7:
        raise fail(errno.EINVAL)
    with p.find(dirfd, p.path(path_at), not flags & AT_SYMLINK_NOFOLLOW) as found:
        if mode & os.W_OK and found.names != NULL_DEVICE:
            found.check_writable()
        if mode and found.fd >= 0 and not stat.S_ISLNK(found.mode):
            if not os.access(found.host, mode, effective_ids=True):
                raise fail(errno.EACCES)


@serves("readlink")
def readlink(p: Process, path: int, address: int, size: int) -> int:
    return readlinkat(p, AT_FDCWD, path, address, size)


@serves("readlinkat")
def readlinkat(p: Process, dirfd: int, path_at: int, address: int, size: int) -> int:
    if signed(size) <= 0:
        raise fail(errno.EINVAL)
    with p.find(dirfd, p.path(path_at), follow=False) as found:
        if not stat.S_ISLNK(found.mode):
            raise fail(errno.EINVAL)
        target = os.readlink(b"", dir_fd=found.fd)[:size]
    p.write(address, target)
    return len(target)
