"""vxplug.Trace: what a guest attempts, and that the policy it prints allows just that."""

from __future__ import annotations

import os
import pickle
import shlex
import subprocess
import sys

import pytest

import vxplug
from vxplug import Directory, LinuxPolicy, Trace

SOURCE = r"""
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <vxplug.h>

static int32_t answer(long result) { return result < 0 ? -errno : (int32_t)result; }
VX_EXPORT int32_t read_file(const char *path) { return answer(open(path, O_RDONLY)); }
VX_EXPORT int32_t list(const char *path) { return answer(open(path, O_RDONLY | O_DIRECTORY)); }
VX_EXPORT int32_t write_file(const char *path) { return answer(open(path, O_CREAT | O_WRONLY, 0644)); }
VX_EXPORT int32_t link_to(const char *text, const char *path) { return answer(symlink(text, path)); }
VX_EXPORT int32_t go(const char *path) { return answer(chdir(path)); }
VX_EXPORT int32_t read_in(int32_t directory, const char *path) { return answer(openat(directory, path, O_RDONLY)); }
VX_EXPORT int32_t clock_read(void) { struct timespec t; return answer(clock_gettime(CLOCK_REALTIME, &t)); }
VX_EXPORT int32_t dice(void) { char c; return answer(getrandom(&c, 1, 0)); }
VX_EXPORT int32_t who(void) { return answer(getuid()); }
VX_EXPORT int32_t process(void) { return answer(fork()); }
VX_EXPORT int32_t network(void) { return answer(socket(AF_INET, SOCK_STREAM, 0)); }
VX_EXPORT int32_t strange(void) { return answer(syscall(9999)); }
VX_EXPORT void strangers(int32_t count) { for (int32_t i = 0; i < count; i++) syscall(10000 + i); }
VX_EXPORT void stop(void) { raise(SIGSTOP); }
VX_EXPORT void die(void) { raise(SIGABRT); }
VX_IMPORT(int32_t, twice, (int32_t n));
VX_EXPORT int32_t four(int32_t n) { return twice(twice(n)); }
"""


@pytest.fixture(scope="module")
def path(build_plugin):
    return build_plugin(SOURCE)


@pytest.fixture(scope="module")
def plugin(path):
    return vxplug.open(path)


def attempt(plugin, calls, policy=None, **options):
    """The trace of some calls, and what each gave; calls that the policy ends give None."""
    trace, results = Trace(), []
    with plugin.sandbox(trace=trace, linux=policy, imports={"twice": lambda n: 2 * n}, **options) as box:
        for name, *arguments in calls:
            try:
                results.append(box[name](*arguments))
            except vxplug.GuestEnd:
                results.append(None)
    return trace, results


def pasted(trace):
    return eval(trace.expression(), {"vxplug": vxplug})


