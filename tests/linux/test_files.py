"""File calls: one script on the kernel and in the sandbox gives one output and leaves one tree."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import pytest

CREATE = 0o102  # O_CREAT | O_RDWR
DIRECTORY, NOFOLLOW, PATH, EXCL, TRUNC, APPEND = 0o200000, 0o400000, 0o10000000, 0o200, 0o1000, 0o2000

SCRIPTS = {
    "create": f"""
        umask 027
        open a {CREATE} 0666
        write 3 0123456789
        seek 3 2 0
        read 3 4
        seek 3 -1 2
        seek 3 -100 1
        seek 3 0 9
        ftruncate 3 4
        fstat 3
        ftruncate 3 -1
        fchmod 3 0640
        fstat 3
        vectors 3
        map 3
        duplicates 3
        close 3
        close 3
        stat a
        open a {CREATE | EXCL} 0600
        open a {TRUNC | 1}
        stat a
        open a {APPEND | 1}
        write 4 app
        read 4 1
        open missing 0
        open '' 0
        open a/ 0
        open a/b 0
        open new/ {CREATE} 0644
        open nodir/new {CREATE} 0644
        creat b 0
        long
        badpointer
        pipes
    """,
    "directories": f"""
        mkdir d 0777
        mkdir d 0777
        mkdir d/e/f 0777
        mkdir d/e 0700
        mkdir d/e/ 0700
        stat d/e
        open d/e/x {CREATE} 0600
        write 3 inside
        list d
        list d/e
        list d/e/x
        rmdir d
        rmdir d/e
        rmdir d/e/.
        rmdir d/e/..
        unlink d
        unlink d/e/.
        rename d/e/x d/y
        rename d/e d/e2
        rename d d/e2/in
        rename d/e2 d/e3/
        rename d/y d/z/
        rename missing x
        rename d/. x
        rename d/.. x
        open d {DIRECTORY}
        openat 4 y 0
        read 5 100
        openat 4 ../d/./e3/.. 0
        fchdir 4
        cwd
        open y 0
        chdir e3
        cwd
        chdir ../..
        chdir missing
        chdir d/y
        open d 1
        open d {CREATE} 0600
        open d/y {DIRECTORY}
        read 4 1
        seek 4 0 0
        open d {PATH}
        read 8 1
        fstat 8
        statat 8 y 0
        unlink d/y
        rmdir d/e3
        rmdir d
        rmdir missing
        statat 4 y 0
        list .
    """,
    "links": f"""
        mkdir d 0755
        open d/file {CREATE} 0644
        write 3 contents
        symlink file d/link
        symlink d dlink
        symlink missing dangling
        symlink loop2 loop1
        symlink loop1 loop2
        symlink x/y d/link
        symlink '' empty
        readlink d/link
        readlink d/file
        readlink missing
        open d/link 0
        read 4 50
        open dlink/link 0
        read 5 50
        open dlink/../dlink/./file 0
        open d/link {NOFOLLOW}
        open d/link {NOFOLLOW | PATH}
        fstat 7
        open loop1 0
        stat loop1
        lstat loop1
        lstat d/link
        lstat dlink/
        stat dangling
        open dangling {CREATE | EXCL} 0644
        open dangling {CREATE} 0644
        stat missing
        link d/file hard
        link d/link hard2
        lstat hard2
        stat hard
        link d nolink
        link missing x
        unlink d/file
        stat hard
        rename hard renamed
        lstat dlink
        unlink dlink/
        rmdir dlink/
        mkdir dlink/sub 0700
        rename dlink/sub dlink/sub2
        unlink dlink
        list .
        list d
        chmod renamed 0604
        chmod missing 0600
        stat renamed
        truncate renamed 3
        truncate d 3
        truncate missing 3
        times renamed 0
        times d 1
        times missing 0
        access renamed 0
        access missing 0
        access renamed 9
        statfs d
        statfs renamed
        statfs missing
    """,
}


def tree(folder: Path) -> list[tuple[str, int, bytes]]:
    """(path, mode, contents or target) of everything below."""
    out = []
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        data = os.readlink(path).encode() if stat.S_ISLNK(mode) else path.read_bytes() if stat.S_ISREG(mode) else b""
        out.append((str(path.relative_to(folder)), mode, data))
    return out


@pytest.fixture(scope="module")
def fs(build_program):
    return build_program("fs", "-w")


def compare(fs, natively, sandboxed, folder: Path, script: str) -> str:
    there, here = folder / "there", folder / "here"
    for place in (there, here):
        place.mkdir(mode=0o755)
    data = script.encode()
    native, ours = natively(fs, folder=there, data=data), sandboxed(fs, folder=here, data=data)
    assert ours.out.decode().splitlines() == native.out.decode().splitlines()
    assert (ours.code, native.code) == (0, 0)
    assert tree(here) == tree(there)
    return ours.out.decode()


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_as_native(fs, natively, sandboxed, tmp_path, name):
    """Without it a call could answer, or change files, otherwise than Linux does."""
    compare(fs, natively, sandboxed, tmp_path, SCRIPTS[name].replace("creat b 0", f"open b {CREATE | TRUNC} 0"))


NAMES = ["a", "b", "c", "a/a", "a/b", "b/a", "b/c", "c/a", "a/..", "a/../b", "./c", "b/", "a/a/a", "a//b"]


def random_script(seed: int) -> str:
    """Names collide on purpose; symbolic links are those a guest may make."""
    pick = random.Random(seed)
    commands = {
        "mkdir": lambda: f"{pick.choice(NAMES)} 0755", "rmdir": lambda: pick.choice(NAMES), "unlink": lambda: pick.choice(NAMES),
        "rename": lambda: f"{pick.choice(NAMES)} {pick.choice(NAMES)}", "link": lambda: f"{pick.choice(NAMES)} {pick.choice(NAMES)}",
        "symlink": lambda: f"{pick.choice(['a', 'b', 'c', 'a/b', 'x'])} {pick.choice(NAMES)}", "list": lambda: pick.choice(NAMES),
        "stat": lambda: pick.choice(NAMES), "lstat": lambda: pick.choice(NAMES), "readlink": lambda: pick.choice(NAMES),
        "open": lambda: f"{pick.choice(NAMES)} {pick.choice([0, CREATE, CREATE | EXCL, CREATE | NOFOLLOW, DIRECTORY])} 0644",
        "truncate": lambda: f"{pick.choice(NAMES)} {pick.randrange(9)}",
    }
    lines = []
    for _ in range(400):
        name = pick.choice(list(commands))
        lines += [f"{name} {commands[name]()}"] + (["close 3"] if name == "open" else [])
    return "\n".join(lines)


@pytest.mark.parametrize("seed", range(6))
def test_random_scripts_as_native(fs, natively, sandboxed, tmp_path, seed):
    """Without it combinations nobody thought of could differ from Linux."""
    out = compare(fs, natively, sandboxed, tmp_path, random_script(seed))
    assert len(out.splitlines()) > 400
