"""Programs: static i386 Linux executables, run under a policy."""

from __future__ import annotations

import io
import os
import signal
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from . import _vx
from .binary import FILE_MAX, Binary
from .elf import ET_DYN, ET_EXEC, PROGRAMS, PT_GNU_STACK, Elf, check
from .errors import GuestFault, PluginFormatError
from .faults import from_trap
from .plugin import (
    GUEST_MAX, PAGE, PF_X, Code, check_type, load_segments, parse, program_headers,
)
from .policy import LinuxPolicy
from .sandbox import MEMORY_MAX, MIB, STACK_MAX, _limit, _Output, _seconds
from .trace import Trace

__all__ = ["Program", "ProgramExit", "run_program"]

PIE_BASE = 0x56555000  # where Linux loads a static-pie when it does not randomise
ARGUMENTS_MAX = 1 << 20

@dataclass(frozen=True)
class ProgramExit:
    """How a program ended: by ``status``, or by ``signal`` with the fault that caused it, if one did."""

    status: int | None = None
    signal: int | None = None
    fault: GuestFault | None = None

    @property
    def code(self) -> int:
        """As a shell sees it: the status, or 128 and the signal's number."""
        return self.status if self.status is not None else 128 + (self.signal or 0)

    def __str__(self) -> str:
        if self.status is not None:
            return f"exit status {self.status}"
        known = {int(number): number.name for number in signal.Signals}
        name = known.get(self.signal or 0, f"signal {self.signal}")
        return f"killed by {name}" + (f": {self.fault}" if self.fault else "")


def _parse(data: bytes) -> tuple[_vx.Plugin, dict[str, int]]:
    elf = Elf(data, PROGRAMS)
    check_type(elf, ET_EXEC, ET_DYN)
    base = PIE_BASE if elf.header.type == ET_DYN else 0
    segments = load_segments(elf, base)
    entry = elf.header.entry + base
    check(entry in Code(segments), f"entry {entry:#x} is not in executable memory")
    phdr, phent, phnum = program_headers(elf)
    start = {"entry": entry, "phdr": phdr + base if phdr else 0, "phent": phent, "phnum": phnum}
    return _vx.Plugin(segments, **start, exec_stack=_exec_stack(elf)), {**start, "base": base}


def _exec_stack(elf: Elf) -> bool:
    """Linux's rule for i386: as PT_GNU_STACK says; a program without one is from the time before."""
    flags = [segment.flags for segment in elf.segments if segment.type == PT_GNU_STACK]
    return not flags or bool(flags[-1] & PF_X)


AT_PHDR, AT_PHENT, AT_PHNUM, AT_PAGESZ, AT_BASE, AT_FLAGS, AT_ENTRY, AT_UID, AT_EUID, AT_GID, AT_EGID = *range(3, 10), 11, 12, 13, 14
AT_PLATFORM, AT_HWCAP, AT_CLKTCK, AT_SECURE, AT_RANDOM, AT_EXECFN, AT_MINSIGSTKSZ = 15, 16, 17, 23, 25, 31, 51
SIGNAL_FRAME_MAX = 3072  # linux_frame.c


class _Strings:
    """Text at the top of the first stack, and where each piece lies."""

    def __init__(self, top: int) -> None:
        self.at = top
        self.pieces: list[bytes] = []

    def put(self, data: bytes) -> int:
        self.pieces.append(data)
        self.at -= len(data)
        return self.at

    def bytes(self) -> bytes:
        return b"".join(reversed(self.pieces))


def _first_stack(start: dict[str, int], argv: Sequence[bytes], env: Sequence[bytes]) -> tuple[int, bytes]:
    """(esp, bytes from there up): argc, argv, envp, auxiliary vector, strings (i386 System V ABI, figure 3-31)."""
    from .linux.process import GUEST_ID

    strings = _Strings(GUEST_MAX - 4)
    name = strings.put(argv[0] + b"\0")
    environment = [strings.put(text + b"\0") for text in reversed(env)][::-1]
    arguments = [strings.put(text + b"\0") for text in reversed(argv)][::-1]
    platform, seed = strings.put(b"i686\0"), strings.put(os.urandom(16))
    vector = {
        AT_PHDR: start["phdr"], AT_PHENT: start["phent"], AT_PHNUM: start["phnum"], AT_PAGESZ: PAGE, AT_BASE: 0,
        AT_FLAGS: 0, AT_ENTRY: start["entry"], AT_UID: GUEST_ID, AT_EUID: GUEST_ID, AT_GID: GUEST_ID,
        AT_EGID: GUEST_ID, AT_PLATFORM: platform, AT_HWCAP: 0, AT_CLKTCK: 100, AT_SECURE: 0, AT_RANDOM: seed,
        AT_EXECFN: name, AT_MINSIGSTKSZ: SIGNAL_FRAME_MAX, 0: 0,
    }
    words = [len(argv), *arguments, 0, *environment, 0, *(word for pair in vector.items() for word in pair)]
    esp = (strings.at - 4 * len(words)) & ~15
    gap = strings.at - esp - 4 * len(words)
    return esp, struct.pack(f"<{len(words)}I", *words) + bytes(gap) + strings.bytes() + bytes(4)


