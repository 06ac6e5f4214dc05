"""Calls on paths.  Everything is done to an O_PATH descriptor that the walk found, or to one name in it."""

from __future__ import annotations

import errno
import os
import stat
import struct
import time

from .calls import serves, signed
from .descriptors import O_ACCMODE, O_APPEND, O_NONBLOCK, DirectoryHandle, HostFile
from .files import O_CLOEXEC
from .paths import PATH_MAX, Found, Names, fail
from .process import AT_FDCWD, Process

O_CREAT, O_EXCL, O_TRUNC, O_DIRECTORY, O_NOFOLLOW, O_PATH = 0o100, 0o200, 0o1000, 0o200000, 0o400000, 0o10000000
O_TMPFILE, O_LARGEFILE = 0o20000000, 0o100000
KEPT = O_ACCMODE | O_APPEND | O_NONBLOCK | O_LARGEFILE | O_DIRECTORY | O_PATH
AT_SYMLINK_NOFOLLOW, AT_EACCESS, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH = 0x100, 0x200, 0x200, 0x400, 0x1000
MODE = 0o777  # no set-user-id, set-group-id or sticky bits by a guest
ATTEMPTS = 8  # at a file that others make and remove meanwhile
NEW_FILE_CHARGE = 4096  # bytes of storage that a new name counts as


# --- opening


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


def _open_once(p: Process, start: Names, path: bytes, flags: int, mode: int) -> HostFile | DirectoryHandle | None:
    """None: somebody made the file between the look and the making."""
    creates = flags & O_CREAT and not flags & O_PATH
    follow = not flags & O_NOFOLLOW and not (creates and flags & O_EXCL)
    names, found = p.mounts.walk(start, path, follow)
    if found is not None:
        with found:
            return _open_found(p, found, flags)
    if not creates:
        raise fail(errno.ENOENT)
    if path.endswith(b"/"):
        raise fail(errno.EISDIR)
    return _create(p, names, flags, mode)


def _open_found(p: Process, found: Found, flags: int) -> HostFile | DirectoryHandle:
    path_only = bool(flags & O_PATH)
    if flags & O_CREAT and flags & O_EXCL and not path_only:
        raise fail(errno.EEXIST)
    if flags & O_DIRECTORY and not stat.S_ISDIR(found.mode):
        raise fail(errno.ENOTDIR)
    if path_only:
        return DirectoryHandle(found, flags & KEPT, True)
    if stat.S_ISLNK(found.mode):
        raise fail(errno.ELOOP)
    if stat.S_ISDIR(found.mode):
        return _open_directory(found, flags)
    if not stat.S_ISREG(found.mode):
        raise fail(errno.EACCES)  # devices, FIFOs and sockets lead elsewhere
    if flags & O_ACCMODE or flags & O_TRUNC:
        found.check_writable()
    host = flags & (O_ACCMODE | O_APPEND | O_TRUNC) | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    return HostFile(os.open(found.host, host), flags & KEPT, found, p.charge_storage)


def _open_directory(found: Found, flags: int) -> DirectoryHandle:
    if flags & O_ACCMODE or flags & (O_CREAT | O_TRUNC):
        raise fail(errno.EISDIR)
    if found.fd >= 0 and not os.access(found.host, os.R_OK, effective_ids=True):
        raise fail(errno.EACCES)
    return DirectoryHandle(found, flags & KEPT, False)


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


# --- what there is

_STAT64 = struct.Struct("<Q4xIIIIIQ4xqIQIIIIIIQ")
_STATX = struct.Struct("<IIQIIIHxxQQQQ" + "qIi" * 4 + "IIIIQ")
STATX_BASIC = 0x7FF
GUEST_ID, OTHER_ID = 1000, 65534


def _owner(host: int, own: int) -> int:
    """The guest is the user that runs the host program; nobody else has a name here."""
    return GUEST_ID if host == own else OTHER_ID


