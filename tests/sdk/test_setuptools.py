"""The setuptools integration: pyproject.toml in, a wheel for every platform out.  Real installations into fresh
environments are in tests/package."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from setuptools import Distribution
from setuptools.errors import OptionError

import vxplug
from vxplug.project import make_project
from vxplug.setuptools import Plugin, finalize_distribution

SOURCE = "#include <vxplug.h>\n#include <base.h>\nVX_EXPORT int32_t f(int32_t v) { return v + BASE; }\n"
GROUP = "setuptools.finalize_distribution_options"


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """This tree on the path of the build, with its entry point even where it is not installed."""
    found = tmp_path / "registered"
    path = [entry for entry in sys.path if entry]
    if not entry_points(group=GROUP, name="vxplug"):
        folder = found / "vxplug-0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: vxplug\nVersion: 0\n")
        (folder / "entry_points.txt").write_text(f"[{GROUP}]\nvxplug = vxplug.setuptools:finalize_distribution\n")
    root = str(Path(vxplug.__file__).parents[1])
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(found), root, *path])}


def _backend(hook: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    (folder / "dist").mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-c", f"from setuptools import build_meta; print(build_meta.{hook}('dist'))"],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )


def _built(hook: str, folder: Path, environment: dict[str, str]) -> Path:
    done = _backend(hook, folder, environment)
    assert done.returncode == 0, done.stderr
    return folder / "dist" / done.stdout.splitlines()[-1]


def _project(folder: Path, configuration: str, name: str = "plug") -> Path:
    (folder / "src").mkdir(parents=True)
    (folder / "include").mkdir()
    (folder / "src" / "f.c").write_text(SOURCE)
    (folder / "include" / "base.h").write_text("#define BASE 40\n")
    (folder / "pyproject.toml").write_text(
        f'[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        f'[project]\nname = "{name}"\nversion = "1"\n{configuration}'
    )
    return folder


def _answer(data: bytes) -> int:
    with vxplug.open(data).sandbox() as box:
        return box.f(2)


TOP_LEVEL = (
    '[tool.vxplug.plugins.plug]\nsources = ["src/f.c"]\ninclude = ["include"]\n'
    '[tool.setuptools]\npackages = []\n'
)


def test_wheel_is_for_every_platform(tmp_path, environment):
    """One wheel serves all: a platform tag would make authors build one for each."""
    wheel = _built("build_wheel", _project(tmp_path / "p", TOP_LEVEL), environment)
    assert wheel.name == "plug-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info" not in name]
        assert sorted(names) == ["plug-stubs/__init__.pyi", "plug.vxm"]
        assert _answer(archive.read("plug.vxm")) == 42
        assert archive.read("plug-stubs/__init__.pyi").decode().endswith("\ndef f(v: int) -> int: ...\n")


def test_sdist_builds_the_same_wheel(tmp_path, environment):
    """A source distribution without a header, or a build that depends on its folder, would be found by users."""
    folder = _project(tmp_path / "p", TOP_LEVEL)
    sdist = _built("build_sdist", folder, environment)
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
        assert {"plug-1/src/f.c", "plug-1/include/base.h"} <= set(names)
        archive.extractall(tmp_path / "unpacked")
    environment["SOURCE_DATE_EPOCH"] = "1700000000"  # without it archives of today's setuptools differ by their files' times
    places = (folder, tmp_path / "unpacked" / "plug-1")
    first, second = (_built("build_wheel", place, environment).read_bytes() for place in places)
    assert first == second


def test_setup_py_and_a_package(tmp_path, environment):
    """ext_modules=[Plugin(...)] beside Python code: in the package, with its debug information and stub."""
    folder = _project(tmp_path / "p", '[tool.setuptools]\npackages = ["plug"]\n')
    (folder / "plug").mkdir()
    (folder / "plug" / "__init__.py").write_text("")
    (folder / "setup.py").write_text(
        "from setuptools import setup\nfrom vxplug.setuptools import Plugin\n"
        'setup(ext_modules=[Plugin("plug.core", ["src/f.c"], include=["include"], debug="beside")])\n'
    )
    wheel = _built("build_wheel", folder, environment)
    assert wheel.name == "plug-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        assert {"plug/__init__.py", "plug/core.vxm", "plug/core.vxm.debug", "plug/core.pyi"} <= set(archive.namelist())
        assert _answer(archive.read("plug/core.vxm")) == 42


def _in_parts(folder: Path) -> None:
    """Sources whose names sort, in a folder with what must not be taken for one."""
    (folder / "src" / "f.c").unlink()
    (folder / "src" / "deep").mkdir()
    (folder / "src" / "folder.c").mkdir()
    (folder / "src" / "table.inc").write_text("40")
    (folder / "src" / "a.c").write_text(
        "#include <vxplug.h>\nint32_t base(void);\nVX_EXPORT int32_t f(int32_t v) { return v + base(); }\n")
    (folder / "src" / "deep" / "b.c").write_text('#include <stdint.h>\nint32_t base(void) { return\n#include "../table.inc"\n; }\n')


PATTERNS = '["src/**/*.c", "src/a.c"]', '["src/*.inc"]'


@pytest.mark.parametrize("way", ["pyproject.toml", "setup.py"])
def test_patterns(tmp_path, environment, way):
    """As setuptools expands paths elsewhere: without it an author would list every file by hand, once more for each new one."""
    sources, depends = PATTERNS
    table = f"[tool.vxplug.plugins.plug]\nsources = {sources}\ndepends = {depends}\n" if way == "pyproject.toml" else ""
    folder = _project(tmp_path / "p", table + "[tool.setuptools]\npackages = []\n")
    _in_parts(folder)
    if way == "setup.py":
        (folder / "setup.py").write_text(
            "from setuptools import setup\nfrom vxplug.setuptools import Plugin\n"
            f'setup(ext_modules=[Plugin("plug", {sources}, depends={depends})])\n'
        )
    with tarfile.open(_built("build_sdist", folder, environment)) as archive:
        assert {"plug-1/src/a.c", "plug-1/src/deep/b.c", "plug-1/src/table.inc"} <= set(archive.getnames())
    with zipfile.ZipFile(_built("build_wheel", folder, environment)) as archive:
        assert _answer(archive.read("plug.vxm")) == 42


def test_a_name_with_brackets_is_no_pattern(tmp_path, monkeypatch):
    """Without it a file that is there could not be named, and another that the pattern matches would be taken for it."""
    monkeypatch.chdir(tmp_path)
    for name in ("b.c", "a.c", "[ab].c"):
        (tmp_path / name).write_text("")
    plugin = Plugin("plug", ["[ab].c", "*.c"])
    plugin.expand()
    assert plugin.sources == ["[ab].c", "a.c", "b.c"]


def test_editable(tmp_path, environment):
    """The plugin lies where the import hook finds it, with its author's paths in the debug information."""
    folder = tmp_path / "demo_plugin"
    make_project("demo_plugin", folder)
    wheel = _built("build_editable", folder, environment)
    with zipfile.ZipFile(wheel) as archive:
        (path,) = [name for name in archive.namelist() if name.endswith(".pth")]
        assert archive.read(path).decode().strip() == str(folder / "src")
    plugin = vxplug.open(folder / "src" / "demo_plugin.vxm")
    assert plugin.locate(plugin.exports["add"].address)[1] == str(folder / "src" / "demo_plugin.c")
    with plugin.sandbox() as box:
        assert box.reverse(b"abc") == b"cba"


