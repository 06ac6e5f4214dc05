"""Vector and mask registers: nothing of one tenant or of the host is seen by another, and none is lost."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

import vxplug

FLAGS = set(next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")).split())
needs_avx = pytest.mark.skipif("avx2" not in FLAGS, reason="this processor has no AVX2")
needs_avx512 = pytest.mark.skipif("avx512bw" not in FLAGS, reason="this processor has no AVX-512")
TOP = 0xFFFFFFFF


@pytest.fixture(scope="module")
def plugin(build_plugin):
    return vxplug.open(build_plugin(Path(__file__).with_name("vectors.c")))


@pytest.fixture
def box(plugin):
    with plugin.sandbox(timeout=20) as box:
        yield box


@needs_avx
def test_ymm_of_another_tenant(plugin):
    """Threat 21: upper halves that a call left are gone in the next, and those of the host are never there."""
    with plugin.sandbox() as first, plugin.sandbox() as second:
        assert second.read_ymm() == bytes(256)
        first.leave_ymm()
        assert first.read_ymm() == second.read_ymm() == bytes(256)


@needs_avx512
@pytest.mark.parametrize("leave", ["leave_zmm", "fault_with_zmm"])
def test_zmm_and_masks_of_another_tenant(plugin, leave):
    """Threats 21 and 50, also when the tenant ended by a fault, with its registers saved in its state."""
    with plugin.sandbox() as first, plugin.sandbox() as second:
        assert second.read_zmm() == bytes(576)
        try:
            getattr(first, leave)()
        except vxplug.GuestFault as fault:
            assert fault.kind == "illegal-instruction"
        assert first.read_zmm() == second.read_zmm() == bytes(576)


@needs_avx512
def test_registers_are_kept(box):
    """Each way out of translated code and in again: without one, code that the host ran between would show."""
    assert box.keeps_in_helpers() == 1
    assert box.keeps_in_misses() == 1
    assert box.keeps_in_ticks(200_000_000) == 1


@needs_avx
def test_first_avx_of_a_call(build_plugin):
    """The state saved by FXSAVE is restored by XRSTOR, which believes its header: without one the registers are lost."""
    plugin = vxplug.open(build_plugin(Path(__file__).with_name("vectors.c")))
    with plugin.sandbox() as first, plugin.sandbox() as second:
        first.use_sse()
        assert second.sse_to_avx() == 1


@needs_avx
def test_high_registers_are_ignored(box):
    """Threat 5: bits that name xmm8 to xmm15 in 64-bit mode, which hold what the host left there."""
    assert box.high_registers() == 1


@needs_avx
@pytest.mark.parametrize(("low", "high"), [(0x80000000, 0), (0x40000000, 0x12345678)])
def test_gather_wraps(box, low, high):
    """Threat 11: 64-bit lanes times 4 are 66 bits, and the address is their low 32."""
    assert box.gather(low, high) == 0x2A


@needs_avx
def test_gather_stays_inside(box):
    """Likewise where nothing is mapped."""
    with pytest.raises(vxplug.GuestFault) as fault:
        box.gather(0x10000000, TOP)
    assert fault.value.kind == "memory"


@needs_avx512
def test_scatter_stays_inside(box):
    """Likewise for stores."""
    with pytest.raises(vxplug.GuestFault) as fault:
        box.scatter(0x08000000, 0x7FFFFFFF)
    assert fault.value.kind == "memory"


@needs_avx512
@pytest.mark.parametrize("address", [TOP, TOP - 62, 0xFFFE0000 - 31, 0])
def test_wide_stores_over_the_edge(box, address):
    """Threat 10: 64 bytes from the window's last byte end in the guard."""
    for store in (box.store_wide, box.masked_wide):
        with pytest.raises(vxplug.GuestFault) as fault:
            store(address)
        assert fault.value.kind in ("memory", "stack-overflow")


def _leaf(box, leaf, subleaf=0):
    return struct.unpack("<4I", box.identify(leaf, subleaf))


def test_cpuid_and_xgetbv_agree(box):
    """Programs look at both before they use AVX; a bit too many ends them in an illegal instruction."""
    highest, *_ = _leaf(box, 0)
    _, _, ecx, _ = _leaf(box, 1)
    avx, osxsave = ecx >> 28 & 1, ecx >> 27 & 1
    _, ebx7, _, edx7 = _leaf(box, 7)
    assert highest == 0xD and avx == osxsave == ("avx" in FLAGS)
    assert ebx7 >> 16 & 1 == ("avx512f" in FLAGS) and edx7 == ("avx512_fp16" in FLAGS) << 23
    assert ebx7 & (1 << 18 | 1 << 11 | 1 << 4) == 0  # rdseed, rtm, hle
    if osxsave:
        expected = 0xE7 if "avx512f" in FLAGS else 7
        assert box.extended_control(0) == _leaf(box, 0xD)[0] == expected
        with pytest.raises(vxplug.GuestFault):
            box.extended_control(1)
    assert _leaf(box, 0x40000000) == (0, 0, 0, 0) and _leaf(box, 0x80000002) == (0, 0, 0, 0)


@needs_avx
def test_lanes_wrap_around(box):
    """Threat 9: a vector may begin below the first page and be read from there on, which a guard above the window is no
    substitute for.  The image begins with its ELF header."""
    assert box.read_behind(TOP)[4:8] == b"\x7fELF"
    with pytest.raises(vxplug.GuestFault) as caught:
        box.read_behind(TOP - 1)
    assert (caught.value.kind, caught.value.address) == ("memory", 0xFFFF)
