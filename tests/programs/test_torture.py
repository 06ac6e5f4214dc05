"""gcc's own execution tests, compiled for i386: the sandbox passes those that the processor passes."""

from __future__ import annotations

import subprocess

import pytest

from . import torture
from .dejagnu import directive_options
from .sources import missing, source

# Fewer in the baseline would mean that something on the way there broke: gcc 12 has 1706 at each level.
LEAST = 1600


def _multilib() -> bool:
    try:
        done = subprocess.run([*torture.GCC, "-x", "c", "-", "-o", "/dev/null"], input=b"int main(void) { return 0; }",
                              capture_output=True)
    except OSError:
        return False
    return done.returncode == 0


@pytest.mark.skipif(source("gcc") is None, reason=missing("gcc"))
@pytest.mark.skipif(not _multilib(), reason="gcc links no i386 programs here: install gcc-multilib")
@pytest.mark.parametrize("level", torture.LEVELS)
def test_what_passes_natively_passes_in_the_sandbox(level, capsys):
    """The promise of the project, on programs that compiler writers made to catch wrong code."""
    rows = list(torture.run([level]))
    with capsys.disabled():
        print("\n" + torture.summary(rows))
    assert sum(row.baseline for row in rows) >= LEAST
    assert not [f"{row.name}: {row.problem}" for row in rows if row.baseline and row.problem]


@pytest.mark.parametrize(("text", "options"), [
    ('/* { dg-options "-fwrapv -O2" } */', ["-fwrapv", "-O2"]),
    ('/* { dg-options { "-fwrapv" } } */', ["-fwrapv"]),
    ('/* { dg-options "-mtune=i686" { target { { i?86-*-* x86_64-*-* } && ia32 } } } */', ["-mtune=i686"]),
    ('/* { dg-options "-mno-eabi" { target powerpc-*-eabi* } } */', []),
    ('/* { dg-additional-options "-DNO" { target { ! signal } } } */', []),
    ('/* { dg-options "-O2" } */\n/* { dg-additional-options "-fpic" { target fpic } } */', ["-O2", "-fpic"]),
])
def test_directives_choose_options_for_this_target(text, options):
    """Without it tests could be compiled otherwise than their authors meant, and pass for it."""
    assert directive_options(text) == options
