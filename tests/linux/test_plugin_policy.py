"""A plugin under a LinuxPolicy: what it may do, what it keeps over resets, and that others may do nothing."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import vxplug
from vxplug import Directory, LinuxPolicy
from vxplug.linux.descriptors import HostFile
from vxplug.linux.paths import Mounts

SOURCE = r"""
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>
#include <vxplug.h>

static char text[1000];
VX_EXPORT const char *first_line(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file) {
        snprintf(text, sizeof text, "errno %d", errno);
        return text;
    }
    if (!fgets(text, sizeof text, file)) text[0] = 0;
    fclose(file);
    return text;
}
VX_EXPORT int32_t put(const char *path, const char *what) {
    int fd = open(path, O_CREAT | O_WRONLY | O_APPEND, 0644);
    return fd < 0 ? -errno : (int32_t)write(fd, what, strlen(what)); /* left open on purpose */
}
VX_EXPORT int32_t keep_open(const char *path) { int fd = open(path, O_RDONLY); return fd < 0 ? -errno : fd; }
VX_EXPORT int32_t read_from(int32_t fd) { return (int32_t)read(fd, text, 10) < 0 ? -errno : 0; }
VX_EXPORT int64_t now(void) { return time(NULL); }
VX_EXPORT int32_t clock_error(void) { struct timespec t; return clock_gettime(CLOCK_REALTIME, &t) ? errno : 0; }
VX_EXPORT void say(const char *what) { puts(what); fflush(stdout); }
static void handler(int signal) { text[0] = (char)('A' + signal); }
VX_EXPORT const char *handle(void) { text[1] = 0; signal(SIGUSR1, handler); raise(SIGUSR1); return text; }
VX_EXPORT void die(void) { raise(SIGTERM); }
VX_EXPORT int32_t put_much(const char *path) {
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    return (int32_t)write(fd, calloc(16, 1 << 20), 16 << 20);
}
VX_EXPORT int32_t sleep_long(void) { return (int32_t)sleep(1000); }
VX_EXPORT int32_t new_process(void) { return fork() < 0 ? errno : 0; }
VX_EXPORT uint64_t free_files(const char *path) { struct statfs s; return statfs(path, &s) ? 0 : s.f_ffree; }
VX_EXPORT void fault(void) { *(volatile int *)0 = 1; }
VX_EXPORT int32_t flood(uint32_t pieces, uint32_t size) {
    static char much[1 << 16];
    int fd = dup(1);
    for (uint32_t i = 0; i < pieces; i++)
        if (write(i % 2 ? fd : 2, much, size) < 0) return -errno;
    close(fd);
    return 0;
}
"""


@pytest.fixture(scope="module")
def plugin(build_plugin):
    return vxplug.open(build_plugin(SOURCE))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "file").write_text("hello\nworld\n")
    return tmp_path


def host_descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def test_files_of_the_policy(plugin, folder):
    """Without it a plugin could not be given a directory, or be given more than that."""
    with plugin.sandbox(linux=LinuxPolicy(directories={"/data": folder})) as box:
        assert box.first_line("/data/file") == "hello\n"
        assert box.first_line("/data/../etc/passwd") == "errno 2"
        assert box.put("/data/new", "text") == -30
    with plugin.sandbox(linux=LinuxPolicy(directories={"/data": Directory(folder, writable=True)})) as box:
        assert box.put("/data/new", "text") == 4
    assert (folder / "new").read_text() == "text"


def test_a_file_system_without_a_count(plugin, folder, monkeypatch):
    """Without it one that has no number of free files (-1) ended the application's call in a struct.error."""
    known = list(os.statvfs(folder))
    known[6] = -1
    monkeypatch.setattr(os, "statvfs", lambda fd: os.statvfs_result(known))
    with plugin.sandbox(linux=LinuxPolicy(directories={"/data": folder})) as box:
        assert box.free_files("/data/file") == 2**64 - 1


