"""The catalogue of attacks is complete, and every attack it names is made."""

from __future__ import annotations

import re

import pytest

from .source import ROOT

TESTS = ROOT / "tests"
COUNT = 50
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "threats.md").read_text().splitlines()
    if re.match(r"\| \d", line)
]
# What the tests are made of; this folder only talks of them.
PYTHON = {path: path.read_text() for path in TESTS.rglob("*.py") if path.parent.name != "lint"}
C = {path: path.read_text() for path in TESTS.rglob("*.c")}
DEFINED = set(re.findall(r"^ *(?:async )?def (test_\w+)\(", "\n".join(PYTHON.values()), re.MULTILINE))
DEFINED |= set(re.findall(r"^static void (test_\w+)\(", "\n".join(C.values()), re.MULTILINE))
GUESTS = "\n".join(text for path, text in C.items() if path.parent.name == "attack")
ATTACKERS = "\n".join(text for path, text in PYTHON.items() if path.parent.name == "attack")


def _problem(name: str) -> str:
    """Empty if the test exists, or the guest does and something in tests/attack uses it."""
    if "/" in name:
        return "" if (ROOT / name).exists() else "no such file"
    if name.startswith("test_"):
        return "" if name in DEFINED else "no such test"
    made = re.search(rf"\b(?:NAKED|REFUSED)\({name},|^(?:VX_EXPORT|static)\b[^;{{]*\b{name}\(", GUESTS, re.MULTILINE)
    if made is None:
        return "no such guest"
    return "" if re.search(rf"\b{name}\b", ATTACKERS) else "a guest that nobody runs"


def test_the_catalogue_is_complete():
    """Without it a class of attacks could drop out of the list unseen."""
    assert [row[0] for row in ROWS] == [str(number) for number in range(1, COUNT + 1)]
    assert len({row[1] for row in ROWS}) == COUNT


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_every_attack_is_made(row):
    """Without it the list could name tests that were renamed or never written."""
    names = re.findall(r"`([\w./]+)`", row[2])
    assert names
    assert not {name: _problem(name) for name in names if _problem(name)}


def test_the_corpus_knows_the_catalogue():
    """Without it a case could claim a line of the list that does not exist."""
    numbers = {int(number) for number in re.findall(r"\), (\d+), ", (TESTS / "attack" / "corpus.py").read_text())}
    assert numbers and numbers <= set(range(1, COUNT + 1))
