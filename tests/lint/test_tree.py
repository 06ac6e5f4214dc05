"""Rules of the whole tree: documents name what exists, and nothing of one machine is committed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .source import ROOT, tree_files

DOCUMENTS = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")])
# Written so that this file does not contain what it looks for.
MACHINE = re.compile("/" + r"(?:work|root|home/\w+|Users/\w+|tmp/[a-z]\w*)/" + "|files.python" + "hosted|pypi" + r"\.org")
# Paths inside the tree, as documents write them: `csrc/core/run.c`.
NAMED = re.compile(r"`((?:csrc|vxplug|sdk|tests|examples|benchmarks|docs|\.ci)/[\w./+-]*)`")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_files_that_exist(document):
    """Without it the pages that explain the code would rot as files move."""
    missing = [name for name in NAMED.findall(document.read_text()) if not (ROOT / name).exists()]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_code_block_is_run_or_says_why_not(document):
    """Without it a block could be passed over by tests/docs, which runs those of README.md and docs/."""
    text = document.read_text()
    for match in re.finditer(r"((?:<!-- (?:file|status|not run): .+ -->\n)?)^ *```(\w*)\n.*?^ *```$", text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, match.start()) + 1
        assert match.group(1) or match.group(2) in ("python", "console"), f"{document.name}:{line}: see tests/docs/page.py"


def test_architecture_names_every_core_file():
    """Without it a new file could have no place in the one account of how things work."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    files = sorted(path.name for path in (ROOT / "csrc" / "core").glob("*.c"))
    assert not [name for name in files if f"csrc/core/{name}`" not in text]


def _invariants() -> list[list[str]]:
    lines = (ROOT / "docs" / "invariants.md").read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if re.match(r"\| \d", line)]


@pytest.mark.parametrize("row", _invariants(), ids=lambda row: row[0])
def test_invariants_are_attacked(row):
    """Without it a rule could stand without the test that shows it holds."""
    number, rule, file, attack = row
    assert rule and NAMED.findall(file)
    attack_sources = "".join(path.read_text() for path in (ROOT / "tests" / "attack").glob("*.*"))
    for name in re.findall(r"`(\w+)`", attack):
        assert re.search(rf"\b{name}\b", attack_sources), f"{number}: no attack {name}"
    assert re.search(r"`\w", attack)


@pytest.mark.parametrize("path", tree_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_of_one_machine(path):
    """Without it paths of somebody's machine could end up in what everybody gets."""
    assert not MACHINE.search(path.read_text(errors="replace"))


def _python_tests() -> list[Path]:
    return sorted((ROOT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("path", _python_tests(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_says_what_it_guards(path):
    """Without it tests could pile up that nobody dares to delete."""
    definitions = re.findall(r'^ *def (test_\w+)\([^"]*?\) *(?:-> *None)?:\n *(r?""")?', path.read_text(), re.MULTILINE)
    assert definitions, "no test was found"
    assert not [name for name, docstring in definitions if not docstring]


def test_an_old_setuptools_is_named(tmp_path):
    """Without it whoever builds in place with the setuptools of an old venv would be shown a page of JSON schema."""
    for name, text in {"__init__.py": "__version__ = '65.5.0'\nExtension = setup = None\n",
                       "command/__init__.py": "", "command/build_ext.py": "build_ext = object\n"}.items():
        (tmp_path / "setuptools" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "setuptools" / name).write_text(text)
    done = subprocess.run([sys.executable, ROOT / "setup.py", "build_ext"], capture_output=True, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stderr) == (1, "setup.py: setuptools 65.5.0 is too old: pip install 'setuptools>=77'\n")
