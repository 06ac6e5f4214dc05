"""Opening files and directories."""

from __future__ import annotations

import errno
import os
import stat

from .calls import serves
from .descriptors import O_ACCMODE, O_APPEND, O_NONBLOCK, Description, DirectoryHandle, HostFile, NullDevice
from .files import O_CLOEXEC
from .paths import NULL_DEVICE, Found, Names, fail
from .process import AT_FDCWD, MODE, NEW_FILE_CHARGE, Process

O_CREAT, O_EXCL, O_TRUNC, O_DIRECTORY, O_NOFOLLOW, O_PATH = 0o100, 0o200, 0o1000, 0o200000, 0o400000, 0o10000000
O_TMPFILE, O_LARGEFILE = 0o20000000, 0o100000
KEPT = O_ACCMODE | O_APPEND | O_NONBLOCK | O_LARGEFILE | O_DIRECTORY | O_PATH
ATTEMPTS = 8  # at a file that others make and remove meanwhile


@serves("open")
def open_(p: Process, path: int, flags: int, mode: int) -> int:
    return openat(p, AT_FDCWD, path, flags, mode)


@serves("creat")
def creat(p: Process, path: int, mode: int) -> int:
    return openat(p, AT_FDCWD, path, O_CREAT | O_TRUNC | 1, mode)


@serves("openat")
def openat(p: Process, dirfd: int, path_at: int, flags: int, mode: int) -> int:
    path = p.path(path_at)
    p.table.check_room()
    if flags & O_TMPFILE:
        raise fail(errno.EOPNOTSUPP)
    if flags & O_ACCMODE == O_ACCMODE:
        raise fail(errno.EINVAL)
    start = p.start(dirfd, path)
    for _ in range(ATTEMPTS):
        description = _open_once(p, start, path, flags, mode)
        if description is not None:
            return p.table.add(description, bool(flags & O_CLOEXEC))
    raise fail(errno.EAGAIN)


def _open_once(p: Process, start: Names, path: bytes, flags: int, mode: int) -> Description | None:
    """None: somebody made the file between the look and the making."""
    creates = flags & O_CREAT and not flags & O_PATH
    follow = not flags & O_NOFOLLOW and not (creates and flags & O_EXCL)
    names, found = p.mounts.walk(start, path, follow)
    if found is not None:
        with found:
            if creates and path.endswith(b"/"):
                raise fail(errno.EISDIR)
            return _open_found(p, found, flags)
    if not creates:
        raise fail(errno.ENOENT)
    if path.endswith(b"/"):
        raise fail(errno.EISDIR)
    return _create(p, names, flags, mode)


def _open_found(p: Process, found: Found, flags: int) -> Description:
    path_only = bool(flags & O_PATH)
    if flags & O_CREAT and flags & O_EXCL and not path_only:
        raise fail(errno.EEXIST)
    if flags & O_DIRECTORY and not stat.S_ISDIR(found.mode):
        raise fail(errno.ENOTDIR)
    if path_only:
        return DirectoryHandle(found, found.take(), flags & KEPT, True)
    if stat.S_ISLNK(found.mode):
        raise fail(errno.ELOOP)
    if stat.S_ISDIR(found.mode):
        return _open_directory(found, flags)
    if found.names == NULL_DEVICE:
        return NullDevice(flags & KEPT)
    if not stat.S_ISREG(found.mode):
        raise fail(errno.EACCES)  # devices, FIFOs and sockets lead elsewhere
    if flags & O_ACCMODE or flags & O_TRUNC:
        found.check_writable()
    host = flags & (O_ACCMODE | O_APPEND | O_TRUNC) | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    return HostFile(os.open(found.host, host), flags & KEPT, found, p.charge_storage)


def _open_directory(found: Found, flags: int) -> DirectoryHandle:
    if flags & O_ACCMODE or flags & (O_CREAT | O_TRUNC):
        raise fail(errno.EISDIR)
    fd = os.open(found.host, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if found.fd >= 0 else -1
    return DirectoryHandle(found, fd, flags & KEPT, False)


def _create(p: Process, names: Names, flags: int, mode: int) -> HostFile | None:
    with p.mounts.parent(names) as parent:
        parent.check_writable()
        p.charge_storage(NEW_FILE_CHARGE)
        host = flags & (O_ACCMODE | O_APPEND) | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(names[-1], host, 0o600, dir_fd=parent.fd)
        except FileExistsError:
            return None
        os.fchmod(fd, mode & MODE & ~p.umask)
        parent.names = names
        return HostFile(fd, flags & KEPT, parent, p.charge_storage)
