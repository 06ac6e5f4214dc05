"""gcc's execution tests as i386 programs: those that pass natively must pass in the sandbox.

    python -m tests.programs.torture [--jobs N] [--keep FOLDER] [--level LEVEL]… [NAME…]

runs the tests that are named (shell patterns; all by default) at the levels asked for (all by default).
``--keep`` leaves the programs in FOLDER, named by what they were made from, and takes them from there
next time.
"""

from __future__ import annotations

import argparse
import fnmatch
import functools
import hashlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from vxplug import LinuxPolicy
from vxplug.policy import Directory

from .dejagnu import Case, cases
from .processes import Ending, native, sandboxed
from .sources import TORTURE, missing, source

LEVELS = {"O0": ("-O0",), "O2": ("-O2",), "O3-native": ("-O3", "-march=native")}
GCC = ("gcc", "-m32", "-static", "-s", "-pipe", "-w")
SECONDS = 30.0  # of one run; the longest takes about one
# Programs that print where their stack is, which differs from run to run.
ADDRESSES = {"return-addr"}


@dataclass(frozen=True)
class Row:
    """What became of one test at one level."""

    name: str
    level: str
    baseline: bool  # it compiled and passed natively
    problem: str  # empty: it passed in the sandbox as well; or why it is not in the baseline
    native_seconds: float = 0.0
    sandbox_seconds: float = 0.0


@functools.cache
def _made_from() -> bytes:
    """What decides a program besides its own sources: the compiler, and the files that tests include."""
    digest = hashlib.sha256(subprocess.run(["gcc", "--version"], capture_output=True, check=True).stdout)
    suite = _suite()
    for path in sorted([*suite.rglob("*.h"), *(suite / "builtins" / "lib").glob("*.c")]):
        digest.update(path.read_bytes())
    return digest.digest()


def _suite() -> Path:
    folder = source("gcc")
    assert folder is not None, missing("gcc")
    return folder / TORTURE


def _compiled(case: Case, level: str, folder: Path) -> tuple[Path, str]:
    """The program in ``folder``, and what the compiler said if it failed."""
    options = [*LEVELS[level], *case.options]
    digest = hashlib.sha256(_made_from() + repr(options).encode())
    for path in case.sources:
        digest.update(path.read_bytes())
    program = folder / digest.hexdigest()[:32]
    if program.exists():
        return program, ""
    fresh = program.with_suffix(".new")
    done = subprocess.run([*GCC, *options, *case.sources, "-o", fresh, "-lm"], capture_output=True, text=True,
                          errors="replace", stdin=subprocess.DEVNULL)
    if done.returncode == 0:
        fresh.rename(program)
    return program, done.stderr if done.returncode else ""


def _difference(case: Case, ours: Ending, theirs: Ending) -> str:
    if ours.status != 0:
        return ours.says()
    if ours.output != theirs.output and case.name not in ADDRESSES:
        return f"prints {ours.output[:60]!r}, natively {theirs.output[:60]!r}"
    return ""


def judge(case: Case, level: str, folder: Path) -> Row:
    """Compile one test, run it natively, and if it passes, in the sandbox."""
    program, complaint = _compiled(case, level, folder)
    if complaint:
        return Row(case.name, level, False, "does not compile: " + complaint.strip().splitlines()[0])
    theirs = native(program, seconds=SECONDS)
    if theirs.status != 0:
        return Row(case.name, level, False, f"does not pass natively: {theirs.says()}")
    with tempfile.TemporaryDirectory() as scratch:
        policy = LinuxPolicy(directories={"/tmp": Directory(scratch, writable=True)}, time=True, random=True)
        ours = sandboxed(program, seconds=SECONDS, policy=policy)
    return Row(case.name, level, True, _difference(case, ours, theirs), theirs.seconds, ours.seconds)


def _job(work: tuple[Case, str, str | None]) -> Row:
    case, level, keep = work
    if keep is not None:
        return judge(case, level, Path(keep))
    with tempfile.TemporaryDirectory() as folder:
        return judge(case, level, Path(folder))


def run(levels: Iterable[str], names: Iterable[str] = (), jobs: int | None = None, keep: str | None = None) -> Iterator[Row]:
    """Judge the tests, in processes that hold nothing but this: each test is run in a fork of one."""
    patterns = list(names)
    chosen = [case for case in cases(_suite())
              if not patterns or any(fnmatch.fnmatchcase(case.name, pattern) for pattern in patterns)]
    work = [(case, level, keep) for level in levels for case in chosen]
    with ProcessPoolExecutor(jobs or os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_job, work, chunksize=4)


def summary(rows: list[Row]) -> str:
    """A table: a line a level, then what failed, then what is not in the baseline."""
    lines = [f"{'level':10} {'tests':>5} {'baseline':>8} {'passed':>6} {'failed':>6} {'native':>8} {'sandbox':>8}"]
    for level in dict.fromkeys(row.level for row in rows):
        here = [row for row in rows if row.level == level]
        base = [row for row in here if row.baseline]
        failed = sum(bool(row.problem) for row in base)
        lines.append(f"{level:10} {len(here):5} {len(base):8} {len(base) - failed:6} {failed:6}"
                     f" {sum(row.native_seconds for row in base):6.1f} s {sum(row.sandbox_seconds for row in base):6.1f} s")
    for heading, baseline in (("failed", True), ("not in the baseline", False)):
        lines += [f"{heading}: {row.level} {row.name}: {row.problem}"
                  for row in rows if row.problem and row.baseline == baseline]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="gcc's execution tests, natively and in the sandbox")
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--keep", metavar="FOLDER")
    parser.add_argument("--level", action="append", choices=LEVELS)
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    if source("gcc") is None:
        parser.error(missing("gcc"))
    if options.keep:
        os.makedirs(options.keep, exist_ok=True)
    rows = list(run(options.level or LEVELS, options.names, options.jobs, options.keep))
    print(summary(rows))
    return int(not rows or any(row.problem for row in rows if row.baseline))


if __name__ == "__main__":
    sys.exit(main())
