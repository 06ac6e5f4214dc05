"""Guests that make and change code (rewrite.c): nothing older runs, and nothing is used up."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import vxplug

HERE = Path(__file__).parent
LIMITS = {"memory": 128 << 20, "timeout": 20.0}


@pytest.fixture(scope="module")
def plugin(build_plugin) -> vxplug.Plugin:
    return vxplug.open(build_plugin(HERE / "rewrite.c"))


@pytest.fixture
def box(plugin):
    with plugin.sandbox(**LIMITS) as box:
        yield box


def _fault(call, *arguments) -> vxplug.GuestFault:
    with pytest.raises(vxplug.GuestFault) as caught:
        call(*arguments)
    return caught.value


@pytest.mark.parametrize("attack", ["run_unmapped", "run_hidden", "run_unexecutable", "run_never_executable",
                                    "run_own_text_unexecutable"])
def test_code_that_is_gone_does_not_run(box, attack):
    """Threat 24: without it a translation would outlive its page, or the right to execute it."""
    fault = _fault(box[attack])
    assert fault.kind == "execute" and fault.address == fault.eip
    assert box.run_fresh(3) == 3


def test_a_page_mapped_over_code_is_empty(box):
    """Threat 24: without it the old page's code would run where zeros are now."""
    fault = _fault(box.run_remapped)
    assert fault.kind == "memory" and fault.address == 16


def test_a_store_needs_the_right(box):
    """Without it the guard of a page could be taken for the guest's missing right, or the reverse."""
    assert _fault(box.store_without_right).kind == "memory"


def test_an_instruction_is_cut_where_execution_ends(box):
    """Threat 8: without it bytes of a page that may not be executed would be, or one that may be now not."""
    fault = _fault(box.cut_short, False)
    assert fault.kind == "execute" and fault.address == fault.eip + 3
    assert box.cut_short(True) == 0x05040302
    assert box.cut_first() == 977


def test_code_at_the_top_of_the_address_space(box):
    """Threat 8: without it running off the end could read host memory, or wrap to the guest's beginning."""
    for attack in ("run_off_the_top", "cut_at_the_top"):
        fault = _fault(box[attack])
        assert fault.kind == "execute" and fault.address == 0xFFFE0000
    assert box.wrap_around() == 4242


def test_overlapping_code_changes_in_every_reading(box):
    """Threats 6, 24: without it of the many blocks that share a byte some would keep its old value."""
    assert box.overlapping() == 0


def test_noise_is_entered_at_every_byte(plugin):
    """Threats 1, 2, 6: random bytes, rewritten between the entries; each ends as some guest error."""
    ended = 0
    with plugin.sandbox(memory=32 << 20, timeout=0.05, stdout=lambda data: None) as box:
        for round in range(1000):
            try:
                start = box.noise_page()
                box.fill_with_noise(round)
                box.jump_to(start + round * 37 % 4096)
            except (vxplug.Error, RuntimeError, ValueError):
                ended += 1
    assert ended > 600


def test_code_64_kib_apart(box):
    """Threat 26: with entries found by a part of the address one target's code would run for the other."""
    assert box.colliding(20_000) == 0


def _mappings() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())


def _resident() -> int:
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10


def test_guarded_pages_do_not_use_up_the_hosts_mappings(box):
    """Threat 48: a guarded page between others is one more mapping of 65530; without the bound one guest with
    code here and there would take them all."""
    before = _mappings()
    assert box.scattered(6000, 1) == 0
    assert _mappings() - before < 3300
    assert box.scattered(700, 4) == 0


def test_flush_storm(box):
    """Threat 28: the cache fills up and is replaced again and again while its code changes."""
    assert box.rewrite_often(60_000) == 0


@pytest.mark.parametrize("attack", ["endless_code", "endless_rewriting", "endless_beside_itself", "endless_remapping"])
def test_endless(plugin, attack):
    """Threat 47: most of the time goes by in the translator and in the host's memory management; without the
    look at the clock there the limit would not hold."""
    with plugin.sandbox(memory=64 << 20, timeout=0.4) as box:
        box.run_fresh(1)
        before, started = _resident(), time.monotonic()
        with pytest.raises(vxplug.GuestTimeout):
            box[attack]()
        assert time.monotonic() - started < 5
        assert _resident() - before < 64 << 20
        assert box.run_fresh(2) == 2


def test_memory_comes_back(plugin):
    """Threat 48: without it each sandbox that once made code would keep its cache after its end."""
    def one() -> None:
        with plugin.sandbox(**LIMITS) as box:
            assert box.rewrite_often(2000) == 0

    one()
    before, mappings = _resident(), _mappings()
    for _ in range(40):
        one()
    assert _resident() - before < 8 << 20
    assert _mappings() - mappings < 20


def test_arguments_never_become_code(box):
    """Threat 25: the host writes arguments at any time; in executable pages its stores would be guest code."""
    assert box.code_from_host(b"\xc3" * 64) == 2**32 - 13


def test_code_can_be_shown(box):
    """Without it the host could not read a page that it guards."""
    assert box.show_code() == bytes.fromhex("b805000000c3")


