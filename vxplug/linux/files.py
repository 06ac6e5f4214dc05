"""Calls on descriptors: reading and writing, position, duplicates, flags, pipes, terminals."""

from __future__ import annotations

import errno
import fcntl as host_fcntl
import os
import select
import stat
import struct
import termios
from functools import partial

from .calls import serves, signed
from .descriptors import O_NONBLOCK, SETTABLE, Description, DirectoryHandle, HostFile, HostStream, pipe
from .paths import ending, fail
from .process import IO_MAX, Process

O_CLOEXEC = 0o2000000
VECTORS_MAX = 1024
HOLD_MAX = 0x7FFFF000  # MAX_RW_COUNT of Linux


def readable(p: Process, fd: int) -> Description:
    description = p.table.get(fd)
    if not description.readable:
        raise fail(errno.EBADF)
    return description


def writable(p: Process, fd: int) -> Description:
    description = p.table.get(fd)
    if not description.writable:
        raise fail(errno.EBADF)
    return description


@serves("read")
def read(p: Process, fd: int, address: int, size: int) -> int:
    description = readable(p, fd)
    size = min(size, IO_MAX)
    data = p.transfer(description, select.POLLIN, lambda: description.read(size))
    p.write(address, data)
    return len(data)


def _offset(low: int, high: int) -> int:
    offset = low | high << 32
    if offset >> 63:
        raise fail(errno.EINVAL)
    return offset


@serves("pread64")
def pread64(p: Process, fd: int, address: int, size: int, low: int, high: int) -> int:
    data = readable(p, fd).read_at(min(size, IO_MAX), _offset(low, high))
    p.write(address, data)
    return len(data)


def _put(p: Process, description: Description, address: int, size: int) -> int:
    """All of it, as Linux does for files and blocking pipes; less when an error, or the call's end, stops it half way."""
    done = 0
    while True:
        data = p.read(address + done, min(size - done, IO_MAX)) if done < size or not size else b""
        try:
            done += p.transfer(description, select.POLLOUT, partial(description.write, data))
        except OSError:
            if not done:
                raise
            return done
        if done >= size or ending():
            return done


@serves("write")
def write(p: Process, fd: int, address: int, size: int) -> int:
    return _put(p, writable(p, fd), address, min(size, HOLD_MAX))


@serves("pwrite64")
def pwrite64(p: Process, fd: int, address: int, size: int, low: int, high: int) -> int:
    return writable(p, fd).write_at(p.read(address, min(size, IO_MAX)), _offset(low, high))


def _vectors(p: Process, address: int, count: int) -> list[tuple[int, int]]:
    if signed(count) < 0 or count > VECTORS_MAX:
        raise fail(errno.EINVAL)
    vectors = list(struct.iter_unpack("<II", p.read(address, 8 * count)))
    if sum(size for _base, size in vectors) > HOLD_MAX:
        raise fail(errno.EINVAL)
    return vectors


def _each(p: Process, vectors: list[tuple[int, int]], transfer: object) -> int:
    done = 0
    for base, size in vectors:
        if not size:
            continue
        try:
            part = transfer(base, size)  # type: ignore[operator]
        except OSError:
            if done:
                return done
            raise
        done += part
        if part < size or ending():
            break
    return done


@serves("readv")
def readv(p: Process, fd: int, address: int, count: int) -> int:
    readable(p, fd)
    return _each(p, _vectors(p, address, count), lambda base, size: read(p, fd, base, size))


@serves("writev")
def writev(p: Process, fd: int, address: int, count: int) -> int:
    description = writable(p, fd)
    return _each(p, _vectors(p, address, count), lambda base, size: _put(p, description, base, size))


@serves("preadv")
def preadv(p: Process, fd: int, address: int, count: int, low: int, high: int) -> int:
    description, at = readable(p, fd), [_offset(low, high)]

    def part(base: int, size: int) -> int:
        data = description.read_at(min(size, IO_MAX), at[0])
        p.write(base, data)
        at[0] += len(data)
        return len(data)

    return _each(p, _vectors(p, address, count), part)


@serves("pwritev")
def pwritev(p: Process, fd: int, address: int, count: int, low: int, high: int) -> int:
    description, at = writable(p, fd), [_offset(low, high)]

    def part(base: int, size: int) -> int:
        done = description.write_at(p.read(base, min(size, IO_MAX)), at[0])
        at[0] += done
        return done

    return _each(p, _vectors(p, address, count), part)


# --- position and size


def _seek(p: Process, fd: int, offset: int, whence: int) -> int:
    if whence > os.SEEK_END and whence not in (os.SEEK_DATA, os.SEEK_HOLE):
        raise fail(errno.EINVAL)
    return p.table.get(fd).seek(offset, whence)


@serves("lseek")
def lseek(p: Process, fd: int, offset: int, whence: int) -> int:
    position = _seek(p, fd, signed(offset), whence)
    if position > 0x7FFFFFFF:
        raise fail(errno.EOVERFLOW)
    return position


@serves("_llseek")
def llseek(p: Process, fd: int, high: int, low: int, address: int, whence: int) -> None:
    position = _seek(p, fd, signed(high) << 32 | low, whence)
    p.write(address, struct.pack("<q", position))


@serves("ftruncate")
def ftruncate(p: Process, fd: int, size: int) -> None:
    if signed(size) < 0:
        raise fail(errno.EINVAL)
    p.table.get(fd).truncate(size)


@serves("ftruncate64")
def ftruncate64(p: Process, fd: int, low: int, high: int) -> None:
    p.table.get(fd).truncate(_offset(low, high))


