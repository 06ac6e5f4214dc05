"""The package's annotations, which its users' type checkers rely on (py.typed)."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from .source import ROOT


@pytest.mark.parametrize("version", ["3.10", "3.13"])
def test_the_package_is_strictly_typed(version):
    """Without it annotations would drift from the code, and errors would show up in applications."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed: pip install mypy types-setuptools pyelftools")
    done = subprocess.run([sys.executable, "-m", "mypy", "--python-version", version], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
