"""The marshalling guest, built once, and a fresh sandbox of it for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import vxplug

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
