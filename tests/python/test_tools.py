"""`vxplug disasm` and `vxplug profile`, and what they ask of the core."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from elftools.elf.elffile import ELFFile

import vxplug
from vxplug.profile import Profile, _show, _Timed, write_perf_map

SOURCE = """
#include <stdio.h>
#include <stdlib.h>
#include <vxplug.h>
#define KEEP __asm__ volatile("" : "+r"(x))
static __attribute__((noinline)) uint32_t inner(uint32_t n) {
    uint32_t x = 1;
    for (uint32_t i = 0; i < n; i++) { x = x * 1664525 + 1013904223; KEEP; }
    return x;
}
static __attribute__((noinline)) uint32_t deep(uint32_t n, uint32_t depth) {
    uint32_t x = depth ? deep(n, depth - 1) : inner(n);
    KEEP;
    return x + 1;
}
VX_EXPORT uint32_t work(uint32_t n) { return inner(n) + 1; }
VX_EXPORT uint32_t nested(uint32_t n) { return deep(n, 20) + 1; }
VX_EXPORT void say(void) { puts("x"); fflush(stdout); }
VX_EXPORT vx_stream pieces(uint32_t count, uint32_t n) {
    for (uint32_t i = 0; i < count; i++) { uint32_t x = inner(n); vx_yield(&x, 4); }
    return VX_END;
}
VX_EXPORT void endless(void) { fputs("here\\n", stderr); for (;;) inner(1000); }
VX_EXPORT void room(uint32_t mib) {
    char *x = malloc(mib << 20);
    KEEP;
    if (!x) vx_raise(VX_MemoryError, "none");
    free(x);
    inner(1000000);
}
VX_EXPORT void fail(void) { vx_raise(VX_KeyError, "k\\033[31m"); }
"""


@pytest.fixture(scope="module")
def path(build_plugin) -> Path:
    return build_plugin(SOURCE)


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "vxplug", *map(str, arguments)], capture_output=True, text=True, check=False)


def expected(n: int) -> int:
    x = 1
    for _ in range(n):
        x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
    return (x + 1) & 0xFFFFFFFF


# ---- disasm ----


def _symbol(path: Path, name: str) -> bytes:
    with path.open("rb") as file:
        elf = ELFFile(file)
        (symbol,) = [s for s in elf.get_section_by_name(".symtab").iter_symbols() if s.name == name]
        (offset,) = elf.address_offsets(symbol.entry.st_value, symbol.entry.st_size)
        file.seek(offset)
        return file.read(symbol.entry.st_size)


@pytest.mark.parametrize("name", ["work", "nested", "malloc"])
def test_every_instruction_is_shown_beside_its_translation(path, name):
    """Without it a listing could leave out the very instruction that somebody looks for."""
    pytest.importorskip("capstone")
    done = command("disasm", "--json", path, name)
    records = json.loads(done.stdout)[name]
    assert bytes.fromhex("".join(record["guest_bytes"] for record in records)).startswith(_symbol(path, name))
    assert all(record["host"] and len(record["guest"]) == bool(record["guest_bytes"]) for record in records)
    loads = [r for r in records if r["guest"] and r["guest"][0].startswith("mov e") and "ptr [e" in r["guest"][0]]
    assert loads and all(any("gs:[" in row for row in r["host"]) for r in loads)


def test_listing(path):
    """The text a person reads: names, C lines, two columns."""
    pytest.importorskip("capstone")
    done = command("disasm", path, "work")
    assert done.returncode == 0 and done.stdout.startswith("work:\n; /")
    assert any(row.split()[1:2] == ["call"] and "gs:[r13 " in row for row in done.stdout.splitlines())


def test_names_that_are_not_there(path):
    """One line that says what to do, not a Python traceback."""
    pytest.importorskip("capstone")
    done = command("disasm", path, "wrok")
    assert done.returncode == 1 and done.stderr.startswith("vxplug: no function 'wrok'") and "inspect" in done.stderr
    assert "not an address" in command("disasm", path, "0xyz").stderr


@pytest.mark.parametrize(("words", "says"), [
    (["{path}", "work", "0x5"], "0x5: no code is there"), (["--json", "{path}", "work", "0x5"], "0x5: no code is there"),
    (["{path}", "0x100000000"], "0x100000000: not an address of 32 bits"),
])
def test_addresses_without_code(path, words, says):
    """A heading with nothing under it, and status 0, looks like an empty function; a traceback like an error of ours."""
    pytest.importorskip("capstone")
    done = command("disasm", *(word.format(path=path) for word in words))
    assert (done.returncode, done.stderr) == (1, f"vxplug: {says}\n")


def test_without_capstone(path):
    """The extra is named, as it would be typed."""
    code = f"import sys; sys.modules['capstone'] = None; sys.argv = ['vxplug', 'disasm', {str(path)!r}]; from vxplug.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr == "vxplug: disasm needs capstone: pip install 'vxplug[tools]'\n"


def test_translations_are_refused_inside_a_call(path):
    """The state of the running guest must not be touched for a look."""
    plugin = vxplug.open(path)
    seen = []

    def look(data: bytes) -> None:
        with pytest.raises(RuntimeError, match="running a call"):
            box._box.translation(plugin.exports["work"].address)
        seen.append(data)

    with plugin.sandbox(stdout=look) as box:
        box.say()
        assert seen and box.work(1) == expected(1)
        assert box._box.translation(0x10) is None
        for wrong in (-1, 1 << 32, "0"):
            with pytest.raises((ValueError, TypeError)):
                box._box.translation(wrong)
    with pytest.raises(vxplug.Error, match="closed"):
        box._box.translation(plugin.exports["work"].address)


# ---- profile ----


def _sampled(box: vxplug.Sandbox, n: int, samples: int) -> Profile:
    """Calls until enough samples were taken; every result is looked at."""
    result, until = expected(n), time.monotonic() + 60
    with Profile(box) as profile:
        while profile.samples < samples and time.monotonic() < until:
            assert box.work(n) == result
    return profile


@pytest.mark.parametrize("n", [500, 100_000], ids=["shorter than a tick", "longer"])
def test_samples_tell_where_and_change_nothing(path, n):
    """A profile of short calls would be empty, and a sample that disturbs the guest would be found nowhere else."""
    with vxplug.open(path).sandbox() as box:
        profile = _sampled(box, n, 30)
        taken = profile.samples
        assert taken >= 30
        assert profile.stacks[("work", "inner")] > taken // 2
        assert sum(profile.stacks.values()) == taken
        box.work(20_000_000)
        assert profile.samples == taken


def test_deep_stacks(path):
    """Callers come from call frame information, as in tracebacks."""
    with vxplug.open(path).sandbox() as box, Profile(box) as profile:
        box.nested(60_000_000)
    assert ("nested", *["deep"] * 21, "inner") in profile.stacks


def test_a_sampler_that_raises(path):
    """Its exception ends the call and comes out unchanged; the sandbox goes on."""
    with vxplug.open(path).sandbox() as box:
        def sample(info):
            raise ZeroDivisionError("sampler")

        box._box.profile(sample)
        with pytest.raises(ZeroDivisionError, match="sampler"):
            for _ in range(1000):
                box.work(10_000_000)
        box._box.profile(None)
        assert box.work(500) == expected(500)
        with pytest.raises(TypeError):
            box._box.profile(3)


def test_pictures_and_text(path, tmp_path):
    """The files that other programs read: XML, folded stacks, a perf map with names at executable addresses."""
    output, folded = tmp_path / "out.svg", tmp_path / "out.txt"
    done = command("profile", "--seconds", "0.5", "-o", output, "--folded", folded, path, "work", "1000000")
    assert done.returncode == 0 and " %  inner\n" in done.stdout, done.stderr
    titles = [element.text for element in ElementTree.parse(output).iter("{http://www.w3.org/2000/svg}title")]
    assert any(title.startswith("inner (") for title in titles) and titles[0].startswith("all (")
    stacks = dict(line.rsplit(" ", 1) for line in folded.read_text().splitlines())
    assert int(stacks["work;inner"]) > 0


def test_perf_map(path, tmp_path):
    """perf would show wrong names if a row were somewhere else than the code."""
    plugin = vxplug.open(path)
    with plugin.sandbox() as box:
        box.work(10)
        rows = [line.split(" ", 2) for line in write_perf_map(plugin, tmp_path / "map").read_text().splitlines()]
        spans = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines() if "r-xs" in line]
    names = {name for _, _, name in rows}
    assert {"vxm:work", "vxm:inner"} <= names
    for start, size, _ in rows:
        at = int(start, 16)
        assert any(int(low, 16) <= at and at + int(size, 16) <= int(high, 16) for low, high in spans)
    assert os.stat(tmp_path / "map").st_mode & 0o777 == 0o600


def test_hostile_names_in_the_picture():
    """Function names are the plugin's: in an SVG they could be script."""
    profile = Profile.__new__(Profile)
    profile.samples, profile._plugin = 1, SimpleNamespace(path="<p>", locate=lambda at: ("</title><script>\x1b;", None, None))
    profile._raw = Counter({(1,): 1})
    picture = profile.svg()
    ElementTree.fromstring(picture)
    assert "<script" not in picture and "\x1b" not in picture
    assert profile.folded().count(";") == 0


