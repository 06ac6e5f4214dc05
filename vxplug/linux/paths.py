"""Guest paths to host files, and no way out of the directories that the caller mapped.

A canonical guest path is a tuple of names without links and dots.  It is opened in one openat2 call
beneath the mapped directory, which follows no symbolic link, no magic link and no mount
(``_vx.open_beneath``); so whatever the host's tree becomes meanwhile, a descriptor is of an object inside.
Links are read and followed here, one at a time, as paths of the guest; ``..`` removes a name.  What is
found is an O_PATH descriptor, and everything done later is done to that descriptor, or to one name in it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping
from types import TracebackType

from .. import _vx
from ..errors import Error
from ..policy import Directory

__all__ = ["Found", "Mount", "Mounts", "ending", "fail", "names_of"]

PATH_MAX = 4096
NAME_MAX = 255
LINKS_MAX = 40
# File systems whose files act on the host or on this very process (statfs(2)).
REFUSED_SYSTEMS = {
    0x9FA0: "proc", 0x62656572: "sysfs", 0x64626720: "debugfs", 0x74726163: "tracefs",
    0x73636673: "securityfs", 0xCAFE4A11: "bpf", 0x27E0EB: "cgroup", 0x63677270: "cgroup2",
}
Names = tuple[bytes, ...]
NULL_DEVICE: Names = (b"dev", b"null")


def fail(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def ending() -> bool:
    """Whether a call of this thread has to end: what takes long then stops, however.  Signals of the guest do not count."""
    return _vx.overdue() is not None


def names_of(path: bytes) -> list[bytes]:
    return [name for name in path.split(b"/") if name not in (b"", b".")]


class Mount:
    """A mapped directory, held open for the life of its Mounts."""

    def __init__(self, names: Names, host: str, writable: bool) -> None:
        self.names = names
        self.writable = writable
        try:
            self.fd = os.open(host, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise Error(f"cannot map {host}: {error.strerror}") from None

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class Found:
    """What a path names: an O_PATH descriptor (-1: a directory that only leads to mapped ones, or /dev/null)."""

    def __init__(self, names: Names, mount: Mount | None, fd: int) -> None:
        self.names = names
        self.mount = mount
        self.fd = fd
        self.status = os.stat(fd) if fd >= 0 else None
        made = stat.S_IFCHR | 0o666 if names == NULL_DEVICE else stat.S_IFDIR | 0o555
        self.mode = self.status.st_mode if self.status else made

    @property
    def host(self) -> str:
        """A name of exactly this object for calls that take no O_PATH descriptor."""
        if self.fd < 0:
            raise fail(errno.EROFS)
        return f"/proc/self/fd/{self.fd}"

    def check_writable(self) -> None:
        if self.mount is None or not self.mount.writable:
            raise fail(errno.EROFS)

    def take(self) -> int:
        """The descriptor, which the caller closes from now on."""
        fd, self.fd = self.fd, -1
        return fd

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.take())

    def __enter__(self) -> Found:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _checked(directory: Directory | str | os.PathLike[str]) -> tuple[str, bool]:
    if not isinstance(directory, Directory):
        directory = Directory(directory)
    return os.fspath(directory.host), directory.writable


class Mounts:
    """The guest's tree: mapped directories, nested as their names are."""

    def __init__(self, directories: Mapping[str, Directory | str | os.PathLike[str]]) -> None:
        self._mounts: dict[Names, Mount] = {}
        try:
            for guest, directory in directories.items():
                names = tuple(names_of(os.fsencode(guest)))
                if b".." in names or names in self._mounts:
                    raise Error(f"cannot map {guest!r}: it has '..', or is mapped twice")
                self._mounts[names] = Mount(names, *_checked(directory))
                self._check(self._mounts[names], guest)
        except BaseException:
            self.close()
            raise

    def _check(self, mount: Mount, guest: str) -> None:
        """Also finds out now, not at the guest's first call, that the kernel has no openat2."""
        try:
            os.close(_vx.open_beneath(mount.fd, b".", os.O_PATH))
        except OSError as error:
            if error.errno == errno.ENOSYS:
                raise Error("mapping directories needs openat2 (Linux 5.6)") from None
            raise Error(f"cannot map {guest}: {error.strerror}") from None
        system = REFUSED_SYSTEMS.get(_vx.file_system(mount.fd))
        if system is not None:
            raise Error(f"cannot map {guest}: files of {system} act on the host")

    def close(self) -> None:
        for mount in self._mounts.values():
            mount.close()
        self._mounts.clear()

    def _mount_of(self, names: Names) -> Mount | None:
        for size in range(len(names), -1, -1):
            if names[:size] in self._mounts:
                return self._mounts[names[:size]]
        return None

    def leads_to(self, names: Names) -> list[bytes]:
        """The next names on the way to mapped directories below `names`."""
        return sorted({key[len(names)] for key in self._mounts if len(key) > len(names) and key[: len(names)] == names})

    def is_mount(self, names: Names) -> bool:
        return names in self._mounts

    def lookup(self, names: Names) -> Found | None:
        """What a canonical path names, links unfollowed; None: nothing.  ELOOP: a link on the way."""
        mount = self._mount_of(names)
        if names == NULL_DEVICE:
            return Found(names, None, -1)
        if mount is None:
            return Found(names, None, -1) if self.leads_to(names) or not names else None
        path = b"/".join(names[len(mount.names) :]) or b"."
        try:
            return Found(names, mount, _vx.open_beneath(mount.fd, path, os.O_PATH | os.O_NOFOLLOW))
        except FileNotFoundError:
            return Found(names, None, -1) if self.leads_to(names) else None
        except OSError as error:
            raise fail(errno.EACCES) if error.errno == errno.EXDEV else error

    def _straight(self, names: Names, pending: Iterable[bytes], follow: bool) -> Found | None:
        """The common case in one call: no link and no dots on the way."""
        try:
            found = self.lookup((*names, *pending))
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
                return None
            raise
        if found is not None and stat.S_ISLNK(found.mode) and follow:
            found.close()
            return None
        return found

    def walk(self, start: Names, path: bytes, follow: bool = True) -> tuple[Names, Found | None]:
        """The canonical path, and what is there; None: only the last name is missing.

        ``follow``: a link as the last name is followed, as it is anyway with a slash behind it.
        """
        _check_path(path)
        directory = path.endswith((b"/", b"/.", b"/..")) or path in (b".", b"..")
        names = () if path.startswith(b"/") else start
        pending = names_of(path)
        follow = follow or directory
        if b".." not in pending:
            found = self._straight(names, pending, follow)
            if found is not None:
                return found.names, _only_directory(found, directory)
        return self._step(names, pending[::-1], follow, directory)

    def _step(self, names: Names, pending: list[bytes], follow: bool, directory: bool) -> tuple[Names, Found | None]:
        links = 0
        while pending:
            if ending():
                raise fail(errno.EINTR)
            name = pending.pop()
            if name == b"..":
                names = names[:-1]
                continue
            found = self.lookup((*names, name))
            if found is None:
                if pending:
                    raise fail(errno.ENOENT)
                return (*names, name), None
            if stat.S_ISLNK(found.mode) and (pending or follow):
                target = _read_link(found)
                links += 1
                if links > LINKS_MAX:
                    raise fail(errno.ELOOP)
                names = () if target.startswith(b"/") else names
                directory = directory or (not pending and target.endswith((b"/", b"/.", b"/..")))
                pending.extend(reversed(names_of(target)))
                continue
            if not pending:
                return found.names, _only_directory(found, directory)
            with found:
                _only_directory(found, True)
                names = found.names
        return names, self.lookup(names)

    def find(self, start: Names, path: bytes, follow: bool = True) -> Found:
        _names, found = self.walk(start, path, follow)
        if found is None:
            raise fail(errno.ENOENT)
        return found

    def check_name(self, name: bytes) -> None:
        if len(name) > NAME_MAX:
            raise fail(errno.ENAMETOOLONG)

    def parent(self, names: Names) -> Found:
        """The directory of a canonical path whose last name is to change."""
        if not names or self.is_mount(names) or self.leads_to(names):
            raise fail(errno.EBUSY)
        found = self.lookup(names[:-1])
        if found is None:
            raise fail(errno.ENOENT)
        return _only_directory(found, True)


def _check_path(path: bytes) -> None:
    if not path:
        raise fail(errno.ENOENT)
    if len(path) >= PATH_MAX or any(len(name) > NAME_MAX for name in path.split(b"/")):
        raise fail(errno.ENAMETOOLONG)


def _only_directory(found: Found, wanted: bool) -> Found:
    if wanted and not stat.S_ISDIR(found.mode):
        found.close()
        raise fail(errno.ENOTDIR)
    return found


def _read_link(found: Found) -> bytes:
    with found:
        target = os.readlink(b"", dir_fd=found.fd)
    if not target:
        raise fail(errno.ENOENT)
    return target