def _output(name: str, target: Any) -> Any:
    return target if isinstance(target, int) else _Output(name, target)


class Program(Binary):
    """A validated executable, which may be run any number of times; its translations are kept between runs."""

    def __init__(self, source: str | os.PathLike[str] | bytes) -> None:
        path = None
        if not isinstance(source, bytes):
            path = os.fspath(source)
            with io.open(path, "rb") as file:
                source = file.read(FILE_MAX + 1)
        try:
            self._core, self._start = parse(source, _parse)
        except PluginFormatError as error:
            raise PluginFormatError(f"{path or 'program'}: {error}", path=path) from error.__cause__
        super().__init__(source, path, self._start.pop("base"))

    def run(
        self,
        *arguments: str | bytes,
        name: str | bytes | None = None,
        policy: LinuxPolicy | None = None,
        env: Mapping[str, str] | None = None,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        memory: int = 512 * MIB,
        stack: int = 8 * MIB,
        timeout: float | None = None,
        trace: Trace | Callable[[str], object] | None = None,
    ) -> ProgramExit:
        """Run the program until it ends, and say how.

        ``policy`` is what it may do; None: time, random numbers, its streams and no files.  ``env`` replaces
        the policy's.  ``stdin`` is bytes, a binary file object or a host descriptor (None: empty);
        ``stdout`` and ``stderr`` are what :class:`vxplug.Sandbox` takes, or a host descriptor.  ``memory``,
        ``stack`` and ``timeout`` are as there.  ``trace`` is a
        :class:`vxplug.Trace`, or a callable that receives a line a system call.

        Raises GuestTimeout, GuestMemoryError, and what a stream or a signal handler of Python raises.
        """
        from .linux.personality import Personality
        from .linux.process import Streams
        from .linux.trace import Tracer, traced

        watched = None if trace is None else traced(trace)
        policy = LinuxPolicy(time=True, random=True) if policy is None else policy
        policy = policy if env is None else replace(policy, env=env)
        limits = {"memory": memory, "stack": stack, "timeout": timeout}
        argv = [os.fsencode(text) for text in (name or self.path or "program", *arguments)]
        variables = [os.fsencode(f"{key}={value}") for key, value in policy.env.items()]
        if any(b"\0" in text for text in argv) or sum(map(len, argv + variables)) > min(ARGUMENTS_MAX, stack // 4):
            raise ValueError("arguments: with a NUL, or too long")
        streams = Streams(stdin, _output("stdout", stdout), _output("stderr", stderr))
        with Personality(policy, streams, memory, stack) as personality:
            box = _vx.Box(
                self._core,
                memory=_limit("memory", memory, PAGE, MEMORY_MAX, int),
                stack=_limit("stack", stack, PAGE, min(memory, STACK_MAX), int),
                timeout=_seconds("timeout", timeout), init_timeout=0.0, output=0, poison=True, free=0, raw=True, imports=(),
                write=_no_output, trap=lambda info: self._ended(info, limits),
                linux=personality, trace=None if watched is None else Tracer(watched, policy, personality), new_life=None,
            )
            try:
                return self._run(box, argv, variables)
            finally:
                box.close()

    def _run(self, box: _vx.Box, argv: list[bytes], variables: list[bytes]) -> ProgramExit:
        esp, image = _first_stack(self._start, argv, variables)
        box.write(esp, image)
        try:
            box.run(self._start["entry"], esp)
        except _Ended as ended:
            return ended.exit
        raise AssertionError("a program ends by a trap")

    def _ended(self, info: dict[str, Any], limits: dict[str, Any]) -> Exception:
        """What box.run raises: the program's own end, or an end that the host made."""
        if info["kind"] == "exit":
            return _Ended(ProgramExit(status=info["code"]))
        error = from_trap(info, self, limits)
        if isinstance(error, GuestFault) and info["signal"]:
            return _Ended(ProgramExit(signal=info["signal"], fault=error))
        return error

    def __repr__(self) -> str:
        return f"<vxplug.Program {self.path or '(bytes)'}>"


class _Ended(Exception):
    """Carries a program's end out of the box."""

    def __init__(self, exit: ProgramExit) -> None:
        super().__init__(exit)
        self.exit = exit


def _no_output(fd: int, data: bytes) -> None:
    raise AssertionError("a program's output goes through its descriptors")


def run_program(source: str | os.PathLike[str] | bytes, argv: Sequence[str | bytes] = (), **options: Any) -> ProgramExit:
    """Run an executable once; ``argv`` begins after its name, the options are those of :meth:`Program.run`."""
    if isinstance(argv, (str, bytes)):
        raise TypeError(f"argv: expected a sequence of arguments, got {type(argv).__name__}")
    return Program(source).run(*argv, **options)
