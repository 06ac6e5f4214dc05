"""`vxplug inspect` and the versions of the interface note."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import types
from pathlib import Path

import pytest

import vxplug
from vxplug.interface import ABI_VERSIONS, NOTE_NAME, decode_note

ROOT = Path(__file__).resolve().parents[2]
SOURCE = """
#include <vxplug.h>
VX_MODULE_DOC("Adds.");
VX_DOC(add, "The sum\\033[31m.");
VX_EXPORT int32_t add(int32_t a, int32_t b) { return a + b; }
enum colour { RED, GREEN };
VX_EXPORT enum colour paint(enum colour c) { return c; }
"""


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "vxplug", *map(str, arguments)], capture_output=True, text=True, check=False)


def test_json_has_everything(build_plugin):
    """Scripts read this: a key that goes away breaks them."""
    path = build_plugin(SOURCE)
    found = json.loads(command("inspect", "--json", path).stdout)
    assert set(found) == {"file", "size", "sha256", "doc", "exports", "imports", "types", "segments", "sections", "debug", "needs"}
    add = next(export for export in found["exports"] if export["name"] == "add")
    assert add["prototype"] == "int32_t add(int32_t a, int32_t b)" and add["signature"] == "add(a: int, b: int) -> int"
    paint = next(export for export in found["exports"] if export["name"] == "paint")
    assert paint["signature"] == "paint(c: colour) -> colour"  # as whoever imports it sees, but for the module's name
    assert found["types"] == ["colour"] and found["debug"] == "inside" and found["doc"] == "Adds."
    assert found["sha256"] == vxplug.open(path).digest and found["size"] == path.stat().st_size
    assert {s["rights"] for s in found["segments"]} == {"r--", "r-x", "rw-"}
    assert any(s["name"] == "vx_export" and s["address"] <= add["address"] < s["address"] + s["size"]
               for s in found["sections"])
    assert found["needs"]["memory"] == sum(s["size"] for s in found["segments"])


def test_imports(build_plugin):
    """Who gives a plugin its functions has to know which, before it refuses to load."""
    path = build_plugin("#include <vxplug.h>\nVX_IMPORT(int32_t, ask, (const char *what, int32_t n));\n"
                        'VX_EXPORT int32_t f(void) { return ask("x", 1); }\n')
    found = json.loads(command("inspect", "--json", path).stdout)
    assert found["imports"] == [{"name": "ask", "prototype": "int32_t ask(const char *, int32_t)"}]
    assert "needs of the host, as sandbox(imports={…}):\n            int32_t ask(const char *, int32_t)\n" in command("inspect", path).stdout


def test_text(build_plugin):
    """What a person sees first; what a plugin says of itself cannot steer the terminal."""
    path = build_plugin(SOURCE)
    short, long = command("inspect", path).stdout, command("inspect", "--all", path).stdout
    assert "add(a: int, b: int) -> int" in short and "int32_t add(int32_t a, int32_t b)" in short
    assert long.startswith(short) and "r-x" in long and ".text" in long and "debug information: inside" in long
    assert "\x1b" not in long and "The sum\\x1b[31m." in long


@pytest.mark.parametrize("where", [32, 46, 48, 50], ids=["e_shoff", "e_shentsize", "e_shnum", "e_shstrndx"])
def test_sections_that_lie(build_plugin, tmp_path, where):
    """The loader does not read sections but one, so inspect meets what nobody has checked."""
    data = bytearray(build_plugin(SOURCE).read_bytes())
    struct.pack_into("<H", data, where, 0xFFFF)
    (tmp_path / "lies.vxm").write_bytes(data)
    done = command("inspect", "--all", tmp_path / "lies.vxm")
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 1) and (done.stdout or done.stderr.startswith("vxplug: "))


def test_what_is_not_there():
    """A beginner's first mistakes: each has a line that says what to do, and the status that scripts know it by."""
    done = command("inspect", "nowhere.vxm")
    assert done.returncode == 1 and done.stderr.startswith("vxplug: ") and "nowhere.vxm" in done.stderr
    done = command("inspect")
    assert done.returncode == 2 and done.stderr.endswith("vxplug inspect: error: which FILE?\n")
    done = command("inspect", sys.executable)
    assert done.returncode == 1 and "not a 32-bit ELF file (plugins are built with `vxplug build`)" in done.stderr
    assert command("inspekt").returncode == 2


