"""vxplug.Mapping: files and shared memory that a sandbox reads where they are."""

from __future__ import annotations

import gc
import hashlib
import io
import mmap
import os
import pickle
import subprocess
import sys
import sysconfig
import textwrap
import threading
import weakref
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import pytest

import vxplug

SOURCE = Path(__file__).parents[1] / "attack" / "mapping.c"
PAGE = mmap.ALLOCATIONGRANULARITY
MIB = 1 << 20
DATA = os.urandom(3 * PAGE + 100)


@pytest.fixture(scope="module")
def plugin(build_plugin):
    return vxplug.open(build_plugin(SOURCE))


@pytest.fixture
def box(plugin):
    with plugin.sandbox(memory=128 * MIB, timeout=20.0) as made:
        yield made


@pytest.fixture
def file(tmp_path):
    (tmp_path / "file").write_bytes(DATA)
    return tmp_path / "file"


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@pytest.mark.parametrize("size", [0, 1, PAGE - 1, PAGE, PAGE + 1, 7 * PAGE + 123, 16 * MIB + 5])
def test_a_guest_reads_what_is_in_the_file(box, tmp_path, size):
    """Without it sizes around a page could come short, or shifted."""
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    with box.map(tmp_path / "file") as mapping:
        assert (len(mapping), box.length(mapping)) == (size, size)
        assert box.sha256(mapping) == _digest(data)
        assert bytes(mapping) == data


@pytest.mark.parametrize("offset", [0, PAGE, 3 * PAGE])
@pytest.mark.parametrize("size", [None, 0, 1, 99, 100])
def test_parts(box, file, offset, size):
    """Without it offset and size could be taken for each other, or the end missed."""
    expected = DATA[offset:] if size is None else DATA[offset : offset + size]
    with box.map(file, offset=offset, size=size) as mapping:
        assert box.sha256(mapping) == _digest(expected)


def test_calls_get_the_pages_themselves(box, file):
    """Without it a call would copy: its memory would be counted, its address change, and a change not be seen."""
    with box.map(file) as mapping:
        start, used = box.where(mapping), box.memory_used
        assert start % PAGE == 0
        assert box.where(mapping) == start and box.memory_used == used
        with open(file, "r+b") as writer:
            writer.write(b"news")
        assert box.echo(mapping)[:4] == b"news"
        assert box.where(bytes(mapping)) != start


def test_the_last_page_is_as_it_was(box, file):
    """As documented: what is not a whole page is copied, so that nothing else of the file is seen."""
    with box.map(file) as mapping:
        with open(file, "r+b") as writer:
            writer.seek(3 * PAGE)
            writer.write(b"news")
        assert box.echo(mapping)[3 * PAGE :] == DATA[3 * PAGE :]


def _anonymous() -> mmap.mmap:
    memory = mmap.mmap(-1, len(DATA))
    memory[:] = DATA
    return memory


def _mapped(path: Path) -> mmap.mmap:
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _sealed() -> int:
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.write(fd, DATA)
    seals = 0x1 | 0x2 | 0x4 | 0x8  # F_SEAL_SEAL, SHRINK, GROW, WRITE
    import fcntl

    fcntl.fcntl(fd, 1033, seals)
    return fd


