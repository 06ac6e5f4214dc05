"""A file's bytes in memory of our own, which nobody else can change: copied once, by the kernel."""

from __future__ import annotations

import mmap
import os
import stat

__all__ = ["FILE_MAX", "Contents", "read_contents"]

FILE_MAX = 256 << 20


class Contents(mmap.mmap):
    """A memory file, mapped to be read: slices are bytes.

    The core maps what it can from the same file, and writes behind its end what it cannot; so only one plugin may
    have the descriptor, and gets it once.
    """

    _descriptor: int | None = None

    def take_descriptor(self) -> int | None:
        """The file, for the caller to close; None if it was taken."""
        taken: int | None = self.__dict__.pop("_descriptor", None)
        return taken

    def __del__(self) -> None:
        descriptor = self.take_descriptor()
        if descriptor is not None:
            os.close(descriptor)


def read_contents(path: str) -> bytes | Contents:
    """The file, not through the process's memory where the kernel can do that: it touches half the pages.  Of one that
    is too large enough to see it."""
    with open(path, "rb") as file:  # once: a pipe has one writer, who comes once
        found = os.fstat(file.fileno())
        if stat.S_ISREG(found.st_mode) and 0 < found.st_size <= FILE_MAX:
            contents = _copy(file.fileno(), found.st_size)
            if contents is not None:
                return contents
        size = min(found.st_size, FILE_MAX)  # room for all that there could be would cost more than reading
        data = file.read(size + 1)
        return data if len(data) <= size else data + file.read(FILE_MAX - size)  # it does not know, or grows


def _copy(source: int, size: int) -> Contents | None:
    memory = os.memfd_create("vxplug-plugin", os.MFD_CLOEXEC)
    try:
        done = 0
        while done < size:
            count = os.sendfile(memory, source, done, size - done)
            if count == 0:
                break  # it shrinks
            done += count
        contents = Contents(memory, size, access=mmap.ACCESS_READ) if done == size else None
    except OSError:  # a file system without it
        contents = None
    if contents is None:
        os.close(memory)
    else:
        contents._descriptor = memory
    return contents
