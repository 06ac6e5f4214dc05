"""The command line's statuses, its errors, and what it shows on a terminal only."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys

import pytest

import vxplug
from vxplug.cli import _Progress
from vxplug.sdk import FIRST_BUILD

SOURCE = """
#include <stdio.h>
#include <vxplug.h>
VX_EXPORT int32_t half(int32_t v) {
    if (v % 2) vx_raise(VX_ValueError, "odd\\033[31m: %d", (int)v);
    return v / 2;
}
VX_EXPORT vx_bytes bytes(void) { return vx_borrow("ab", 2); }
VX_EXPORT void crash(void) { __builtin_trap(); }
VX_EXPORT void loop(void) { puts("here"); fflush(stdout); for (;;) __asm__ volatile("" ::: "memory"); }
"""


TYPES = """
#include <stdlib.h>
#include <vxplug.h>
enum colour { RED, GREEN };
struct point { int32_t x, y; };
struct shape { struct point at; enum colour colour; char name[8]; double sizes[2]; };
VX_EXPORT struct shape moved(struct shape s, const struct point *by) {
    if (by) { s.at.x += by->x; s.at.y += by->y; }
    return s;
}
VX_NULLABLE(moved, by);
VX_EXPORT double sum(vx_array_f64 v) { double s = 0; for (size_t i = 0; i < v.len; i++) s += v.ptr[i]; return s; }
VX_EXPORT vx_bytes twice(vx_view v) {
    char *out = malloc(2 * v.len + 1);
    for (size_t i = 0; i < 2 * v.len; i++) out[i] = ((const char *)v.ptr)[i % v.len];
    return vx_take(out, 2 * v.len);
}
VX_EXPORT vx_stream count(uint32_t n) {
    for (uint32_t i = 0; i < n; i++) if (!vx_yield("ab", 2)) break;
    if (n == 5) vx_raise(VX_EOFError, "five");
    return VX_END;
}
VX_EXPORT enum colour other(enum colour c) { return c == RED ? GREEN : RED; }
VX_EXPORT double big(void) { return 1e308 * 10; }
VX_EXPORT void apply(void (*f)(void)) { f(); }
union number { int32_t i; float f; };
VX_EXPORT union number same(union number n) { return n; }
VX_EXPORT int32_t first(vx_array_i32 v) { return v.ptr[0]; }
VX_EXPORT const char *maybe(const char *s) { return s; }
VX_NULLABLE(maybe, s);
VX_EXPORT int32_t fill(vx_mut m, vx_mut_array_i32 v, uint8_t with) {
    for (size_t i = 0; i < m.len; i++) ((char *)m.ptr)[i] = with;
    for (size_t i = 0; i < v.len; i++) v.ptr[i] = with;
    return 3;
}
VX_NULLABLE(fill, m);
VX_DOC(name, "Ça va.");
VX_EXPORT const char *name(void) { return "hé"; }
"""


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "vxplug", *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("arguments", "status", "says"), [
    (["half", "8"], 0, ""),
    (["half", "7"], 1, "vxplug: half() raised ValueError: odd\\x1b[31m: 7\n"),
    (["half", "x"], 1, "vxplug: argument v: 'x' is not an int\n"),
    (["half"], 1, "vxplug: half(v: int) -> int takes 1 argument, not 0\n"),
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


@pytest.mark.parametrize(("options", "says"), [
    (["--timeout", "-1"], "argument --timeout: -1 is not between"), (["--timeout", "nan"], "argument --timeout: nan is not between"),
    (["--memory", "0"], "argument --memory: 0 is not between 1 and 4096 MiB"), (["--memory", "4097"], "argument --memory: 4097"),
    (["--memory", "64M"], "argument --memory: '64M' is not a number of MiB"),
    (["--timeout", "1s"], "argument --timeout: '1s' is not a number of seconds"),
    (["--cwd", "here"], "argument --cwd: 'here' is not an absolute path"), (["--dir", "x=/tmp"], "argument --dir: 'x=/tmp' is not"),
])
@pytest.mark.parametrize("command_name", ["call", "run"])
def test_options_out_of_range(command_name, options, says):
    """They ended in Python's traceback once."""
    done = command(command_name, *options, "file", "half", "8")
    assert done.returncode == 2 and f"vxplug {command_name}: error: {says}" in done.stderr