SOURCES = {
    "path": lambda path: path,
    "str": str,
    "file": lambda path: open(path, "rb"),
    "unbuffered": lambda path: open(path, "rb", buffering=0),
    "text": lambda path: open(path),
    "writable": lambda path: open(path, "r+b"),
    "descriptor": lambda path: os.open(path, os.O_RDONLY),
    "sealed": lambda path: _sealed(),
    "mmap": _mapped,
    "anonymous": lambda path: _anonymous(),
    "view": lambda path: memoryview(_anonymous()),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_sources(box, file, kind):
    """Without it something that Python people have open would have to be copied; and it has to outlive its source."""
    source = SOURCES[kind](file)
    with box.map(source) as mapping, box.map(source, offset=PAGE, size=PAGE + 1) as part:
        if isinstance(source, int):
            os.close(source)
        elif hasattr(source, "close"):
            source.close()
        del source
        assert box.sha256(mapping) == _digest(DATA)
        assert box.echo(part) == DATA[PAGE : 2 * PAGE + 1]


def test_shared_memory(box):
    """Without it a pool of processes could not hand data to a sandbox where it lies."""
    memory = SharedMemory(create=True, size=len(DATA))
    memory.buf[: len(DATA)] = DATA
    with box.map(memory, size=len(DATA)) as mapping:
        assert box.echo(mapping) == DATA
        memory.buf[0] ^= 1
        assert box.echo(mapping)[0] == DATA[0] ^ 1
        memory.close()
        memory.unlink()
        assert box.echo(mapping)[1:] == DATA[1:]


def test_numpy_memory_maps(box, file):
    """Without it an array over a file would be copied."""
    numpy = pytest.importorskip("numpy")
    with box.map(numpy.memmap(file, dtype="u1", mode="r")) as mapping:
        assert box.sha256(mapping) == _digest(DATA)
        assert box.total_u8(mapping) == sum(DATA)


def test_a_buffer_of_another_sandbox(plugin, box):
    """Without it two sandboxes could only share by copies."""
    with plugin.sandbox() as other, other.buffer(2 * PAGE) as buffer, box.map(buffer) as mapping:
        memoryview(buffer)[:4] = b"news"
        assert box.echo(mapping) == b"news" + bytes(2 * PAGE - 4)


def _private(path: Path) -> mmap.mmap:
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


@pytest.mark.parametrize(("source", "error", "text"), [
    (lambda path: b"x" * (1 << 20), ValueError, "shared memory"),
    (lambda path: bytearray(1 << 20), ValueError, "shared memory"),
    (_private, ValueError, "shared memory"),
    (lambda path: memoryview(_anonymous())[1:], ValueError, "beginning of a page"),
    (lambda path: io.BytesIO(b"x"), io.UnsupportedOperation, "fileno"),
    (lambda path: path.parent, ValueError, "regular file"),
    (lambda path: "/dev/zero", ValueError, "regular file"),
    (lambda path: os.pipe()[0], ValueError, "regular file"),
    (lambda path: "/proc/self/maps", ValueError, "size"),
    (lambda path: path.parent / "none", FileNotFoundError, "none"),
    (lambda path: -1, OSError, "descriptor"),
    (lambda path: None, TypeError, "got NoneType"),
    (lambda path: 1.5, TypeError, "got float"),
])
def test_sources_that_are_none(box, file, source, error, text):
    """Without it what cannot be mapped could be mapped as something else, or fail without saying why."""
    used = box.memory_used
    with pytest.raises(error, match=text):
        box.map(source(file))
    assert box.memory_used == used


@pytest.mark.parametrize(("offset", "size", "text"), [
    (1, None, "multiple of the page size"), (-PAGE, None, "multiple"), (4 * PAGE, None, "behind the source's end"),
    (0, len(DATA) + 1, "between 0 and"), (PAGE, len(DATA), "between 0 and"), (0, -1, "between 0 and"),
    (0, 1 << 80, "between 0 and"), (1 << 80, 0, "behind"),
])
def test_parts_that_are_none(box, file, offset, size, text):
    """Without it a guest could see bytes that the source does not have, or that nobody gave it."""
    for source in file, _anonymous():
        with pytest.raises(ValueError, match=text):
            box.map(source, offset=offset, size=size)


def test_it_counts_against_the_memory_limit(box, tmp_path):
    """Without it a sandbox could have more mapped than it was given."""
    (tmp_path / "file").touch()
    os.truncate(tmp_path / "file", 200 * MIB)
    before = box.memory_used
    with box.map(tmp_path / "file", size=10 * MIB + 1):
        assert box.memory_used == before + 10 * MIB + PAGE
        with pytest.raises(vxplug.GuestMemoryError, match=r"map\(\): 209715200 bytes"):
            box.map(tmp_path / "file")
    assert box.memory_used == before


def test_a_call_that_finds_no_room_fails(box, tmp_path):
    """Without it a call after a reset could read the file in the host, where that may end the process."""
    (tmp_path / "file").touch()
    os.truncate(tmp_path / "file", 100 * MIB)
    with box.map(tmp_path / "file") as mapping:
        box.reset()
        with box.buffer(100 * MIB), pytest.raises(vxplug.GuestMemoryError, match="memory limit"):
            box.length(mapping)
        assert box.length(mapping) == 100 * MIB


def test_it_is_read_only(box, file):
    """Without it a call could promise the plugin that it may write."""
    with box.map(file) as mapping:
        with pytest.raises(TypeError, match="read-only vxplug.Mapping"):
            box.fill(mapping)
        assert memoryview(mapping).readonly


def test_life(box, file):
    """Without it a closed mapping could still be passed."""
    mapping = box.map(file)
    assert (mapping.closed, len(mapping), repr(mapping)) == (False, len(DATA), f"<vxplug.Mapping of {len(DATA)} bytes>")
    with mapping as same:
        assert same is mapping
    mapping.close()
    assert (mapping.closed, len(mapping), repr(mapping)) == (True, 0, "<closed vxplug.Mapping>")
    for use in box.length, bytes:
        with pytest.raises((ValueError, BufferError), match="mapping is closed"):
            use(mapping)
    with pytest.raises(TypeError, match="cannot create"):
        vxplug.Mapping()
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(mapping)


def test_copies_outlive_it(box, file):
    """Without it a memoryview could lead to memory that is gone."""
    mapping = box.map(file)
    with memoryview(mapping) as view:
        mapping.close()
        assert bytes(view) == DATA


def test_a_call_holds_it(box, file):
    """Without it a callback could unmap what the running call was lent."""
    with box.map(file) as mapping:

        def close():
            with pytest.raises(BufferError, match="1 call"):
                mapping.close()
            return 0

        assert box.sum_after(mapping, close) == sum(DATA)


def test_it_survives_a_reset_and_a_fault(box, file):
    """Without it a reset could leave a stale address, or take the mapping for good."""
    with box.map(file) as mapping:
        used = box.memory_used
        box.reset()
        assert box.memory_used < used
        assert box.sha256(mapping) == _digest(DATA)
        with pytest.raises(vxplug.GuestFault):
            box.jump(mapping)
        assert box.sha256(mapping) == _digest(DATA)


def test_it_dies_with_the_sandbox(plugin, file):
    """Without it a mapping could be passed to a sandbox that is gone, or keep its file mapped for ever."""
    box = plugin.sandbox()
    mapping = box.map(file)
    gone = weakref.ref(mapping)
    box.close()
    with pytest.raises(vxplug.Error, match="closed"):
        box.length(mapping)
    with pytest.raises(vxplug.Error, match="closed"):
        box.map(file)
    assert bytes(mapping) == DATA
    del mapping, box
    gc.collect()
    assert gone() is None
    assert str(file) not in Path("/proc/self/maps").read_text()


def test_nothing_is_left_of_forgotten_ones(box, file):
    """Without it each mapping that is never closed would stay, as would a descriptor."""
    before, descriptors = box.memory_used, len(os.listdir("/proc/self/fd"))
    for _ in range(300):
        box.length(box.map(file))
    assert (box.memory_used, len(os.listdir("/proc/self/fd"))) == (before, descriptors)
    assert str(file) not in Path("/proc/self/maps").read_text()


@pytest.mark.skipif("VXPLUG_SANITIZE" in os.environ, reason="a sanitizer's allocator keeps what was freed")
@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="mimalloc, of a free-threaded Python, gives memory back late"
)
def test_large_copies_do_not_stay(box, tmp_path):
    """Without it each sandbox could keep as much of the host's memory as its guest made the host look at."""

    def resident() -> int:
        return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) << 10

    (tmp_path / "file").touch()
    os.truncate(tmp_path / "file", 64 * MIB)
    with box.map(tmp_path / "file") as mapping:
        assert len(box.echo_part(mapping, 0, 1)) == 1
        before = resident()
        assert len(box.echo(mapping)) == 64 * MIB
        assert resident() < before + 32 * MIB


