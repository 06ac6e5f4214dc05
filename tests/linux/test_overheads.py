"""What a hostile guest's descriptors, pipes and listings cost the host: measured against what docs/linux.md states."""

from __future__ import annotations

import gc
import os
import resource
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

import vxplug
from vxplug import LinuxPolicy

SOURCE = r"""
#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <vxplug.h>

static int refused; /* the errno that ended the last greed */

VX_EXPORT int32_t open_all(const char *path) {
    int32_t count = 0;
    while (count < 100000 && open(path, O_RDONLY) >= 0) count++;
    refused = errno;
    return count;
}
/* As many full pipes as there can be: one descriptor each, the writer closed. */
VX_EXPORT int32_t fill_pipes(int32_t piece) {
    static char page[4096];
    int ends[2];
    int32_t count = 0;
    while (count < 100000 && pipe2(ends, O_NONBLOCK) == 0) {
        while (write(ends[1], page, (size_t)piece) > 0) {}
        close(ends[1]);
        count++;
    }
    refused = errno;
    return count;
}
/* As many open directories as there can be, each listed to its end. */
VX_EXPORT int32_t list_all(const char *path) {
    static char page[4096];
    int32_t count = 0;
    for (int fd; count < 100000 && (fd = open(path, O_RDONLY | O_DIRECTORY)) >= 0; count++)
        while (syscall(SYS_getdents64, fd, page, sizeof page) > 0) {}
    refused = errno;
    return count;
}
VX_EXPORT void open_for_ever(const char *path) { for (;;) close(open(path, O_RDONLY)); }
VX_EXPORT int32_t last_error(void) { return refused; }
"""
EMFILE = 24
DESCRIPTORS = 40
PER_DESCRIPTOR = 80 << 10  # docs/linux.md
PER_DIRECTORY, PER_LISTING = 2 << 10, 512 << 10  # likewise


@pytest.fixture(scope="module")
def plugin(build_plugin):
    return vxplug.open(build_plugin(SOURCE))


def host_descriptors() -> int:
    gc.collect()  # what earlier tests left
    return len(os.listdir("/proc/self/fd"))


def test_files_held_open_are_descriptors_of_the_policy(plugin, tmp_path):
    """Without it a guest could take every descriptor of the host's process."""
    (tmp_path / "file").write_text("text")
    with plugin.sandbox(linux=LinuxPolicy(directories={"/": tmp_path}, descriptors=DESCRIPTORS)) as box:
        box.last_error()
        before = host_descriptors()
        assert box.open_all("/file") == DESCRIPTORS - 3 and box.last_error() == EMFILE
        assert host_descriptors() - before == DESCRIPTORS - 3


def test_the_hosts_own_limit_is_an_errno_for_the_guest(plugin, tmp_path):
    """Without it a guest at the end of the host's descriptors could raise in the host, or keep them after its end."""
    (tmp_path / "file").write_text("text")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = host_descriptors()
    with plugin.sandbox(linux=LinuxPolicy(directories={"/": tmp_path}, descriptors=1024)) as box:
        box.last_error()
        room = max(map(int, os.listdir("/proc/self/fd"))) + 20
        resource.setrlimit(resource.RLIMIT_NOFILE, (room, hard))
        try:
            count = box.open_all("/file")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert 0 < count < room and box.last_error() == EMFILE
    assert host_descriptors() <= before


@pytest.mark.parametrize("own_thread", [False, True], ids=["main", "other"])
def test_time_limits_leave_no_descriptors(plugin, tmp_path, own_thread):
    """Without it a time limit that comes between the making of a descriptor and the next step would lose it to the host."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").touch()
    (tmp_path / "link").symlink_to("folder")
    policy = LinuxPolicy(directories={"/": tmp_path})
    with plugin.sandbox(linux=policy, timeout=0.01) as box, ThreadPoolExecutor(1) as pool:
        pool.submit(box.last_error).result()
        before = host_descriptors()
        for _ in range(60):
            with pytest.raises(vxplug.GuestTimeout):
                pool.submit(box.open_for_ever, "/link/file").result() if own_thread else box.open_for_ever("/link/file")
        assert host_descriptors() == before


@pytest.mark.parametrize("piece", [4096, 1000, 61], ids=str)
def test_pipes_are_bounded_memory_and_no_descriptors(plugin, piece):
    """Without it what a guest leaves in pipes would be memory that no limit counts."""
    with plugin.sandbox(linux=LinuxPolicy(basics=True, descriptors=DESCRIPTORS)) as box:
        box.last_error()
        descriptors = host_descriptors()
        tracemalloc.start()
        try:
            count = box.fill_pipes(piece)
            used, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert host_descriptors() == descriptors
        assert count == DESCRIPTORS - 4 and box.last_error() == EMFILE  # a new pipe takes two for a moment
        assert count * 60 << 10 < used and peak <= DESCRIPTORS * PER_DESCRIPTOR


def test_listings_keep_nothing(plugin, tmp_path):
    """Without it names that a guest made, or found, would be memory of the host's as often as it opens their directory."""
    for number in range(2000):
        (tmp_path / f"{number:0100}").touch()
    with plugin.sandbox(linux=LinuxPolicy(directories={"/": tmp_path}, descriptors=DESCRIPTORS)) as box:
        box.last_error()
        descriptors = host_descriptors()
        tracemalloc.start()
        try:
            assert box.list_all("/") == DESCRIPTORS - 3 and box.last_error() == EMFILE
            used, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert host_descriptors() - descriptors == DESCRIPTORS - 3
        assert used <= DESCRIPTORS * PER_DIRECTORY and peak - used <= PER_LISTING, (used, peak)