@pytest.mark.parametrize("seconds", ["0", "nan", "soon"])
def test_seconds_of_a_profile(seconds):
    """A mistake in the command line has the status that says so, whichever command it is."""
    done = command("profile", "--seconds", seconds, "file", "half", "8")
    assert done.returncode == 2 and "vxplug profile: error: argument --seconds: " in done.stderr


@pytest.mark.parametrize(("name", "missing"), [
    ("run", "PROGRAM"), ("call", "file, function"), ("profile", "file, FUNC"), ("disasm", "file"),
])
def test_words_that_are_missing(name, missing):
    """Who types what the message asks for would give an argument to a program or function that takes none."""
    done = command(name)
    assert done.returncode == 2 and done.stderr.endswith(f"vxplug {name}: error: the following arguments are required: {missing}\n")


@pytest.fixture
def program(tmp_path):
    """A program that ends with status 7, and whose section headers are none."""
    image = bytearray(0x1000)
    struct.pack_into("<4s3B9xHHIIIIIHHHHHH", image, 0, b"\x7fELF", 1, 1, 1, 2, 3, 1, 0x8048054, 52, 0, 0, 52, 32, 1, 1, 9, 0)
    struct.pack_into("<8I", image, 52, 1, 0, 0x8048000, 0x8048000, 0x1000, 0x1000, 5, 0x1000)
    image[0x54:0x60] = bytes.fromhex("b801000000 bb07000000 cd80")
    (tmp_path / "program").write_bytes(image)
    return tmp_path / "program"


def test_sections_keep_no_program_from_running(program):
    """Linux does not look at section headers, so stripped and packed programs have what they like there, and run."""
    done = command("run", program)
    assert (done.returncode, done.stderr) == (7, "")


def test_a_directory_that_is_not_there(program):
    """What is mapped is the host's: one line says which folder of it is missing."""
    done = command("run", "--dir=/x=/nope", program)
    assert done.returncode == 1 and done.stderr.startswith("vxplug: cannot map /nope: ") and done.stderr.count("\n") == 1


def test_little_memory(build_plugin):
    """The stack is part of it, and makes do with half."""
    assert command("call", "--memory", "1", build_plugin(SOURCE), "half", "8").stdout == "4\n"


@pytest.mark.parametrize(("arguments", "says"), [
    (["run", "/bin/sh"], "vxplug: /bin/sh: not a 32-bit ELF file (programs that run here are static and for i386)\n"),
    (["run", "{source}"], "vxplug: {source}: not an ELF file (programs that run here are static and for i386)\n"),
    (["call", "/bin/sh", "half", "8"], "vxplug: /bin/sh: not a 32-bit ELF file (plugins are built with `vxplug build`)\n"),
    (["inspect", "{source}"], "vxplug: {source}: not an ELF file (plugins are built with `vxplug build`)\n"),
    (["stubs", "/dev/null"], "vxplug: /dev/null: the file is empty (plugins are built with `vxplug build`)\n"),
    (["call", "--dir=/x=/nope", "{plugin}", "half", "8"], "vxplug: cannot map /nope: "),
    (["run", "{plugin}", "a\udcff"], "vxplug: {plugin}: this is a plugin: use `vxplug call`\n"),
])
def test_one_line_for_a_mistake(build_plugin, arguments, says):
    """Which file, and what is wrong with it."""
    plugin = str(build_plugin(SOURCE))
    done = command(*(word.format(plugin=plugin, source=__file__) for word in arguments))
    assert done.stderr.startswith(says.format(plugin=plugin, source=__file__)) and done.stderr.count("\n") == 1 and done.returncode == 1


def test_a_plugin_with_a_main(tmp_path):
    """What the linker says of it means nothing to who has not read the SDK's source."""
    (tmp_path / "p.c").write_text("int main(void) { return 0; }\n")
    done = command("build", "-o", tmp_path / "p.vxm", tmp_path / "p.c")
    assert done.returncode == 1 and done.stderr.endswith("a plugin has no main of its own: mark functions with VX_EXPORT\n")


