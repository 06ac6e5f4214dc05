"""Rules of the source tree that matter, as tests."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = ROOT / "csrc" / "core"
SYSTEM_CALLS = re.compile(r"\b(mmap|munmap|mprotect|memfd_create|sigaltstack|syscall|pwrite)\s*\(")


def sources(*patterns: str) -> list[Path]:
    found = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    assert found
    return found


def test_only_one_file_asks_the_system_for_memory():
    """Any other caller could map a page that the page map does not know."""
    offenders = [p.name for p in sources("csrc/core/*.c", "csrc/py/*.c")
                 if p.name != "os_linux.c" and SYSTEM_CALLS.search(p.read_text())]
    assert offenders == []


def test_the_core_knows_no_python():
    """The core must stay usable, and reviewable, without the binding."""
    offenders = [p.name for p in sources("csrc/core/*", "csrc/vx.h") if re.search(r"Python\.h|\.\./py/", p.read_text())]
    assert offenders == []


def test_the_binding_uses_the_public_header_alone():
    """A binding that reached into the core would pin its insides."""
    includes = {line for p in sources("csrc/py/*.[ch]") for line in re.findall(r'#include "(.*)"', p.read_text())}
    assert {i for i in includes if "core/" in i or i == "internal.h"} == set()


def test_every_invariant_names_files_that_exist():
    """A rule without its file is a wish."""
    text = (ROOT / "docs" / "invariants.md").read_text()
    named = re.findall(r"`([a-z_]+/[\w/.]+)`", text)
    assert named and [name for name in named if not (ROOT / name).exists()] == []


def test_the_architecture_names_every_file_of_the_core():
    """The map must show the whole country."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    missing = [p.name for p in CORE.glob("*.c") if f"csrc/core/{p.name}" not in text]
    assert missing == []


def test_no_row_of_the_opcode_table_is_unreachable():
    """An unused rule or helper would be code that nobody tests."""
    rows = (CORE / "opcodes.def").read_text()
    helpers = re.findall(r"HELPER_(\w+)", (CORE / "decode.h").read_text())
    assert [h for h in helpers if not re.search(rf"\b{h}\b", rows)] == []


def test_functions_are_short():
    """Code that handles untrusted bytes must fit a reader's head: at most 3 % over 60 lines."""
    lengths = []
    for path in sources("csrc/core/*.c"):
        depth = start = 0
        for number, line in enumerate(path.read_text().splitlines()):
            if line.startswith("}") and start:
                lengths.append(number - start)
                start = 0
            elif re.match(r"^[a-z_].*\) \{$", line):
                start = number
    assert len(lengths) > 200 and sum(length > 60 for length in lengths) <= 0.03 * len(lengths)
