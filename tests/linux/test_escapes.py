"""Ways out of the mapped directories, each tried by a guest."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

import vxplug
from vxplug import Directory, LinuxPolicy

from .test_files import CREATE, NOFOLLOW, PATH, TRUNC, tree

SECRET = b"the secret outside"


@pytest.fixture(scope="module")
def program(build_program):
    return vxplug.Program(build_program("fs", "-w"))


@pytest.fixture
def world(tmp_path):
    """outside/secret beside the mapped folder, and every kind of link to it in there."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(SECRET)
    inside = tmp_path / "inside"
    (inside / "deep" / "er").mkdir(parents=True)
    (inside / "deep" / "file").write_bytes(b"harmless")
    (inside / "absolute").symlink_to(tmp_path / "outside" / "secret")
    (inside / "relative").symlink_to("../outside/secret")
    (inside / "folder").symlink_to("../outside")
    (inside / "root").symlink_to("/")
    (inside / "deep" / "er" / "up").symlink_to("../../../outside")
    (inside / "chain").symlink_to("deep/er/up/secret")
    (inside / "process").symlink_to("/proc/self/cwd/etc/passwd")
    (inside / "cwd").symlink_to("/proc/self/cwd")
    (inside / "new").symlink_to("../outside/new")
    (inside / "newer").symlink_to(tmp_path / "outside" / "newer")
    os.mkfifo(inside / "fifo")
    return tmp_path


def attempt(program, policy: LinuxPolicy, *lines: str, **options) -> list[str]:
    out: list[bytes] = []
    ended = program.run(stdin="\n".join(lines).encode(), stdout=out.append, policy=policy, timeout=60, **options)
    assert ended.status == 0, ended
    return b"".join(out).decode("utf-8", "replace").splitlines()


def mapped(world: Path, writable: bool = True, **more) -> LinuxPolicy:
    return LinuxPolicy(directories={"/": Directory(world / "inside", writable), **more}, time=True)


WAYS = [
    "../outside/secret", "/../outside/secret", "deep/../../outside/secret", "deep/er/../../../outside/secret", "absolute",
    "relative", "folder/secret", "deep/er/up/secret", "chain", "process", "cwd/secret", "cwd/../outside/secret", "new", "newer",
    "/proc/self/cwd/etc/passwd", "/proc/self/fd/0", "/proc/self/environ", "/dev/fd/0", "/etc/passwd", "//etc//passwd",
    "root/etc/passwd", "root/proc/self/mem", "relative/", "folder/./secret",
]


@pytest.mark.parametrize("way", WAYS)
def test_no_way_out(program, world, way):
    """Without it a guest could read, make or remove files that nobody mapped.  To files of this machine the
    test does nothing that would be missed if the defence failed."""
    before = tree(world / "outside")
    changes = [
        f"open {way} {CREATE} 0644", f"open {way} {TRUNC | 1}", f"truncate {way} 0", f"chmod {way} 0777", f"rename {way} stolen",
        f"link {way} linked", "open linked 0", "read 3 100", f"mkdir {way}/x 0777", f"unlink {way}",
    ]
    looks = [f"open {way} 0", "read 3 100", f"stat {way}", f"access {way} 0", f"list {way}"]
    of_this_machine = "/etc/" in way or way == "process"
    lines = attempt(program, mapped(world), *looks, *([] if of_this_machine else changes), f"chdir {way}")
    assert tree(world / "outside") == before
    assert SECRET.decode() not in "\n".join(lines)
    assert not any(line.startswith("read = ") and line != "read = -1 errno 9" for line in lines)


def test_links_resolve_inside(program, world):
    """Without it the defence could be that links do not work at all."""
    (world / "inside" / "good").symlink_to("/deep/er/../file")
    (world / "inside" / "deep" / "er" / "back").symlink_to("../../deep/file")
    lines = attempt(program, mapped(world), "open good 0", "read 3 50", "open deep/er/back 0", "read 4 50")
    assert lines.count("  <harmless>") == 2


