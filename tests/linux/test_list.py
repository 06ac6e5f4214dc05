"""The list of system calls, the functions that serve it, and the page that shows it are one."""

from __future__ import annotations

from pathlib import Path

from vxplug.linux import calls, personality
from vxplug.linux.trace import SIMPLE

from .page import page

ROOT = Path(__file__).resolve().parents[2]
SERVED_HERE = {row.name for row in calls.ROWS.values() if row.server in ("both", "policy", "either")}


def test_every_listed_call_has_a_function_and_the_reverse():
    """Without it a guest's call could find no function, or a function be unreachable."""
    assert len(SERVED_HERE) > 100
    assert SERVED_HERE == set(calls._functions)
    assert all(entry is not None for entry in personality._TABLE.values())


def test_argument_kinds_are_known():
    """Without it a trace could fail on a call, in the middle of a program."""
    for row in calls.ROWS.values():
        kinds = row.arguments.split()
        assert len(kinds) <= 6
        for kind in kinds:
            assert kind in SIMPLE or kind in ("path", "off", "out") or (
                kind.startswith("in:") and int(kind[3:]) < len(kinds)), (row.name, kind)


def test_page_is_current():
    """Without it the page would promise calls that are not served, or hide some."""
    assert (ROOT / "docs" / "linux-calls.md").read_text() == page()
