"""vxplug run and Program: streams, status, signals, limits."""

from __future__ import annotations

import subprocess
import sys

import pytest
from elftools.elf.elffile import ELFFile

import vxplug


@pytest.fixture(scope="module")
def streams(build_program):
    return build_program("streams")


@pytest.mark.parametrize("arguments", [(), ("a", "b c", ""), ("status", "3"), ("abort",), ("crash",)], ids=repr)
def test_as_native(streams, natively, sandboxed, tmp_path, arguments):
    """Without it arguments, environment, streams or status could reach a program otherwise than Linux has it."""
    env = {"ONE": "1", "TWO": "zwei drei"}
    there = natively(streams, *arguments, folder=tmp_path, env=env)
    here = sandboxed(streams, *arguments, folder=tmp_path, env=env)
    assert (here.code, here.out) == (there.code, there.out)
    assert there.err in here.err


def test_large_input_passes(streams, natively, sandboxed, tmp_path):
    """Without it a pipe could lose, double or reorder bytes."""
    data = bytes(i * i >> 3 & 0xFF for i in range(300_000))
    assert sandboxed(streams, "echo", folder=tmp_path, data=data).out == data


def test_a_killed_program_says_why(streams, sandboxed, tmp_path):
    """Without it a crash would look like an exit, and nobody could tell where it happened."""
    crashed = sandboxed(streams, "crash", folder=tmp_path)
    assert crashed.code == 139
    assert b"killed by SIGSEGV: memory" in crashed.err and b"0x00000010" in crashed.err


def test_program_in_process(streams):
    """Without it a program could run only as a command, or leave its streams mixed up."""
    program, out = vxplug.Program(streams), []
    for _ in range(20):
        ended = program.run("echo", stdin=b"some bytes", stdout=out.append)
        assert (ended.status, ended.signal, ended.code) == (0, None, 0)
    assert b"".join(out) == b"some bytes" * 20
    assert vxplug.run_program(streams, ["status", "9"]).code == 9
    crashed = program.run("crash")
    assert crashed.signal == 11 and crashed.fault.kind == "memory"


def test_time_limit(streams):
    """Without it a program that waits for input would keep its caller for ever."""
    with pytest.raises(vxplug.GuestTimeout):
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as silent:
            try:
                vxplug.run_program(streams, ["echo"], stdin=silent.stdout.fileno(), timeout=0.3)
            finally:
                silent.communicate()


def test_an_exception_of_a_stream_comes_out_unchanged(streams):
    """Without it the application's own error would turn into an errno of the guest."""
    error = OSError(5, "mine")

    def fails(data):
        raise error

    with pytest.raises(OSError) as caught:
        vxplug.run_program(streams, ["echo"], stdin=b"x", stdout=fails)
    assert caught.value is error


def test_trace(streams, sandboxed, tmp_path):
    """Without it a user could not see what a program asks for, or guest bytes could steer the terminal."""
    traced = sandboxed(streams, "echo", folder=tmp_path, data=b"\x1b[31m\n", options=("--trace",))
    assert b'read(0, "\\x1b[31m\\n", 777) = 6' in traced.err
    assert b"exit_group(0) = ?" in traced.err


def test_output_is_bounded(streams):
    """Without it a program could fill the host's memory or disk with its output."""
    taken = []
    policy = vxplug.LinuxPolicy(output=1000)
    ended = vxplug.run_program(streams, ["echo"], stdin=b"x" * 5000, stdout=taken.append, policy=policy)
    assert ended.status == 1 and len(b"".join(taken)) <= 1000


def _asks_for_an_executable_stack(program, target):
    """A copy of the program with the mark that gcc's linker sets; zig's cannot."""
    data = bytearray(program.read_bytes())
    with program.open("rb") as file:
        elf = ELFFile(file)
        number = next(i for i, segment in enumerate(elf.iter_segments()) if segment.header.p_type == "PT_GNU_STACK")
        flags = elf.header.e_phoff + number * elf.header.e_phentsize + 24
    data[flags] |= 1  # PF_X
    target.write_bytes(data)
    target.chmod(0o755)
    return target


@pytest.mark.parametrize(("asks", "code"), [(True, 42), (False, 139)])
def test_an_executable_stack_if_the_program_asks(build_program, natively, sandboxed, tmp_path, asks, code):
    """Without it nested functions could not run, or code on every program's stack could."""
    program = build_program("exec_stack")
    if asks:
        program = _asks_for_an_executable_stack(program, tmp_path / "program")
    assert natively(program, folder=tmp_path).code == code
    assert sandboxed(program, folder=tmp_path).code == code
