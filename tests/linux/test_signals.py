"""Signals: the same program on the kernel and in the sandbox."""

from __future__ import annotations

import pytest

import vxplug

CASES = ("plain", "faults", "on_demand", "jumps", "altstack", "timers", "restarts", "nested", "wide", "exact", "flags", "blocked", "ignored", "nostack",
         "spill")


@pytest.fixture(scope="module")
def signals(build_program):
    return build_program("signals", "-w")


@pytest.mark.parametrize("case", [*CASES, *(f"die {number}" for number in (1, 2, 6, 9, 10, 13, 14, 15, 17, 18, 28, 33, 64))])
def test_as_native(signals, natively, sandboxed, tmp_path, case):
    """Without it a handler could run on a frame that is not Linux's, at the wrong moment, or lose registers."""
    there = natively(signals, *case.split(), folder=tmp_path)
    here = sandboxed(signals, *case.split(), folder=tmp_path)
    assert here.out.decode() == there.out.decode()
    assert here.code == there.code


def test_time_limit_ends_a_program_in_its_handlers(signals):
    """Without it a program could live on by handling its own signals."""
    program = vxplug.Program(signals)
    with pytest.raises(vxplug.GuestTimeout):
        program.run("timers", timeout=0.2, stdout=bytes)


def test_a_signal_has_a_name(signals):
    """Without it a user would have to look numbers up."""
    ended = vxplug.Program(signals).run("die", "15", stdout=bytes)
    assert ended.signal == 15 and "killed by SIGTERM" in str(ended)