def _fields(status: os.stat_result | None, mode: int, inode: int) -> dict[str, int]:
    if status is None:
        return dict(dev=1, ino=inode, mode=mode, nlink=1, uid=GUEST_ID, gid=GUEST_ID, rdev=0, size=0, blksize=4096,
                    blocks=0, atime=0, mtime=0, ctime=0)
    return dict(
        dev=status.st_dev, ino=status.st_ino, mode=status.st_mode, nlink=status.st_nlink,
        uid=_owner(status.st_uid, os.geteuid()), gid=_owner(status.st_gid, os.getegid()), rdev=status.st_rdev,
        size=status.st_size, blksize=status.st_blksize, blocks=status.st_blocks,
        atime=status.st_atime_ns, mtime=status.st_mtime_ns, ctime=status.st_ctime_ns,
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
    return _fields(description.status(), mode, 2 + fd)


def _of_path(p: Process, dirfd: int, path_at: int, flags: int) -> dict[str, int]:
    path = p.path(path_at)
    if not path and flags & AT_EMPTY_PATH:
        if dirfd != AT_FDCWD:
            return _of_descriptor(p, dirfd)
        path = b"."
    with p.find(dirfd, path, not flags & AT_SYMLINK_NOFOLLOW) as found:
        return _fields(found.status, found.mode, 1)


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


def _pack_statfs(fd: int) -> bytes:
    info = os.statvfs(fd)
    blocks = [info.f_blocks, info.f_bfree, info.f_bavail, info.f_files, info.f_ffree]
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
        if mode & os.W_OK:
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


# --- directories


def _entries(p: Process, directory: DirectoryHandle) -> list[tuple[bytes, int, int]]:
    """(name, inode, DT_*) of each; mapped directories below show as such."""
    found: dict[bytes, tuple[int, int]] = {b".": (1, 4), b"..": (1, 4)}
    if directory.fd >= 0:
        fd = os.open(f"/proc/self/fd/{directory.fd}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    found[os.fsencode(entry.name)] = entry.inode(), _type(entry)
        finally:
            os.close(fd)
    for name in p.mounts.leads_to(directory.names):
        found[name] = 1, 4
    return [(name, *rest) for name, rest in found.items()]


def _type(entry: os.DirEntry[str]) -> int:
    if entry.is_symlink():
        return 10
    return 4 if entry.is_dir(follow_symlinks=False) else 8 if entry.is_file(follow_symlinks=False) else 0


@serves("getdents64")
def getdents64(p: Process, fd: int, address: int, size: int) -> int:
    directory = p.table.get(fd)
    if not isinstance(directory, DirectoryHandle) or not stat.S_ISDIR(directory.mode):
        raise fail(errno.ENOTDIR)
    if directory.path_only:
        raise fail(errno.EBADF)
    if directory.entries is None:
        directory.entries = _entries(p, directory)
    out, position = b"", directory.position
    for name, inode, kind in directory.entries[position:]:
        length = (19 + len(name) + 1 + 7) & ~7
        if len(out) + length > size:
            break
        position += 1
        out += struct.pack("<QqHB", inode, position, length, kind) + name.ljust(length - 19, b"\0")
    if not out and position < len(directory.entries):
        raise fail(errno.EINVAL)
    p.write(address, out)
    directory.position = position
    return len(out)


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


def _place(p: Process, dirfd: int, path: bytes, dots: int) -> tuple[Names, bool]:
    """The canonical path of a name to be changed, its last link unfollowed, and whether it exists."""
    if path.rstrip(b"/").endswith(b".") and path.rstrip(b"/").rsplit(b"/", 1)[-1] in (b".", b".."):
        raise fail(dots)
    names, found = p.mounts.walk(p.start(dirfd, path), path, follow=False, slash_follows=False)
    if found is not None:
        found.close()
    return names, found is not None


def _existing(p: Process, dirfd: int, path: bytes, dots: int) -> Names:
    names, exists = _place(p, dirfd, path, dots)
    if not exists:
        raise fail(errno.ENOENT)
    return names


def _missing(p: Process, dirfd: int, path: bytes) -> Names:
    names, exists = _place(p, dirfd, path, errno.EEXIST)
    if exists:
        raise fail(errno.EEXIST)
    return names


def _parent(p: Process, names: Names) -> Found:
    parent = p.mounts.parent(names)
    try:
        parent.check_writable()
    except OSError:
        parent.close()
        raise
    return parent


@serves("mkdir")
def mkdir(p: Process, path: int, mode: int) -> None:
    mkdirat(p, AT_FDCWD, path, mode)


@serves("mkdirat")
def mkdirat(p: Process, dirfd: int, path_at: int, mode: int) -> None:
    names = _missing(p, dirfd, p.path(path_at))
    with _parent(p, names) as parent:
        p.charge_storage(NEW_FILE_CHARGE)
        os.mkdir(names[-1], 0o700, dir_fd=parent.fd)
    with p.find(AT_FDCWD, b"/" + b"/".join(names), follow=False) as made:
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
    path = p.path(path_at)
    if flags & ~AT_REMOVEDIR:
        raise fail(errno.EINVAL)
    removes_directory = bool(flags & AT_REMOVEDIR)
    dots = errno.EISDIR
    if removes_directory:
        dots = errno.ENOTEMPTY if path.rstrip(b"/").endswith(b"..") else errno.EINVAL
    names = _existing(p, dirfd, path, dots)
    with _parent(p, names) as parent:
        if removes_directory:
            os.rmdir(names[-1], dir_fd=parent.fd)
        else:
            os.unlink(names[-1], dir_fd=parent.fd)


@serves("rename")
def rename(p: Process, old: int, new: int) -> None:
    renameat2(p, AT_FDCWD, old, AT_FDCWD, new, 0)


@serves("renameat")
def renameat(p: Process, old_dir: int, old: int, new_dir: int, new: int) -> None:
    renameat2(p, old_dir, old, new_dir, new, 0)


RENAME_NOREPLACE = 1


@serves("renameat2")
def renameat2(p: Process, old_dir: int, old_at: int, new_dir: int, new_at: int, flags: int) -> None:
    if flags & ~RENAME_NOREPLACE:
        raise fail(errno.EINVAL)
    old_path, new_path = p.path(old_at), p.path(new_at)
    old = _existing(p, old_dir, old_path, errno.EBUSY)
    new, exists = _place(p, new_dir, new_path, errno.EBUSY)
    if exists and flags:
        raise fail(errno.EEXIST)
    with _parent(p, old) as source, _parent(p, new) as target:
        if source.mount is not target.mount:
            raise fail(errno.EXDEV)
        _check_slash(source, old[-1], old_path, new_path)
        os.rename(old[-1], new[-1], src_dir_fd=source.fd, dst_dir_fd=target.fd)
    _renamed(p, old, new)


def _check_slash(parent: Found, name: bytes, *paths: bytes) -> None:
    """A path with a slash behind it can name a directory only."""
    if any(path.endswith(b"/") for path in paths):
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent.fd, follow_symlinks=False).st_mode):
            raise fail(errno.ENOTDIR)


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
    """Of a regular file, within one mapped directory: a link elsewhere would carry its rights along."""
    with p.find(old_dir, p.path(old_at), bool(flags & AT_SYMLINK_FOLLOW)) as found:
        if not stat.S_ISREG(found.mode):
            raise fail(errno.EPERM)
        names = _missing(p, new_dir, p.path(new_at))
        with _parent(p, names) as parent:
            if parent.mount is not found.mount:
                raise fail(errno.EXDEV)
            p.charge_storage(NEW_FILE_CHARGE)
            os.link(found.host, names[-1], dst_dir_fd=parent.fd, follow_symlinks=True)


