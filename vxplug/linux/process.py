"""One life of a guest: its descriptors, working directory and other state that is the host's to keep."""

from __future__ import annotations

import errno
import math
import os
import select
import time
from collections.abc import Callable
from typing import Any, TypeVar

from .. import _vx
from ..policy import LinuxPolicy
from .descriptors import Description, DirectoryHandle, HostStream, Sink, Source, Table
from .paths import PATH_MAX, Found, Mounts, Names, fail, names_of

__all__ = ["Budget", "Process", "Streams"]

AT_FDCWD = -100 & 0xFFFFFFFF
AT_SYMLINK_NOFOLLOW, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH = 0x100, 0x400, 0x1000
GUEST_ID, OTHER_ID = 1000, 65534  # who owns files: the guest, or nobody it knows
MODE = 0o777  # no set-user-id, set-group-id or sticky bits by a guest
NEW_FILE_CHARGE = 4096  # bytes of storage that a new name counts as
IO_MAX = 1 << 20  # bytes of one read or write; more comes in pieces
ERESTART = 512  # of the kernel: EINTR, unless the handler wants the call to be made again
SLICE = 0.02  # seconds that a wait goes without looking whether the call has to end
UNTIMED = math.inf  # the end of a wait that only a clock would end, where the policy gives none
Result = TypeVar("Result")


class Streams:
    """What the application gives as standard streams: host descriptors, callables, bytes, file objects."""

    def __init__(self, stdin: Any, stdout: Any, stderr: Any) -> None:
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr

    def put_into(self, table: Table, charge: Callable[[int], int]) -> None:
        stdin = b"" if self.stdin is None else self.stdin
        table.add(HostStream(stdin, 0, charge) if isinstance(stdin, int) else Source(stdin))
        for target in (self.stdout, self.stderr):
            table.add(HostStream(target, 1, charge) if isinstance(target, int) else Sink(target, charge))


class Budget:
    """What is left of a policy's output and storage, for all lives of a guest: it could fault to get them anew."""

    def __init__(self, policy: LinuxPolicy) -> None:
        self.output, self.storage = policy.output, policy.storage


class Process:
    """What one function a call works on.  ``box`` is the guest's memory."""

    def __init__(
        self, policy: LinuxPolicy, budget: Budget, mounts: Mounts, streams: Streams, memory: int, stack: int
    ) -> None:
        self.box: _vx.Box = None  # type: ignore[assignment]  # set for each call
        self.policy = policy
        self.budget = budget
        self.memory_limit, self.stack_limit = memory, stack
        self.name = b""
        self.mounts = mounts
        self.table = Table(policy.descriptors)
        self.umask = 0o022
        self.cwd: Names = tuple(names_of(os.fsencode(policy.cwd)))
        self.timed = False  # whether the guest wanted to know the time, for the trace
        self.started = time.monotonic()
        self.started_processor = time.thread_time_ns()
        streams.put_into(self.table, self.charge_output)

    def close(self) -> None:
        self.table.close_all()

    # --- limits

    def charge_output(self, size: int) -> int:
        """How many of so many bytes may be written: the policy's limit is an error, a call's takes what it can, and ends it."""
        if size > self.budget.output:
            raise fail(errno.ENOSPC)
        room = self.box.output_room(size)
        if size and not room:
            raise fail(errno.ENOSPC)
        self.budget.output -= room
        return room

    def charge_storage(self, size: int) -> None:
        if size > self.budget.storage:
            raise fail(errno.ENOSPC)
        self.budget.storage -= size

    # --- time

    def use_time(self) -> None:
        """What tells the time, or needs a clock, is the policy's to allow."""
        self.timed = True
        if not self.policy.time:
            raise fail(errno.EPERM)

    def moment(self, seconds: float) -> float:
        """When a wait ends that begins now, in monotonic time; without a clock no limit but 0 has passed, however short."""
        if seconds and not self.policy.time:
            return UNTIMED
        return time.monotonic() + seconds

    # --- guest memory

    def read(self, address: int, size: int) -> bytes:
        data = self.box.read(address, size)
        if data is None:
            raise fail(errno.EFAULT)
        return data

    def write(self, address: int, data: bytes) -> None:
        if not self.box.write(address, data):
            raise fail(errno.EFAULT)

    def path(self, address: int) -> bytes:
        path = self.box.text(address, PATH_MAX)
        if path is None:
            raise fail(errno.ENAMETOOLONG if self.box.read(address, PATH_MAX) is not None else errno.EFAULT)
        return path

    # --- paths

    def start(self, dirfd: int, path: bytes) -> Names:
        """Where a relative path begins."""
        if dirfd == AT_FDCWD or path.startswith(b"/"):
            return self.cwd
        directory = self.table.get(dirfd)
        if not isinstance(directory, DirectoryHandle):
            raise fail(errno.ENOTDIR)
        return directory.names

    def find(self, dirfd: int, path: bytes, follow: bool = True) -> Found:
        return self.mounts.find(self.start(dirfd, path), path, follow)

    # --- waiting

    def wait(
        self, ready: Callable[[], Result | None], events: dict[int, int], until: float | None = None,
        interrupted: int = errno.EINTR,
    ) -> Result | None:
        """What `ready` gives once it is not None; None when `until` (monotonic) has passed.

        ``events`` are host descriptors and poll events that can make it so.  A call that has to end, and a
        signal that the guest handles, end the wait with the errno `interrupted`.  A wait with a time limit
        needs a clock if there is anything to wait for.
        """
        poll = select.poll()
        for fd, mask in events.items():
            poll.register(fd, mask)
        while True:
            result = ready()
            if result is not None:
                return result
            if self.box.stopping():
                raise fail(interrupted)
            left = SLICE if until is None else until - time.monotonic()
            if left <= 0:
                return None
            if until is not None:
                self.use_time()
            poll.poll(min(left, SLICE) * 1000)

    def transfer(self, description: Description, event: int, action: Callable[[], Result | None]) -> Result:
        """Reads or writes when the description is ready, or fails with EAGAIN if it does not block."""
        result = action()
        if result is not None:
            return result
        if description.flags & 0o4000:
            raise fail(errno.EAGAIN)
        events = {description.fd: event} if description.fd >= 0 else {}
        result = self.wait(action, events, interrupted=ERESTART)
        assert result is not None  # without a time limit there is a result
        return result