def test_the_policy_allows_what_was_attempted(plugin, tmp_path):
    """The loop an application developer goes through: refused, pasted, allowed; and no more than that."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "file").write_text("x")
    calls = [("read_file", f"{tmp_path}/in/file"), ("write_file", f"{tmp_path}/out/new"), ("clock_read",), ("dice",)]
    first, results = attempt(plugin, calls)
    assert results == [None] * 4 and sum(first.refused.values()) == 4
    policy = pasted(first)
    assert policy == first.policy() == LinuxPolicy(
        directories={f"{tmp_path}/in": f"{tmp_path}/in", f"{tmp_path}/out": Directory(f"{tmp_path}/out", writable=True)},
        time=True, random=True,
    )
    again, results = attempt(plugin, calls, policy)
    assert all(result >= 0 for result in results) and not again.refused
    assert again.policy() == policy
    _, more = attempt(plugin, [("write_file", f"{tmp_path}/in/new"), ("read_file", "/etc/passwd")], policy)
    assert more == [-30, -2]


@pytest.mark.parametrize(("calls", "policy"), [
    ([("who",)], LinuxPolicy(basics=True)),
    ([("stop",)], LinuxPolicy(basics=True)),
    ([("clock_read",)], LinuxPolicy(time=True)),
    ([("who",), ("dice",)], LinuxPolicy(random=True)),
    ([("list", "/etc")], LinuxPolicy(directories={"/etc": "/etc"})),
    ([("read_file", "/etc/ssl/../passwd")], LinuxPolicy(directories={"/etc": "/etc"})),
    ([("read_file", "/etc/ssl/x"), ("list", "/etc")], LinuxPolicy(directories={"/etc": "/etc"})),
    ([("link_to", "/etc/passwd", "/tmp/not-there-yet")], LinuxPolicy(directories={"/tmp": Directory("/tmp", writable=True)})),
    ([("read_file", "/dev/null")], LinuxPolicy(basics=True)),
    ([("die",)], LinuxPolicy()),
], ids=lambda value: None if isinstance(value, list) else "")
def test_the_least_policy(plugin, calls, policy):
    """Without it the printed policy could give away more than the guest asked for."""
    trace, results = attempt(plugin, calls)
    assert results == [None] * len(calls)
    assert trace.policy() == pasted(trace) == policy


@pytest.mark.parametrize(("call", "what", "why"), [
    (("process",), "fork", "threads and processes do not exist here; under a policy it answers ENOSYS"),
    (("network",), "socket", "sockets do not exist here; under a policy it answers EACCES"),
    (("strange",), "system call 9999", "there is none of this number"),
    (("read_file", "/proc/self/mem"), "/proc/self/mem", "its files act on the host"),
    (("read_file", "/dev/sda"), "/dev/sda", "devices cannot be opened"),
    (("read_file", "/secret"), "/secret", "it lies in the root: only a directory of yours, mapped as /, can hold it"),
])
@pytest.mark.parametrize("policy", [None, LinuxPolicy(time=True)], ids=["none", "time"])
def test_what_nothing_allows_is_said(plugin, call, what, why, policy):
    """Without it somebody would look for a policy that does not exist, or be told to map the host's root."""
    trace, _ = attempt(plugin, [call], policy)
    assert trace.impossible == ({"socketcall": why} if what == "socket" and "socketcall" in trace.impossible else {what: why})
    assert f": {why}" in str(trace)
    assert not trace.policy().directories


def test_paths_relative_to_directories(plugin, tmp_path):
    """A guest that goes elsewhere first names its files in another way; what is wanted stays the same."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    policy = LinuxPolicy(directories={"/d": tmp_path}, cwd="/d")
    trace, results = attempt(plugin, [("list", "a"), ("read_in", 3, "b/c"), ("read_in", 3, "../../etc/passwd"), ("go", "a"),
                                      ("read_file", "../x"), ("read_in", 77, "y")], policy)
    assert results[0] == 3 and results[3] == 0
    assert trace.policy().directories == {"/d": str(tmp_path), "/etc": "/etc"}
    assert trace.policy().cwd == "/d"


def test_writing_to_what_is_read_only(plugin, tmp_path):
    """A directory that is mapped already keeps its place on the host, and gains the right to write only."""
    trace, results = attempt(plugin, [("write_file", "/d/x")], LinuxPolicy(directories={"/d": tmp_path}))
    assert results == [-30]
    assert trace.policy().directories == {"/d": Directory(str(tmp_path), writable=True)}


def test_imports_are_traced(plugin):
    """Without it half of what a plugin does to its host would be invisible."""
    lines = []
    with plugin.sandbox(trace=lines.append, imports={"twice": lambda n: 2 * n}) as box:
        assert box.four(10) == 40
    assert [line for line in lines if line.startswith("import")] == ["import twice(10) = 20", "import twice(20) = 40"]

    def fails(n):
        raise LookupError("no")

    trace = Trace(lines.append)
    with plugin.sandbox(trace=trace, imports={"twice": fails}) as box:
        with pytest.raises(LookupError):
            box.four(1)
    assert lines[-1] == "import twice(1) = raised LookupError" and trace.imports == {"twice": 1}


def test_a_hostile_guest_cannot_fill_the_host_nor_steer_the_terminal(plugin):
    """Paths are the guest's: bounded in number, escaped where shown, and quoted where they are pasted."""
    lines, trace = [], Trace()
    odd = "/x\x1b[31m/'; import os #\u202e"
    for path in [odd, "/a=b/c", "/sp ace/c", *(f"/n{number}/x" for number in range(600))]:
        with_trace, _ = attempt(plugin, [("read_file", path)]) if path == odd else (trace, None)
        if path != odd:
            with_trace.need_path(path, False, False)
        lines.append(str(with_trace))
    assert "\x1b" not in "".join(lines) and "\u202e" not in "".join(lines)
    assert len(trace.policy().directories) <= 256 and trace.truncated and "the rest is not listed" in lines[-1]
    assert pasted(trace) == trace.policy()
    options = shlex.split(shlex.join(trace.options()))
    assert "--dir=/sp ace=/sp ace:ro" in options and not any("a=b" in option for option in options)


