"""Hostile guests with a Mapping, and hostile owners of what is mapped: nobody changes the file, and nobody dies of it."""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import vxplug

PAGE = 4096
TRIES = ("munmap", "mprotect", "execute", "hide", "madvise", "mremap", "extend", "shrink", "map_over", "brk", "around", "answer")
POLICIES = {"no policy": None, "policy": vxplug.LinuxPolicy()}
SOURCE = Path(__file__).parent / "mapping.c"


@pytest.fixture(scope="module")
def plugin(build_plugin):
    return vxplug.open(build_plugin(SOURCE))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 64 + b"tail")  # four pages and a bit
    return path


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("attempt", TRIES)
def test_its_pages_stay_as_they_are(plugin, file, attempt, policy):
    """Threat 45: without it a guest could write to a file, or take away what the host counts on."""
    before = file.read_bytes()
    with plugin.sandbox(linux=POLICIES[policy]) as box, box.map(file) as mapping:
        assert box.echo(mapping) == before  # what a result needs is mapped from here on
        used = box.memory_used
        assert box["try_" + attempt](mapping) == -1
        assert (box.echo(mapping), box.memory_used, file.read_bytes()) == (before, used, before)


@pytest.mark.parametrize("at", [0, PAGE, 4 * PAGE, 5 * PAGE - 1])
@pytest.mark.parametrize("kind", ["file", "mmap"])
def test_its_bytes_are_not_written(plugin, file, at, kind):
    """Without it a guest could change the file of whoever opened it, the copied last page included."""
    before = file.read_bytes()
    with open(file, "r+b") as opened, mmap.mmap(opened.fileno(), 0) as memory, plugin.sandbox(on_fault="poison") as box:
        mapping = box.map(opened if kind == "file" else memory)
        address = box.keep(mapping)
        with pytest.raises(vxplug.GuestFault) as caught:
            box.poke(at, 1)
        assert (caught.value.kind, caught.value.address) == ("memory", address + at)
        assert file.read_bytes() == bytes(mapping) == before


def test_its_bytes_are_not_code(plugin, tmp_path):
    """Without it whoever changes the file could change code that runs, past all that watches over translations."""
    (tmp_path / "code").write_bytes(b"\xc3" * PAGE)
    with plugin.sandbox() as box, box.map(tmp_path / "code") as mapping, pytest.raises(vxplug.GuestFault) as caught:
        box.jump(mapping)
    assert caught.value.kind == "execute"


@pytest.mark.parametrize("attempt", ["stack_in_it", "return_into_it", "copy_over"])
def test_faults_in_it_are_reported(plugin, file, attempt):
    """Without it the report of a fault could read what is not the host's to read."""
    with plugin.sandbox() as box, box.map(file) as mapping:
        with pytest.raises(vxplug.GuestFault):
            box[attempt](mapping)
        with pytest.raises(vxplug.GuestFault):
            os.truncate(file, 0)
            box[attempt](mapping)


@pytest.mark.parametrize(("size", "cut"), [(10, PAGE), (PAGE + 10, 2 * PAGE), (2 * PAGE - 1, 2 * PAGE), (4 * PAGE + 4, 5 * PAGE)])
def test_nothing_but_what_was_asked_for_is_seen(plugin, file, size, cut):
    """Without it a guest could read a file's bytes behind those that it was given, when the file grows too."""
    with plugin.sandbox() as box, box.map(file, size=size) as mapping:
        box.keep(mapping)
        with open(file, "ab") as growing:
            growing.write(b"secret" * 2000)
        assert [box.look(at) for at in range(cut - PAGE, cut)] == list(
            (file.read_bytes()[:size] + bytes(PAGE))[cut - PAGE : cut])
        with pytest.raises(vxplug.GuestFault):
            box.look(cut)


def test_nothing_before_it_is_seen(plugin, file):
    """Without it a guest could read what a file has before the offset."""
    with plugin.sandbox() as box, box.map(file, offset=PAGE) as mapping:
        address = box.keep(mapping)
        with pytest.raises(vxplug.GuestFault) as caught:
            box.look_at(address - 1)
        assert caught.value.address == address - 1