@serves("symlink")
def symlink(p: Process, target: int, path: int) -> None:
    symlinkat(p, target, AT_FDCWD, path)


@serves("symlinkat")
def symlinkat(p: Process, target_at: int, dirfd: int, path_at: int) -> None:
    """Relative and without '..': wherever it is moved, a host program that follows it stays inside."""
    target, path = p.path(target_at), p.path(path_at)
    if not target:
        raise fail(errno.ENOENT)
    if target.startswith(b"/") or b".." in target.split(b"/"):
        raise fail(errno.EPERM)
    names = _missing(p, dirfd, path)
    with _parent(p, names) as parent:
        p.charge_storage(NEW_FILE_CHARGE)
        os.symlink(target, names[-1], dir_fd=parent.fd)


# --- attributes


def _change_mode(found: Found, mode: int) -> None:
    found.check_writable()
    if stat.S_ISLNK(found.mode):
        raise fail(errno.EOPNOTSUPP)
    os.chmod(found.host, mode & MODE)


@serves("chmod")
def chmod(p: Process, path: int, mode: int) -> None:
    fchmodat(p, AT_FDCWD, path, mode)


@serves("fchmodat")
def fchmodat(p: Process, dirfd: int, path_at: int, mode: int) -> None:
    with p.find(dirfd, p.path(path_at)) as found:
        _change_mode(found, mode)


def _opened(p: Process, fd: int) -> HostFile | DirectoryHandle:
    """A descriptor of a file in a mapped directory that may be changed."""
    description = p.table.get(fd)
    if not isinstance(description, (HostFile, DirectoryHandle)):
        raise fail(errno.EPERM)
    if description.mount is None or not description.mount.writable:
        raise fail(errno.EROFS)
    return description


@serves("fchmod")
def fchmod(p: Process, fd: int, mode: int) -> None:
    description = _opened(p, fd)
    if isinstance(description, DirectoryHandle) and description.path_only:
        raise fail(errno.EBADF)
    os.chmod(f"/proc/self/fd/{description.fd}", mode & MODE)


def _check_owner(user: int, group: int) -> None:
    """A guest gives nothing away: only what changes nothing succeeds."""
    if user not in (GUEST_ID, 0xFFFFFFFF) or group not in (GUEST_ID, 0xFFFFFFFF):
        raise fail(errno.EPERM)


