"""Hostile guests with a Buffer: it cannot be taken out of the host's hands."""

from __future__ import annotations

from pathlib import Path

import pytest

import vxplug

PAGE = 4096
TRIES = ("munmap", "mprotect", "execute", "madvise", "mremap", "shrink", "map_over", "brk", "around")


@pytest.fixture(scope="module")
def plugin(build_plugin):
    return vxplug.open(build_plugin(Path(__file__).parent / "buffer.c"))


@pytest.mark.parametrize("attempt", TRIES)
def test_its_pages_stay_as_they_are(plugin, attempt):
    """Threat 45: without it a guest could unmap, or make its own, what the host counts on."""
    with plugin.sandbox() as box, box.buffer(4 * PAGE) as buffer, memoryview(buffer) as view:
        view[:] = b"\5" * (4 * PAGE)
        used = box.memory_used
        assert box["try_" + attempt](buffer) == -1
        assert (bytes(view), box.memory_used) == (b"\5" * (4 * PAGE), used)
        box.fill(buffer, 6)
        assert bytes(view) == b"\6" * (4 * PAGE)


def test_its_bytes_are_not_code(plugin):
    """Without it the host could write code into a running guest, past all that watches over translations."""
    with plugin.sandbox() as box, box.buffer(PAGE) as buffer, pytest.raises(vxplug.GuestFault) as caught:
        box.jump(buffer)
    assert caught.value.kind == "execute"


def test_kept_pointers_lead_nowhere_after_release(plugin):
    """Without it a guest could go on using what was taken from it."""
    with plugin.sandbox() as box:
        buffer = box.buffer(PAGE)
        address = box.keep(buffer)
        box.poke(0, 1)
        assert memoryview(buffer)[0] == 1
        buffer.release()
        with pytest.raises(vxplug.GuestFault) as caught:
            box.poke(0, 2)
        assert (caught.value.kind, caught.value.address) == ("memory", address)


def test_kept_pointers_reach_no_later_tenant(plugin):
    """The pages of a released Buffer are not handed to the next one, nor its bytes to the guest's heap."""
    with plugin.sandbox() as box:
        first = box.buffer(PAGE)
        address = box.keep(first)
        memoryview(first)[:6] = b"secret"
        first.release()
        with box.buffer(PAGE) as second:
            if box.where(second) == address:
                assert box.look(0) == 0
            assert bytes(memoryview(second)[:6]) == bytes(6)


def test_kept_pointers_lead_nowhere_after_a_reset(plugin):
    """Threat 50: without it a tenant could reach what the host shares with the next one."""
    with plugin.sandbox() as box, box.buffer(PAGE) as buffer:
        address = box.where(buffer)
        box.reset()
        with pytest.raises(vxplug.GuestFault):
            box.sum_at(address, 4)


def test_no_later_sandbox_gets_its_pages(plugin):
    """Address space is used again: without its own way of going the mapping would be the next sandbox's memory."""
    addresses = []
    for round in range(6):
        with plugin.sandbox() as box:
            with box.buffer(64 * PAGE) as buffer, memoryview(buffer) as view:
                view[:] = b"S" * (64 * PAGE)
                addresses.append(box.where(buffer))
                if round % 2:
                    box.reset()
                box.add_pages(256)
                for address in addresses:
                    if address != box.where(buffer):
                        assert box.first_byte(address) in (0, 256)
                assert bytes(view) == b"S" * (64 * PAGE)
