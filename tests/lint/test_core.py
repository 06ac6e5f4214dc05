"""Rules of csrc/core that keep its promises reviewable."""

from __future__ import annotations

import re
import statistics

import pytest

from .source import CORE, ROOT, code_of, core_files, functions_of, includes_of, rows_of

# What hands out, changes or takes away memory, signals, threads' segment bases and descriptors.
SYSTEM_CALLS = (
    "mmap munmap mprotect mremap madvise memfd_create ftruncate sigaction sigaltstack signal syscall "
    "arch_prctl getrandom clock_gettime nanosleep open close pwrite"
).split()
# A file may include what stands in an earlier layer, or in its own.
LAYERS = [
    {"vx.h", "vx_abi.h", "status.def", "trap.def", "base.h", "limits.h", "state.h"},
    {"decode.h", "emit.h", "os.h", "signals.h", "watchdog.h", "cache.h", "opcodes.def", "vectors.def", "verify.h"},
    {"internal.h", "linux.h"},
]
HEADER_OF = {"decode.c": 1, "emit.c": 1, "os_linux.c": 1, "cache.c": 1, "enter_x64.S": 0}
# Tables of cases, not logic.
LONG_FUNCTIONS: dict[str, int] = {}


@pytest.mark.parametrize("path", core_files(), ids=lambda path: path.name)
def test_only_os_linux_calls_the_system(path):
    """Without it memory could be mapped where nobody checks W^X, limits and guards."""
    if path.name == "os_linux.c":
        return
    called = set(re.findall(r"(?<![\w.>])(\w+)\s*\(", code_of(path.read_text())))
    assert not called & set(SYSTEM_CALLS)


@pytest.mark.parametrize("path", core_files(), ids=lambda path: path.name)
def test_core_knows_no_python(path):
    """Without it the core could come to depend on the GIL, or on Python being alive."""
    code = code_of(path.read_text())
    assert not re.search(r"\bPy[A-Z_]\w*", code)
    assert not [name for name in includes_of(path) if "Python.h" in name or "py/" in name]


@pytest.mark.parametrize("path", core_files("*.c"), ids=lambda path: path.name)
def test_guest_addresses_become_pointers_in_one_place(path):
    """Without it a second, unchecked way from a guest address to a host pointer could grow.

    region.c and image.c map and save whole pages, after their own checks of the range.
    """
    if path.name in ("guestmem.c", "region.c", "image.c"):
        return
    for line in code_of(path.read_text()).split("\n"):
        if re.search(r"\(uintptr_t\)\s*\([^()]*\bbase\b", line):
            assert path.name == "reserve.c" and "displacement" in line, line.strip()


def _layer(name: str) -> int | None:
    return next((i for i, layer in enumerate(LAYERS) if name in layer), None)


@pytest.mark.parametrize("path", core_files("*.h"), ids=lambda path: path.name)
def test_headers_include_only_what_stands_above(path):
    """Without it the layers of the core could become a circle."""
    own = _layer(path.name)
    assert own is not None, "give the new header a place in LAYERS"
    for name in includes_of(path):
        layer = _layer(name.rpartition("/")[2])
        assert layer is None or layer <= own, name


@pytest.mark.parametrize("name", HEADER_OF)
def test_pure_files_do_not_see_the_sandbox(name):
    """Without it the decoder, emitter and cache could come to depend on a sandbox's state."""
    for header in includes_of(CORE / name):
        layer = _layer(header.rpartition("/")[2])
        assert layer is None or layer <= HEADER_OF[name], header


@pytest.mark.parametrize("folder", ["core", "py"])
def test_functions_are_short(folder):
    """Without it functions could grow until nobody can check one at a glance."""
    lengths = {}
    for path in sorted((ROOT / "csrc" / folder).glob("*.c")):
        for name, lines in functions_of(path.read_text()):
            lengths[f"{path.name}:{name}"] = lines
    assert len(lengths) > 80, "the functions were not found"
    assert statistics.median(lengths.values()) <= 10
    assert statistics.quantiles(lengths.values(), n=10)[-1] <= 30
    too_long = {name: lines for name, lines in lengths.items() if lines > 60}
    assert too_long == LONG_FUNCTIONS


def test_declared_functions_are_defined():
    """Without it internal.h, the map of the core, could name what does not exist."""
    sources = "\n".join(code_of(path.read_text()) for path in core_files("*.c"))
    assembly = (CORE / "enter_x64.S").read_text()
    for header in (*core_files("*.h"), ROOT / "csrc" / "vx.h"):
        code = re.sub(r"\{[^{}]*\}", "", re.sub(r"^#.*$", "", code_of(header.read_text()), flags=re.MULTILINE))
        for name in re.findall(r"^(?!typedef|static|return)[a-z][\w *]*?(\w+)\([^;{]*\);", code, re.MULTILINE):
            defined = re.search(rf"\b{name}\([^;]*?\)\s*\{{", sources) or f"entry {name}" in assembly
            assert defined, f"{header.name}: {name}"


@pytest.mark.parametrize(("file", "macro"), [("status.def", "STATUS"), ("trap.def", "TRAP")])
def test_lists_have_no_doubles(file, macro):
    """Without it two statuses or traps could be told apart by nobody."""
    rows = rows_of(CORE / file, macro)
    names, texts = [row[0] for row in rows], [row[-1] for row in rows]
    assert len(rows) > 5
    assert len(set(names)) == len(rows) and len(set(texts)) == len(rows)


@pytest.mark.parametrize("row", rows_of(CORE / "trap.def", "TRAP"), ids=lambda row: row[0])
def test_every_trap_is_documented(row):
    """Without it a plugin could end in a kind that no page explains."""
    assert f"`{row[1]}`" in (ROOT / "docs" / "guest-abi.md").read_text()


ANY_PLUGIN = [row for row in rows_of(CORE / "linuxcalls.def", "LINUX") if row[2].startswith(("CORE", "EITHER"))]


@pytest.mark.parametrize("row", ANY_PLUGIN, ids=lambda row: row[0])
def test_every_served_system_call_is_documented(row):
    """Without it the list of what a guest may ask of the host could grow unseen."""
    assert f"| {row[0]} |" in (ROOT / "docs" / "guest-abi.md").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "csrc" / "py").glob("*.[ch]")), ids=lambda path: path.name)
def test_the_binding_uses_the_public_header_alone(path):
    """Without it the binding could come to depend on the core's insides."""
    assert not [name for name in includes_of(path) if "core/" in name or name == "internal.h"]


@pytest.mark.parametrize("helper", re.findall(r"HELPER_(\w+)", (CORE / "decode.h").read_text()))
def test_every_helper_has_a_row(helper):
    """Without it code for an instruction could stay that no guest reaches and no test runs."""
    assert re.search(rf"\b{helper}\b", (CORE / "opcodes.def").read_text())
