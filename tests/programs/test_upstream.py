"""Upstream projects, built by ``vxplug-cc`` from unchanged sources: their own tests pass in the sandbox."""

from __future__ import annotations

import re
import shutil

import pytest

from .sources import missing, source
from .upstream import SUITES, SuiteError, Workshop

# What the projects' own makefiles call.
TOOLS = {"sqlite3": ("make", "tclsh"), "lua": ("make",)}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("upstream"))


def _need(*names: str) -> None:
    for name in names:
        if source(name) is None:
            pytest.skip(missing(name))
        for tool in TOOLS.get(name, ("make",)):
            if shutil.which(tool) is None:
                pytest.skip(f"{name} is built with {tool}, which is not installed")


@pytest.mark.parametrize("name", [name for name in SUITES if name != "sqlite3"])
def test_the_suite_passes_in_the_sandbox(name, workshop):
    """The judge is upstream's: its makefile's checks, its comparisons with stored results, its assertions."""
    _need(name, *SUITES[name].needs)
    workshop.build(name)
    workshop.sandbox(name)
    workshop.test(name)


def _hash(output: str) -> str:
    found = re.search(r"Verification Hash: (.*)", output)
    assert found, output[-2000:]
    return found.group(1)


def test_sqlite_computes_what_it_computes_natively(workshop):
    """speedtest1 --verify hashes every row of every result; the same program gives the same on the processor."""
    _need("sqlite3")
    folder = workshop.build("sqlite3")
    expected = _hash(workshop.test("sqlite3"))
    (folder / "speed.db").unlink()
    workshop.sandbox("sqlite3")
    assert _hash(workshop.test("sqlite3")) == expected


def test_a_suite_that_fails_is_noticed(workshop):
    """Without it a wrong answer of a sandboxed program could pass for upstream's verdict."""
    _need("bzip2")
    folder = workshop.build("bzip2")
    (folder / "sample1.bz2").write_bytes((folder / "sample2.bz2").read_bytes())
    with pytest.raises(SuiteError, match="sample1"):
        workshop.test("bzip2")