def test_profile_in_json(path, tmp_path):
    """A script that watches where time goes must not parse percentages out of text."""
    done = command("profile", "--json", "--seconds", "0.3", "-o", tmp_path / "p.svg", path, "work", "2000000")
    found = json.loads(done.stdout)
    assert found["svg"] == str(tmp_path / "p.svg") and found["calls"] >= 1
    assert found["samples"] == sum(function["samples"] for function in found["functions"]) > 0
    assert found["functions"][0]["name"] in ("inner", "work")


def test_profile_of_a_function_that_raises(path, tmp_path):
    """The plugin's error is a line, as `call` has it, not a traceback of ours."""
    done = command("profile", "--seconds", "0.3", "-o", tmp_path / "p.svg", path, "fail")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "vxplug: fail() raised KeyError: 'k\\x1b[31m'\n"


def test_profile_of_a_function_without_an_end(path, tmp_path):
    """The command would never end, and show nothing of the very function that needs a look."""
    done = command("profile", "--json", "--seconds", "0.3", "-o", tmp_path / "p.svg", path, "endless")
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["calls"] == 1 and found["functions"][0]["name"] in ("inner", "endless")


def test_profile_until_ctrl_c(path, tmp_path):
    """Who has seen enough wants to see it."""
    running = subprocess.Popen([sys.executable, "-m", "vxplug", "profile", "--seconds", "60", "-o", tmp_path / "p.svg", path, "endless"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stderr.readline() == "here\n"
    time.sleep(0.5)
    running.send_signal(signal.SIGINT)
    shown, said = running.communicate(timeout=30)
    assert (running.returncode, said) == (130, "") and "samples in 1 calls" in shown and (tmp_path / "p.svg").exists()


@pytest.mark.parametrize("count", [3, 1 << 31], ids=["with an end", "without"])
def test_profile_of_a_stream(path, tmp_path, count):
    """The body of a stream runs for its pieces only, so a call alone would show none of it; and nobody stops this one."""
    done = command("profile", "--json", "--seconds", "0.5", "-o", tmp_path / "p.svg", path, "pieces", count, 100_000)
    samples = {function["name"]: function["samples"] for function in json.loads(done.stdout)["functions"]}
    assert done.stderr == "" and samples["inner"] > sum(samples.values()) // 2


def test_profile_has_the_memory_that_call_has(path, tmp_path):
    """A function that needs more than the usual limit could be called, but not profiled."""
    rest = ["--seconds", "0.1", "-o", tmp_path / "p.svg", path, "room", "300"]
    assert command("profile", *rest).stderr == "vxplug: room() raised MemoryError: none\n"
    assert command("profile", "--memory", "400", *rest).returncode == 0
    assert command("profile", "--memory", "0", *rest).returncode == 2


@pytest.mark.parametrize(("samples", "warns"), [(1, True), (19, True), (20, False)])
def test_few_samples(capsys, samples, warns):
    """One sample of a short function was 100.0 % of its time, as if that were known."""
    profile = _Timed.__new__(_Timed)
    profile.samples, profile.calls, profile._plugin = samples, 1000, SimpleNamespace(locate=lambda at: ("f", None, None))
    profile._raw = Counter({(1,): samples})
    _show(profile, SimpleNamespace(json=False, output="p.svg"))
    assert ("the percentages say little" in capsys.readouterr().out) == warns


def test_short_calls_come_in_bursts(path, monkeypatch):
    """Looking at the clock after each would take longer than the call, and most ticks would meet that."""
    looks = []
    monkeypatch.setattr(_Timed, "over", property(lambda self: looks.append(0) or self.calls > 10_000))
    with vxplug.open(path).sandbox() as box:
        profile = _Timed(box, 1.0)
        profile.repeat(box.work, [1])
    assert profile.calls > 10_000 and len(looks) < 1000
