"""What authors ship, as users get it: wheels built in isolation, installed into fresh environments without compiler
or SDK, on every Python.  Slow, and in need of a package index: `tox -e packages`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
PARTS = ("csrc", "sdk", "vxplug", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "SECURITY.md")
pytestmark = pytest.mark.skipif("VXPLUG_PACKAGES" not in os.environ, reason="slow: run `tox -e packages`")

USE = """
import importlib.util, vxplug
assert importlib.util.find_spec("ziglang") is None, "the SDK is here"
vxplug.install(timeout=5.0, memory=64 << 20)
import demo_plugin
assert demo_plugin.reverse(b"abc") == b"cba" and demo_plugin.add(2, 3) == 5
try:
    demo_plugin.add(2**31 - 1, 1)
except OverflowError as error:
    print(demo_plugin.__doc__, error)
"""
TYPED = "import demo_plugin\nvalue: bytes = demo_plugin.reverse(b'abc')\ndemo_plugin.__sandbox__.reset()\n"
WRONG = "import demo_plugin\nvalue: str = demo_plugin.add('a', 2)\n"


def _interpreter(version: str) -> str | None:
    """On the path, or of pyenv; the name on the path may be pyenv's, which does not run every version."""
    pyenv = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python{version}"))
    for candidate in [shutil.which(f"python{version}"), *map(str, pyenv)]:
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def _run(command: list[object], cwd: Path, **variables: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | variables
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def _environment(folder: Path, interpreter: str) -> Path:
    _run([interpreter, "-m", "venv", folder], folder.parent)
    return folder / "bin" / "python"


@pytest.fixture(scope="session")
def tree(tmp_path_factory) -> Path:
    """A copy of what a source distribution has: builds leave files behind."""
    copy = tmp_path_factory.mktemp("tree")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(ROOT / part, copy / part)
    return copy


@pytest.fixture(scope="session")
def wheels(tree, tmp_path_factory) -> Path:
    """vxplug's own wheels, which the builds below take as if from an index; others are added as they are needed."""
    folder = tmp_path_factory.mktemp("wheels")
    _host_wheel(sys.executable, tree, folder)
    return folder


def _host_wheel(interpreter: str, tree: Path, folder: Path) -> None:
    _run([interpreter, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, "."], tree)


@pytest.fixture(scope="session")
def project(wheels, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("project") / "demo_plugin"
    _run([sys.executable, "-m", "vxplug", "new", "demo_plugin", "--in", folder], ROOT)
    return folder


@pytest.fixture(scope="session")
def wheel(project, wheels) -> Path:
    """Built in isolation: pip makes an environment of what the project's build-system table names."""
    _run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", "dist", "."], project, PIP_FIND_LINKS=str(wheels))
    (found,) = (project / "dist").glob("*.whl")
    return found


def test_the_wheel_is_for_every_platform_and_has_no_python(wheel):
    """Whoever installs an untrusted plugin must not run untrusted Python with it."""
    assert wheel.name == "demo_plugin-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert sorted(names) == ["demo_plugin-stubs/__init__.pyi", "demo_plugin.vxm"]


@pytest.mark.parametrize("version", VERSIONS)
def test_one_wheel_on_every_python(version, wheel, wheels, tree, tmp_path):
    """The same file, in an environment that never had a compiler: nothing but vxplug and pyelftools is needed."""
    interpreter = _interpreter(version)
    if interpreter is None:
        pytest.skip(f"python{version} is not installed")
    tag = "cp" + version.replace(".", "")
    if not list(wheels.glob(f"vxplug-*-{tag}-{tag}-*.whl")):
        _host_wheel(interpreter, tree, wheels)
    python = _environment(tmp_path / "fresh", interpreter)
    _run([python, "-m", "pip", "install", "-q", "--find-links", wheels, wheel], tmp_path)
    printed = _run([python, "-I", "-c", USE], tmp_path, PATH=str(python.parent))
    assert printed.strip() == "A plugin that runs in a vxplug sandbox. 2147483647 + 1"


def test_editable_and_its_own_tests(project, wheels, tmp_path):
    """What the template's README tells an author to type."""
    python = _environment(tmp_path / "author", sys.executable)
    _run([python, "-m", "pip", "install", "-q", "-e", ".[dev]"], project, PIP_FIND_LINKS=str(wheels))
    assert "2 passed" in _run([python, "-m", "pytest", "-q"], project)


def test_an_sdist_builds_the_same_plugin(project, wheel, wheels, tmp_path):
    """A source distribution is all that some users take; what it builds must be what was published."""
    python = _environment(tmp_path / "author", sys.executable)
    _run([python, "-m", "pip", "install", "-q", "build"], tmp_path)
    _run([python, "-m", "build", "-s", "-o", tmp_path, "."], project, PIP_FIND_LINKS=str(wheels))
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert "demo_plugin-0.1.0/src/demo_plugin.c" in archive.getnames()
    _run([python, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, sdist], tmp_path, PIP_FIND_LINKS=str(wheels))
    (again,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(again) as second, zipfile.ZipFile(wheel) as first:
        assert first.read("demo_plugin.vxm") == second.read("demo_plugin.vxm")


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_type_checkers_know_the_plugin(checker, wheel, wheels, tmp_path):
    """The stub in the wheel is found, right calls pass and wrong ones are shown."""
    if checker == "pyright" and shutil.which("node") is None:
        pytest.skip("pyright needs node")
    python = _environment(tmp_path / "checked", sys.executable)
    _run([python, "-m", "pip", "install", "-q", "--find-links", wheels, wheel, checker], tmp_path)
    (tmp_path / "typed.py").write_text(TYPED)
    (tmp_path / "wrong.py").write_text(WRONG)
    strict = ["--strict"] if checker == "mypy" else ["--pythonpath", python]
    _run([python, "-m", checker, *strict, "typed.py"], tmp_path)
    done = subprocess.run([python, "-m", checker, *map(str, strict), "wrong.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout.count("error") >= 2, done.stdout + done.stderr