@serves("fallocate")
def fallocate(p: Process, fd: int, mode: int, low: int, high: int, size_low: int, size_high: int) -> None:
    """As far as it is only a promise of space: the file grows by what is missing."""
    description = writable(p, fd)
    if mode:
        raise fail(errno.EOPNOTSUPP)
    if not isinstance(description, HostFile):
        raise fail(errno.ENODEV)
    end = _offset(low, high) + _offset(size_low, size_high)
    if end > os.fstat(description.fd).st_size:
        description.truncate(end)


@serves("fsync", "fdatasync")
def fsync(p: Process, fd: int) -> None:
    description = p.table.get(fd)
    if isinstance(description, HostFile):
        os.fsync(description.fd)
    elif not isinstance(description, DirectoryHandle):
        raise fail(errno.EINVAL)


@serves("sync")
def sync(p: Process) -> None:
    """The guest's files are written when the host pleases."""


@serves("fadvise64", "fadvise64_64", "readahead", "flock")
def on_open_descriptor(p: Process, fd: int) -> None:
    """Advice, and locks against other processes, of which there are none."""
    p.table.get(fd)


@serves("sendfile", "sendfile64")
def sendfile(p: Process, out_fd: int, in_fd: int, offset: int, count: int) -> int:
    """Programs fall back on read and write."""
    raise fail(errno.EINVAL)


# --- the table


@serves("close")
def close(p: Process, fd: int) -> None:
    p.table.close(fd)


@serves("dup")
def dup(p: Process, fd: int) -> int:
    return p.table.add(p.table.get(fd))


@serves("dup2")
def dup2(p: Process, old: int, new: int) -> int:
    return p.table.replace(old, new, False)


@serves("dup3")
def dup3(p: Process, old: int, new: int, flags: int) -> int:
    if old == new or flags & ~O_CLOEXEC:
        raise fail(errno.EINVAL)
    return p.table.replace(old, new, bool(flags & O_CLOEXEC))


@serves("pipe")
def make_pipe(p: Process, address: int) -> None:
    pipe2(p, address, 0)


@serves("pipe2")
def pipe2(p: Process, address: int, flags: int) -> None:
    if flags & ~(O_CLOEXEC | O_NONBLOCK):
        raise fail(errno.EINVAL)
    p.table.check_room(2)
    p.read(address, 8)
    fds = [p.table.add(end, bool(flags & O_CLOEXEC)) for end in pipe(flags & O_NONBLOCK)]
    p.write(address, struct.pack("<II", *fds))


F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETLK, F_SETLK, F_SETLKW = range(8)
F_GETLK64, F_SETLK64, F_SETLKW64, F_DUPFD_CLOEXEC = 12, 13, 14, 1030
F_UNLCK = 2


@serves("fcntl", "fcntl64")
def fcntl(p: Process, fd: int, command: int, argument: int) -> int:
    description = p.table.get(fd)
    if command in (F_DUPFD, F_DUPFD_CLOEXEC):
        return p.table.add(description, command == F_DUPFD_CLOEXEC, argument)
    if command == F_GETFD:
        return int(p.table.flag(fd))
    if command == F_SETFD:
        p.table.set_flag(fd, bool(argument & 1))
        return 0
    if command == F_GETFL:
        return description.flags
    if command == F_SETFL:
        return _set_flags(description, argument)
    if command in (F_SETLK, F_SETLKW, F_SETLK64, F_SETLKW64):
        return 0
    if command in (F_GETLK, F_GETLK64):  # struct flock begins with l_type: nobody holds a lock
        p.write(argument, struct.pack("<H", F_UNLCK))
        return 0
    raise fail(errno.EINVAL)


def _set_flags(description: Description, flags: int) -> int:
    if isinstance(description, HostFile):
        host = os.O_APPEND if flags & os.O_APPEND else 0
        host_fcntl.fcntl(description.fd, host_fcntl.F_SETFL, host)
    description.flags = description.flags & ~SETTABLE | flags & SETTABLE
    return 0


# --- terminals

TCGETS, TCSETS, TCSETSW, TCSETSF, TIOCGPGRP, TIOCGWINSZ, FIONREAD = 0x5401, 0x5402, 0x5403, 0x5404, 0x540F, 0x5413, 0x541B
TERMIOS_SIZE = 36  # struct termios of the kernel, on i386 as on x86-64
WINDOW_SIZE = 8


@serves("ioctl")
def ioctl(p: Process, fd: int, request: int, address: int) -> int:
    description = p.table.get(fd)
    if request == FIONREAD:
        return _pending(p, description, address)
    if not (p.policy.terminal and isinstance(description, HostStream) and os.isatty(description.fd)):
        raise fail(errno.ENOTTY)
    if request in (TCGETS, TIOCGWINSZ):
        size = TERMIOS_SIZE if request == TCGETS else WINDOW_SIZE
        p.write(address, host_fcntl.ioctl(description.fd, request, bytes(size)))
    elif request in (TCSETS, TCSETSW, TCSETSF):
        host_fcntl.ioctl(description.fd, request, p.read(address, TERMIOS_SIZE))
    elif request == TIOCGPGRP:
        p.write(address, struct.pack("<i", 1))
    else:
        raise fail(errno.ENOTTY)
    return 0


def _pending(p: Process, description: Description, address: int) -> int:
    if description.kind == stat.S_IFREG:
        size = os.fstat(description.fd).st_size - description.seek(0, os.SEEK_CUR)
    elif description.fd >= 0 and description.kind != stat.S_IFDIR:
        size = struct.unpack("<i", host_fcntl.ioctl(description.fd, termios.FIONREAD, bytes(4)))[0]
    elif hasattr(description, "channel"):
        size = len(description.channel.data)
    else:
        raise fail(errno.ENOTTY)
    p.write(address, struct.pack("<i", max(0, min(size, 0x7FFFFFFF))))
    return 0
