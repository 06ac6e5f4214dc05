import pytest
import vxplug

vxplug.install(timeout=5.0)
import @NAME@  # noqa: E402  the import hook finds @NAME@.vxm


def test_add():
    assert @NAME@.add(2, 3) == 5
    with pytest.raises(OverflowError):
        @NAME@.add(2**31 - 1, 1)


def test_reverse():
    assert @NAME@.reverse(b"abc") == b"cba"
    assert @NAME@.reverse(b"") == b""
