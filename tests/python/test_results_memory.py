"""What results cost the host beside its limits, as peak memory of a process of their own, against docs/embedding.md."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import vxplug

SOURCE = r"""
#include <stdlib.h>
#include <string.h>
#include <vxplug.h>
typedef struct note { const char *text; int32_t n; } note;
static char *text;
static uint32_t length;
VX_EXPORT void fill(uint32_t size, vx_view end) {
    text = malloc(size + 1);
    memset(text, 'a', size);
    memcpy(text + size - end.len, end.ptr, end.len);
    text[length = size] = 0;
}
VX_EXPORT vx_bytes as_bytes(void) { return vx_borrow(text, length); }
VX_EXPORT const char *as_text(void) { return text; }
VX_EXPORT vx_new_array_f64 as_numbers(void) { return vx_borrow_f64((double *)text, length / 8); }
VX_EXPORT note as_struct(void) { return (note){text, 1}; }
VX_EXPORT vx_stream as_piece(void) { vx_yield(text, length); return VX_END; }
VX_EXPORT int32_t lend(int32_t (*f)(vx_view)) { return f((vx_view){text, length}); }
"""
# In the child: the peak since the guest has its memory, in units of what the result is long.
CHILD = """
import re, sys, vxplug
name, size, end = sys.argv[2], int(sys.argv[3]), sys.argv[4].encode()
box = vxplug.open(sys.argv[1]).sandbox(memory=200 << 20)
nested = lambda depth: lambda view: box.lend(nested(depth - 1)) if depth > 1 else 0
call = {"as_piece": lambda: next(box.as_piece()), "lend": lambda: box.lend(nested(10))}.get(name) or box[name]
def memory(field):
    return int(re.search(field + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) << 10
box.fill(8, b"")
call()  # what a first call costs for ever
box.fill(size, end)
open("/proc/self/clear_refs", "w").write("5")
before = memory("VmRSS")
call()
print((memory("VmHWM") - before) / size)
"""
MIB = 1 << 20


@pytest.fixture(scope="module")
def path(build_plugin):
    return build_plugin(SOURCE)


@pytest.mark.skipif("VXPLUG_SANITIZE" in os.environ, reason="a sanitizer's allocator takes more, and keeps what was freed")
@pytest.mark.parametrize(("call", "size", "end", "low", "high"), [
    ("as_bytes", 32 * MIB, "", 0.9, 1), ("as_numbers", 32 * MIB, "", 0.9, 1), ("as_piece", 32 * MIB, "", 0.9, 1),
    ("as_text", 16 * MIB, "", 1.9, 2), ("as_text", 16 * MIB, "\U0001f600", 4.9, 7), ("as_text", 16 * MIB, "\u20ac\U0001f600", 6.9, 7),
    ("as_struct", MIB - 1, "\u20ac\U0001f600", 0, 7), ("lend", 8 * MIB, "", 9.9, 10),
], ids=lambda value: ascii(value))
def test_a_result_costs_what_is_stated(path, call, size, end, low, high):
    """Without it a result could cost the host more of its memory than an application was told."""
    done = subprocess.run([sys.executable, "-c", CHILD, path, call, str(size), end], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert low <= float(done.stdout) <= high + 2 * MIB / size


def test_longer_text_is_refused(path):
    """Without it a text could cost seven times whatever the sandbox's limit is."""
    with vxplug.open(path).sandbox(memory=200 << 20) as box:
        box.fill(64 * MIB - 1, b"")
        assert len(box.as_text()) == 64 * MIB - 1
        box.fill(64 * MIB + 1, b"")
        with pytest.raises(vxplug.GuestFault, match="str result without an end in 64 MiB of readable memory"):
            box.as_text()
