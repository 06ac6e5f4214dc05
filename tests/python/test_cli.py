"""The command line's statuses, its errors, and what it shows on a terminal only."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys

import pytest

SOURCE = """
#include <stdio.h>
#include <vxplug.h>
VX_EXPORT int32_t half(int32_t v) {
    if (v % 2) vx_raise(VX_ValueError, "odd\\033[31m: %d", (int)v);
    return v / 2;
}
VX_EXPORT void crash(void) { __builtin_trap(); }
VX_EXPORT void loop(void) { puts("here"); fflush(stdout); for (;;) __asm__ volatile("" ::: "memory"); }
"""


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "vxplug", *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("arguments", "status", "says"), [
    (["half", "8"], 0, ""),
    (["half", "7"], 1, "vxplug: half() raised ValueError: odd\\x1b[31m: 7\n"),
    (["half", "x"], 1, "vxplug: argument v: 'x' is not a int\n"),
    (["half"], 1, "vxplug: half(v: int) -> int takes 1 arguments\n"),
    (["hafl", "1"], 1, "vxplug: no function 'hafl'; there are: "),
    (["crash"], 1, "vxplug: illegal-instruction: "),
    (["--timeout", "0.2", "loop"], 1, "vxplug: time limit of 0.2 s reached"),
    (["--timeout", "soon", "loop"], 2, "usage: "),
])
def test_statuses(build_plugin, arguments, status, says):
    """Scripts act on them; what is printed is a line for a person, never Python's traceback."""
    options = arguments[:-1] if arguments[0] == "--timeout" else []
    rest = arguments[len(options):]
    done = command("call", *options, build_plugin(SOURCE), *rest)
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith(says) and "Traceback" not in done.stderr and "\x1b" not in done.stderr


def test_ctrl_c(build_plugin):
    """As every command does: no traceback, 130."""
    running = subprocess.Popen([sys.executable, "-u", "-m", "vxplug", "call", str(build_plugin(SOURCE)), "loop"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout.readline() == "here\n"
    running.send_signal(signal.SIGINT)
    _, text = running.communicate(timeout=60)
    assert running.returncode == 130 and text == ""


def test_progress_on_a_terminal_only(tmp_path):
    """A build that takes a minute without a word looks broken; in a log, what erases itself is noise."""
    (tmp_path / "plugin.c").write_text(SOURCE)
    build = [sys.executable, "-m", "vxplug", "build", "-o", str(tmp_path / "plugin.vxm"), str(tmp_path / "plugin.c")]
    assert subprocess.run(build, capture_output=True, check=True).stderr == b""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        subprocess.run(build, stdout=subprocess.DEVNULL, stderr=theirs, check=True)
        os.close(theirs)
        shown = terminal.read(65536).decode()
    assert "building " in shown and "compiled, last plugin.c" in shown and shown.endswith("\r\x1b[K")
