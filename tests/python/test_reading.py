"""A plugin's file is read whole, once, before anything of it is believed."""

from __future__ import annotations

import gc
import os
import shutil
import threading

import pytest

import vxplug


@pytest.fixture
def path(calls_path, tmp_path):
    return shutil.copy(calls_path, tmp_path / "calls.vxm")


def test_the_file_may_change_afterwards(path):
    """Threat 35: without it what was checked could be replaced before it runs, or end under the guest."""
    good = open(path, "rb").read()
    plugin = vxplug.open(path)
    with open(path, "r+b") as file:
        file.write(b"\xcc" * len(good))
        file.truncate(100)
    assert plugin.data == good
    for _ in range(2):
        with plugin.sandbox() as box:
            assert box.add(2, 3) == 5
            box.reset()
            assert box.add(2, 3) == 5


def test_bytes_and_file_are_the_same_plugin(path):
    """Without it a plugin from an archive could differ from the same one in a folder."""
    ours, theirs = vxplug.open(path), vxplug.open(open(path, "rb").read())
    assert ours.digest == theirs.digest and ours.exports == theirs.exports
    with ours.sandbox() as a, theirs.sandbox() as b:
        assert a.add(2, 3) == b.add(2, 3) == 5


def test_descriptors_are_closed(path, tmp_path):
    """Without it every import, and every file that is no plugin, would cost the process a descriptor or two."""
    (tmp_path / "bad.vxm").write_bytes(b"\x7fELF" + bytes(5000))
    gc.collect()  # what other tests left
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        vxplug.open(path).sandbox().close()
        with pytest.raises(vxplug.PluginFormatError):
            vxplug.open(tmp_path / "bad.vxm")
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_no_regular_file_is_read(path, tmp_path):
    """Without it a plugin from a pipe would be an empty file."""
    os.mkfifo(tmp_path / "pipe.vxm")
    data = open(path, "rb").read()

    def write() -> None:
        with open(tmp_path / "pipe.vxm", "wb") as file:
            file.write(data)

    writer = threading.Thread(target=write)
    writer.start()
    with vxplug.open(tmp_path / "pipe.vxm").sandbox() as box:
        assert box.add(2, 3) == 5
    writer.join()


def test_an_empty_file(tmp_path):
    """Without it mapping nothing would be an error of its own."""
    (tmp_path / "empty.vxm").write_bytes(b"")
    with pytest.raises(vxplug.PluginFormatError):
        vxplug.open(tmp_path / "empty.vxm")
