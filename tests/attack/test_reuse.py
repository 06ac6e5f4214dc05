"""Tenants (reuse.c) who leave something everywhere: neither their sandbox's next life nor the next sandbox has it."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

import vxplug

HERE = Path(__file__).parent
PAGE = 4096
LIMITS = {"memory": 64 << 20, "timeout": 20.0}
TENANTS = [
    "nothing", "write_data", "write_prepared", "write_stack", "write_heap", "write_mappings", "write_islands",
    "write_growing", "hide_data", "remove_prepared", "replace_prepared", "move_prepared", "empty_constants",
    "empty_prepared", "empty_sealed", "cut_stack", "make_code", "make_data_code", "set_break", "end_badly",
]


@pytest.fixture(scope="module")
def plugin(build_plugin) -> vxplug.Plugin:
    return vxplug.open(build_plugin(HERE / "reuse.c"))


def _picture(box: vxplug.Sandbox) -> dict[int, tuple[bytes, bool]]:
    """Every page that the guest may read, its bytes, and whether the guest may write it."""
    core, pages = box._box, {}
    for at in range(0x10000, 0xFFFE0000, PAGE):
        data = core.read(at, PAGE)
        if data is not None:
            pages[at] = data, core.write(at, data)
    return pages


@pytest.fixture(scope="module")
def fresh(plugin):
    with plugin.sandbox(**LIMITS) as first:
        first.nothing()
    with plugin.sandbox(**LIMITS) as box:
        box.nothing()
        box.reset()
        return _picture(box), box.memory_used


def _visit(box: vxplug.Sandbox, tenant: str) -> None:
    try:
        box[tenant]()
        box.next_mapping()
    except vxplug.GuestFault:
        assert tenant == "end_badly"


def _check(box: vxplug.Sandbox, plugin: vxplug.Plugin, fresh: tuple[dict[int, tuple[bytes, bool]], int]) -> None:
    pages, used = fresh
    assert box.memory_used == used
    assert _picture(box) == pages
    with plugin.sandbox(**LIMITS) as other:  # while `box` lives, so it is not made of what box leaves
        assert (box.the_break(), box.next_mapping()) == (other.the_break(), other.next_mapping())
    assert box.found_in_new_pages() == 0
    assert box.code_of(7) == 7
    box.reset()
    for at in [*range(0x3FFF0000, 0x40030000, 8 * PAGE), *list(pages)[::5], 0x4000F000, 0x40012000]:
        _agrees(box, at, pages)


def _agrees(box: vxplug.Sandbox, at: int, pages: dict[int, tuple[bytes, bool]]) -> None:
    """The processor has for a page the rights that its map says."""
    assert _works(box.peek, at) == (at in pages)
    if at not in pages or not pages[at][1]:
        assert not _works(box.poke, at)


def _works(call, at: int) -> bool:
    try:
        call(at)
    except vxplug.GuestFault as fault:
        assert fault.kind in ("memory", "stack-overflow") and fault.address == at
        return False
    return True


@pytest.mark.parametrize("tenant", TENANTS)
def test_the_next_life_has_nothing_of_the_last(plugin, fresh, tenant):
    """Threat 50: a reset undoes what changed instead of mapping everything anew.  Without its care a page, a
    right or an address of the last tenant would stay."""
    with plugin.sandbox(**LIMITS) as box:
        for _ in range(3):
            _visit(box, tenant)
            box.reset()
        _check(box, plugin, fresh)


def test_the_next_life_runs_none_of_the_last_ones_code(build_plugin):
    """Threats 24, 50: the bytes of a page are the snapshot's again, and so must be what is translated from it."""
    with vxplug.open(build_plugin(HERE / "reuse.c", cflags=("-DCODE",))).sandbox(**LIMITS) as box:
        assert box.prepared_code() == 7
        for _ in range(3):
            box.change_code()
            assert box.prepared_code() == 42
            box.reset()
            assert box.prepared_code() == 7


def _mappings() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())


def _mappings_of_our_files() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:vxplug-")


@pytest.mark.parametrize("tenant", TENANTS)
def test_the_next_sandbox_has_nothing_of_the_last(plugin, fresh, tenant):
    """Threat 50: a sandbox may be made of the address space of one that ended."""
    gc.collect()
    with plugin.sandbox(**LIMITS) as box:
        _visit(box, tenant)
    before = _mappings_of_our_files()
    with plugin.sandbox(**LIMITS) as box:
        assert box._box.read(0x10000, 1) is not None
        # A reservation of its own would have mapped image and snapshot.
        assert _mappings_of_our_files() == before, "it was not made of what is kept, and this test shows nothing"
        _check(box, plugin, fresh)


def test_few_are_kept(plugin):
    """Threat 48: each kept reservation holds some of the host's mappings; with no bound all that ever were at
    a time would."""
    boxes = [plugin.sandbox(**LIMITS) for _ in range(40)]
    for box in boxes:
        box.nothing()
    many = _mappings()
    for box in boxes:
        box.close()
    assert _mappings() < many - 30 * 8


def test_another_stack_size_is_another_reservation(plugin, fresh):
    """Without it a guest with a small stack would get a large one, or the reverse, past its limit."""
    for stack in (64 << 10, 8 << 20, 1 << 20):
        with plugin.sandbox(stack=stack, **LIMITS) as box:
            assert not _works(box.peek, 0xFFFE0000 - stack - PAGE)
            assert _works(box.peek, 0xFFFE0000 - stack)


def test_reset_again_and_again_takes_no_mappings(plugin):
    """Threat 48: pieces that a reset puts back have to merge with their neighbours."""
    with plugin.sandbox(**LIMITS) as box:
        for tenant in TENANTS:
            _visit(box, tenant)
            box.reset()
        before = _mappings()
        for _ in range(20):
            for tenant in TENANTS:
                _visit(box, tenant)
                box.reset()
        # One more a round would be 20; AddressSanitizer's allocator takes some of its own.
        assert _mappings() < before + 20


def test_ten_thousand_sandboxes(plugin):
    """Without it sandboxes that nobody has called yet would use up the host's mappings, six thousand of them."""
    boxes = [plugin.sandbox(**LIMITS) for _ in range(10_000)]
    assert boxes[0].peek(0x20000) == boxes[-1].peek(0x20000)
    assert all(not box.closed for box in boxes)


def _resident() -> int:
    text = Path("/proc/self/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Rss:")) << 10


@pytest.mark.parametrize("called", [False, True])
def test_memory_of_idle_sandboxes(plugin, called):
    """Without it the host's own state of a sandbox could grow unseen: page map, stack, tables."""
    with plugin.sandbox(**LIMITS) as box:
        box.nothing()
        gc.collect()
        before, boxes = _resident(), [plugin.sandbox(**LIMITS) for _ in range(300)]
        for each in boxes if called else ():
            each.nothing()
        assert (_resident() - before) / len(boxes) < 100 << 10