@pytest.mark.parametrize("policy", [None, LinuxPolicy()], ids=["none", "default"])
def test_without_a_policy_nothing_changes(plugin, policy):
    """Without it naming the default policy could allow what no policy refuses."""
    with plugin.sandbox(linux=policy) as box:
        for call in (lambda: box.first_line("/etc/passwd"), box.now, box.die, box.new_process):
            with pytest.raises(vxplug.PolicyError):
                call()
        out = []
    with plugin.sandbox(linux=policy, stdout=out.append) as box:
        box.say("still heard")
    assert b"".join(out) == b"still heard\n"


def early(what):
    """A plugin whose initialisation does that, and which tells what it found."""
    return SOURCE + f"__attribute__((constructor)) static void early(void) {{ {what} }}\n" \
                    "VX_EXPORT const char *found(void) { return text; }\n"


@pytest.mark.parametrize(("call", "what"), [("open", 'first_line("/file");'), ("getuid32", "text[0] = (char)getuid();")])
def test_initialisation_is_under_no_policy(build_plugin, folder, call, what):
    """Without it the first sandbox's policy would choose what all others begin with: a file that only it may read."""
    plugin = vxplug.open(build_plugin(early(what)))
    for policy in (LinuxPolicy(directories={"/": folder}), None, LinuxPolicy(basics=True)):
        trace = vxplug.Trace()
        with pytest.raises(vxplug.PolicyError, match=rf"\({call}\) is not allowed by any policy during initialisation"):
            plugin.sandbox(linux=policy, trace=trace)
        assert trace.calls[call] == trace.refused[call] == 1
        assert trace.impossible == {call: "not during initialisation, whose outcome all sandboxes share"}
        assert trace.policy() == LinuxPolicy()


def test_initialisation_is_served_without_a_policy(build_plugin, folder):
    """Without it a plugin that allocates, or says something, while it initialises would end under a policy."""
    plugin = vxplug.open(build_plugin(early('strcpy(text, "x"); free(malloc(1 << 20)); say("early");')))
    said, trace = [], vxplug.Trace()
    with plugin.sandbox(linux=LinuxPolicy(directories={"/": folder}), stdout=said.append, trace=trace) as box:
        assert b"".join(said) == b"early\n" and trace.calls["writev"] and not trace.impossible
        assert box.found() == "x" and box.first_line("/file") == "hello\n"


def test_what_a_policy_denies_is_an_errno(plugin):
    """Without it a plugin that can do without something would end instead."""
    with plugin.sandbox(linux=LinuxPolicy(random=True)) as box:
        assert box.clock_error() == 1
        assert box.new_process() == 38
        assert box.first_line("/file") == "errno 2"


def test_streams_stay_the_applications(plugin):
    """Without it a plugin under a policy would write past the application's streams."""
    out = []
    with plugin.sandbox(linux=LinuxPolicy(time=True), stdout=out.append) as box:
        box.say("heard")
    assert b"".join(out) == b"heard\n"


def counted(got, call, *arguments):
    """What a call ended with, and how many bytes it wrote before."""
    got.clear()
    try:
        end = call(*arguments)
    except vxplug.GuestFault as fault:
        end = fault.kind
    return end, sum(map(len, got))


def test_output_of_a_call(plugin):
    """Without it a sandbox's own limit would not hold under a policy, whose output is a gigabyte."""
    got = []
    with plugin.sandbox(linux=LinuxPolicy(basics=True), output=1000, stdout=got.append, stderr=got.append) as box:
        assert counted(got, box.flood, 100, 11) == ("output-limit", 1000)
        assert counted(got, box.flood, 1, 5000) == ("output-limit", 1000)
        assert counted(got, box.flood, 10, 100) == (0, 1000)  # each call anew, both streams together
    with plugin.sandbox(linux=LinuxPolicy(basics=True), output=None, stdout=got.append, stderr=got.append) as box:
        assert counted(got, box.flood, 100, 1 << 16) == (0, 100 << 16)


def test_output_of_a_nested_call(plugin):
    """Without it a callback's call of the same sandbox would give the guest a fresh allowance, also under a policy."""
    got = []

    def write(data):
        got.append(data)
        if len(got) < 50:
            box.say("x" * 100)

    with plugin.sandbox(linux=LinuxPolicy(basics=True), output=1000, stdout=write) as box, pytest.raises(vxplug.GuestFault):
        box.say("x" * 100)
    assert sum(map(len, got)) <= 1000