@serves("chown", "chown32")
def chown(p: Process, path: int, user: int, group: int) -> None:
    p.find(AT_FDCWD, p.path(path)).close()
    _check_owner(user, group)


@serves("lchown", "lchown32")
def lchown(p: Process, path: int, user: int, group: int) -> None:
    p.find(AT_FDCWD, p.path(path), follow=False).close()
    _check_owner(user, group)


@serves("fchown", "fchown32")
def fchown(p: Process, fd: int, user: int, group: int) -> None:
    p.table.get(fd)
    _check_owner(user, group)


@serves("fchownat")
def fchownat(p: Process, dirfd: int, path: int, user: int, group: int, flags: int) -> None:
    p.find(dirfd, p.path(path), not flags & AT_SYMLINK_NOFOLLOW).close()
    _check_owner(user, group)


@serves("truncate")
def truncate(p: Process, path: int, size: int) -> None:
    truncate64(p, path, size, 0xFFFFFFFF if signed(size) < 0 else 0)


@serves("truncate64")
def truncate64(p: Process, path_at: int, low: int, high: int) -> None:
    size = signed(high) << 32 | low
    if size < 0:
        raise fail(errno.EINVAL)
    with p.find(AT_FDCWD, p.path(path_at)) as found:
        if not stat.S_ISREG(found.mode):
            raise fail(errno.EISDIR if stat.S_ISDIR(found.mode) else errno.EINVAL)
        found.check_writable()
        p.charge_storage(max(0, size - found.status.st_size if found.status else 0))
        fd = os.open(found.host, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.ftruncate(fd, size)
    finally:
        os.close(fd)


@serves("umask")
def umask(p: Process, mask: int) -> int:
    old, p.umask = p.umask, mask & 0o777
    return old


# --- times of files

UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2


def _moments(p: Process, address: int, layout: str, unit: int) -> list[int] | None:
    """The two times as nanoseconds; UTIME_NOW and UTIME_OMIT as -1 and -2.  None: now."""
    if not address:
        return None
    fields = struct.unpack(layout, p.read(address, struct.calcsize(layout)))
    out = []
    for seconds, part in zip(fields[::2], fields[1::2], strict=True):
        part &= 0xFFFFFFFF
        if unit == 1 and part in (UTIME_NOW, UTIME_OMIT):
            out.append(-1 if part == UTIME_NOW else -2)
        elif part * unit >= 10**9:
            raise fail(errno.EINVAL)
        else:
            out.append(seconds * 10**9 + part * unit)
    return out


def _set_times(host: str, status: os.stat_result, moments: list[int] | None) -> None:
    now = time.time_ns()
    times = moments or [-1, -1]
    old = status.st_atime_ns, status.st_mtime_ns
    os.utime(host, ns=tuple(now if t == -1 else was if t == -2 else t for t, was in zip(times, old, strict=True)))


def _touch(p: Process, dirfd: int, path_at: int, moments: list[int] | None, follow: bool = True) -> None:
    if not path_at:
        description = _opened(p, dirfd)
        _set_times(f"/proc/self/fd/{description.fd}", os.stat(description.fd), moments)
        return
    with p.find(dirfd, p.path(path_at), follow) as found:
        found.check_writable()
        if stat.S_ISLNK(found.mode):
            raise fail(errno.EOPNOTSUPP)
        assert found.status is not None
        _set_times(found.host, found.status, moments)


@serves("utime")
def utime(p: Process, path: int, address: int) -> None:
    moments = None
    if address:
        moments = [seconds * 10**9 for seconds in struct.unpack("<ii", p.read(address, 8))]
    _touch(p, AT_FDCWD, _path_given(path), moments)


def _path_given(path_at: int) -> int:
    if not path_at:
        raise fail(errno.EFAULT)
    return path_at


@serves("utimes")
def utimes(p: Process, path: int, address: int) -> None:
    _touch(p, AT_FDCWD, _path_given(path), _moments(p, address, "<iiii", 1000))


@serves("futimesat")
def futimesat(p: Process, dirfd: int, path: int, address: int) -> None:
    _touch(p, dirfd, path, _moments(p, address, "<iiii", 1000))


@serves("utimensat")
def utimensat(p: Process, dirfd: int, path: int, address: int, flags: int) -> None:
    _touch(p, dirfd, path, _moments(p, address, "<iiii", 1), not flags & AT_SYMLINK_NOFOLLOW)


@serves("utimensat_time64")
def utimensat_time64(p: Process, dirfd: int, path: int, address: int, flags: int) -> None:
    _touch(p, dirfd, path, _moments(p, address, "<qqqq", 1), not flags & AT_SYMLINK_NOFOLLOW)
