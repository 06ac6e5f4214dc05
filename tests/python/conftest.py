"""The marshalling guest, built once, and a fresh sandbox of it for each test."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import vxplug

from .life import GUEST, PRELUDE

GUESTS = Path(__file__).parent / "guests"


@pytest.fixture(scope="session")
def calls_path(build_plugin) -> Path:
    return build_plugin(GUESTS / "calls.c")


@pytest.fixture(scope="session")
def calls_plugin(calls_path) -> vxplug.Plugin:
    return vxplug.open(calls_path)


@pytest.fixture
def box(calls_plugin) -> Iterator[vxplug.Sandbox]:
    with calls_plugin.sandbox(timeout=20.0) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def run_life(build_plugin) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``run_life(script, *options)``: what a Python process with life.GUEST as ``plugin`` made of the script."""
    guest = build_plugin(GUEST)

    def run(script: str, *options: str) -> subprocess.CompletedProcess[str]:
        quiet = ("-W", "ignore:This process:DeprecationWarning")
        command = [sys.executable, *quiet, *options, "-c", PRELUDE + textwrap.dedent(script), str(guest)]
        return subprocess.run(command, capture_output=True, text=True, timeout=200)

    return run
