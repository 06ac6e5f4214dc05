"""docs/opcodes.md says what the table says."""

from __future__ import annotations

from .opcodes import page
from .probe import ROOT


def test_page_is_current():
    """Without it the page would tell readers of instructions that are refused, or hide some."""
    assert (ROOT / "docs" / "opcodes.md").read_text() == page()
