"""Code that rewrites itself: the same program natively and in a sandbox must print the same."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
from pathlib import Path

import pytest

from .probe import compile_c, compile_with_core

HERE = Path(__file__).parent
PT_LOAD, PF_X, PF_RWX = 1, 1, 7


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """Freestanding, so that no 32-bit libc is needed."""
    path = tmp_path_factory.mktemp("rewrite") / "rewrite"
    compile_c(
        [HERE / "rewrite.c"], path, "-m32", "-ffreestanding", "-fno-pic", "-no-pie", "-nostdlib", "-static",
        "-fno-stack-protector", "-mgeneral-regs-only", "-fcf-protection=none", "-Wl,-Ttext-segment=0x10000000",
        "-Wl,--build-id=none",
    )
    return path


@pytest.fixture(scope="module")
def natively(program) -> str:
    try:
        return subprocess.run([program], capture_output=True, text=True, check=True, timeout=60).stdout
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        pytest.skip("this kernel runs no 32-bit programs: the processor cannot be asked")


@pytest.fixture(scope="module")
def sandboxed(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("rewrite") / "rewrite_run"
    compile_with_core([HERE / "rewrite_run.c"], path)
    return path


def _run(sandboxed: Path, program: Path) -> str:
    done = subprocess.run([sandboxed, program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr
    return done.stdout


def test_rewritten_code_does_what_it_does_on_the_processor(program, natively, sandboxed):
    """Threats 6, 24: without it a store into code, of one of many kinds, could go unnoticed or be noticed late."""
    assert natively.count("\n") > 170
    assert _run(sandboxed, program) == natively


def test_an_image_may_be_writable_and_executable(program, natively, sandboxed, tmp_path):
    """Without it a program linked so (ld -N) would run from a copy of its text that its stores do not reach."""
    data = bytearray(program.read_bytes())
    offset, count = struct.unpack_from("<I", data, 28)[0], struct.unpack_from("<H", data, 44)[0]
    for header in range(offset, offset + 32 * count, 32):
        if struct.unpack_from("<I", data, header)[0] == PT_LOAD and data[header + 24] & PF_X:
            data[header + 24] = PF_RWX
    both = tmp_path / "both"
    both.write_bytes(data)
    os.chmod(both, 0o755)
    assert subprocess.run([both], capture_output=True, text=True, check=True, timeout=60).stdout == natively
    assert _run(sandboxed, both) == natively