def _note(version: int, body: dict[str, object]) -> bytes:
    text = json.dumps({"abi": version} | body).encode()
    return struct.pack("<III", len(NOTE_NAME), len(text), version) + NOTE_NAME.ljust(8, b"\0") + text


FIRST = {
    "doc": "Adds.", "release": 0,
    "exports": [{"name": "add", "address": 0x20000, "doc": None, "prototype": "int32_t add(int32_t a, int32_t b)",
                 "params": [["a", "i32"], ["b", "i32"]], "result": "i32"}],
}


def test_a_note_of_the_first_release_loads():
    """A plugin built by one vxplug loads in a later one: this is what the first one wrote, whatever is written today."""
    interface = decode_note(_note(1, FIRST))
    (add,) = interface.exports
    assert (interface.doc, interface.version, str(add.signature)) == ("Adds.", 1, "(a: int, b: int) -> int")


def test_a_first_note_in_a_plugin_of_today(build_plugin):
    """The whole way through the loader, with the note's bytes replaced by those that the first release wrote."""
    path = build_plugin('#include <vxplug.h>\nVX_EXPORT int32_t add(int32_t a, int32_t b) { return a + b; }\n'
                        '/* room */ VX_DOC(add, "' + "x" * 400 + '");\n')
    plugin = vxplug.open(path)
    old = dict(FIRST, exports=[dict(FIRST["exports"][0], address=plugin.exports["add"].address)])
    data = bytearray(path.read_bytes())
    start = data.index(NOTE_NAME + b"\0" + b"{") - 12
    note = _note(1, old)
    data[start : start + len(note)] = note
    with vxplug.open(bytes(data)).sandbox() as box:
        assert box.add(40, 2) == 42


def test_a_note_of_a_later_release_is_refused_with_the_reason():
    """A plugin that is too new must not load half: its author's users are told which versions this one reads."""
    later = ABI_VERSIONS[-1] + 1
    with pytest.raises(vxplug.PluginFormatError, match=f"ABI version {later}; this vxplug reads 1 to {later - 1}"):
        decode_note(_note(later, FIRST))


NAMES = """
#include <stdlib.h>
#include <vxplug.h>
enum IntEnum { Any, Optional };
struct dataclass { int32_t bytes; const char *str; };
struct Buffer { struct dataclass tuple; double array; };
union property { int32_t bool_; float float_; };
typedef struct object { int n; } object;
static void destroy(object *o) { free(o); }
VX_HANDLE(object, destroy);
VX_EXPORT object *collections(void) { return malloc(4); }
VX_EXPORT int32_t object_bytes(object *o, vx_view v) { return (int32_t)v.len; }
VX_METHOD(object, object_bytes, bytes);
VX_EXPORT vx_bytes bytes(vx_view v, const char *str) { return vx_take(0, 0); }
VX_EXPORT struct Buffer str(enum IntEnum e, const struct Buffer *b, union property p) { return *b; }
VX_EXPORT double array(vx_array_f64 v) { return v.len; }
VX_NULLABLE(array, v);
VX_EXPORT vx_new_array_f64 tuple(void) { return (vx_new_array_f64){0}; }
VX_EXPORT vx_stream Iterator(void) { return VX_END; }
VX_EXPORT int32_t property_(int32_t (*f)(int32_t)) { return f(1); }
union Stream { int32_t overload; float int_; };
VX_EXPORT union Stream Sandbox(union Stream s) { return s; }
"""