def test_a_project_without_plugins_is_left_alone(tmp_path, environment):
    """The hook runs in every build of an environment that has vxplug: it must change none but its own."""
    folder = _project(tmp_path / "p", '[tool.setuptools]\npy-modules = ["plain"]\n')
    (folder / "plain.py").write_text("")
    with zipfile.ZipFile(_built("build_wheel", folder, environment)) as archive:
        assert [name for name in archive.namelist() if ".dist-info" not in name] == ["plain.py"]


WRONG = {
    '[tool.vxplug.plugins.plug]\nsource = ["src/f.c"]\n': "unknown key 'source'; there are: sources",
    '[tool.vxplug.plugins.plug]\nsources = "src/f.c"\n': "sources is not a list of strings",
    '[tool.vxplug.plugins.plug]\nsources = []\n': "sources is missing",
    '[tool.vxplug.plugins.plug]\nsources = ["src/f.c"]\ndebug = true\n': "debug is not a string",
    '[tool.vxplug.plugins]\nplug = 3\n': "tool.vxplug.plugins.plug: not a table",
    '[tool.vxplug]\nplugin = 3\n': "unknown key 'plugin'; there is: plugins",
    '[tool.vxplug]\nplugins = 3\n': "tool.vxplug.plugins is not a table of plugins by name",
    '[tool.vxplug.plugins.plug]\nsources = ["src/f.c"]\ninclude = ["no"]\n': "plugin 'plug': include: no does not exist",
    '[tool.vxplug.plugins.plug]\nsources = ["src/g.c"]\n': "plug: src/g.c: no such file",
    '[tool.vxplug.plugins.plug]\nsources = ["src/*.cc"]\n': "plugin 'plug': sources: no file matches src/*.cc\n",
    '[tool.vxplug.plugins.plug]\nsources = ["src/*.c"]\ndepends = ["d/*"]\n': "plugin 'plug': depends: no file matches d/*\n",
    '[tool.vxplug.plugins.plug]\nsources = ["src/f.c"]\n': "base.h",
}