@pytest.mark.parametrize("end", ["fault", "reset"])
def test_no_new_life_renews_what_a_policy_gives(plugin, folder, end):
    """Without it a guest that faults after each call would fill the host's disk, and its streams, without end."""
    got = []
    policy = LinuxPolicy(directories={"/": Directory(folder, writable=True)}, storage=10_000, output=10_000)
    with plugin.sandbox(linux=policy, stdout=got.append, stderr=got.append) as box:
        written, said = [], []
        for _ in range(3):
            written.append(box.put("/new", "x" * 5000))
            said.append(box.flood(1, 6000))
            with contextlib.suppress(vxplug.GuestFault):
                getattr(box, end)()
    assert written == [5000, -1, -1] and (folder / "new").stat().st_size == 5000
    assert said == [0, -28, -28] and sum(map(len, got)) == 6000
    with plugin.sandbox(linux=policy, stdout=got.append, stderr=got.append) as box:
        assert box.put("/new", "x" * 5000) == 5000


def test_signals(plugin):
    """Without it a policy's signals could be lost between calls, or kill in silence."""
    with plugin.sandbox(linux=LinuxPolicy(time=True)) as box:
        assert box.handle() == chr(ord("A") + 10)
        with pytest.raises(vxplug.GuestFault) as caught:
            box.die()
        assert caught.value.kind == "signal" and "15" in str(caught.value)
        assert box.handle() == chr(ord("A") + 10)


def test_a_sleep_ends_at_the_time_limit(plugin):
    """Without it a waiting system call would outlast the limit."""
    with plugin.sandbox(linux=LinuxPolicy(time=True), timeout=0.2) as box:
        with pytest.raises(vxplug.GuestTimeout):
            box.sleep_long()


@pytest.mark.parametrize("own_thread", [False, True], ids=["main", "other"])
def test_long_system_calls_end_at_the_time_limit(plugin, folder, monkeypatch, own_thread):
    """Without it a path, or a write, that takes the host long would outlast the limit."""
    walk, write = Mounts.lookup, HostFile.write
    monkeypatch.setattr(Mounts, "lookup", lambda *given: (time.sleep(0.02), walk(*given))[1])
    monkeypatch.setattr(HostFile, "write", lambda *given: (time.sleep(0.5), write(*given))[1])
    (folder / "x").mkdir()
    policy = LinuxPolicy(directories={"/": Directory(folder, writable=True)})
    with plugin.sandbox(linux=policy, timeout=0.2) as box, ThreadPoolExecutor(1) as pool:
        for call, path in ((box.keep_open, "/x/.." * 400), (box.put_much, "/much")):
            begun = time.monotonic()
            with pytest.raises(vxplug.GuestTimeout):
                pool.submit(call, path).result() if own_thread else call(path)
            assert time.monotonic() - begun < 4