def errors(checker: str, folder: Path, stub: str, programs: dict[str, str]) -> set[tuple[str, int]]:
    """(name, line) of what a type checker does not let pass: in programs that import a plugin as guest, or in its stub, "guest"."""
    pytest.importorskip(checker)
    if checker == "pyright" and shutil.which("node") is None:
        pytest.skip("pyright needs node")
    (folder / "guest.pyi").write_text(stub)
    files = {f"use{number}": name for number, name in enumerate(programs)}
    for file, name in files.items():
        (folder / f"{file}.py").write_text("import guest\n" + programs[name])
    # Checkers do not see what is installed from the tree, as this package is here.
    (folder / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(ROOT)]}))
    options = ["--strict", "--cache-dir", folder / "cache"] if checker == "mypy" else ["--pythonpath", sys.executable]
    command = [sys.executable, "-m", checker, *options, "guest.pyi", *(f"{file}.py" for file in files)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=os.environ | {"MYPYPATH": str(ROOT)})
    found = re.findall(r"(\w+)\.pyi?:(\d+)(?::\d+)?(?: -|:) error", done.stdout)
    assert done.returncode == bool(found), done.stdout + done.stderr
    print(done.stdout)
    return {(files.get(file, file), int(line)) for file, line in found}


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_stubs_survive_every_name(build_plugin, tmp_path, checker):
    """A plugin may call its functions, types and members what the stub calls Python's: checkers must not take one for the other."""
    use = (
        "import array\n"
        "a: bytes = guest.bytes(b'x', 'y')\n"
        "b: float = guest.array(None) + guest.array(array.array('d'))\n"
        "c: guest.Buffer = guest.str(guest.IntEnum.Any, guest.Buffer(guest.dataclass(1, None), 2.0), guest.property(bool_=1))\n"
        "o = guest.collections()\nassert o is not None\nd: int = o.bytes(b'x') + c.tuple.bytes\n"
        "e: float = guest.tuple()[0]\n"
        "for piece in guest.Iterator():\n    f: bytes = piece\n"
        "s: guest.Stream = guest.Sandbox(guest.Stream(overload=1))\n"
        "guest.__sandbox__.reset()\n"
    )
    assert errors(checker, tmp_path, command("stubs", build_plugin(NAMES)).stdout, {"use": use}) == set()


TYPES = """
#include <stdlib.h>
#include <vxplug.h>
enum mode { OFF = -1, ON };
enum odd { name, value, from_bytes, bit_length, real, is_integer, low = -5 };
union number { int32_t i; char text[8]; enum mode mode; };
union one { int32_t self; };
union several { int32_t self; float other; };
struct inner { enum mode mode; };
struct made { enum mode mode; char text[8]; uint8_t raw[2]; enum mode many[2]; struct inner inner; int32_t self; const char *said; };
union parts { enum mode mode; enum mode many[2]; struct inner inner; };
VX_EXPORT uint32_t length(vx_view v, vx_mut m, const char *s) { return v.len; }
VX_NULLABLE(length, v);
VX_NULLABLE(length, m);
VX_NULLABLE(length, s);
VX_EXPORT enum mode turn(enum mode m, enum mode *n) { return m; }
VX_INOUT(turn, n);
VX_EXPORT enum mode ask(enum mode (*f)(enum mode), vx_view (*g)(void)) { g(); return f(ON); }
VX_EXPORT enum odd oddly(enum odd o) { return o; }
VX_EXPORT int32_t sum(union number n, union one o, union several s) { return n.i + o.self + s.self; }
VX_EXPORT struct made remake(const struct made *m, union parts p) { return *m; }
typedef struct jar jar;
VX_HANDLE(jar, NULL);
VX_EXPORT jar *jar_new(void) { return malloc(4); }
VX_EXPORT vx_stream jar_pieces(jar *j, enum mode m) { vx_yield("x", 1); return VX_END; }
VX_METHOD(jar, jar_pieces, pieces);
VX_EXPORT enum mode jar_mode(jar *j, enum mode m) { return m; }
VX_METHOD(jar, jar_mode, mode);
VX_EXPORT vx_stream pieces(void) { vx_yield("x", 1); return VX_END; }
"""
# Each part by itself: what documentation promises, in words of its user's program.
RIGHT = {
    "nullable buffers": "n: int = guest.length(bytearray(b'ab'), memoryview(bytearray(2)), None) + guest.length(None, None, 'x')\n",
    "numbers for enums": "m: tuple[guest.mode, guest.mode] = guest.turn(0, guest.mode.ON)\n",
    "callables that give numbers": "m: guest.mode = guest.ask(lambda mode: 0, lambda: bytearray(b'x'))\n",
    "streams":
        "import vxplug\n"
        "with guest.pieces() as stream:\n    got: list[bytes] = [piece for piece in stream]\n"
        "stream.close()\nended: bool = stream.closed\nfirst: bytes = next(guest.pieces())\n"
        "jar = guest.jar_new()\nassert jar is not None\nwith jar.pieces(guest.mode.ON) as other:\n    next(other)\n"
        "vxplug.aio.iterate(guest.pieces())\n",
    "the sandbox": "import vxplug\nbox: vxplug.Sandbox = guest.__sandbox__\n",
    "names of every enum's": "o: guest.odd = guest.oddly(guest.odd.name)\nguest.oddly(guest.odd.value)\nguest.oddly(guest.odd.from_bytes)\n",
    "structs":
        "import array\nimport dataclasses\n"
        "a = guest.made(1, bytearray(b'x'), memoryview(b'ab'), [0, guest.mode.ON], guest.inner(0), 3, None)\n"
        "b = guest.remake(a, guest.parts(many=array.array('i', [0, -1])))\n"
        "m: guest.mode = b.mode\nn: guest.mode = b.many[1]\no: guest.inner = b.inner\nt: bytes = b.text + b.raw\ns: str | None = b.said\n"
        "p: guest.mode = guest.parts(inner=guest.inner(-1)).inner.mode\nq: guest.mode = guest.parts(mode=0).many[0]\n"
        "c = dataclasses.replace(b, mode=guest.mode.ON, self=4)\nd: int = c.self\n",
    "methods named as types": "jar = guest.jar_new()\nassert jar is not None\nm: guest.mode = jar.mode(guest.mode.ON)\n",
    "unions":
        "n = guest.number(i=1)\ni: int = n.i\nt: bytes = guest.number(text=bytearray(b'x')).text\nm: guest.mode = guest.number(mode=1).mode\n"
        "s: float = guest.several(self=1).other\nguest.sum(n, guest.one(self=2), guest.several(other=2.0))\n",
}
# And what must be shown, a line each.
WRONG = {
    "arguments and attributes": "guest.turn('x', 1)\nguest.length(1, None, None)\nguest.pieces().stop()\nguest.__sandbox__ + 1\n",
    "wrong members": "guest.number(j=1)\nguest.number(i='x')\nguest.number()\nguest.number(i=1, mode=2)\nx: str = guest.number(i=1).i\n"
                     "guest.one(self='x')\n",
    "members of structs": "guest.inner('x')\nguest.inner()\nguest.inner(mode=1, more=2)\nx: str = guest.inner(0).mode\nguest.inner(0).mode = guest.mode.ON\n",
}


