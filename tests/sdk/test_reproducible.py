"""The same source gives the same bytes, wherever and whenever it is built; debug information goes where it is told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ziglang
from elftools.elf.elffile import ELFFile

import vxplug
from vxplug import sdk, toolchain
from vxplug.reproduce import absolute_flags, link_environment

HEADER = "#include <assert.h>\nstatic inline int checked(int value) { assert(value < 100); return value; }\n"
C_SOURCE = (
    '#include <vxplug.h>\n#include "checked.h"\n'
    "VX_EXPORT int32_t f(int32_t value) { return checked(value) + 1; }\n"
    "VX_EXPORT const char *here(void) { return __FILE__; }\n"
)
CXX_SOURCE = (
    '#include <vxplug.h>\n#include <map>\n#include <stdexcept>\n#include "checked.h"\n'
    "VX_EXPORT int32_t f(int32_t value) {\n    std::map<int, int> m;\n    m[0] = checked(value);\n"
    "    try { return m.at(0) + m.at(1); } catch (const std::out_of_range &) { return m[0] + 1; }\n}\n"
)


def _project(folder: Path, name: str, source: str, age: int) -> Path:
    (folder / "src").mkdir(parents=True)
    (folder / "src" / name).write_text(source)
    (folder / "src" / "checked.h").write_text(HEADER)
    for path in folder.rglob("*"):
        os.utime(path, (age, age))
    return folder


def _built(folder: Path, name: str, debug: str = "none", path: tuple[Path, ...] = (), **environment: str) -> bytes:
    temporary = folder / "temporary"
    temporary.mkdir()
    modules = os.pathsep.join([*map(str, path), *sys.path])
    subprocess.run(
        [sys.executable, "-m", "vxplug", "build", "--reproducible", "--debug", debug, "-o", "plugin.vxm", f"src/{name}"],
        cwd=folder, check=True, env=os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": modules} | environment,
    )
    return (folder / "plugin.vxm").read_bytes()


@pytest.mark.parametrize(("name", "source"), [("plugin.c", C_SOURCE), ("plugin.cc", CXX_SOURCE)], ids=["c", "c++"])
def test_another_folder_and_time_same_bytes(tmp_path, name, source):
    """Without it nobody could check that a published plugin was built from the source it names."""
    first = _built(_project(tmp_path / "one", name, source, 1_000_000_000), name)
    second = _built(_project(tmp_path / "deeper" / "two", name, source, 1_500_000_000), name)
    assert first == second
    for machine in (str(tmp_path), str(Path.home()), sys.prefix):
        assert machine.encode() not in first
    with vxplug.open(first).sandbox() as box:
        assert box.f(41) == 42
        with pytest.raises(vxplug.GuestFault, match="src/plugin.c|src/checked.h"):
            box.f(100)


def _another_toolchain(folder: Path) -> Path:
    """The same one, installed elsewhere."""

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:  # another file system
            shutil.copy2(source, target)

    shutil.copytree(Path(ziglang.__file__).resolve().parent, folder / "ziglang", copy_function=link)
    return folder


def test_debug_information_of_another_machine(tmp_path):
    """Zig compiles libc at the first link, once: debug information named the folder and the installation of that one.

    A cache that has nothing yet and an installation elsewhere are what another machine has; the other build uses what
    earlier ones have left.
    """
    one = _project(tmp_path / "one", "plugin.c", C_SOURCE, 1_000_000_000)
    two = _project(tmp_path / "deeper" / "two", "plugin.c", C_SOURCE, 1_500_000_000)
    first = _built(one, "plugin.c", "beside")
    toolchain = _another_toolchain(tmp_path / "toolchain")
    second = _built(two, "plugin.c", "beside", (toolchain,), ZIG_GLOBAL_CACHE_DIR=str(tmp_path / "cache"))
    assert first == second == _built(_project(tmp_path / "three", "plugin.c", C_SOURCE, 1), "plugin.c")
    known = (one / "plugin.vxm.debug").read_bytes()
    assert known == (two / "plugin.vxm.debug").read_bytes()
    assert b"/ziglang/lib/libc/musl/src/" in known and str(tmp_path).encode() not in known and sys.prefix.encode() not in known
    inside = _built(_project(tmp_path / "four", "plugin.c", C_SOURCE, 1), "plugin.c", "inside")
    assert inside == known


def test_linker_flags_mean_the_same_elsewhere(tmp_path, monkeypatch):
    """The link of a reproducible build has a folder of its own: a relative name would be one in there."""
    (tmp_path / "wrap").touch()
    monkeypatch.chdir(tmp_path)
    flags = ["-Wl,-Map=a.map,--gc-sections,-T,link.ld", "-Wl,--wrap=wrap,-z,wrap", "-Llib", "-lm", "wrap"]
    assert absolute_flags(flags) == [
        f"-Wl,-Map={tmp_path}/a.map,--gc-sections,-T,{tmp_path}/link.ld", "-Wl,--wrap=wrap,-z,wrap", f"-L{tmp_path}/lib", "-lm",
        f"{tmp_path}/wrap",
    ]


def test_a_cache_that_cannot_be(tmp_path, monkeypatch):
    """Without it the author would see a traceback of a folder that the build never spoke of."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(sdk.SdkError, match=r"file/vxplug/[\d.]+/ziglang: Not a directory: .*ZIG_GLOBAL_CACHE_DIR"):
        link_environment(tmp_path)


