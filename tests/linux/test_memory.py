"""Memory calls on the kernel and in the sandbox; loaders' kinds of executables; limits."""

from __future__ import annotations

import pytest

import vxplug


def test_as_native(build_program, natively, sandboxed, tmp_path):
    """Without it a mapping could be where, or hold what, Linux would not have it."""
    program = build_program("memory", "-w")
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir(), here.mkdir()
    native, ours = natively(program, folder=there), sandboxed(program, folder=here)
    assert ours.out.decode().splitlines() == native.out.decode().splitlines()
    assert (ours.code, native.code) == (0, 0)


@pytest.mark.parametrize("flags", [("-static-pie", "-fPIE"), ("-O3",), ("-O0",)], ids=" ".join)
def test_kinds_of_executables(build_program, flags):
    """Without it a program could run or not by how it was linked."""
    out = []
    program = vxplug.Program(build_program("streams", *flags))
    assert program.run("status", "5").status == 5
    assert program.run("echo", stdin=b"through", stdout=out.append).status == 0
    assert out == [b"through"]


def test_memory_limit(build_program):
    """Without it a program could take more of the host's memory than it was given."""
    program = vxplug.Program(build_program("memory", "-w"))
    assert program.run("heap", stdout=bytes, memory=256 << 20, timeout=60).status == 0
    assert program.run("heap", stdout=bytes, memory=4 << 20, stack=1 << 20, timeout=60).signal == 11  # realloc gave NULL
    with pytest.raises(vxplug.GuestMemoryError):
        program.run(memory=1 << 20, stack=1 << 20)