def test_a_trace_counts_unknown_calls_as_one(plugin):
    """Without it a guest that tries number after number would fill the host's memory with their counts."""
    trace, _ = attempt(plugin, [("strangers", 1000)], LinuxPolicy(basics=True))
    assert trace.calls == {"unknown": 1000}
    assert len(trace.impossible) <= 256 and trace.truncated


def test_the_writers_exception_comes_out(plugin):
    """A trace that cannot be written must not be lost in silence."""
    def full(line):
        raise OSError(28, "full")

    with pytest.raises(OSError, match="full"), plugin.sandbox(trace=full, imports={"twice": int}) as box:
        box.clock_read()


def test_what_a_trace_is(plugin):
    """A mistake is told when the sandbox is made, not at the first call."""
    with pytest.raises(TypeError, match=r"trace: expected vxplug\.Trace or a callable, got int"):
        plugin.sandbox(trace=1, imports={"twice": int})


def test_a_traced_sandbox_pickles_without_its_trace(plugin):
    """What is recorded stays where it was recorded; the limits travel as always."""
    with plugin.sandbox(trace=lambda line: None, imports={"twice": int}, timeout=3.0) as box:
        assert pickle.loads(pickle.dumps(box))._host.options["timeout"] == 3.0


def command(*arguments):
    return subprocess.run([sys.executable, "-m", "vxplug", *map(str, arguments)], capture_output=True, text=True, check=False)


def test_options_can_be_pasted(build_plugin, build_program, tmp_path):
    """`--trace` of both commands ends with options that the same command takes."""
    (tmp_path / "file").write_text("x")
    source = SOURCE[: SOURCE.index("VX_IMPORT")]
    plugin = build_plugin(source)
    arguments = [plugin, "read_file", tmp_path / "file"]
    refused = command("call", "--trace", *arguments)
    assert refused.returncode == 1 and "O_RDONLY|O_LARGEFILE, " in refused.stderr
    options = shlex.split(refused.stderr.split("options that allow it: ")[1].splitlines()[0])
    assert options == [f"--dir={tmp_path}={tmp_path}:ro"]
    allowed = command("call", *options, *arguments)
    assert (allowed.returncode, allowed.stdout) == (0, "3\n"), allowed.stderr
    refused = command("call", "--trace", plugin, "clock_read")
    assert "options that allow it: --time\n" in refused.stderr
    assert command("call", "--time", plugin, "clock_read").stdout == "0\n"
    traced = command("run", "--trace", build_program("streams"), "status", "3")
    assert traced.returncode == 3 and "exit_group(3) = ?" in traced.stderr and traced.stderr.endswith("needs no policy\n")
    assert os.listdir(tmp_path) == ["file"]
