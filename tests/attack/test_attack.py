"""Every attack of the corpus ends in its exact exception, and the process goes on decoding."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import vxplug

from .corpus import CASES, TOP

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def hostile(build_plugin) -> Path:
    return build_plugin(HERE / "guests.c")


@pytest.fixture(scope="session")
def outcomes(hostile) -> dict[int, str]:
    """Problem by case; a case during which the process died says so, and the next ones still run."""
    found: dict[int, str] = {}
    first = 0
    while first < len(CASES):
        command = [sys.executable, "-m", "tests.attack.run_corpus", str(hostile), str(first)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parents[1], timeout=300)
        for line in done.stdout.splitlines():
            record = json.loads(line)
            if "start" in record:
                first = record["start"]
            else:
                found[record["done"]] = record["problem"]
        if first not in found:
            found[first] = f"the host process died ({done.returncode}): {done.stderr[-2000:]}"
        first += 1
    return found


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{c[0]}-{n}" for n, c in enumerate(CASES)])
def test_attack(outcomes, number):
    """Without it an attack of the catalogue could succeed, or kill the host, unseen."""
    assert outcomes[number] == ""


@pytest.mark.parametrize(("name", "displacement"), [
    ("near_up", 0xFFC0), ("far_up", 0xFFC1), ("farthest_up", 2**31 - 1),
    ("near_down", -0x10000), ("far_down", -0x10001), ("farthest_down", -(2**31)),
])
def test_sums_wrap_around(hostile, name, displacement):
    """Threat 9: without it a sum that leaves the window could end in memory of the host's, or be told as another address."""
    with vxplug.open(hostile).sandbox() as box:
        there = box.text_start()
        assert box[f"read_{name}"](there - displacement & TOP) == box.read_at(there)
        registers = [TOP - n for n in (0, 1, 0x80, 0xFFFD)] if displacement > 0 else [0, 1, 0x80, 0xFFFD]
        for register in registers:
            with pytest.raises(vxplug.GuestFault) as caught:
                box[f"read_{name}"](register)
            assert (caught.value.kind, caught.value.address) == ("memory", register + displacement & TOP)


def test_scribbling_on_a_view_does_not_reach_the_caller(hostile):
    """A guest gets a copy: without it immutable bytes of the host would change under Python."""
    data = bytes(range(256)) * 64
    with vxplug.open(hostile).sandbox() as box:
        assert box.scribble(data) == len(data)
    assert data == bytes(range(256)) * 64


def test_reset_leaves_no_secret_of_the_last_tenant(hostile):
    """Threat 50: without the reset's remapping the next tenant would read the last one's memory."""
    with vxplug.open(hostile).sandbox() as box:
        box.leave_canary()
        assert box.find_canary()
        box.reset()
        assert not box.find_canary()


def test_reset_leaves_no_mapping_of_the_last_tenant(hostile):
    """Threat 50: pages that a fresh sandbox does not have, and the break, must go with their tenant."""
    with vxplug.open(hostile).sandbox() as box:
        fresh, page = box.break_now(), 0x70000000
        assert box.move_break(fresh + 0x3000) == box.break_now() == fresh + 0x3000
        assert box.leave_page(page) and box.read_at(page) == ord("s")
        box.reset()
        assert box.break_now() == fresh
        with pytest.raises(vxplug.GuestFault):
            box.read_at(page)


def test_no_vector_of_one_tenant_reaches_the_next(hostile):
    """Threats 21, 50: a plain call of SSE code gets clean registers, though nobody saves or clears them behind it."""
    plugin = vxplug.open(hostile)
    with plugin.sandbox() as painter, plugin.sandbox() as other:
        for box in (painter, other):
            painter.fill_vectors()
            assert box.stale_vectors() == bytes(128)


def test_every_entry_into_the_text_ends_cleanly(hostile):
    """Threats 1, 6, 28: blocks at every byte of the code, overlapping without end."""
    plugin = vxplug.open(hostile)
    with plugin.sandbox(timeout=0.02, stdout=lambda data: None, memory=32 << 20) as box:
        start, ended = box.text_start(), 0
        for address in range(start - 2000, start + 2000):
            try:
                box.jump_to(address)
            except (vxplug.Error, RuntimeError, ValueError):
                ended += 1
    assert ended > 100


def test_munmap_of_own_stack_is_a_fault(hostile):
    """Threat 45: the host reads and writes the guest stack; it must not believe in an old mapping."""
    with vxplug.open(hostile).sandbox() as box:
        stack = box.stack_here()
        with pytest.raises(vxplug.Error):
            box.linux_call(91, stack, 4096, 0, 0, 0)
        assert box.stack_here() == stack


def test_a_fault_half_way_tells_how_far_it_came(hostile):
    """Threat 12: without it a string instruction's registers could name an element that was done, or host memory."""
    with vxplug.open(hostile).sandbox(timeout=30.0) as box:
        with pytest.raises(vxplug.GuestFault) as caught:
            box.move_into_guard(0xFFFDFF00, 4096)
    registers = caught.value.registers
    assert caught.value.address == registers["edi"] == 0xFFFE0000
    assert registers["ecx"] == 4096 - 64 and registers["eip"] == caught.value.eip


def test_no_register_of_one_tenant_reaches_the_next(hostile):
    """Threats 21, 50: what one sandbox, or Python, left in registers must not be in them when a call begins."""
    plugin = vxplug.open(hostile)
    with plugin.sandbox() as painter, plugin.sandbox() as other:
        fresh = other.floats_seen()
        assert fresh[:6] == b"\x7f\x03\x00\x00\x00\x00" and not any(fresh[32:288])
        for box in (painter, other):
            painter.paint()
            assert box.registers_seen() == 0
            painter.paint()
            assert box.floats_seen() == fresh