def test_a_stream_that_waits_ends_at_the_time_limit(plugin):
    """Without it an application's own function could hold a guest for longer.  In a process of its own: a second copy of
    the core, as tests of the translator load, takes the ticks."""
    script = """
import sys, time, vxplug
begun = time.monotonic()
policy = vxplug.LinuxPolicy(time=True)
with vxplug.open(sys.argv[1]).sandbox(linux=policy, timeout=1.0, stdout=lambda data: time.sleep(20)) as box:
    try:
        box.say("anything")
    except vxplug.GuestTimeout as error:
        print("in a callback of the host" in str(error), time.monotonic() - begun < 10)
"""
    done = subprocess.run([sys.executable, "-c", script, plugin.path], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("True True\n", "")


def test_descriptors_end_with_a_life(plugin, folder):
    """Without it what one tenant opened the next could read."""
    with plugin.sandbox(linux=LinuxPolicy(directories={"/": folder})) as box:
        fd = box.keep_open("/file")
        assert fd >= 3 and box.read_from(fd) == 0
        box.reset()
        assert box.read_from(fd) == -9
        fd = box.keep_open("/file")
        with pytest.raises(vxplug.GuestFault):
            box.fault()
        assert box.read_from(fd) == -9


def test_nothing_stays_open_in_the_host(plugin, folder):
    """Without it every sandbox could cost the host process descriptors."""
    plugin.sandbox().close()
    before = host_descriptors()
    for number in range(20):
        box = plugin.sandbox(linux=LinuxPolicy(directories={"/": folder}))
        box.keep_open("/file")
        if number % 2:
            box.close()
        del box
    assert host_descriptors() == before


def test_a_new_life_closes_at_once(plugin, folder):
    """Without it a sandbox at rest could hold the host's descriptors, and files of a tenant that is gone."""
    with plugin.sandbox(linux=LinuxPolicy(directories={"/": folder})) as box:
        before = host_descriptors()
        for end in (box.reset, box.fault):
            assert box.keep_open("/file") == 3 and box.keep_open("/file") == 4
            assert host_descriptors() == before + 2
            with contextlib.suppress(vxplug.GuestFault):
                end()
            assert host_descriptors() == before


def test_a_poisoned_sandbox_closes_with_its_reset(plugin, folder):
    """Without it the hook of a reset could be missed where the fault's own reset does not come."""
    with plugin.sandbox(linux=LinuxPolicy(directories={"/": folder}), on_fault="poison") as box:
        before = host_descriptors()
        box.keep_open("/file")
        with pytest.raises(vxplug.GuestFault):
            box.fault()
        assert host_descriptors() == before + 1
        box.reset()
        assert host_descriptors() == before


def test_what_closing_raises_arrives(plugin, folder, monkeypatch):
    """Without it Ctrl-C while a reset closes files would be lost, or leave the sandbox locked."""
    def interrupted(self):
        raise KeyboardInterrupt

    with plugin.sandbox(linux=LinuxPolicy(directories={"/": folder})) as box:
        before = host_descriptors()
        box.keep_open("/file")
        with monkeypatch.context() as patch:
            patch.setattr("vxplug.linux.process.Process.close", interrupted)
            for end in (box.reset, box.fault):
                with pytest.raises(KeyboardInterrupt):
                    end()
        assert box.read_from(3) == -9 and host_descriptors() == before


def test_a_kept_function_keeps_its_directories(plugin, folder):
    """Without it descriptors could be closed, and their numbers reused by the host, under a living guest."""
    read = plugin.sandbox(linux=LinuxPolicy(directories={"/": folder})).first_line
    gc.collect()
    assert read("/file") == "hello\n"


@pytest.mark.parametrize(("bad", "says"), [
    ({"time": "no"}, "time: expected bool, got str"), ({"random": 1}, "random: expected bool, got int"),
    ({"output": "x"}, "output: expected int, got str"), ({"storage": True}, "storage: expected int, got bool"),
    ({"descriptors": "x"}, "descriptors: expected int"), ({"directories": ["/etc"]}, "directories: expected Mapping, got list"),
    ({"directories": {"/a": 3}}, "directories: /a: expected Directory or str or PathLike, got int"), ({"cwd": 3}, "cwd: expected str"),
    ({"env": {"A": 3}}, "env: A: expected str, got int"), ({"env": ["A"]}, "env: expected Mapping, got list"),
])
def test_what_only_looks_like_a_value(bad, says):
    """Without it time="no" would give a guest the time, and other mistakes would end calls of the guest's, much later."""
    with pytest.raises(TypeError, match=says):
        LinuxPolicy(**bad)
    with pytest.raises(TypeError, match="writable: expected bool, got str"):
        Directory("/", "no")
    with pytest.raises(TypeError, match="argv: expected a sequence of arguments, got str"):
        vxplug.run_program(b"", "abc")


@pytest.mark.parametrize("bad", [{"directories": {"x": "/"}}, {"cwd": "x"}, {"env": {"A=B": "x"}}, {"descriptors": 2}])
def test_policies_are_checked(bad):
    """Without it a mistake in a policy would show up as an odd errno in the guest."""
    with pytest.raises(ValueError):
        LinuxPolicy(**bad)
    with pytest.raises(vxplug.Error):
        vxplug.run_program(b"\x7fELF", policy=LinuxPolicy(directories={"/": "/no such directory"}))
