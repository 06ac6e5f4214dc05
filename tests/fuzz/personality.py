"""The Python side of the Linux personality: any call that it serves, with any arguments and any guest memory.

Input: calls: a number, six arguments, and sometimes text that is put into memory first.  Every call gives a result or
an errno.  Nothing outside the mapped directories is read or changed, nothing changes in the read-only one, no more is
stored than allowed, and no descriptor is left open.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
import tempfile
from pathlib import Path
from typing import Any

from . import driver
from .driver import Reader, require

with driver.instrumented():
    import vxplug
    from vxplug.linux.calls import ROWS
    from vxplug.linux.personality import Personality
    from vxplug.linux.process import Streams
    from vxplug.policy import Directory

NUMBERS = sorted(row.number for row in ROWS.values() if row.server in ("policy", "either"))
BASE, SIZE = 0x10000, 0x10000
SECRET = b"nobody may read this secret"
STORAGE = 1 << 16
PATHS = (
    b"/", b"/ro", b"/rw", b"/ro/file", b"/rw/file", b"/rw/new", b"/rw/dir", b"/rw/dir/deep", b"/rw/link", b"/rw/out", b"/ro/out",
    b"/rw/absolute", b"/rw/loop", b"/rw/parent", b"..", b".", b"../secret", b"/rw/../../secret", b"/rw/dir/../../../secret",
    b"file", b"dir", b"new", b"", b"/proc/self/mem", b"/dev/null", b"/rw/self", b"/rw/fifo", b"/rw/file/", b"/rw/file/.", b"//rw//file",
    b"/rw/" + b"n" * 255, b"/rw/" + b"n" * 256, b"/rw/\xff\xfe", b"x" * 4095, b"x" * 5000, b"/rw/dir/back", b"secret", b"/secret",
)
PLACES = [BASE + 0x400 * i for i in range(16)]


class Memory:
    """The guest memory that a Box gives, of which one page in the middle is not mapped."""

    memory_used = SIZE

    def __init__(self) -> None:
        self.bytes = bytearray(SIZE)
        self.patience = 2

    def _inside(self, address: int, size: int) -> bool:
        end = address + size
        return size >= 0 and BASE <= address and end <= BASE + SIZE and (end <= BASE + 0x8000 or address >= BASE + 0x9000)

    def read(self, address: int, size: int) -> bytes | None:
        return bytes(self.bytes[address - BASE : address - BASE + size]) if self._inside(address, size) else None

    def write(self, address: int, data: bytes) -> bool:
        if not self._inside(address, len(data)):
            return False
        require(SECRET not in bytes(data), "the guest reads the secret")
        self.bytes[address - BASE : address - BASE + len(data)] = data
        return True

    def text(self, address: int, limit: int) -> bytes | None:
        for size in range(limit):
            byte = self.read(address + size, 1)
            if byte is None:
                return None
            if byte == b"\0":
                return self.read(address, size)
        return None

    def stopping(self) -> bool:
        self.patience -= 1
        return self.patience < 0

    def output_room(self, size: int) -> int:
        return size


class Tree:
    """A host directory with what a guest would like to leave, and how it looked at first."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="vxplug-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
        (self.root / "secret").write_bytes(SECRET)
        for name in ("ro", "rw"):
            folder = self.root / name
            (folder / "dir" / "deep").mkdir(parents=True)
            (folder / "file").write_bytes(b"0123456789" * 50)
            for link, target in (("link", "file"), ("out", "../secret"), ("absolute", str(self.root / "secret")), ("loop", "loop"),
                                 ("parent", ".."), ("self", "/proc/self/fd/0"), ("dir/back", "../../secret")):
                (folder / link).symlink_to(target)
        os.mkfifo(self.root / "rw" / "fifo")
        self.before = self.look()

    def look(self) -> list[tuple[Any, ...]]:
        """Everything but what is in rw."""
        paths = [self.root / "secret", self.root / "ro", *(self.root / "ro").rglob("*")]
        found: list[tuple[Any, ...]] = [tuple(sorted(os.listdir(self.root)))]
        for path in paths:
            status = path.lstat()
            found.append((str(path), status.st_mode, status.st_size, status.st_mtime_ns, status.st_nlink, status.st_uid))
        return found

    def check(self) -> None:
        require(self.look() == self.before, "the host outside what may be written")
        require((self.root / "secret").read_bytes() == SECRET, "the secret")

    def stored(self) -> int:
        """Bytes of storage: a file with several names is there once."""
        status = [path.lstat() for path in (self.root / "rw").rglob("*")]
        return sum({one.st_ino: one.st_blocks * 512 for one in status if stat.S_ISREG(one.st_mode)}.values())

    def remove(self) -> None:
        for path in (self.root / "rw").rglob("*"):
            if not path.is_symlink() and path.is_dir():
                path.chmod(0o700)
        shutil.rmtree(self.root)


