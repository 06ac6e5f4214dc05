"""Undefined behaviour in a plugin built with -fsanitize=undefined: gcc's own runtime says natively what must be said."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import vxplug
from vxplug import sdk

CHECKS = ["-fsanitize=undefined,float-cast-overflow", "-fno-sanitize-trap=undefined"]
SOURCE = r"""
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#ifdef NATIVE
#define EXPORT
#else
#include <vxplug.h>
#define EXPORT VX_EXPORT
#endif
static volatile int zero, one = 1, most = INT_MAX, least = INT_MIN;
static volatile long long most64 = LLONG_MAX;
static volatile double large = 1e20;
static volatile float large_float = -3e9f;
static volatile unsigned char two = 2;
static int table[4];
EXPORT int add(void) { return most + one; }
EXPORT int subtract(void) { return least - one; }
EXPORT int multiply(void) { return most * 2; }
EXPORT long long add64(void) { return most64 + 1; }
EXPORT int negate(void) { return -least; }
EXPORT int divide(void) { return one / zero; }
EXPORT int divide_least(void) { return least / -one; }
EXPORT int shift_far(void) { return one << (40 * one); }
EXPORT int shift_back(void) { return one << -one; }
EXPORT int shift_out(void) { return (most - 1) << 2; }
EXPORT long long shift_far64(void) { return most64 >> (70 * one); }
EXPORT int element(void) { return table[7 * one]; }
EXPORT int element_before(void) { return table[-one]; }
EXPORT int load_null(void) { int *p = zero ? table : NULL; return *p; }
EXPORT void store_null(void) { int *p = zero ? table : NULL; *p = 5; }
EXPORT int lengthless(void) { int length = -one; char text[length]; return sizeof text; }
EXPORT int convert(void) { return (int)large; }
EXPORT int convert_float(void) { return (int)large_float; }
EXPORT int truth(void) { _Bool b; memcpy(&b, (const void *)&two, 1); return b; }
EXPORT int bits(void) { return __builtin_ctz((unsigned)zero); }
EXPORT int unreachable(void) { if (one) __builtin_unreachable(); return zero; }
__attribute__((nonnull(2))) static int second(int v, const char *p) { return p ? v : 0; }
EXPORT int argument(void) { const char *p = zero ? "" : NULL; return second(one, p); }
#ifdef NATIVE
int main(int argc, char **argv) {
    (void)argc;
#define RUN(name) if (strcmp(argv[1], #name) == 0) (void)name();
    CALLS
}
#endif
"""
NAMES = re.findall(r"^EXPORT [a-z ]+?(\w+)\(void\)", SOURCE, re.MULTILINE)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("undefined") / "undefined.c"
    path.write_text(SOURCE.replace("CALLS", " ".join(f"RUN({name})" for name in NAMES)))
    return path


@pytest.fixture(scope="module")
def native(source):
    """What gcc's runtime says of each function: line and text."""
    gcc = shutil.which("gcc")
    program = source.with_name("native")
    command = [str(gcc), "-DNATIVE", "-g", CHECKS[0], "-w", str(source), "-o", str(program)]
    if gcc is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("gcc with its undefined behaviour sanitizer is not installed")

    def said(name: str) -> tuple[int, str]:
        done = subprocess.run([program, name], capture_output=True, text=True, timeout=60, check=False)
        return told(done.stderr)

    return said


def told(text: str) -> tuple[int, str]:
    """Line and message, up to the name of a type, which compilers write differently."""
    found = re.search(r"undefined\.c:(\d+):\d+: runtime error: (.*)", text)
    assert found, text
    return int(found.group(1)), re.sub(r"(type ').*|__builtin_", r"\1", found.group(2))


@pytest.fixture(scope="module")
def box(source):
    with vxplug.open(sdk.build([source], source.with_suffix(".vxm"), cflags=CHECKS)).sandbox(stderr=lambda data: None) as box:
        yield box


@pytest.mark.parametrize("name", NAMES)
def test_the_message_of_other_runtimes(box, native, name):
    """Without it undefined behaviour would end in an error that says nothing of it, or the wrong thing."""
    with pytest.raises(vxplug.GuestFault) as caught:
        box[name]()
    assert caught.value.kind == "abort"
    assert told(str(caught.value)) == native(name)
    function, file, line = next(frame for frame in caught.value.traceback if (frame[1] or "").endswith("/undefined.c"))
    assert (function, line) == (name, native(name)[0])
