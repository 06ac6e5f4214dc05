"""The working directory, and names made, moved and removed.

A name changes in its directory, which is held open meanwhile; the order of errors is that of
``fs/namei.c``: directories, dots, existence, the right to write.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from .calls import serves
from .descriptors import DirectoryHandle
from .paths import Found, Names, fail
from .process import AT_FDCWD, AT_SYMLINK_FOLLOW, MODE, NEW_FILE_CHARGE, Process

AT_REMOVEDIR = 0x200
RENAME_NOREPLACE = 1


@serves("getcwd")
def getcwd(p: Process, address: int, size: int) -> int:
    found = p.mounts.lookup(p.cwd)
    if found is None:
        raise fail(errno.ENOENT)
    found.close()
    path = b"/" + b"/".join(p.cwd) + b"\0"
    if len(path) > size:
        raise fail(errno.ERANGE)
    p.write(address, path)
    return len(path)


@serves("chdir")
def chdir(p: Process, path_at: int) -> None:
    with p.find(AT_FDCWD, p.path(path_at)) as found:
        if not stat.S_ISDIR(found.mode):
            raise fail(errno.ENOTDIR)
        if found.fd >= 0 and not os.access(found.host, os.X_OK, effective_ids=True):
            raise fail(errno.EACCES)
        p.cwd = found.names


@serves("fchdir")
def fchdir(p: Process, fd: int) -> None:
    directory = p.table.get(fd)
    if not isinstance(directory, DirectoryHandle) or not stat.S_ISDIR(directory.mode):
        raise fail(errno.ENOTDIR)
    p.cwd = directory.names


# --- names made, moved and removed


class Place(NamedTuple):
    """A name in a directory; dots are not names that can change."""

    names: Names
    slash: bool  # the path ends with one
    dots: bytes  # b"." or b"..", or nothing


def _place(p: Process, dirfd: int, path: bytes) -> Place:
    if not path:
        raise fail(errno.ENOENT)
    before, _slash, name = path.rstrip(b"/").rpartition(b"/")
    if not name:
        return Place((), True, b".")
    root = b"/" if path.startswith(b"/") else b"."
    with p.find(dirfd, (before or root) + b"/") as directory:
        dots = name if name in (b".", b"..") else b""
        p.mounts.check_name(name)
        return Place((*directory.names, name), path.endswith(b"/"), dots)


def _find(p: Process, place: Place) -> Found | None:
    return p.mounts.lookup(place.names)


def _parent(p: Process, place: Place) -> Found:
    """The directory, if it may be changed."""
    parent = p.mounts.parent(place.names)
    try:
        parent.check_writable()
    except OSError:
        parent.close()
        raise
    return parent


def _new(p: Process, dirfd: int, path: bytes, directory: bool = False) -> Place:
    """A name that is free."""
    place = _place(p, dirfd, path)
    found = None if place.dots else _find(p, place)
    if place.dots or found is not None:
        if found is not None:
            found.close()
        raise fail(errno.EEXIST)
    if place.slash and not directory:
        raise fail(errno.ENOENT)
    return place


@serves("mkdir")
def mkdir(p: Process, path: int, mode: int) -> None:
    mkdirat(p, AT_FDCWD, path, mode)


@serves("mkdirat")
def mkdirat(p: Process, dirfd: int, path_at: int, mode: int) -> None:
    place = _new(p, dirfd, p.path(path_at), directory=True)
    with _parent(p, place) as parent:
        p.charge_storage(NEW_FILE_CHARGE)
        os.mkdir(place.names[-1], 0o700, dir_fd=parent.fd)
    made = _find(p, place)
    if made is not None:
        with made:
            if stat.S_ISDIR(made.mode):
                os.chmod(made.host, mode & MODE & ~p.umask)


@serves("rmdir")
def rmdir(p: Process, path: int) -> None:
    unlinkat(p, AT_FDCWD, path, AT_REMOVEDIR)


@serves("unlink")
def unlink(p: Process, path: int) -> None:
    unlinkat(p, AT_FDCWD, path, 0)


@serves("unlinkat")
def unlinkat(p: Process, dirfd: int, path_at: int, flags: int) -> None:
    if flags & ~AT_REMOVEDIR:
        raise fail(errno.EINVAL)
    place = _place(p, dirfd, p.path(path_at))
    if not flags and place.dots:
        raise fail(errno.EISDIR)
    if place.dots:
        raise fail(errno.ENOTEMPTY if place.dots == b".." else errno.EINVAL if place.names else errno.EBUSY)
    with _parent(p, place) as parent:
        if flags:
            os.rmdir(place.names[-1], dir_fd=parent.fd)
        else:
            if place.slash:
                _check_slash(parent, place, errno.EISDIR)
            os.unlink(place.names[-1], dir_fd=parent.fd)


def _check_slash(parent: Found, place: Place, of_directory: int = 0) -> None:
    """With a slash behind it a path names a directory only."""
    mode = os.stat(place.names[-1], dir_fd=parent.fd, follow_symlinks=False).st_mode
    if not stat.S_ISDIR(mode):
        raise fail(errno.ENOTDIR)
    if of_directory:
        raise fail(of_directory)


@serves("rename")
def rename(p: Process, old: int, new: int) -> None:
    renameat2(p, AT_FDCWD, old, AT_FDCWD, new, 0)


@serves("renameat")
def renameat(p: Process, old_dir: int, old: int, new_dir: int, new: int) -> None:
    renameat2(p, old_dir, old, new_dir, new, 0)


def _check_rename(p: Process, source: Found, old: Place, new: Place, flags: int) -> None:
    there = _find(p, old)
    if there is None:
        raise fail(errno.ENOENT)
    there.close()
    taken = _find(p, new)
    if taken is not None:
        taken.close()
        if flags & RENAME_NOREPLACE:
            raise fail(errno.EEXIST)
    if old.slash or new.slash:
        _check_slash(source, old)


@serves("renameat2")
def renameat2(p: Process, old_dir: int, old_at: int, new_dir: int, new_at: int, flags: int) -> None:
    if flags & ~RENAME_NOREPLACE:
        raise fail(errno.EINVAL)
    old, new = _place(p, old_dir, p.path(old_at)), _place(p, new_dir, p.path(new_at))
    if old.dots or new.dots:
        raise fail(errno.EBUSY)
    with _parent(p, old) as source, _parent(p, new) as target:
        if source.mount is not target.mount:
            raise fail(errno.EXDEV)
        _check_rename(p, source, old, new, flags)
        os.rename(old.names[-1], new.names[-1], src_dir_fd=source.fd, dst_dir_fd=target.fd)
    _renamed(p, old.names, new.names)


def _renamed(p: Process, old: Names, new: Names) -> None:
    """Directories in use are known by their paths: these follow."""
    if p.cwd[: len(old)] == old:
        p.cwd = new + p.cwd[len(old) :]
    for description in p.table:
        if isinstance(description, DirectoryHandle) and description.names[: len(old)] == old:
            description.names = new + description.names[len(old) :]


@serves("link")
def link(p: Process, old: int, new: int) -> None:
    linkat(p, AT_FDCWD, old, AT_FDCWD, new, 0)


@serves("linkat")
def linkat(p: Process, old_dir: int, old_at: int, new_dir: int, new_at: int, flags: int) -> None:
    """Within one mapped directory: a link elsewhere would carry the file's rights along."""
    with p.find(old_dir, p.path(old_at), bool(flags & AT_SYMLINK_FOLLOW)) as found:
        place = _new(p, new_dir, p.path(new_at))
        with _parent(p, place) as parent:
            if parent.mount is not found.mount:
                raise fail(errno.EXDEV)
            if not stat.S_ISREG(found.mode) and not stat.S_ISLNK(found.mode):
                raise fail(errno.EPERM)
            p.charge_storage(NEW_FILE_CHARGE)
            _link(p, found, parent, place)


def _link(p: Process, found: Found, parent: Found, place: Place) -> None:
    name = place.names[-1]
    if stat.S_ISREG(found.mode):
        os.link(found.host, name, dst_dir_fd=parent.fd, follow_symlinks=True)
        return
    with p.mounts.parent(found.names) as origin:  # a link has no other name than its own
        os.link(found.names[-1], name, src_dir_fd=origin.fd, dst_dir_fd=parent.fd, follow_symlinks=False)


@serves("symlink")
def symlink(p: Process, target: int, path: int) -> None:
    symlinkat(p, target, AT_FDCWD, path)


@serves("symlinkat")
def symlinkat(p: Process, target_at: int, dirfd: int, path_at: int) -> None:
    """Relative and without '..': wherever it is moved, a host program that follows it stays inside."""
    target, path = p.path(target_at), p.path(path_at)
    if not target:
        raise fail(errno.ENOENT)
    place = _new(p, dirfd, path)
    with _parent(p, place) as parent:
        if target.startswith(b"/") or b".." in target.split(b"/"):
            raise fail(errno.EPERM)
        p.charge_storage(NEW_FILE_CHARGE)
        os.symlink(target, place.names[-1], dir_fd=parent.fd)
