"""The processor as the oracle: generated sequences natively in 32-bit mode and in a sandbox."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from pathlib import Path

import pytest

from .probe import ROOT, compile_c, compile_with_core, core_sources
from .vectors import rows

HERE = Path(__file__).parent
SEQUENCES = os.environ.get("VXPLUG_SEQUENCES", "200000")
SEED = os.environ.get("VXPLUG_SEED", "1")
# Rows the generator leaves out, and why.
NOT_COMPARED = {
    "cpuid": "answers for the sandbox, on purpose otherwise than the processor",
    "xgetbv …": "likewise",
    "mov to segment": "loads of the selectors a program has already; tests/attack has the others",
}


@pytest.fixture(scope="module")
def runner(tmp_path_factory) -> Path:
    """The 32-bit side: freestanding, so that no 32-bit libc is needed."""
    path = tmp_path_factory.mktemp("runner") / "native"
    compile_c(
        [HERE / "native.c"], path, "-m32", "-ffreestanding", "-fno-pic", "-no-pie", "-nostdlib", "-static",
        "-fno-stack-protector", "-mgeneral-regs-only", "-fcf-protection=none", "-Wl,-Ttext-segment=0x10000000",
        "-Wl,--build-id=none",
    )
    try:
        subprocess.run([path], stdin=subprocess.DEVNULL, timeout=20)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        pytest.skip("this kernel runs no 32-bit programs: the processor cannot be asked")
    return path


@pytest.fixture(scope="module")
def differ(tmp_path_factory) -> Path:
    return build_differ(tmp_path_factory.mktemp("differ"), core_sources())


def build_differ(folder: Path, core: list[Path], *flags: str) -> Path:
    """The driver with this core, drawing from forms.def and from what vectors.py lists."""
    (folder / "vector_forms.def").write_text(rows())
    path = folder / "differ"
    compile_with_core([HERE / "differ.c", HERE / "forms.c"], path, *flags, f"-I{folder}", core=core)
    return path


def test_sequences_agree_with_the_processor(differ, runner, capsys):
    """Without it every claim that guests run as on the processor would rest on reading manuals."""
    done = subprocess.run([differ, SEED, SEQUENCES, runner], capture_output=True, text=True)
    with capsys.disabled():
        print("\n" + done.stdout.splitlines()[-1] if done.stdout else done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    lost = re.search(r"without flags: (\d+)", done.stdout)
    assert lost is not None and int(lost[1]) < int(SEQUENCES) // 50, "flags are hardly compared"
    missing = set(re.findall(r"^not reached: map \d opcode \S+ (.*)$", done.stdout, re.MULTILINE))
    assert missing <= set(NOT_COMPARED), missing - set(NOT_COMPARED)


def test_a_wrong_row_is_found(tmp_path, runner):
    """The harness can see: with `sbb` translated as `adc` it reports differences.  Without it a
    comparison that compares nothing would pass for ever."""
    core = tmp_path / "core"
    core.mkdir()
    for source in core_sources():
        text = source.read_text()
        if source.name == "translate.c":
            changed = text.replace("    vx_form form = form_of(&t->in);\n    if (t->in.has_modrm)",
                                   "    vx_form form = form_of(&t->in);\n"
                                   "    form.opcode = form.map == 0 && form.opcode == 0x19 ? 0x11 : form.opcode;\n"
                                   "    if (t->in.has_modrm)")
            assert changed != text
            text = changed
        text = text.replace('#include "../vx.h"', f'#include "{ROOT}/csrc/vx.h"')
        (core / source.name).write_text(text)
    sources = sorted([*core.glob("*.c"), *core.glob("*.S")])
    broken = build_differ(tmp_path, sources, f"-I{ROOT / 'csrc/core'}")
    done = subprocess.run([broken, SEED, "50000", runner], capture_output=True, text=True)
    assert done.returncode == 1 and "sbb" in done.stdout