def policy_of(tree: Tree, choice: int) -> vxplug.LinuxPolicy:
    directories = {"/ro": tree.root / "ro", "/rw": Directory(tree.root / "rw", writable=True)}
    return vxplug.LinuxPolicy(directories=directories if choice & 1 else {"/rw/in": Directory(tree.root / "rw", writable=True)},
                              cwd="/rw" if choice & 2 else "/", time=choice & 4 == 0, random=choice & 8 == 0, terminal=choice & 16 != 0,
                              output=1000, storage=STORAGE, descriptors=3 + (choice >> 5) * 2)


def put(memory: Memory, place: int, data: bytes) -> None:
    memory.bytes[place - BASE : place - BASE + len(data)] = data


def argument(reader: Reader, memory: Memory) -> int:
    choice = reader.byte()
    kind, low = choice >> 5, choice & 31
    if kind == 0:
        return low
    if kind == 1:
        path = PATHS[reader.byte() % len(PATHS)]
        put(memory, PLACES[low % 16], path + b"\0")
        return PLACES[low % 16]
    if kind == 2:  # an io vector, or a time, or a descriptor set: words
        words = [PLACES[reader.byte() % 16] if reader.byte() & 1 else reader.number(2) for _ in range(4)]
        put(memory, PLACES[low % 16], struct.pack("<4I", *words))
        return PLACES[low % 16]
    if kind == 3:
        put(memory, PLACES[low % 16], reader.take(reader.byte() % 64))
        return PLACES[low % 16]
    if kind == 4:
        return (-low - 90 if low > 8 else -low) & 0xFFFFFFFF
    if kind == 5:
        return 1 << low
    if kind == 6:
        return (BASE + 0x7FF0, BASE + 0x8000, BASE + SIZE - 4, 0xFFFFF000, 0, 0x7FFFFFFF)[low % 6] + reader.byte() % 16 & 0xFFFFFFFF
    return reader.number(4)


def serve(reader: Reader, personality: Personality, memory: Memory) -> None:
    number = NUMBERS[reader.number(2) % len(NUMBERS)]
    arguments = tuple(argument(reader, memory) for _ in range(6))
    memory.patience = 2 if reader.byte() == 1 else 0
    result = personality(memory, reader.byte() == 255, number, arguments)  # type: ignore[arg-type]
    require(isinstance(result, int) and -(1 << 31) <= result < 1 << 32, f"{result!r} of call {number}")


def one_input(data: bytes) -> None:
    reader = Reader(data)
    before = len(os.listdir("/proc/self/fd"))
    output: list[bytes] = []
    tree = Tree()
    umask = os.umask(0o022)
    try:
        with Personality(policy_of(tree, reader.byte()), Streams(b"input\n" * 20, output.append, output.append), 1 << 20, 1 << 16) as personality:
            memory = Memory()
            for _ in range(64):
                if not reader.left:
                    break
                serve(reader, personality, memory)
        tree.check()
        require(tree.stored() <= STORAGE + (1 << 14), "more is stored than allowed")
        require(os.umask(umask) == 0o022, "the host's umask")
    finally:
        tree.remove()
    require(len(os.listdir("/proc/self/fd")) == before, "a descriptor is left open")


if __name__ == "__main__":
    driver.main(one_input)
