"""Descriptors: guest numbers to open file descriptions.  A host descriptor is never a guest number."""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Callable
from typing import Any

from .. import _signals
from .paths import Found, Names, fail

__all__ = [
    "Description", "DirectoryHandle", "HostError", "HostFile", "HostStream", "NullDevice", "PipeEnd", "Sink", "Source", "Table", "pipe",
]

O_ACCMODE, O_WRONLY, O_RDWR, O_APPEND, O_NONBLOCK = 3, 1, 2, 0o2000, 0o4000
SETTABLE = O_APPEND | O_NONBLOCK
OFFSET_MAX = (1 << 63) - 1  # loff_t's, beyond which the kernel seeks nothing
PIPE_SIZE = 64 << 10
PIPE_BUF = 4096


class HostError(Exception):
    """An exception of the application's own stream, on its way out of the call unchanged."""

    def __init__(self, original: BaseException) -> None:
        super().__init__(original)
        self.original = original


class Description:
    """An open file description.  What a kind does not do is the errno of a pipe or socket."""

    kind = stat.S_IFIFO
    fd = -1  # of the host, or none

    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.references = 0

    @property
    def readable(self) -> bool:
        return self.flags & O_ACCMODE in (0, O_RDWR)

    @property
    def writable(self) -> bool:
        return self.flags & O_ACCMODE in (O_WRONLY, O_RDWR)

    def read(self, size: int) -> bytes | None:
        """Bytes, b"" at the end, None when there are none yet."""
        raise fail(errno.EINVAL)

    def write(self, data: bytes) -> int | None:
        """How many were taken, None when none can be yet."""
        raise fail(errno.EINVAL)

    def read_at(self, size: int, offset: int) -> bytes:
        raise fail(errno.ESPIPE)

    def write_at(self, data: bytes, offset: int) -> int:
        raise fail(errno.ESPIPE)

    def seek(self, offset: int, whence: int) -> int:
        raise fail(errno.ESPIPE)

    def truncate(self, size: int) -> None:
        raise fail(errno.EINVAL)

    def status(self) -> os.stat_result | None:
        """Of the host's file, or None: there is none."""
        return os.stat(self.fd) if self.fd >= 0 else None

    def poll(self) -> int:
        """POLLIN, POLLOUT, POLLHUP, POLLERR as they are now; a host descriptor is asked by the caller."""
        return select.POLLIN | select.POLLOUT

    def close(self) -> None:
        """The last reference is gone."""


class HostFile(Description):
    """A regular file of the host, opened beneath a mapped directory."""

    kind = stat.S_IFREG

    def __init__(self, fd: int, flags: int, found: Found, charge: Callable[[int], None]) -> None:
        super().__init__(flags)
        self.fd = fd
        self.names = found.names
        self.mount = found.mount
        self.charge = charge

    def read(self, size: int) -> bytes:
        return os.read(self.fd, size)

    def write(self, data: bytes) -> int:
        self._charge_for(len(data), os.fstat(self.fd).st_size if self.flags & O_APPEND else os.lseek(self.fd, 0, os.SEEK_CUR))
        return os.write(self.fd, data)

    def read_at(self, size: int, offset: int) -> bytes:
        return os.pread(self.fd, size, offset)

    def write_at(self, data: bytes, offset: int) -> int:
        self._charge_for(len(data), os.fstat(self.fd).st_size if self.flags & O_APPEND else offset)
        return os.pwrite(self.fd, data, offset)

    def seek(self, offset: int, whence: int) -> int:
        return os.lseek(self.fd, offset, whence)

    def truncate(self, size: int) -> None:
        if not self.writable:
            raise fail(errno.EINVAL)
        self._charge_for(size, 0)
        os.ftruncate(self.fd, size)

    def _charge_for(self, size: int, offset: int) -> None:
        """What the file grows by counts against the policy's storage."""
        self.charge(max(0, offset + size - os.fstat(self.fd).st_size))

    def close(self) -> None:
        os.close(self.fd)


class NullDevice(Description):
    """/dev/null, made here: devices of the host are never opened."""

    kind = stat.S_IFCHR

    def read(self, size: int) -> bytes:
        return b""

    def write(self, data: bytes) -> int:
        return len(data)

    def seek(self, offset: int, whence: int) -> int:
        return 0


class DirectoryHandle(Description):
    """An open directory, or any object opened with O_PATH.  Of what it lists it keeps a place: see listing.py."""

    kind = stat.S_IFDIR

    def __init__(self, found: Found, fd: int, flags: int, path_only: bool) -> None:
        super().__init__(flags)
        self.names: Names = found.names
        self.mount = found.mount
        self.mode = found.mode
        self.path_only = path_only
        self.fd = fd
        self.position = 0  # entries before the guest's place
        self.reached = 0, 0  # how many were passed to come to which offset of the host's

    def read(self, size: int) -> bytes:
        raise fail(errno.EBADF if self.path_only else errno.EISDIR)

    def read_at(self, size: int, offset: int) -> bytes:
        return self.read(size)

    def seek(self, offset: int, whence: int) -> int:
        if self.path_only:
            raise fail(errno.EBADF)
        if whence not in (os.SEEK_SET, os.SEEK_CUR):
            raise fail(errno.EINVAL)
        position = offset + (self.position if whence == os.SEEK_CUR else 0)
        if not 0 <= position <= OFFSET_MAX:
            raise fail(errno.EINVAL)
        if position == 0:
            self.reached = 0, 0
        self.position = position
        return position

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class HostStream(Description):
    """A standard stream that is a descriptor of the host's, lent to the guest."""

    def __init__(self, fd: int, flags: int, charge: Callable[[int], int]) -> None:
        super().__init__(flags)
        self.fd = fd
        self.charge = charge
        self.kind = stat.S_IFMT(os.fstat(fd).st_mode)

    def _ready(self, event: int) -> bool:
        if self.kind == stat.S_IFREG:
            return True
        poll = select.poll()
        poll.register(self.fd, event)
        return bool(poll.poll(0))

    @_signals.waiting
    def read(self, size: int) -> bytes | None:
        return os.read(self.fd, size) if self._ready(select.POLLIN) else None

    @_signals.waiting
    def write(self, data: bytes) -> int | None:
        """A piece that a pipe with room takes whole: the host's write must not block."""
        if not self._ready(select.POLLOUT):
            return None
        return os.write(self.fd, data[: self.charge(len(data[:PIPE_BUF]))])

    @_signals.waiting
    def read_at(self, size: int, offset: int) -> bytes:
        return os.pread(self.fd, size, offset)

    def seek(self, offset: int, whence: int) -> int:
        if self.kind != stat.S_IFREG:
            raise fail(errno.ESPIPE)
        return os.lseek(self.fd, offset, whence)