def test_installations_share_what_zig_compiled(tmp_path, monkeypatch):
    """Zig finds libc by the inodes of its sources: with files of its own each virtual environment, and each wheel that is
    built in isolation, would compile libc and libc++ anew, for a minute and two."""
    monkeypatch.setenv("ZIG_GLOBAL_CACHE_DIR", str(tmp_path / "cache"))
    with ThreadPoolExecutor(4) as pool:  # of builds at once
        folders = {future.result() for future in [pool.submit(toolchain.kept_toolchain) for _ in range(4)]}
    (kept,) = folders
    assert list(kept.parent.iterdir()) == [kept]
    inode = (kept / "lib" / "libc" / "musl" / "src" / "math" / "asinh.c").stat().st_ino
    monkeypatch.setattr(toolchain, "toolchain_folder", lambda: tmp_path / "an installation that is gone")
    (tmp_path / "link").mkdir()
    lib = Path(link_environment(tmp_path / "link")["ZIG_LIB_DIR"].replace("/proc/self/cwd", str(tmp_path / "link")))
    assert (lib / "libc" / "musl" / "src" / "math" / "asinh.c").stat().st_ino == inode


def test_from_another_working_directory(tmp_path, monkeypatch):
    """A build from outside the project, by absolute paths, is the same build as one from inside it."""
    folder = _project(tmp_path / "one", "plugin.c", C_SOURCE, 1_000_000_000)
    outputs = []
    for place, source in ((folder / "src", Path("plugin.c")), (tmp_path / "one", folder / "src" / "plugin.c")):
        monkeypatch.chdir(place)
        sdk.build([source], tmp_path / "plugin.vxm", reproducible=True)
        outputs.append((tmp_path / "plugin.vxm").read_bytes())
    # Within the working directory names start there, so that a project's folders stay told apart.
    with vxplug.open(outputs[0]).sandbox() as inner, vxplug.open(outputs[1]).sandbox() as outer:
        assert (inner.here(), outer.here()) == ("plugin.c", "src/plugin.c")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    sdk.build([folder / "src" / "plugin.c"], tmp_path / "plugin.vxm", reproducible=True)
    assert (tmp_path / "plugin.vxm").read_bytes() == outputs[0]


def _folders(plugin: Path) -> dict[str, str]:
    """The folder that each unit of the debug information was compiled in, by the source's name."""
    with plugin.open("rb") as file:
        tops = [unit.get_top_DIE().attributes for unit in ELFFile(file).get_dwarf_info().iter_CUs()]
        return {os.path.basename(top["DW_AT_name"].value.decode()): top["DW_AT_comp_dir"].value.decode() for top in tops}


def test_the_runtime_is_of_the_sdks_folder(tmp_path, monkeypatch):
    """The toolchain compiles it once for all: debug information would name the folder of whatever was built first."""
    flag = f"-DNEVER_COMPILED_BEFORE={time.time_ns()}"
    for name in ("one", "two"):
        folder = _project(tmp_path / name, "plugin.c", C_SOURCE, 1_000_000_000)
        monkeypatch.chdir(folder)
        sdk.build(["src/plugin.c"], "plugin.vxm", cflags=[flag])
        folders = _folders(folder / "plugin.vxm")
        assert folders["plugin.c"] == str(folder)
        assert {folders["vx_main.c"], folders["vx_raise.c"]} == {str(sdk.sdk_path() / "lib")}


@pytest.mark.parametrize("debug", ["inside", "beside", "none"])
def test_debug_information_goes_where_it_is_told(tmp_path, debug):
    """Without it an author had to choose between small wheels and tracebacks that name lines."""
    (tmp_path / "plugin.c").write_text(
        "#include <vxplug.h>\nVX_EXPORT int32_t f(int32_t v) {\n    if (v) __builtin_trap();\n    return 7;\n}\n"
    )
    target = tmp_path / "plugin.vxm"
    (tmp_path / "plugin.vxm.debug").write_bytes(b"left by an earlier build")
    sdk.build([tmp_path / "plugin.c"], target, debug=debug)
    assert (tmp_path / "plugin.vxm.debug").exists() == (debug == "beside")
    with target.open("rb") as file:
        assert ELFFile(file).has_dwarf_info(strict=True) == (debug == "inside")
    with vxplug.open(target).sandbox() as box:
        assert box.f(0) == 7
        with pytest.raises(vxplug.GuestFault) as caught:
            box.f(1)
    function, file, line = caught.value.traceback[0]
    assert function == "f"
    assert (file is not None and file.endswith("plugin.c"), line) == ((False, None) if debug == "none" else (True, 3))


def test_a_stripped_plugin_is_whole_to_binutils(tmp_path):
    """The section table is rewritten by hand: readelf must find nothing wrong in it."""
    readelf = shutil.which("readelf")
    if readelf is None:
        pytest.skip("readelf (binutils) is not installed")
    (tmp_path / "plugin.c").write_text("#include <vxplug.h>\nVX_EXPORT int32_t f(void) { return 7; }\n")
    sdk.build([tmp_path / "plugin.c"], tmp_path / "plugin.vxm", debug="beside")
    done = subprocess.run([readelf, "-aW", "plugin.vxm"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not done.stderr
    kept = {line.split()[-1] for line in done.stdout.splitlines() if " FUNC " in line}
    assert {"f", "vx_release_", "malloc"} <= kept
    whole = subprocess.run([readelf, "-sW", "plugin.vxm.debug"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert kept == {line.split()[-1] for line in whole.stdout.splitlines() if " FUNC " in line}


def test_an_unknown_place_for_debug_information(tmp_path):
    """A misspelt word must not silently mean one of the others."""
    with pytest.raises(ValueError, match="'besides' is none of inside, beside, none"):
        sdk.build([], tmp_path / "plugin.vxm", debug="besides")
