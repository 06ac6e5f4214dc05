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
typedef struct big { uint8_t bytes[1 << 20]; } big;
#define VIEW (vx_view){text, length}
#define MUT (vx_mut){text, length}
#define NUMBERS (vx_array_f64){(double *)text, length / 8}
#define BIG ((big *)text)
VX_EXPORT void views(int32_t n, void (*f)(vx_view, vx_view, vx_view), void (*g)(vx_view, vx_view, vx_view, vx_view)) {
    if (n == 3) f(VIEW, VIEW, VIEW); else g(VIEW, VIEW, VIEW, VIEW); }
VX_EXPORT void muts(void (*f)(vx_mut, vx_mut, vx_mut, vx_mut)) { f(MUT, MUT, MUT, MUT); }
VX_EXPORT void arrays(void (*f)(vx_array_f64, vx_array_f64, vx_array_f64, vx_array_f64)) { f(NUMBERS, NUMBERS, NUMBERS, NUMBERS); }
VX_EXPORT void texts(void (*f)(const char *, const char *, const char *, const char *)) { f(text, text, text, text); }
VX_EXPORT void mixed(void (*f)(vx_view, vx_mut, const char *, vx_array_f64)) { f(VIEW, MUT, text, NUMBERS); }
VX_EXPORT void structs(void (*f)(const big *, const big *, big *, big *)) { f(BIG, BIG, BIG, BIG); }
VX_EXPORT void notes(void (*f)(note, note, const note *, const note *)) { note n = {text, 1}; f(n, n, &n, &n); }
VX_EXPORT void nested(vx_view v, void (*f)(vx_view)) { f(VIEW); }
VX_IMPORT(void, take, (vx_view a, vx_view b, vx_view c, vx_view d));
VX_EXPORT void imported(void) { take(VIEW, VIEW, VIEW, VIEW); }
VX_EXPORT int32_t sound(void) { return text == NULL; }
"""
# In the child: the peak since the guest has its memory, in units of what the result is long.
CHILD = """
import re, sys, vxplug
name, size, end = sys.argv[2], int(sys.argv[3]), sys.argv[4].encode()
box = vxplug.open(sys.argv[1]).sandbox(memory=200 << 20, imports={"take": print})
nested = lambda depth: lambda view: box.lend(nested(depth - 1)) if depth > 1 else 0
def refused():
    try:
        box.arrays(lambda *arrays: None)
    except vxplug.GuestFault:
        pass
calls = {"as_piece": lambda: next(box.as_piece()), "lend": lambda: box.lend(nested(10)), "arrays": refused}
call = calls.get(name) or box[name]
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
IMPORTS = {"take": lambda *views: None}


@pytest.fixture(scope="module")
def path(build_plugin):
    return build_plugin(SOURCE)


@pytest.mark.skipif("VXPLUG_SANITIZE" in os.environ, reason="a sanitizer's allocator takes more, and keeps what was freed")
@pytest.mark.parametrize(("call", "size", "end", "low", "high"), [
    ("as_bytes", 32 * MIB, "", 0.9, 1), ("as_numbers", 32 * MIB, "", 0.9, 1), ("as_piece", 32 * MIB, "", 0.9, 1),
    ("as_text", 16 * MIB, "", 1.9, 2), ("as_text", 16 * MIB, "\U0001f600", 4.9, 7), ("as_text", 16 * MIB, "\u20ac\U0001f600", 6.9, 7),
    ("as_struct", MIB - 1, "\u20ac\U0001f600", 0, 7), ("lend", 8 * MIB, "", 9.9, 10),
    ("arrays", 60 * MIB, "", 2.9, 3),
], ids=lambda value: ascii(value))
def test_a_result_costs_what_is_stated(path, call, size, end, low, high):
    """Without it a result could cost the host more of its memory than an application was told."""
    done = subprocess.run([sys.executable, "-c", CHILD, path, call, str(size), end], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert low <= float(done.stdout) <= high + 2 * MIB / size


def test_longer_text_is_refused(path):
    """Without it a text could cost seven times whatever the sandbox's limit is."""
    with vxplug.open(path).sandbox(memory=200 << 20, imports=IMPORTS) as box:
        box.fill(64 * MIB - 1, b"")
        assert len(box.as_text()) == 64 * MIB - 1
        box.fill(64 * MIB + 1, b"")
        with pytest.raises(vxplug.GuestFault, match="str result without an end in 64 MiB of readable memory"):
            box.as_text()


@pytest.fixture
def small(path):
    """5 MiB of memory, of which the plugin's own bytes are one, and three copies of them are none too many."""
    with vxplug.open(path).sandbox(memory=5 * MIB, stack=1 * MIB, imports=IMPORTS) as box:
        box.fill(3 * MIB // 2, b"")
        yield box


@pytest.mark.parametrize("name", ["views", "muts", "arrays", "texts", "mixed", "structs", "imported"])
def test_arguments_that_name_the_same_memory_have_one_limit(small, name):
    """Without it a guest could have the host copy what it has 64 times over, in one call."""
    called = []
    function = "take()" if name == "imported" else f"{name}() argument '{'g' if name == 'views' else 'f'}'"
    number, size = (4, 3 * MIB // 2) if name != "structs" else (4, 1 << 20)
    if name == "structs":  # three fit into 3.5 MiB
        small = small.plugin.sandbox(memory=7 * MIB // 2, stack=1 * MIB, imports=IMPORTS)
        small.fill(MIB, b"")
    with pytest.raises(vxplug.GuestFault) as caught:
        small[name](*([4] if name == "views" else []), *[called.append] * {"views": 2, "imported": 0}.get(name, 1))
    limit = 7 * MIB // 2 if name == "structs" else 5 * MIB
    left = limit - 3 * size
    said = f"{function} was passed too much: for copies the memory limit of {limit} bytes leaves {left}, and argument {number} is {size} bytes at 0x"
    assert said in str(caught.value) and caught.value.kind == "memory" and not called
    assert small.sound(), "the sandbox began again, with the whole limit"


def test_what_fits_is_given(small):
    """Without it a limit would be in the way of what it is for, or be used up by calls that are over."""
    seen = []
    for _ in range(9):
        small.views(3, lambda *views: seen.append(list(map(len, views))), print)
    assert seen == [[3 * MIB // 2] * 3] * 9


def test_text_of_structs_counts(path):
    """Without it text behind pointers would be beside the limit."""
    with vxplug.open(path).sandbox(memory=3 * MIB, stack=1 * MIB, imports=IMPORTS) as box:
        box.fill(MIB - 1, b"")
        with pytest.raises(vxplug.GuestFault, match=r"leaves 1048570, and argument 3 is 1048575 bytes"):
            box.notes(print)


def test_nested_calls_share_the_limit(path):
    """Without it each of the calls of host functions that wait for one another could have as much as the sandbox."""
    depth = []
    with vxplug.open(path).sandbox(memory=5 * MIB, stack=1 * MIB, imports=IMPORTS) as box:
        box.fill(3 * MIB // 2, b"")

        def again(view):
            depth.append(len(view))
            box.nested(b"", again)

        with pytest.raises(vxplug.GuestFault, match=r"leaves 524288, and argument 1 is 1572864 bytes"):
            box.nested(b"", again)
        assert depth == [3 * MIB // 2] * 3