def test_a_folder_beside_the_plugin(tmp_path):
    """Its import would give an empty namespace package, whose attributes nobody finds."""
    (tmp_path / "p.c").write_text(SOURCE)
    assert "note: " not in command("build", "-o", tmp_path / "p.vxm", tmp_path / "p.c").stderr
    (tmp_path / "p").mkdir()
    done = command("build", "-o", tmp_path / "p.vxm", tmp_path / "p.c")
    assert done.returncode == 0 and done.stderr.startswith(f"note: `import p` finds the folder {tmp_path / 'p'}, not the plugin")


def test_version():
    """What a bug report begins with."""
    assert command("--version").stdout == f"vxplug {vxplug.__version__}\n"


def test_ctrl_c(build_plugin):
    """As every command does: no traceback, 130."""
    running = subprocess.Popen([sys.executable, "-u", "-m", "vxplug", "call", str(build_plugin(SOURCE)), "loop"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout.readline() == "here\n"
    running.send_signal(signal.SIGINT)
    _, text = running.communicate(timeout=60)
    assert running.returncode == 130 and text == ""


@pytest.mark.parametrize(("arguments", "redirection", "status", "shown"), [
    (["call", "{plugin}", "bytes"], ">&-", 0, ""), (["call", "{plugin}", "half", "8"], ">&-", 0, ""),
    (["build", "-o", "{plugin}.again", "{source}"], ">&- 2>&-", 0, ""), (["call", "{plugin}", "half", "x"], "2>&-", 1, ""),
    (["inspect", "{plugin}"], "<&- >&- 2>&-", 0, ""),
])
def test_streams_that_a_shell_closed(build_plugin, tmp_path, arguments, redirection, status, shown):
    """Daemons are started so: a build ended as a failure without a word, and an error was printed as a result."""
    (tmp_path / "plugin.c").write_text(SOURCE)
    names = {"plugin": build_plugin(SOURCE), "source": tmp_path / "plugin.c"}
    words = shlex.join(word.format(**names) for word in [sys.executable, "-m", "vxplug", *arguments])
    done = subprocess.run(["sh", "-c", f"{words} {redirection}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (status, shown)


def test_a_closed_stream_is_no_file(tmp_path):
    """Without it the next file that is opened has the stream's number: what a program writes would go there."""
    words = shlex.join([sys.executable, "-c", "import sys, os; from vxplug import cli; sys.argv[1:] = ['--version']\n"
                        "try:\n    cli.main()\nexcept SystemExit:\n    print(os.open(sys.executable, os.O_RDONLY), file=open('at', 'w'))"])
    subprocess.run(["sh", "-c", f"{words} <&- >&-"], cwd=tmp_path, check=True)
    assert int((tmp_path / "at").read_text()) > 2


def _on_a_terminal(command: list[str]) -> str:
    """What a command writes to stderr, where that is one."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=theirs, check=True)
        os.close(theirs)
        return terminal.read(65536).decode()


def test_warnings_have_lines_of_their_own(tmp_path):
    """Else they would go on where the progress stands, and the place, which comes first, could not be read."""
    (tmp_path / "plugin.c").write_text(SOURCE + "#warning look at this\n")
    build = [sys.executable, "-m", "vxplug", "build", "-o", str(tmp_path / "plugin.vxm"), str(tmp_path / "plugin.c")]
    assert re.search(r"\r\x1b\[K[\w/.-]*plugin\.c:\d+:\d+: warning: look at this", _on_a_terminal(build))


def test_progress_on_a_terminal_only(tmp_path):
    """A build that takes a minute without a word looks broken; in a log, what erases itself is noise."""
    (tmp_path / "plugin.c").write_text(SOURCE)
    build = [sys.executable, "-m", "vxplug", "build", "-o", str(tmp_path / "plugin.vxm"), str(tmp_path / "plugin.c")]
    said = subprocess.run(build, capture_output=True, text=True, check=True).stderr
    assert said in ("", f"{tmp_path}/plugin.vxm: {FIRST_BUILD}\n")  # where this is the machine's first, or slow
    shown = _on_a_terminal(build)
    assert "building " in shown and ": compiled plugin.c" in shown and ": linking" in shown and shown.endswith("\r\x1b[K")


def test_progress_of_the_first_build(capsys):
    """It takes half a minute, in continuous integration too: there, one line says why, and none of what is quick."""
    progress = _Progress("a.vxm")
    for step in ("compiled a.c", "linking", FIRST_BUILD):
        progress(step)
    progress.close()
    assert capsys.readouterr() == ("", f"a.vxm: {FIRST_BUILD}\n")


SHAPE = {"at": {"x": 1, "y": 2}, "colour": "GREEN", "name": "box", "sizes": [0.5, 2]}


@pytest.mark.parametrize(("arguments", "result"), [
    (["moved", json.dumps(SHAPE), '{"x": 10, "y": -1}'],
     {"at": {"x": 11, "y": 1}, "colour": "GREEN", "name": {"base64": "Ym94"}, "sizes": [0.5, 2.0]}),
    (["moved", json.dumps(SHAPE), "null"], SHAPE | {"name": {"base64": "Ym94"}}),
    (["sum", "[1, 2.5]"], 3.5), (["twice", "ab"], {"base64": "YWJhYg=="}), (["count", "2"], [{"base64": "YWI="}] * 2),
    (["other", "RED"], "GREEN"), (["other", "1"], "RED"), (["big"], "inf"),
], ids=lambda value: value[0] if isinstance(value, list) and isinstance(value[0], str) else "")
def test_types_in_and_out(build_plugin, arguments, result):
    """Scripts read results: every type has a form in JSON, and one on the command line."""
    done = command("call", "--json", build_plugin(TYPES), *arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"result": result}


@pytest.mark.parametrize(("arguments", "says"), [
    (["moved", '{"at": {"x": 1}}', "null"], "argument s: shape needs colour, name, sizes, too\n"),
    (["moved", json.dumps(SHAPE | {"at": {"x": 1}}), "null"], "argument s: at: point needs y, too\n"),
    (["moved", json.dumps(SHAPE | {"at": 1}), "null"], "argument s: at: 1 is not a JSON object, which a point is\n"),
    (["moved", json.dumps(SHAPE | {"colour": "BLUE"}), "null"], "argument s: colour: 'BLUE' is not a colour\n"),
    (["moved", json.dumps(SHAPE | {"name": [300]}), "null"], "argument s: name: [300] is not an array of 8\n"),
    (["moved", json.dumps(SHAPE), '{"x": 1, "z": 2}'], "argument by: point has no member 'z'; there are: x, y\n"),
    (["moved", "[", "null"], "argument s: '[' is not JSON: "), (["moved", "[" * 100000, "null"], "argument s: '[["),
    (["same", '{"i": 1, "f": 1}'], "argument n: number takes exactly one of i, f\n"),
    (["same", "{}"], "argument n: number takes exactly one of i, f\n"),
    (["sum", '["x"]'], "argument v: 'x' is not a float\n"), (["sum", "3"], "argument v: 3 is not a JSON array\n"),
    (["first", "[5000000000]"], "argument v: 5000000000 is out of range of int32_t\n"),
    (["first", "[1.5]"], "argument v: 1.5 is not an int\n"), (["twice", "\udcff"], "argument v: '\\udcff' is not a"),
    (["other", "BLUE"], "argument c: 'BLUE' is not a colour\n"),
    (["apply", "f"], "argument f: a callback has no spelling on a command line\n"),
    (["count", "5"], "count() raised EOFError: five\n"),
])
def test_words_that_are_no_arguments(build_plugin, arguments, says):
    """A beginner's mistakes: one line each that says which part is wrong, and never Python's traceback."""
    done = command("call", build_plugin(TYPES), *arguments)
    assert done.returncode == 1 and done.stderr.startswith("vxplug: " + says) and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize(("text", "result"), [
    ("null", None), ("nil", "nil"), ('"null"', "null"), (r'"a\n\"b"', 'a\n"b'), ('"', '"'), ("", ""),
])
def test_text_that_may_be_none(build_plugin, text, result):
    """Without quotes for it, no caller could give the four letters that stand for NULL."""
    assert json.loads(command("call", "--json", build_plugin(TYPES), "maybe", text).stdout) == {"result": result}


@pytest.mark.parametrize(("argument", "shown", "left"), [("abc", "AAA", {"base64": "QUFB"}), ("null", "", None)])
def test_arguments_that_are_written_into(build_plugin, monkeypatch, argument, shown, left):
    """What a function leaves in a buffer is its result, and was shown nowhere; it must not come before the other results."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    words = build_plugin(TYPES), "fill", argument, "[1, 2]", "65"
    assert command("call", *words).stdout == f"3\n{shown}array('i', [65, 65])\n"
    found = json.loads(command("call", "--json", *words).stdout)
    assert found == {"result": 3, "written": {"m": left, "v": [65, 65]}}


def test_errors_in_json(build_plugin, tmp_path):
    """A script tells the plugin's error from a crash, and keeps the crash for `inspect --fault`."""
    raised = command("call", "--json", build_plugin(SOURCE), "half", "7")
    assert raised.returncode == 1
    assert json.loads(raised.stdout) == {"error": "ValueError", "message": "odd\x1b[31m: 7"}
    crashed = command("call", "--json", build_plugin(SOURCE), "crash")
    found = json.loads(crashed.stdout)
    assert crashed.returncode == 1 and found["error"] == "GuestFault" and found["report"]["kind"] == "illegal-instruction"
    (tmp_path / "report").write_text(json.dumps(found["report"]))
    assert "illegal-instruction" in command("inspect", build_plugin(SOURCE), "--fault", tmp_path / "report").stdout


@pytest.mark.parametrize(("options", "arguments", "error", "says"), [
    ([], ["half", "x"], "Error", "argument v: 'x' is not an int"), ([], ["half"], "Error", "half(v: int) -> int takes 1 argument, not 0"),
    ([], ["hafl", "1"], "Error", "no function 'hafl'; there are: "), (["--dir=/x=/nope"], ["half", "8"], "Error", "cannot map /nope"),
    ([], ["half", "5000000000"], "OverflowError", "half() argument 'v': 5000000000 is out of range"),
])
def test_mistakes_in_json(build_plugin, options, arguments, error, says):
    """A script that parses what it gets would end in an error of its parser's, which says nothing of the mistake."""
    done = command("call", "--json", *options, build_plugin(SOURCE), *arguments)
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr, found["error"]) == (1, "", error) and found["message"].startswith(says)


@pytest.mark.parametrize(("file", "error"), [("nowhere.vxm", "FileNotFoundError"), (sys.executable, "PluginFormatError")])
def test_no_plugin_in_json(file, error):
    """The same for a file that is none."""
    done = command("call", "--json", file, "half", "8")
    assert (done.returncode, done.stderr, json.loads(done.stdout)["error"]) == (1, "", error)


def test_output_and_json_do_not_mix(build_plugin):
    """What the plugin prints must not break what a script parses."""
    done = command("call", "--json", "--timeout", "0.3", build_plugin(SOURCE), "loop")
    assert json.loads(done.stdout)["error"] == "GuestTimeout" and done.stderr == "here\n"


def test_streams_are_shown_in_pieces(build_plugin):
    """They were shown as the repr of an iterator once."""
    assert command("call", build_plugin(TYPES), "count", "3").stdout == "ababab"


@pytest.mark.parametrize(("arguments", "says"), [(["call", "name"], "h\\xe9"), (["inspect"], "\\xc7a va."), (["stubs"], "\\xc7a va.")])
def test_text_that_standard_output_cannot_encode(build_plugin, arguments, says):
    """Without it a plugin's text would end the command in a traceback of Python's."""
    first, *rest = arguments
    done = subprocess.run([sys.executable, "-m", "vxplug", first, str(build_plugin(TYPES)), *rest], capture_output=True, text=True,
                          env=os.environ | {"PYTHONIOENCODING": "ascii"}, check=False)
    assert (done.returncode, done.stderr) == (0, "") and says in done.stdout
