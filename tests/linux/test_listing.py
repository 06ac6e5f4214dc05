"""Listing directories: what a guest sees of them, and how long it may look."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import vxplug
from vxplug import Directory, LinuxPolicy
from vxplug.linux import listing

SOURCE = r"""
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <vxplug.h>

static char text[1 << 16];

static void take_names(DIR *dir) {
    char *at = text;
    for (struct dirent *e; (e = readdir(dir));) at += sprintf(at, "%s/", e->d_name);
    *at = 0;
}
VX_EXPORT const char *names(const char *path) {
    DIR *dir = opendir(path);
    if (!dir) return "";
    take_names(dir);
    closedir(dir);
    return text;
}
/* What is made after the first look is there after a rewind, by one of two descriptors that share a place. */
VX_EXPORT const char *names_again(const char *path, const char *made) {
    DIR *dir = opendir(path);
    take_names(dir);
    int twin = dup(dirfd(dir));
    int fd = open(made, O_CREAT | O_WRONLY, 0600);
    close(fd);
    if (lseek(twin, 0, SEEK_CUR) == 0 || lseek(twin, 0, SEEK_SET)) return "";
    close(twin);
    rewinddir(dir);
    take_names(dir);
    closedir(dir);
    return text;
}
/* How many names a seek to where each was told of does not find, backwards and from the end. */
VX_EXPORT int32_t wrong_seeks(const char *path) {
    static struct { long at; char name[32]; } seen[2000];
    DIR *dir = opendir(path);
    int32_t count = 0, wrong = 0;
    struct dirent *e;
    for (;; count++) {
        seen[count].at = telldir(dir);
        if (!(e = readdir(dir))) break;
        strcpy(seen[count].name, e->d_name);
    }
    for (int32_t i = count; i-- > 0; i -= 6) {
        seekdir(dir, seen[i].at);
        wrong += !(e = readdir(dir)) || strcmp(e->d_name, seen[i].name);
    }
    seekdir(dir, seen[count].at);
    wrong += readdir(dir) != NULL;
    closedir(dir);
    return wrong;
}
/* What one getdents64 gives at a place. */
VX_EXPORT int32_t look_at(const char *path, int64_t place, uint32_t size) {
    int fd = open(path, O_RDONLY | O_DIRECTORY);
    int32_t result = lseek(fd, place, SEEK_SET) == place ? (int32_t)syscall(SYS_getdents64, fd, text, size) : -1;
    int error = errno;
    close(fd);
    return result < 0 ? -error : result;
}
/* What a step from the last place there can be gives, and what is listed there. */
VX_EXPORT int32_t step_too_far(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY);
    int64_t last = INT64_MAX;
    int32_t result = lseek(fd, last, SEEK_SET) == last && lseek(fd, 1, SEEK_CUR) == -1 ? -errno : 1;
    int32_t listed = (int32_t)syscall(SYS_getdents64, fd, text, sizeof text);
    int stayed = lseek(fd, 0, SEEK_CUR) == last;
    close(fd);
    return listed == 0 && stayed ? result : 2;
}
VX_EXPORT int32_t wrong_pointer(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY), size = (int)sizeof text;
    if (syscall(SYS_getdents64, fd, 16, size) != -1 || errno != EFAULT) return -1;
    int32_t first = (int32_t)syscall(SYS_getdents64, fd, text, size);
    if (syscall(SYS_getdents64, fd, 16, size) != -1 || errno != EFAULT) return -2;
    int32_t rest = (int32_t)syscall(SYS_getdents64, fd, text, size);
    close(fd);
    return first + rest;
}
"""
EINVAL = 22


@pytest.fixture(scope="module")
def plugin(build_plugin):
    return vxplug.open(build_plugin(SOURCE))


@pytest.fixture
def folder(tmp_path):
    """Enough names for many reads of a libc, and more than one of the host's."""
    for number in range(1500):
        (tmp_path / f"name-{number:020}").touch()
    return tmp_path


def test_names_are_the_hosts(plugin, folder):
    """Without it a name could be lost or shown twice where one read ends and the next begins."""
    with plugin.sandbox(linux=LinuxPolicy(directories={"/": folder})) as box:
        shown = box.names("/").split("/")[:-1]
    assert shown[:2] == [".", ".."] and sorted(shown[2:]) == sorted(os.listdir(folder))


def test_mapped_directories_show_once(plugin, tmp_path):
    """Without it what is mapped inside another directory could be missing there, or be there twice."""
    for name in ("outer/both", "outer/own", "inner/x"):
        (tmp_path / name).mkdir(parents=True)
    directories = {"/a": tmp_path / "outer", "/a/both": tmp_path / "inner", "/a/only/deep": tmp_path / "inner"}
    with plugin.sandbox(linux=LinuxPolicy(directories=directories)) as box:
        assert sorted(box.names("/a").split("/")[:-1]) == [".", "..", "both", "only", "own"]
        assert box.names("/a/both") == "./../x/" and box.names("/a/only") == "./../deep/" and box.names("/") == "./../a/"


def test_a_rewind_looks_again(plugin, tmp_path):
    """Without it a program would not find what it made, or two descriptors of one place would have two."""
    with plugin.sandbox(linux=LinuxPolicy(directories={"/": Directory(tmp_path, writable=True)})) as box:
        assert box.names_again("/", "/new") == "./../new/"


def test_seeks_find_what_they_were_told(plugin, folder):
    """Without it seekdir could lead to another name."""
    with plugin.sandbox(linux=LinuxPolicy(directories={"/": folder})) as box:
        assert box.wrong_seeks("/") == 0


def test_odd_reads(plugin, folder):
    """Without it a read that fails, or finds no room, could lose names."""
    with plugin.sandbox(linux=LinuxPolicy(directories={"/": folder, "/x/y": folder})) as box:
        assert box.look_at("/", 0, 8) == -EINVAL and box.look_at("/", 3, 8) == -EINVAL
        assert box.look_at("/", 0, 24) == 24 and box.look_at("/", 3, 60) == 48
        assert box.look_at("/", 1503, 1000) == 0 and box.look_at("/x", 3, 1000) == 0
        assert box.wrong_pointer("/") == 72 + 681 * 48  # with the host's own dots 32 KiB


def test_no_place_is_beyond_the_last(plugin, folder):
    """Without it a place that fits no guest's integer ended the application's call in a struct.error."""
    with plugin.sandbox(linux=LinuxPolicy(directories={"/": folder})) as box:
        assert box.step_too_far("/") == -EINVAL


def test_a_time_limit_ends_a_long_look(plugin, tmp_path, monkeypatch):
    """Without it a guest could hold a thread of the host at a place far down a huge directory."""
    until = time.monotonic() + 5

    def endless(directory, offset, size):
        assert time.monotonic() < until
        return [listing.Entry(b"%d" % at, 1, 8, at) for at in range(offset + 1, offset + 1000)]

    monkeypatch.setattr(listing, "_from_host", endless)
    with plugin.sandbox(linux=LinuxPolicy(directories={"/": tmp_path}), timeout=0.3) as box, ThreadPoolExecutor(1) as pool:
        with pytest.raises(vxplug.GuestTimeout):
            pool.submit(box.look_at, "/", 1 << 40, 4096).result()