def test_closed_while_another_thread_is_inside(plugin, file):
    """Without it mappings could change under a running guest, or stay for ever."""
    with plugin.sandbox() as box, box.map(file) as held:
        other, inside, done = box.map(file), threading.Event(), threading.Event()
        used = box.memory_used

        def wait():
            inside.set()
            done.wait(20)
            return 0

        thread = threading.Thread(target=box.sum_after, args=(held, wait))
        thread.start()
        assert inside.wait(20)
        with pytest.raises(BufferError):
            held.close()
        other.close()
        done.set()
        thread.join()
        assert box.memory_used == used - 4 * PAGE


def test_a_forked_child_has_it_too(plugin, file):
    """In a process of its own: parent and child read the same pages, each in its own sandbox."""
    program = textwrap.dedent("""
        import hashlib, os, sys, vxplug
        data = open(sys.argv[2], "rb").read()
        with vxplug.open(sys.argv[1]).sandbox() as box, box.map(sys.argv[2]) as mapping:
            if (child := os.fork()) == 0:
                os._exit(0 if box.sha256(mapping) == hashlib.sha256(data).digest() else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert box.sha256(mapping) == hashlib.sha256(data).digest()
    """)
    done = subprocess.run([sys.executable, "-c", program, str(plugin.path), str(file)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