@pytest.mark.parametrize("name", ["fifo", "device"])
def test_only_files_and_directories_open(program, world, name):
    """Without it opening could block the host, or act on a device."""
    if name == "device":
        try:
            os.mknod(world / "inside" / "device", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        except PermissionError:
            pytest.skip("device nodes need root")
    flags = (0, 1, 2, 0o4000, 0o4001, CREATE, CREATE | TRUNC)
    lines = attempt(program, mapped(world), *(f"open {name} {flag} 0644" for flag in flags), f"open {name} {PATH | NOFOLLOW}",
                    "read 3 1", f"truncate {name} 0", "mkfifo another 0")
    assert lines[: len(flags)] == ["open = -1 errno 13"] * len(flags)
    assert lines[len(flags) :] == ["open = 3", "read = -1 errno 9", "truncate = -1 errno 22", "mkfifo = -1 errno 1"]


WRITES = [
    f"open deep/file {CREATE} 0644", f"open deep/file {TRUNC}", "open deep/file 1", f"open fresh {CREATE} 0644", "truncate deep/file 1",
    "chmod deep/file 0777", "unlink deep/file", "rmdir deep/er", "mkdir fresh 0777", "rename deep/file fresh", "link deep/file fresh",
    "symlink deep fresh", "times deep/file 0", "access deep/file 2",
]


def test_read_only_is_read_only(program, world):
    """Without it a guest could change what it was only shown."""
    before = tree(world / "inside")
    lines = attempt(program, mapped(world, writable=False), *WRITES, "open deep/file 0", "ftruncate 3 1", "fchmod 3 0777", "write 3 x",
                    f"open deep/file {PATH}", "fchmod 4 0777")
    lines = [line for line in lines if not line.startswith("  times")]
    assert all("errno 30" in line for line in lines[: len(WRITES) + 1])  # `times` tries two calls
    assert lines[-6:] == ["open = 3", "ftruncate = -1 errno 22", "fchmod = -1 errno 30", "write = -1 errno 9", "open = 4",
                          "fchmod = -1 errno 30"]
    assert tree(world / "inside") == before


def test_nothing_moves_between_directories(program, world):
    """Without it a file could take its rights from one mapped directory to another."""
    (world / "other").mkdir()
    (world / "other" / "theirs").write_bytes(b"theirs")
    policy = mapped(world, **{"/mnt/rw": Directory(world / "other", True), "/mnt/ro": Directory(world / "other")})
    lines = attempt(
        program, policy, "rename deep/file /mnt/rw/file", "link deep/file /mnt/rw/file", "rename /mnt/rw/theirs /theirs",
        "link /mnt/ro/theirs /mnt/rw/again", "rename /mnt /elsewhere", "rename /mnt/rw /mnt/x", "rmdir /mnt/rw", "unlink /mnt/rw",
        "rename deep /mnt/rw", "mkdir /mnt/rw 0700", f"open /mnt/ro/theirs {TRUNC}", "open /mnt/rw/../ro/theirs 0", "read 3 9",
        "list /mnt", "open /mnt/x 0102 0600")
    assert [line.rpartition(" ")[2] for line in lines[:11]] == "18 18 18 18 16 16 16 16 16 17 30".split()
    assert lines[11:13] == ["open = 3", "read = 6"] and lines[-1] == "open = -1 errno 30"
    assert "  ro 4" in lines and "  rw 4" in lines


@pytest.mark.parametrize("target", ["/etc", "../outside", "deep/../..", ".."])
def test_guest_links_lead_no_host_program_out(program, world, target):
    """Without it the host's own programs could be led out of the folder by a link that a guest left there."""
    assert attempt(program, mapped(world), f"symlink {target} left") == ["symlink = -1 errno 1"]


def test_no_set_user_id(program, world):
    """Without it a guest could leave a program that runs with its owner's rights."""
    attempt(program, mapped(world), f"open made {CREATE} 06777", "chmod made 06755", "fchmod 3 07777", "mkdir dir 07777", "chmod dir 07777")
    for name in ("made", "dir"):
        assert not (world / "inside" / name).stat().st_mode & 0o7000


def test_host_descriptors_are_unknown(program, world):
    """Without it a guest could use whatever files the host process has open."""
    with open(world / "outside" / "secret", "rb") as file:
        os.set_inheritable(file.fileno(), True)
        lines = attempt(program, mapped(world), *(f"read {fd} 10" for fd in range(3, 64)), *(f"fstat {fd}" for fd in range(3, 64)))
    assert set(lines) == {"read = -1 errno 9", "fstat = -1 errno 9"}


@pytest.mark.parametrize("host", ["/proc", "/proc/self/fd", "/sys"])
def test_process_file_systems_are_not_mapped(program, host):
    """Without it a guest could write the memory of the host process through a file."""
    with pytest.raises(vxplug.Error, match="act on the host"):
        program.run(policy=LinuxPolicy(directories={"/p": Directory(host, True)}))


def test_mounts_are_not_crossed(program):
    """Without it mapping a root would map /proc with it."""
    lines = attempt(program, LinuxPolicy(directories={"/": "/"}), "open /proc/self/mem 0", "open /proc/self/maps 0", "stat /proc/version")
    assert all(line.endswith("errno 13") for line in lines) and len(lines) == 3


def test_null_device(program, world):
    """Without it shells could not throw output away; or the host's own devices would be opened for it."""
    lines = attempt(program, mapped(world, writable=False), "open /dev/null 1", "write 3 gone", "open /dev/null 0102 0600", "read 4 5",
                    "stat /dev/null", "fstat 4", "access /dev/null 6", "open /dev/zero 0", "unlink /dev/null", "chmod /dev/null 0777")
    assert lines == ["open = 3", "write = 4", "open = 4", "read = 0", "stat = 0", "  mode 20666 links 1 size 0", "fstat = 0",
                     "  mode 20600 links 1 size 0", "access = 0", "open = -1 errno 2", "unlink = -1 errno 2", "chmod = -1 errno 30"]


def test_limits(program, world):
    """Without it a guest could use up the host's descriptors or disk."""
    policy = LinuxPolicy(directories={"/": Directory(world / "inside", True)}, descriptors=20, storage=10000)
    lines = attempt(
        program, policy, "descriptors", f"open big {CREATE} 0644", "write 3 0123456789", "ftruncate 3 1000000", "seek 3 100000 0",
        "write 3 x", "truncate big 500000", *(f"mkdir d{n} 0700" for n in range(4)))
    assert lines[0] == "ran out with errno 24"
    assert lines[2:7] == ["write = 10", "ftruncate = -1 errno 28", "seek = 100000", "write = -1 errno 28", "truncate = -1 errno 28"]
    assert lines[-1] == "mkdir = -1 errno 28"
    assert (world / "inside" / "big").stat().st_size == 10


def test_race_of_directory_and_link(program, world):
    """Without it a host process that swaps a directory for a link could let a guest out between look and use."""
    inside, stop = world / "inside", threading.Event()
    (inside / "swap").mkdir()
    (inside / "swap" / "secret").write_bytes(b"decoy")
    (inside / "link").symlink_to("../outside")

    def swap():
        while not stop.is_set():
            os.rename(inside / "swap", inside / "kept")
            os.rename(inside / "link", inside / "swap")
            os.rename(inside / "swap", inside / "link")
            os.rename(inside / "kept", inside / "swap")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        lines = attempt(program, mapped(world), *["open swap/secret 0", "read 3 50", "close 3", f"open swap/made {CREATE} 0600",
                                                  "close 3", "unlink swap/made"] * 1500)
    finally:
        stop.set()
        thread.join()
    assert "  <decoy>" in lines
    assert not any(SECRET.decode() in line for line in lines)
    assert os.listdir(world / "outside") == ["secret"]
