"""The examples print what is saved beside them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vxplug import sdk

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def _printed(command: list[str], folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    return subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


def _compare(name: str, source: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(EXAMPLES / name, folder)
    sdk.build([folder / source], (folder / source).with_suffix(".vxm"))
    assert _printed(["main.py"], folder) == (EXAMPLES / name / "expected.txt").read_text()


def test_hello(tmp_path):
    """The first example that anybody tries."""
    _compare("hello", "hello.c", tmp_path)


def test_types(tmp_path):
    """Every kind of type once, as a reader would copy it."""
    _compare("types", "shapes.c", tmp_path)


def test_json():
    """C++ with exceptions, fetched and built as its README says."""
    assert _printed(["-m", "examples.json.main"], ROOT) == (EXAMPLES / "json" / "expected.txt").read_text()


def test_every_example_is_run():
    """A folder with saved output that no test compares would rot."""
    saved = {path.parent.name for path in EXAMPLES.glob("*/expected.txt")}
    assert saved == {name.removeprefix("test_") for name in globals() if name.startswith("test_")} - {"every_example_is_run", "every_example_is_listed"}


@pytest.mark.parametrize("folder", sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir() and "__" not in path.name))
def test_every_example_is_listed(folder):
    """examples/README.md is how a reader finds them."""
    assert f"`{folder}/`" in (EXAMPLES / "README.md").read_text()