# ---- files that are cut short ----

LOOKS = {
    "sha256": lambda box, mapping: box.sha256(mapping),
    "result": lambda box, mapping: box.echo(mapping),
    "text": lambda box, mapping: box.text(mapping),
    "callback": lambda box, mapping: box.give(mapping, lambda data: len(data)),
    "callback text": lambda box, mapping: box.say(mapping, lambda text: len(text)),
    "bound": lambda box, mapping: box.bounds(mapping, 1),
    "jump": lambda box, mapping: box.jump(mapping),
    "stack": lambda box, mapping: box.stack_in_it(mapping),
    "return": lambda box, mapping: box.return_into_it(mapping),
}


@pytest.mark.parametrize("look", LOOKS)
def test_a_file_cut_short_is_a_fault(plugin, tmp_path, look):
    """Without it whoever may write the file could end the process by SIGBUS, or the guest's caller could get no error."""
    file = tmp_path / "file"
    file.write_bytes(struct.pack("<ii", 0, 1 << 30) + b"A" * (4 * PAGE))
    with plugin.sandbox() as box, box.map(file) as mapping:
        os.truncate(file, 0)
        with pytest.raises(vxplug.GuestFault):
            LOOKS[look](box, mapping)
        assert box.length(mapping) == 4 * PAGE + 8


def test_a_fault_tells_where_the_file_ends(plugin, file):
    """Without it a caller could not tell a file cut short from a bug of the plugin's."""
    with plugin.sandbox() as box, box.map(file) as mapping:
        address = box.where(mapping)
        os.truncate(file, PAGE + 1)
        with pytest.raises(vxplug.GuestFault) as caught:
            box.sha256(mapping)
        assert (caught.value.kind, caught.value.address) == ("memory", address + 2 * PAGE)


@pytest.mark.parametrize("policy", POLICIES)
def test_output_from_a_file_cut_short(plugin, file, policy):
    """Without it a system call that reads guest memory could end the process."""
    out = []
    with plugin.sandbox(stdout=out.append, linux=POLICIES[policy]) as box, box.map(file) as mapping:
        assert box.print(mapping) == len(mapping)
        assert b"".join(out) == file.read_bytes()
        os.truncate(file, 0)
        assert box.print(mapping) == -14  # EFAULT
        assert box.print_vectors(mapping) == -14
        assert box.length(mapping) == 4 * PAGE + 4


def test_a_file_cut_short_during_a_call(plugin, file):
    """Without it only what was cut before a call would be noticed."""
    with plugin.sandbox() as box, box.map(file) as mapping:

        def cut():
            os.truncate(file, 0)
            return 1

        with pytest.raises(vxplug.GuestFault) as caught:
            box.sum_after(mapping, cut)
        assert caught.value.kind == "memory"


def test_other_readers_of_a_file_cut_short(plugin, file):
    """Without it passing a mapping on, or reading it, could end the process."""
    with plugin.sandbox() as box, plugin.sandbox() as other, box.map(file) as mapping:
        assert other.echo(mapping) == bytes(mapping) == file.read_bytes()
        os.truncate(file, 0)
        for look in bytes, memoryview, other.echo, other.fill:
            with pytest.raises(OSError, match="cut short"):
                look(mapping)
        assert box.length(mapping) == 4 * PAGE + 4


