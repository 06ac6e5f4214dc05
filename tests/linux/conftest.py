"""Programs for the sandbox and for this very kernel: one static i386 ELF file, run both ways."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from vxplug.sdk import tool_command
from vxplug.toolchain import tool_environment

GUESTS = Path(__file__).parent / "guests"


@dataclass(frozen=True)
class Ended:
    """What a caller can see of a finished program."""

    code: int  # as a shell reports it
    out: bytes
    err: bytes


@pytest.fixture(scope="session")
def build_program(pytestconfig):
    """``build_program(name)``: the executable of tests/linux/guests/NAME.c, cached by content."""
    folder = Path(pytestconfig.cache.mkdir("programs"))

    def build(name: str, *flags: str) -> Path:
        source = GUESTS / f"{name}.c"
        parts = [source.read_bytes(), (GUESTS / "check.h").read_bytes(), repr((tool_command("cc"), flags)).encode()]
        output = folder / f"{name}-{hashlib.sha256(b''.join(parts)).hexdigest()[:20]}"
        if not output.exists():
            fresh = output.with_suffix(f".{os.getpid()}")
            command = [*tool_command("cc"), "-static", "-O1", "-fno-sanitize=undefined", *flags, "-o", str(fresh), str(source)]
            subprocess.run(command, check=True, capture_output=True, env=tool_environment())
            os.replace(fresh, output)
        return output

    return build


def run(command: list[str], **options) -> Ended:
    done = subprocess.run(command, capture_output=True, timeout=120, check=False, **options)
    code = done.returncode if done.returncode >= 0 else 128 - done.returncode
    return Ended(code, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def natively(build_program):
    """Runs a program on the kernel itself, in a folder; skips where the kernel runs no i386 code."""
    try:
        works = subprocess.run([str(build_program("streams")), "status", "0"], capture_output=True, check=False).returncode == 0
    except OSError:
        works = False
    if not works:
        pytest.skip("this kernel does not run 32-bit programs")

    def start(program: Path, *arguments: str, folder: Path, data: bytes = b"", env: dict[str, str] | None = None) -> Ended:
        return run([str(program), *arguments], cwd=folder, input=data, env=env or {})

    return start


@pytest.fixture(scope="session")
def sandboxed():
    """Runs a program under ``vxplug run`` with a folder as its writable root."""

    def start(program: Path, *arguments: str, folder: Path, data: bytes = b"", env: dict[str, str] | None = None,
              options: tuple[str, ...] = ()) -> Ended:
        variables = [part for key, value in (env or {}).items() for part in ("--env", f"{key}={value}")]
        command = [sys.executable, "-m", "vxplug", "run", f"--dir=/={folder}:rw", "--timeout=60", *variables, *options]
        return run([*command, str(program), *arguments], input=data)

    return start
