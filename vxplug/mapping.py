"""What ``Sandbox.map`` takes: files and shared memory, found here and mapped by the core."""

from __future__ import annotations

import mmap
import os
import stat
import sys
from typing import IO, TYPE_CHECKING, Any, Union

from . import _vx

if TYPE_CHECKING:
    from multiprocessing.shared_memory import SharedMemory

    from typing_extensions import Buffer

    Source = Union[str, os.PathLike[str], int, IO[Any], mmap.mmap, SharedMemory, Buffer]

__all__ = ["mapped"]

PAGE = mmap.ALLOCATIONGRANULARITY
SIZE_MAX = (1 << 32) - 1


def mapped(box: _vx.Box, source: Source, offset: int, size: int | None) -> _vx.Mapping:
    if isinstance(source, (str, os.PathLike)):
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # of a pipe nobody may be at the other end
    elif isinstance(source, int) or hasattr(source, "fileno"):
        fd = _again(source if isinstance(source, int) else source.fileno())
    else:
        return _memory(box, source, offset, size)
    try:
        return box.map(fd, offset, _checked(offset, size, _file_size(fd)))
    finally:
        os.close(fd)


def _again(fd: int) -> int:
    """To be read only, which memory sealed against writing asks for; where the file does not open again, as it is."""
    _regular(fd)
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return os.dup(fd)


def _regular(fd: int) -> os.stat_result:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("map(): source: not a regular file")
    return status


def _file_size(fd: int) -> int:
    """Files that the kernel makes up as they are read, as those in /proc, have no size, and cannot be mapped."""
    size = _regular(fd).st_size
    if size == 0 and os.pread(fd, 1, 0):
        raise ValueError("map(): source: a file that does not know its size")
    return size


def _memory(box: _vx.Box, source: Any, offset: int, size: int | None) -> _vx.Mapping:
    shared_memory = sys.modules.get("multiprocessing.shared_memory")
    if shared_memory is not None and isinstance(source, shared_memory.SharedMemory):
        source = source.buf
    try:
        view = memoryview(source)
    except TypeError:
        raise TypeError(
            f"map(): source: expected a path, a file, a descriptor, an mmap or a SharedMemory, got {type(source).__name__}"
        ) from None
    with view:
        return box.map(view, offset, _checked(offset, size, view.nbytes))


def _checked(offset: int, size: int | None, available: int) -> int:
    if offset < 0 or offset % PAGE != 0:
        raise ValueError(f"map(): offset: {offset} is not a multiple of the page size, {PAGE}")
    if offset > available:
        raise ValueError(f"map(): offset: {offset} is behind the source's end at {available}")
    if size is None:
        size = available - offset
    if not 0 <= size <= available - offset:
        raise ValueError(f"map(): size: {size} is not between 0 and the {available - offset} bytes there are")
    if size > SIZE_MAX:
        raise ValueError(f"map(): size: {size} is more than a sandbox has addresses for")
    return size
