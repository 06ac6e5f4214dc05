"""A guest goes on where it called a host function, with its own registers and no one else's."""

from __future__ import annotations

from pathlib import Path

import pytest

import vxplug


@pytest.fixture
def box(build_plugin):
    """A code cache of its own for each test: what one of them uses makes entries of all save more."""
    with vxplug.open(build_plugin(Path(__file__).parent / "resume.c")).sandbox() as made:
        yield made


@pytest.mark.parametrize("rounds", [1, 3])
def test_vectors_are_kept(box, rounds):
    """Threat 21: without it a host function, or a call that it makes, would leave its vectors to the guest."""

    def answer() -> int:
        assert 0.1 * 3 != 0.3  # the host's own vectors
        box.use_vectors()
        return 100

    assert [box.vectors(answer) for _ in range(rounds)] == [136] * rounds


def test_registers_are_kept(box):
    """Threat 21: without it the guest would go on with registers of the host's, or of the nested call."""
    for _ in range(3):
        assert box.registers(lambda: box.registers(lambda: 2) and 2) == 0x11103


def test_results_in_st0_arrive(box):
    """Without it what the host puts on the x87 stack would be lost where it was not switched.

    The first call ends before the code that uses it is translated.
    """
    with pytest.raises(ZeroDivisionError):
        box.halved(lambda: 1 / 0)
    assert [box.halved(lambda: 5.0) for _ in range(3)] == [2.5] * 3
    assert box.vectors(lambda: 1) == 37


def test_host_functions_that_the_guest_ends_with(box):
    """Without it a guest whose last act is a jump to the host would run on behind its own end."""
    assert [box.last_act(lambda: 7) for _ in range(3)] == [7] * 3


def test_exceptions_and_later_calls(box):
    """Without it a call that ends in the host would leave the sandbox half resumed."""
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            box.vectors(lambda: 1 // 0)
        assert box.many(lambda: 3, 1000) == 3000
