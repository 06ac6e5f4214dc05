"""Running a static i386 program: natively, and in the sandbox, each in a child that cannot hurt the tests."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import elftools.elf.elffile  # noqa: F401  (these would be imported by the first run, which is in a fork:
import vxplug.linux.personality  # noqa: F401  once for every program instead of once)
import vxplug.linux.process  # noqa: F401
import vxplug.linux.trace  # noqa: F401
from vxplug import LinuxPolicy
from vxplug.program import Program

OUTPUT_MAX = 1 << 20  # bytes kept of what one program prints


@dataclass(frozen=True)
class Ending:
    """How a program ended: its exit status, or the negative number of the signal that ended it."""

    status: int | None  # None: it was still running when its time was up
    output: bytes
    seconds: float

    def says(self) -> str:
        last = self.output.decode("utf-8", "replace").strip().splitlines()[-1:]
        return f"{'timeout' if self.status is None else f'status {self.status}'} {' '.join(last)[:200]}".rstrip()


def _collect(source: int, deadline: float) -> bytes | None:
    """What arrives until the other end is closed; None if it is not in time."""
    parts, size = [], 0
    while True:
        ready, _, _ = select.select([source], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        part = os.read(source, 1 << 16)
        if not part:
            return b"".join(parts)
        if size < OUTPUT_MAX:
            parts.append(part)
        size += len(part)


def in_child(action: Callable[[], int], seconds: float) -> Ending:
    """Run ``action`` in a fork, its output captured; what it returns is the exit status."""
    source, sink = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _become(action, sink)
    os.close(sink)
    output = _collect(source, started + seconds)
    os.close(source)
    if output is None:
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Ending(None if output is None else status, output or b"", time.monotonic() - started)


def _become(action: Callable[[], int], sink: int) -> None:
    status = 125
    try:
        null = os.open(os.devnull, os.O_RDONLY)
        for have, want in ((null, 0), (sink, 1), (sink, 2)):
            os.dup2(have, want)
        status = action()
    except BaseException as error:  # the child must not return into the tests
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(status)


def native(program: Path, arguments: Sequence[str] = (), seconds: float = 20.0) -> Ending:
    return in_child(lambda: os.execv(program, [os.fspath(program), *arguments]), seconds)


def sandboxed(
    program: Path, arguments: Sequence[str] = (), seconds: float = 20.0, policy: LinuxPolicy | None = None
) -> Ending:
    """The same under the Linux personality; a guest ended by a signal has its number and 128 as status."""

    def run() -> int:
        return Program(program).run(*arguments, policy=policy, stdin=0, stdout=1, stderr=2).code

    return in_child(run, seconds)