def test_a_host_of_which_nobody_else_minds_signals(plugin, file):
    """In a process of its own, where nothing but the core stands between SIGBUS and the end."""
    program = textwrap.dedent("""
        import os, sys, vxplug
        with vxplug.open(sys.argv[1]).sandbox() as box, box.map(sys.argv[2]) as mapping:
            os.truncate(sys.argv[2], 0)
            for look in (box.sha256, box.echo, box.text, box.stack_in_it, box.print):
                try:
                    print(look(mapping))
                except vxplug.GuestFault as fault:
                    print(fault.kind)
    """)
    done = subprocess.run([sys.executable, "-c", program, str(plugin.path), str(file)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["memory", "memory", "memory", "illegal-instruction", "-14"], "")


def test_a_call_without_room_does_not_copy(plugin, tmp_path):
    """Without it a call that cannot have the mapping would read the file in the host."""
    (tmp_path / "file").write_bytes(bytes(1 << 20))
    with plugin.sandbox(memory=16 << 20) as box, box.map(tmp_path / "file") as mapping:
        os.truncate(tmp_path / "file", 0)
        box.reset()
        box.length(bytes(1 << 20))  # leaves room for arguments of that size
        with box.buffer((16 << 20) - box.memory_used), pytest.raises(vxplug.GuestMemoryError, match="memory limit"):
            box.length(mapping)


def test_a_stream_gets_a_copy(plugin, file):
    """Without it a stream, which keeps its arguments, could lose them, or starting it could end the process."""
    with plugin.sandbox() as box, box.map(file) as mapping:
        box.keep(mapping)
        stream = box.pieces(mapping)
        os.truncate(file, 0)
        assert next(stream) == bytes(range(256)) * 64 + b"tail"
        with pytest.raises(vxplug.GuestFault):
            next(stream)
        with pytest.raises(OSError, match="cut short"):
            box.pieces(mapping)


# ---- the host's copies ----


def test_what_the_host_looks_at_lies_in_it(plugin, tmp_path):
    """Without it the host would refuse what the guest may hand back."""
    file, out = tmp_path / "file", []
    file.write_bytes(b"x" * (PAGE - 2) + b"hello\0" + b"y" * PAGE)
    with plugin.sandbox(stdout=out.append) as box, box.map(file) as mapping:
        assert box.echo_part(mapping, PAGE - 2, 5) == b"hello"
        assert box.text_at(mapping, PAGE - 2) == "hello"
        assert box.text_at(mapping, PAGE + 4) == "y" * PAGE  # ends in the zeros of the last page
        assert box.give(mapping, lambda data: data == file.read_bytes()) == 1
        assert box.print(mapping) == len(mapping) and b"".join(out) == file.read_bytes()
        box.keep(mapping)
        for start, size in (0, 3 * PAGE + 1), (0, 0xFFFFFFFF), (3 * PAGE - 1, 2):
            with pytest.raises(vxplug.GuestFault, match="readable"):
                box.echo_part(mapping, start, size)


def test_an_instruction_done_in_c_reads_it(plugin, tmp_path):
    """Without it what the core does for the processor would fail where the processor does not."""
    (tmp_path / "file").write_bytes(struct.pack("<ii", -5, 5))
    with plugin.sandbox() as box, box.map(tmp_path / "file") as mapping:
        box.bounds(mapping, 5)
        with pytest.raises(vxplug.GuestFault) as caught:
            box.bounds(mapping, 6)
        assert caught.value.kind != "memory"


# ---- lives ----


def test_kept_pointers_lead_nowhere_after_close(plugin, file):
    """Without it a guest could go on reading what was taken from it."""
    with plugin.sandbox() as box:
        mapping = box.map(file)
        address = box.keep(mapping)
        assert box.look(1) == 1
        mapping.close()
        with pytest.raises(vxplug.GuestFault) as caught:
            box.look(1)
        assert (caught.value.kind, caught.value.address) == ("memory", address + 1)


def test_kept_pointers_lead_nowhere_after_a_reset(plugin, file):
    """Threat 50: without it a tenant could read the file of the one before."""
    with plugin.sandbox() as box, box.map(file) as mapping:
        address = box.where(mapping)
        box.reset()
        with pytest.raises(vxplug.GuestFault):
            box.look_at(address)


def test_no_later_sandbox_gets_its_pages(plugin, file):
    """Address space is used again: without its own way of going a mapping would be in the next sandbox's memory."""
    for round in range(6):
        with plugin.sandbox() as box:
            assert box.add_pages(64) == 0
            address = box.where(box.map(file)) if round % 2 else box.where(bytes(10))
            with box.map(file) as mapping:
                address = box.where(mapping)
                if round % 3 == 0:
                    box.reset()
            with pytest.raises(vxplug.GuestFault):
                box.look_at(address)
            assert box.add_pages(64) == 0
    with plugin.sandbox() as box:
        assert box._box.read(address, 1) in (None, b"\0")