@pytest.mark.parametrize("configuration", WRONG, ids=list(WRONG.values()))
def test_mistakes_are_named(tmp_path, environment, configuration):
    """A misspelt key that is passed over builds something else than its author asked for."""
    done = _backend("build_wheel", _project(tmp_path / "p", configuration), environment)
    assert done.returncode != 0 and WRONG[configuration] in done.stderr


NOT_SPELLED, TAKEN = "cannot be imported: take letters, digits and underscores", "finds the module that Python programs have already"
UNIMPORTABLE = {"has-dash": NOT_SPELLED, "class": NOT_SPELLED, "p.class": NOT_SPELLED, "p.": NOT_SPELLED, "../up": NOT_SPELLED, "1st": NOT_SPELLED,
                "json": TAKEN, "test": TAKEN, "json.fast": TAKEN, "vxplug": TAKEN, "vxplug.core": TAKEN}


@pytest.mark.parametrize("name", UNIMPORTABLE)
def test_names_that_nobody_can_import(tmp_path, monkeypatch, name):
    """Without it a plugin would be built, and programs would import something else, or nothing."""
    monkeypatch.chdir(_project(tmp_path / "p", f'[tool.vxplug.plugins."{name}"]\nsources = ["src/f.c"]\n'))
    with pytest.raises(OptionError, match=f"^plugin '{name}' .*{UNIMPORTABLE[name]}"):
        finalize_distribution(Distribution({"name": "plug"}))


@pytest.mark.parametrize(("name", "why"), [
    *((name, why) for name, why in UNIMPORTABLE.items() if "." not in name), ("p.plug", "without dots"), ("../up", NOT_SPELLED),
    ("_x", "cannot be the name of a distribution"), ("x_", "cannot be the name of a distribution"),
    ("\xe7a", "cannot be the name of a distribution"), ("tests", "is a folder of every new project"),
])
def test_names_that_no_project_can_have(tmp_path, name, why):
    """Without it the new project could not be built, or its own tests would import something else, or nothing."""
    with pytest.raises(vxplug.Error, match=why):
        make_project(name, tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_a_new_project_overwrites_nothing(tmp_path):
    """Somebody's files could be in a folder of that name."""
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(vxplug.Error, match="exists: give another name"):
        make_project("demo_plugin", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