class Source(Description):
    """Standard input out of bytes, or out of a file object of the application's."""

    def __init__(self, data: Any) -> None:
        super().__init__(0)
        self.data = data

    @_signals.waiting
    def read(self, size: int) -> bytes:
        if isinstance(self.data, bytes):
            part, self.data = self.data[:size], self.data[size:]
            return part
        try:
            part = self.data.read(size)
        except Exception as error:
            raise HostError(error) from error
        if not isinstance(part, bytes) or len(part) > size:
            raise HostError(TypeError("stdin: expected a binary file object"))
        return part


class Sink(Description):
    """A standard output that the application takes by a callable."""

    def __init__(self, take: Callable[[bytes], object], charge: Callable[[int], int]) -> None:
        super().__init__(O_WRONLY)
        self.take = take
        self.charge = charge

    @_signals.waiting
    def write(self, data: bytes) -> int:
        room = self.charge(len(data))
        try:
            self.take(data[:room])
        except Exception as error:
            raise HostError(error) from error
        return room


class Channel:
    """What the two ends of a pipe share."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.readers = self.writers = 1


class PipeEnd(Description):
    """One end of a pipe inside the guest: a bounded buffer, no host descriptor."""

    def __init__(self, channel: Channel, flags: int) -> None:
        super().__init__(flags)
        self.channel = channel

    def read(self, size: int) -> bytes | None:
        data = self.channel.data
        if not data and self.channel.writers and size:
            return None
        part = bytes(data[:size])
        del data[:size]
        return part

    def write(self, data: bytes) -> int | None:
        if not self.channel.readers:
            raise fail(errno.EPIPE)
        room = PIPE_SIZE - len(self.channel.data)
        if room < (len(data) if len(data) <= PIPE_BUF else 1):
            return None
        self.channel.data += data[:room]
        return min(room, len(data))

    def poll(self) -> int:
        channel = self.channel
        if self.readable:
            return (select.POLLIN if channel.data else 0) | (0 if channel.writers else select.POLLHUP)
        room = PIPE_SIZE - len(channel.data) >= PIPE_BUF
        return (select.POLLOUT if room else 0) | (0 if channel.readers else select.POLLERR)

    def close(self) -> None:
        if self.readable:
            self.channel.readers -= 1
        else:
            self.channel.writers -= 1


def pipe(flags: int) -> tuple[PipeEnd, PipeEnd]:
    channel = Channel()
    return PipeEnd(channel, flags), PipeEnd(channel, flags | O_WRONLY)


class Table:
    """The guest's descriptors: number to description and close-on-exec flag."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._open: dict[int, tuple[Description, bool]] = {}

    def get(self, fd: int) -> Description:
        if fd not in self._open:
            raise fail(errno.EBADF)
        return self._open[fd][0]

    def find(self, fd: int) -> Description | None:
        return self._open[fd][0] if fd in self._open else None

    def flag(self, fd: int) -> bool:
        self.get(fd)
        return self._open[fd][1]

    def set_flag(self, fd: int, close_on_exec: bool) -> None:
        self._open[fd] = self.get(fd), close_on_exec

    def __iter__(self) -> Any:
        return iter({id(description): description for description, _flag in self._open.values()}.values())

    def check_room(self, count: int = 1) -> None:
        if len(self._open) + count > self.limit:
            raise fail(errno.EMFILE)

    def add(self, description: Description, close_on_exec: bool = False, lowest: int = 0) -> int:
        """The lowest free number from `lowest` on."""
        if lowest >= self.limit:
            raise fail(errno.EINVAL)
        for fd in range(lowest, self.limit):
            if fd not in self._open:
                self._set(fd, description, close_on_exec)
                return fd
        raise fail(errno.EMFILE)

    def _set(self, fd: int, description: Description, close_on_exec: bool) -> None:
        description.references += 1
        self._open[fd] = description, close_on_exec

    def replace(self, old: int, new: int, close_on_exec: bool) -> int:
        description = self.get(old)
        if not 0 <= new < self.limit:
            raise fail(errno.EBADF)
        if old != new:
            if new in self._open:
                self.close(new)
            self._set(new, description, close_on_exec)
        return new

    def close(self, fd: int) -> None:
        description = self.get(fd)
        del self._open[fd]
        description.references -= 1
        if description.references == 0:
            description.close()

    def close_all(self) -> None:
        for fd in list(self._open):
            self.close(fd)
