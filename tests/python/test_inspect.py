"""`vxplug inspect` and the versions of the interface note."""

from __future__ import annotations

import json
import struct
import subprocess
import sys

import pytest

import vxplug
from vxplug.interface import ABI_VERSIONS, NOTE_NAME, decode_note

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
"""


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_stubs_survive_every_name(build_plugin, tmp_path, checker):
    """A plugin may call its functions, types and members what the stub calls Python's: checkers must not take one for the other."""
    pytest.importorskip(checker)
    (tmp_path / "names.pyi").write_text(command("stubs", build_plugin(NAMES)).stdout)
    (tmp_path / "use.py").write_text(
        "import array, names\n"
        "a: bytes = names.bytes(b'x', 'y')\n"
        "b: float = names.array(None) + names.array(array.array('d'))\n"
        "c: names.Buffer = names.str(names.IntEnum.Any, names.Buffer(names.dataclass(1, None), 2.0), names.property(bool_=1))\n"
        "o = names.collections()\nassert o is not None\nd: int = o.bytes(b'x') + c.tuple.bytes\n"
        "e: float = names.tuple()[0]\n"
        "for piece in names.Iterator():\n    f: bytes = piece\n"
    )
    options = ["--strict", "--cache-dir", tmp_path / "cache"] if checker == "mypy" else ["--pythonpath", sys.executable]
    done = subprocess.run([sys.executable, "-m", checker, *options, "names.pyi", "use.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_stubs_take_what_calls_take(build_plugin):
    """A checker that wants bytes where any buffer does would reject right programs."""
    source = "#include <vxplug.h>\nVX_EXPORT vx_bytes f(vx_view v, vx_mut m, int32_t n) { return vx_take(0, 0); }\n"
    done = command("stubs", build_plugin(source))
    assert done.stdout == "from typing_extensions import Buffer\ndef f(v: Buffer, m: Buffer, n: int) -> bytes: ...\n"