@pytest.fixture(scope="module", params=["mypy", "pyright"])
def shown(request, build_plugin, tmp_path_factory) -> set[tuple[str, int]]:
    """What a checker shows of all of them, since its start takes the most time."""
    return errors(request.param, tmp_path_factory.mktemp("checked"), command("stubs", build_plugin(TYPES)).stdout, RIGHT | WRONG)


@pytest.mark.parametrize("what", ["guest", *RIGHT])
def test_stubs_let_documented_use_pass(shown, what):
    """Without it who writes what the guides show would hear of errors that are none, or put them aside with the true ones."""
    assert not [line for name, line in shown if name == what]


@pytest.mark.parametrize("what", RIGHT)
def test_documented_use_runs(build_plugin, what):
    """Without it the stub could allow what calls refuse."""
    with vxplug.open(build_plugin(TYPES)).sandbox(timeout=20.0) as box:
        names = (*box.plugin.exports, *box.plugin.types)
        exec(RIGHT[what], {"guest": types.SimpleNamespace(**{name: getattr(box, name) for name in names}, __sandbox__=box)})


@pytest.mark.parametrize("what", WRONG)
def test_stubs_show_what_is_wrong(shown, what):
    """Without it stubs could pass everything by knowing nothing."""
    assert {line for name, line in shown if name == what} == set(range(2, 2 + WRONG[what].count("\n")))


def test_stubs_take_what_calls_take(build_plugin):
    """A checker that wants bytes where any buffer does would reject right programs."""
    source = "#include <vxplug.h>\nVX_EXPORT vx_bytes f(vx_view v, vx_mut m, int32_t n) { return vx_take(0, 0); }\n"
    done = command("stubs", build_plugin(source))
    assert done.stdout == (
        "from typing_extensions import Buffer\nfrom vxplug import Sandbox\n__sandbox__: Sandbox\n"
        "def f(v: Buffer, m: Buffer, n: int) -> bytes: ...\n"
    )
