"""Every code block of the documentation runs, and prints what the page says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vxplug.sdk import FIRST_BUILD

from .page import PageError, blocks, commands, run_page

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
PROGRAMS = {"vxplug": "main", "vxplug-cc": "cc", "vxplug-c++": "cxx", "vxplug-ar": "ar", "vxplug-ranlib": "ranlib"}


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> dict[str, str]:
    """The commands of an installation, for this tree."""
    folder = tmp_path_factory.mktemp("bin")
    for name, function in PROGRAMS.items():
        (folder / name).write_text(f"#!{sys.executable}\nimport sys\nfrom vxplug.cli import {function}\nsys.exit({function}())\n")
        (folder / name).chmod(0o755)
    (folder / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (folder / "python").chmod(0o755)
    (folder / "pip").write_text("#!/bin/sh\n# everything is installed\n")
    (folder / "pip").chmod(0o755)
    path = os.pathsep.join([str(folder), os.environ["PATH"]])
    return os.environ | {"PATH": path, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(page, tmp_path, environment):
    """Without it the first thing a newcomer types could be the first thing that fails."""
    done = subprocess.run([sys.executable, "-m", "tests.docs.page", page, tmp_path], cwd=ROOT, env=environment,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


WRONG = {
    "```python\n>>> 1 + 1\n3\n```\n": "Expected",
    "```python\n1 / 0\n```\n": "ZeroDivisionError",
    "```console\n$ echo a\nb\n```\n": "printed:\na",
    "```console\n$ false\n$ true\n```\n": "ended with 1",
    "<!-- status: 1 -->\n```console\n$ true\n```\n": "ended with 0",
    "```c\nint a;\n```\n": "nobody runs a block of c",
    "```\nplain\n```\n": "nobody runs a block of no language",
}


@pytest.mark.parametrize("text", WRONG, ids=list(WRONG.values()))
def test_the_runner_notices(text, tmp_path, monkeypatch):
    """A runner that passes over blocks would say that every page is right."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PageError) as caught:
        run_page("# Title\n\n" + text, "page.md")
    assert WRONG[text] in str(caught.value) and str(caught.value).startswith("page.md:")


def test_what_blocks_are(tmp_path, monkeypatch):
    """Files, names that later blocks use, and output with a part left out."""
    monkeypatch.chdir(tmp_path)
    text = (
        "<!-- file: a/b.txt -->\n```text\nhello\n```\n```python\nvalue = 40\n```\n"
        "```python\n>>> value + 2\n42\n```\n```console\n$ cat \\\n  a/b.txt\nhel...\n```\n"
        "<!-- not run: an example of what not to do -->\n```c\nint a\n```\n"
    )
    assert run_page(text, "page.md") == 5
    assert [block.language for block in blocks(text)] == ["text", "python", "python", "console", "c"]
    assert commands("$ a \\\nb\nout\n$ c\n") == [("a \\\nb", "out\n"), ("c", "")]


def test_the_first_build_says_more(tmp_path, monkeypatch):
    """Without it pages would be wrong on a new machine, where some command is the first that builds."""
    monkeypatch.chdir(tmp_path)
    assert run_page(f'```console\n$ echo "a.vxm: {FIRST_BUILD}"; echo a\na\n```\n', "page.md") == 1