def test_no_guest_page_is_executable_for_the_host(plugin):
    """Threat 25: without it the processor could run guest bytes, or somebody could write what it runs."""
    seen: list[str] = []
    before = Path("/proc/self/maps").read_text().splitlines()  # other libraries' trampolines

    def look(data: bytes) -> None:
        seen.append(Path("/proc/self/maps").read_text())

    with plugin.sandbox(stdout=look, **LIMITS) as box:
        assert box.calls_out() == 1001
    executable = [line for line in seen[0].splitlines() if re.match(r"\S+ ..x", line) and line not in before]
    assert [line for line in executable if "vxplug-code" in line]
    assert not [line for line in executable if " rwx" in line]
    assert not [line for line in executable if line.rstrip().endswith(" 0")], "anonymous executable memory"
    assert not [line for line in executable if re.search("vxplug-(image|snapshot)", line)]


def test_an_inner_call_changes_what_the_outer_one_runs(plugin):
    """Threats 24, 28: blocks are dropped while an outer call stands in the middle of them."""
    with plugin.sandbox(stdout=lambda data: box.patch(2), **LIMITS) as box:
        assert box.calls_out() == 1002
        assert box.calls_out() == 1002
    with plugin.sandbox(stdout=lambda data: box.patch_caller(9), **LIMITS) as box:
        assert box.calls_out_of_code() == 9


def test_a_reset_forgets_code(plugin):
    """Threat 50: without it the last tenant's code would run, or its translation, in the next one's pages."""
    with plugin.sandbox(**LIMITS) as box:
        assert box.run_fresh(1) == 1
        box.reset()
        assert _fault(box.run_page).kind == "execute"
        assert box.run_fresh(2) == 2


@pytest.fixture(scope="module")
def early(build_plugin) -> vxplug.Plugin:
    return vxplug.open(build_plugin(HERE / "rewrite.c", cflags=("-DEARLY",)))


def test_code_made_before_the_snapshot(early):
    """Without it a plugin that generates code while it initialises would lose it, or share it writable."""
    with early.sandbox(**LIMITS) as first, early.sandbox(**LIMITS) as second:
        assert first.made_early() == second.made_early() == 12344321
        first.change_made(9)
        assert first.made_early() == 94321
        assert second.made_early() == 12344321
        first.reset()
        assert first.made_early() == 12344321


def test_fork_between_calls(plugin):
    """Threat 28: without it parent and child would write one code cache."""
    with plugin.sandbox(**LIMITS) as box:
        assert box.run_fresh(5) == 5
        child = os.fork()
        if child == 0:
            os._exit(0 if all(box.run_fresh(n) == n for n in range(3000)) else 1)
        assert all(box.run_fresh(n) == n for n in range(3000))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_fork_in_the_middle_of_a_call(plugin):
    """Threats 28, 34: parent and child both go on in an outer call, whose code both then change."""
    children: list[int] = []

    def output(data: bytes) -> None:
        if not children:
            children.append(os.fork())
            box.patch(2 if children[0] else 3)

    with plugin.sandbox(stdout=output, **LIMITS) as box:
        result = box.calls_out()
        if children[0] == 0:
            os._exit(0 if result == 1003 and box.rewrite_often(500) == 0 else 1)
        assert result == 1002 and box.rewrite_often(500) == 0
        assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0


NO_NEW_CACHE = """
import resource, sys, vxplug
box = vxplug.open(sys.argv[1]).sandbox(memory=64 << 20, timeout=60.0)
def callback(value):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        return box.use_avx()
    except MemoryError:
        return value
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(box.calls_back(callback), box.use_avx())
"""


@pytest.mark.skipif(" avx " not in Path("/proc/cpuinfo").read_text(), reason="no AVX here")
def test_no_new_cache_in_a_callback(build_plugin):
    """Threat 28: a cache takes a descriptor.  Where the process has no more, the old one is gone all the same, while
    the outer call is still to go on."""
    command = [sys.executable, "-c", NO_NEW_CACHE, str(build_plugin(HERE / "rewrite.c"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "5 1\n"), done.stderr[-2000:]


def test_fork_in_the_last_act_of_a_call(plugin):
    """Threat 28: the child gives up the cache when the host function writes to the guest's code, and nothing of the
    call is left but its result."""
    children: list[int] = []

    def callback(memory: bytearray) -> int:
        children.append(os.fork())
        memory[1] = 9
        return 7

    with plugin.sandbox(**LIMITS) as box:
        box.prepare()
        result = box.jumps_out(callback, 0, 0)
        if children[0] == 0:
            os._exit(0 if result == 7 and box.run_fresh(3) == 3 else 1)
        assert result == 7
        assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0


FORK_IN_A_TICK = """
import os, signal, sys, vxplug
children, wrong = [], 0
signal.signal(signal.SIGALRM, lambda *_: children.append(os.fork()))
box = vxplug.open(sys.argv[1]).sandbox(memory=64 << 20, timeout=60.0)
for round in range(4):
    signal.setitimer(signal.ITIMER_REAL, 0.03)
    while len(children) == round:  # whatever time a run takes here
        wrong += box.long_run(150)
    if 0 in children:
        os._exit(1 if wrong + box.long_run(5) else 0)
statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
print(wrong, statuses)
"""


def test_fork_in_a_tick(build_plugin):
    """Threats 28, 32: the child goes on in the middle of a translated block; without the parent leaving its
    cache alone from then on the child would run what the parent writes there."""
    command = [sys.executable, "-c", FORK_IN_A_TICK, str(build_plugin(HERE / "rewrite.c"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    wrong, _, statuses = done.stdout.partition(" ")
    assert wrong == "0" and len(json.loads(statuses)) >= 2 and not any(json.loads(statuses))
