"""Listing a directory: the host's entries as the guest asks for them, of which nothing but a place is kept.

The guest's place is the number of entries before it: `.`, `..` and mapped directories, then the host's.  The host's own
offsets take up to 63 bits, and libcs for 32-bit programs refuse entries whose offset does not fit.  So a place other
than the next one is found by counting from the beginning, as long as the call may take.
"""

from __future__ import annotations

import errno
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

from .. import _vx
from .calls import serves
from .descriptors import DirectoryHandle
from .paths import ending, fail
from .process import Process

CHUNK = 32 << 10  # bytes of entries that a call reads at a time
DT_DIR, DT_REG, DT_LNK = 4, 8, 10
SHOWN_TYPES = (DT_DIR, DT_REG, DT_LNK)
_HEADER = struct.Struct("<QqHB")  # linux_dirent64, the same on i386 and x86-64: inode, offset, length, type


class Entry(NamedTuple):
    name: bytes
    inode: int
    kind: int
    after: int  # the host's offset behind it


def _from_host(directory: DirectoryHandle, offset: int, size: int) -> list[Entry]:
    if directory.fd < 0:
        return []
    data = _vx.directory_entries(directory.fd, offset, size)
    return list(_parsed(data))


def _parsed(data: bytes) -> Iterator[Entry]:
    at = 0
    while at < len(data):
        inode, after, length, kind = _HEADER.unpack_from(data, at)
        name = data[at + _HEADER.size : at + length].partition(b"\0")[0]
        yield Entry(name, inode, kind if kind in SHOWN_TYPES else 0, after)
        at += length


def _packed(name: bytes, inode: int, kind: int, position: int) -> bytes:
    length = (_HEADER.size + len(name) + 1 + 7) & ~7
    return _HEADER.pack(inode, position, length, kind) + name.ljust(length - _HEADER.size, b"\0")


def _offset(directory: DirectoryHandle, made: list[bytes]) -> int:
    """The host's offset of the guest's place, behind the entries made here."""
    count, offset = directory.reached
    if not len(made) <= count <= directory.position:
        count, offset = len(made), 0
    while count < directory.position:
        if ending():
            raise fail(errno.EINTR)
        entries = _from_host(directory, offset, CHUNK)
        if not entries:
            break
        for entry in entries:
            count += entry.name not in made
            offset = entry.after
            if count == directory.position:
                break
    directory.reached = count, offset
    return offset


def _made_entries(made: list[bytes], position: int, size: int) -> tuple[bytes, int]:
    out = b""
    for name in made[position:]:
        packed = _packed(name, 1, DT_DIR, position + 1)
        if len(out) + len(packed) > size:
            break
        out += packed
        position += 1
    if not out:
        raise fail(errno.EINVAL)
    return out, position


def _list_host(p: Process, directory: DirectoryHandle, made: list[bytes], address: int, size: int) -> int:
    """The kernel's entries are as long here as there: what it fits into `size` does."""
    offset, position, out = _offset(directory, made), directory.position, b""
    while not out:
        entries = _from_host(directory, offset, size)
        if not entries:
            return 0
        shown = [entry for entry in entries if entry.name not in made]
        out = b"".join(_packed(*entry[:3], position + at) for at, entry in enumerate(shown, 1))
        offset, position = entries[-1].after, position + len(shown)
    p.write(address, out)
    directory.position, directory.reached = position, (position, offset)
    return len(out)


@serves("getdents64")
def getdents64(p: Process, fd: int, address: int, size: int) -> int:
    directory = p.table.get(fd)
    if not isinstance(directory, DirectoryHandle) or not stat.S_ISDIR(directory.mode):
        raise fail(errno.ENOTDIR)
    if directory.path_only:
        raise fail(errno.EBADF)
    made = [b".", b"..", *p.mounts.leads_to(directory.names)]
    size = min(size, CHUNK)
    if directory.position >= len(made):
        return _list_host(p, directory, made, address, size)
    out, position = _made_entries(made, directory.position, size)
    p.write(address, out)
    directory.position = position
    return len(out)
