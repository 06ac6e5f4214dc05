"""Signal frames that a guest forged, and the host that has to live with them."""

from __future__ import annotations

import struct

import pytest

import vxplug

# How each ends: the signal that kills the program, and whether it came to print what it has.
ENDS = {
    "flags": (9, True), "selectors": (9, True), "fp": (9, True), "header": (9, True), "nofp": (9, True), "mask": (9, True), "stack": (9, True), "vectors": (9, True),
    "wildfp": (11, False), "eip": (11, False), "frame": (11, False), "oldframe": (11, False),
}


@pytest.mark.parametrize("what", ENDS)
def test_forged_frame(build_program, what):
    """Without it a guest could set TF or AC, load the host's vector unit with what faults, or run elsewhere."""
    out = []
    program = vxplug.Program(build_program("frames", "-w"))
    for _ in range(3):
        ended = program.run(what, stdout=out.append, timeout=30)
        signal, prints = ENDS[what]
        assert ended.signal == signal
        text = b"".join(out).decode()
        out.clear()
        assert ("forbidden flags 0" in text) == prints, text
        if prints:
            assert f"runs {1 if what == 'mask' else 50}," in text
    assert struct.pack("d", 0.1 + 0.2) == struct.pack("d", 0.30000000000000004)  # the host's rounding
