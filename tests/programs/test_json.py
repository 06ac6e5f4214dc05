"""simdjson, an upstream C++ library that throws, unmodified in a sandbox: against Python's json."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vxplug
from examples.json.main import plugin_path

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5), max_leaves=20,
)


@pytest.fixture(scope="module")
def box():
    with vxplug.open(plugin_path()).sandbox(timeout=20.0) as sandbox:
        yield sandbox


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(value=VALUES)
def test_documents_come_back(box, value):
    """Without it C++ that runs could still compute something else than it does natively."""
    assert json.loads(box.minify(json.dumps(value, ensure_ascii=False, indent=1).encode())) == value


@pytest.mark.parametrize("broken", [b"", b"{", b'{"a":}', b"[1,]", b"nul", b'"\xff"', b"1e400", b"[" * 5000])
def test_what_it_throws_arrives(box, broken):
    """Every exception thrown in the library, caught in the wrapper: the unwinder walks upstream frames."""
    with pytest.raises(ValueError):
        box.minify(broken)
    assert box.minify(b" [1 , 2 ] ") == b"[1,2]"


def test_each_kind_of_exception(box):
    """The wrapper tells them apart by the object thrown, so that must survive the unwinding whole."""
    for pointer, kind in (("/b", KeyError), ("/a/9", IndexError), ("/a/x", TypeError)):
        with pytest.raises(kind):
            box.at(b'{"a": [1, 2]}', pointer)
    assert box.at(b'{"a": [1, 2]}', "/a/1") == b"2"
