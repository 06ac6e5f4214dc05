"""Plugins that attack while they initialise, before the host takes its snapshot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import vxplug

HERE = Path(__file__).parent
LIMITS = {"memory": 64 << 20, "init_timeout": 0.5, "timeout": 5.0}

# What the host does with each plugin, in a process of its own: a crash is then seen as such.
PROBE = """
import json, sys, vxplug
outcome = []
try:
    plugin = vxplug.open(sys.argv[1])
    for attempt in range(2):
        with plugin.sandbox(memory=64 << 20, init_timeout=0.5, timeout=5.0, stdout=lambda data: None) as box:
            for step in (lambda: box.add(2, 3), lambda: box.size_of(bytes(100_000)), lambda: box.reset(),
                         lambda: box.add(2, 3)):
                try:
                    outcome.append(step())
                except Exception as error:
                    outcome.append(type(error).__name__)
except Exception as error:
    outcome.append(type(error).__name__)
print(json.dumps(outcome))
"""

WORKS = [5, 100_000, None, 5] * 2
NO_STACK = ["GuestMemoryError", "GuestMemoryError", None, "GuestMemoryError"] * 2
CASES = {
    "unreadable_stack": WORKS,
    "write_only_stack": WORKS,
    "holes_in_stack": WORKS,
    "no_stack": WORKS,
    "hidden_data": WORKS,
    "changed_constants": WORKS,
    "code_in_stack": WORKS,
    "unlike_pages": WORKS,
    "thread_area": WORKS,
    "break_into_stack": WORKS,
    "unreadable_stack_top": NO_STACK,
    "wild_esp": NO_STACK,
    "highest_esp": NO_STACK,
    "zero_esp": NO_STACK,
    "everything": [5, "GuestMemoryError", None, 5] * 2,
    "endless": ["GuestTimeout"],
    "flood": ["GuestTimeout"],
    "leave": ["GuestExit"],
    "give_up": ["GuestFault"],
    "fault": ["GuestFault"],
}


@pytest.fixture(scope="session")
def build_attack(build_plugin):
    def build(name: str) -> Path:
        return build_plugin(HERE / "init.c", cflags=(f"-DATTACK={name}", "-Wno-unused-function"))

    return build


@pytest.mark.parametrize("name", CASES)
def test_initialisation(build_attack, name):
    """Threats 14, 45, 47: without it a constructor could crash the host in its own snapshot, by taking
    away pages the host reads, or hand it a stack pointer it believes in."""
    command = [sys.executable, "-c", PROBE, str(build_attack(name))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == CASES[name]


def test_unreadable_pages_keep_their_bytes(build_attack):
    """Without it a plugin that hides a page while it initialises would find it empty afterwards."""
    plugin = vxplug.open(build_attack("hidden_data"))
    for _ in range(2):
        with plugin.sandbox(**LIMITS) as box:
            assert box.secret_kept()
            box.reset()
            assert box.secret_kept()


def test_constants_changed_while_initialising_stay_changed(build_attack):
    """Without it later sandboxes would have an image's constants as the file has them, not as their plugin left them:
    pages that nobody may write are mapped from the image while they are as they were."""
    plugin = vxplug.open(build_attack("changed_constants"))
    for _ in range(2):
        with plugin.sandbox(**LIMITS) as box:
            assert box.four_constants() == 0x03080107
            box.reset()
            assert box.four_constants() == 0x03080107
def test_unlike_pages_of_the_stack_keep_their_bytes(build_attack):
    """A snapshot's stack is copied where its rights are a stack's, and mapped where not.  Without the care for where
    one meets the other, a page would be neither, or come back with the snapshot's bytes when it is discarded."""
    plugin = vxplug.open(build_attack("code_in_stack"))
    for _ in range(2):
        with plugin.sandbox(**LIMITS) as box:
            assert box.stack_kept()
            assert not box.stack_kept()
            box.reset()
            assert box.stack_kept()


def test_snapshot_fits_another_stack_size(build_attack):
    """Without it the heap of a sandbox with a small stack would lie inside a later one's large stack."""
    plugin = vxplug.open(build_attack("hidden_data"))
    for stack in (4096 * 4, 8 << 20, 64 << 10):
        with plugin.sandbox(stack=stack, **LIMITS) as box:
            assert box.add(1, 1) == 2
            assert box.secret_kept()


def test_ready_is_not_a_way_out_of_a_call(build_attack):
    """A second READY ends the call, as a fault: it must not be taken for a return or a new snapshot."""
    with vxplug.open(build_attack("hidden_data")).sandbox(**LIMITS) as box:
        with pytest.raises(vxplug.GuestFault) as caught:
            box.ready_again()
        assert caught.value.kind == "software-interrupt"
        assert box.add(1, 1) == 2


def _mappings() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.parametrize("attack", ["stripes", "islands"])
def test_a_guest_cannot_use_up_the_hosts_mappings(build_attack, attack):
    """Threat 48: a process has 65530 mappings; pages of unlike rights, or islands joined later, take one
    each.  Without the bound one guest could make every later mmap of the host fail."""
    with vxplug.open(build_attack("hidden_data")).sandbox(**LIMITS) as box:
        before = _mappings()
        refused = box[attack]()
        assert _mappings() - before < 1100
        assert attack == "islands" or refused > 3000
        box.reset()
        assert box.add(1, 1) == 2


def test_pages_of_the_image_change_hands_cleanly(build_attack):
    """Without it a remapped page could come back with the file's bytes, or lose what was written."""
    with vxplug.open(build_attack("hidden_data")).sandbox(**LIMITS) as box:
        assert box.trade_image_pages()
        assert box.heap_page_is_zero_after_remap()
