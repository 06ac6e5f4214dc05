"""docs/api.md is what the docstrings say, and nothing public is without one."""

from __future__ import annotations

import sys

import pytest

import vxplug

from tests.docs.reference import PAGE, reference


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="signatures are spelled otherwise in other Pythons")
def test_the_page_is_current():
    """Without it the reference would describe an earlier version; `python -m tests.docs.reference` writes it anew."""
    current = PAGE.read_text(encoding="utf-8") == reference()
    assert current, "write it anew: python -m tests.docs.reference"


def test_everything_public_is_documented():
    """Without it a name could be public that nobody explains."""
    public = {name for name in vxplug.__all__ if callable(getattr(vxplug, name))}
    assert public and not [name for name in public if not (getattr(vxplug, name).__doc__ or "").strip()]
    assert not [name for name in public if f"### {name}\n" not in reference()]
