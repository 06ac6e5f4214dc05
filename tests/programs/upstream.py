"""Upstream projects built by ``vxplug-cc`` from unchanged sources, and their own tests run in the sandbox.

    python -m tests.programs.upstream [--native] [NAME…]

runs the suites named (all by default) in the sandbox, or with ``--native`` the same i386 programs on the
processor, and prints how long their tests took.

A suite's makefile runs its programs itself, so each program is moved aside and a script that runs it
under ``vxplug run`` takes its place: pipes, redirections and exit statuses are those of the makefile.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .sources import ROOT, missing, source

DRIVERS = ("cc", "c++", "ar", "ranlib")
TOOLS = ("CC=vxplug-cc", "AR=vxplug-ar", "RANLIB=vxplug-ranlib")
HOST = "--host=i686-linux-musl"  # configure must not expect that what it compiles is for this machine
# musl accepts every locale's name and has none but C: a test of another one's decimal point cannot pass.
LUA_SETTINGS = (
    "_port = true; local set = os.setlocale; "
    "function os.setlocale(name, ...) if not name or name == '' or name == 'C' then return set(name, ...) end end"
)


class SuiteError(Exception):
    """A project did not build, or its tests failed; the text ends with what was printed."""


@dataclass(frozen=True)
class Suite:
    """Commands are argument lists, run in the project's folder."""

    build: tuple[tuple[str, ...], ...]
    programs: tuple[str, ...]
    test: tuple[str, ...]
    passed: str  # what the suite prints when all went well
    folder: str = "."  # where the test runs
    needs: tuple[str, ...] = ()  # suites whose build it uses
    environment: tuple[str, ...] = ()  # variables its programs find in the sandbox


SUITES = {
    "zlib": Suite(
        (("./configure", "--static"), ("make", "-j2")),
        ("example", "minigzip", "example64", "minigzip64"),
        ("make", "test"), "*** zlib test OK ***",
    ),
    "bzip2": Suite(
        (("make", *TOOLS, "libbz2.a", "bzip2", "bzip2recover"),),
        ("bzip2", "bzip2recover"),
        ("make", "test"), "If you got this far",
    ),
    "libpng1.6": Suite(
        (("./configure", HOST, "--disable-shared"), ("make", "-j2"), ("make", "-j2", "check", "TESTS=")),
        ("pngtest", "pngvalid", "pngstest", "pngunknown", "pngimage"),
        ("make", "-j2", "check"), "# FAIL:  0", needs=("zlib",),
    ),
    "lua": Suite(
        (("make", *TOOLS[::2], "AR=vxplug-ar rc", "MYCFLAGS=-std=c99 -DLUA_USE_POSIX", "MYLDFLAGS=", "MYLIBS="),),
        ("lua",),
        ("../lua", "-e", LUA_SETTINGS, "all.lua"), "final OK !!!", folder="testes", environment=("PATH=/bin",),
    ),
    "sqlite3": Suite(
        (("./configure", HOST, "--disable-shared", "--disable-tcl", "--disable-readline"), ("make", "speedtest1")),
        ("speedtest1",),
        ("./speedtest1", "--size", "25", "--verify", "speed.db"), "Verification Hash:",
    ),
}


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if done.returncode:
        raise SuiteError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout[-4000:]}")
    return done.stdout


def _script(path: Path, *command: str) -> None:
    path.write_text(f"#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m vxplug {' '.join(command)} \"$@\"\n")
    path.chmod(0o755)


class Workshop:
    """A folder in which projects are built, with the compiler drivers on the path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        drivers = folder / "drivers"
        drivers.mkdir()
        for tool in DRIVERS:
            _script(drivers / f"vxplug-{tool}", tool)
        self.environment = {
            **os.environ, **dict(tool.split("=") for tool in TOOLS),
            "PATH": f"{drivers}{os.pathsep}{os.environ['PATH']}",
        }

    def build(self, name: str) -> Path:
        """The project built, its programs as the linker left them."""
        suite, folder = SUITES[name], self.folder / name
        if folder.is_dir():
            return folder
        found = source(name)
        assert found is not None, missing(name)
        shutil.copytree(found, folder, symlinks=True)
        built = [self.build(other) for other in suite.needs]
        environment = {
            **self.environment,
            "CPPFLAGS": " ".join(f"-I{path}" for path in built), "LDFLAGS": " ".join(f"-L{path}" for path in built),
        }
        for command in suite.build:
            _run(command, folder, environment)
        return folder

    def sandbox(self, name: str) -> None:
        """From now on the project's programs run in the sandbox, with the project's folder and a /tmp of their own."""
        folder, scratch = self.folder / name, self.folder / "tmp"
        scratch.mkdir(exist_ok=True)
        options = [f"--dir=/tmp={scratch}:rw", f"--dir={folder}={folder}:rw", '--cwd="$PWD"',
                   *(f"--env={variable}" for variable in SUITES[name].environment)]
        for program in SUITES[name].programs:
            real = folder / f"{program}.i386"
            (folder / program).rename(real)
            _script(folder / program, "run", *options, str(real))

    def test(self, name: str) -> str:
        """What the suite's own test prints.  SuiteError if it does not say that all is well."""
        suite = SUITES[name]
        output = _run(suite.test, self.folder / name / suite.folder, self.environment)
        if suite.passed not in output:
            raise SuiteError(f"{name}: no {suite.passed!r}\n{output[-4000:]}")
        return output


def main() -> int:
    parser = argparse.ArgumentParser(description="upstream test suites in the sandbox")
    parser.add_argument("--native", action="store_true", help="on the processor instead")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*SUITES, []])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder))
        for name in options.names or SUITES:
            workshop.build(name)
            if not options.native:
                workshop.sandbox(name)
            started = time.monotonic()
            workshop.test(name)
            print(f"{name}: passed, tests took {time.monotonic() - started:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
