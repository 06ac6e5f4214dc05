"""One fuzzer of each kind builds and runs for a moment; `tox -e fuzz` takes all of them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run")
CLANGS = ["clang", *(f"clang-{version}" for version in range(14, 20))]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "VXPLUG_FUZZ": str(folder), "PYTHON": sys.executable}
    environment.pop("LD_PRELOAD", None)  # a sanitizer of the tests': harnesses have theirs
    return subprocess.run(["bash", RUN, *arguments], env=environment, capture_output=True, text=True, timeout=300)


def need(name: str) -> None:
    if not any(map(shutil.which, CLANGS)):
        pytest.skip("no clang with compiler-rt: tests/fuzz/README.md")
    if name == "note" and importlib.util.find_spec("atheris") is None:
        pytest.skip("no atheris: tests/fuzz/README.md")


@pytest.mark.parametrize("name", ["decode", "note"])
def test_harness_runs(tmp_path, name):
    """Without it a fuzzer could stop to build, and nobody would fuzz until somebody looks."""
    need(name)
    done = run(tmp_path, name, "3")
    assert done.returncode == 0, done.stdout + done.stderr
    executions = int((tmp_path / name / "runs.tsv").read_text().split("\t")[1])
    assert executions > 0 and not list((tmp_path / name / "found").iterdir())
