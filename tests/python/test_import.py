"""The import hook: names found where Python would find them, and nothing else disturbed."""

from __future__ import annotations

import importlib
import inspect
import pydoc
import shutil
import sys
import zipfile

import pytest

import vxplug


@pytest.fixture
def hook():
    before = set(sys.modules)
    vxplug.install(timeout=5.0)
    importlib.invalidate_caches()
    yield
    vxplug.uninstall()
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_import_of_a_file(hook, folder, calls_path):
    """Without it `import name` would not find `name.vxm` on the path: the first promise of the README."""
    shutil.copy(calls_path, folder / "guestmath.vxm")
    module = importlib.import_module("guestmath")
    assert module.add(2, 3) == 5
    assert module.__file__ == module.__spec__.origin == str(folder / "guestmath.vxm")
    assert "add" in module.__all__ and module.__doc__ == "Marshalling, one function a case."
    assert module.add.__module__ == "guestmath" and module.add.__name__ == "add"


def test_help_and_signature(hook, folder, calls_path):
    """Without it help() and inspect.signature() would show nothing of a plugin's functions."""
    shutil.copy(calls_path, folder / "guesthelp.vxm")
    module = importlib.import_module("guesthelp")
    assert str(inspect.signature(module.add)) == "(a: int, b: int) -> int"
    text = pydoc.render_doc(module, renderer=pydoc.plaintext)
    assert "add(a: int, b: int) -> int" in text and "The sum of two numbers." in text


def test_import_inside_a_package(hook, folder, calls_path):
    """Without it a wheel could not carry its plugin inside its own package."""
    package = folder / "guestpackage"
    package.mkdir()
    (package / "__init__.py").write_text("from .inner import add\n")
    shutil.copy(calls_path, package / "inner.vxm")
    module = importlib.import_module("guestpackage")
    assert module.add(20, 22) == 42
    assert sys.modules["guestpackage.inner"].__package__ == "guestpackage"


def test_import_from_a_zip_file(hook, tmp_path, monkeypatch, calls_path):
    """Without it applications shipped as one zip file would lose their plugins."""
    archive = tmp_path / "bundle.zip"
    with zipfile.ZipFile(archive, "w") as bundle:
        bundle.write(calls_path, "guestzipped.vxm")
    monkeypatch.syspath_prepend(str(archive))
    assert importlib.import_module("guestzipped").add(1, 1) == 2


def test_python_source_wins(hook, folder, tmp_path_factory, monkeypatch, calls_path):
    """Without it a plugin file could take the place of a module that exists, in a later folder of the path too."""
    later = tmp_path_factory.mktemp("later")
    monkeypatch.setattr(sys, "path", [*sys.path, str(later)])
    for name, home in (("guestshadow", folder), ("guestshadow2", later)):
        shutil.copy(calls_path, folder / f"{name}.vxm")
        (home / f"{name}.py").write_text("here = 'python'\n")
        assert importlib.import_module(name).here == "python"


def test_reload_makes_a_new_sandbox(hook, folder, calls_path):
    """Without it importlib.reload would keep a poisoned or full sandbox for ever."""
    shutil.copy(calls_path, folder / "guestreload.vxm")
    module = importlib.import_module("guestreload")
    old = module.__sandbox__
    importlib.reload(module)
    assert module.__sandbox__ is not old and module.add(2, 2) == 4


def test_malformed_plugin_is_an_import_error_with_its_path(hook, folder):
    """Without it `except ImportError` would not catch a broken plugin, or the user not find the file."""
    (folder / "guestbroken.vxm").write_bytes(b"\x7fELF" + bytes(100))
    with pytest.raises(ImportError) as caught:
        importlib.import_module("guestbroken")
    assert isinstance(caught.value, vxplug.PluginFormatError)
    assert "guestbroken.vxm" in str(caught.value)
    assert "guestbroken" not in sys.modules


def test_limits_reach_imported_plugins(folder, calls_path):
    """Without it install(timeout=…) would be accepted and mean nothing."""
    shutil.copy(calls_path, folder / "guestlimits.vxm")
    vxplug.install(memory=1 << 20, stack=1 << 18)
    try:
        with pytest.raises(vxplug.GuestMemoryError):
            importlib.import_module("guestlimits").sum(bytes(4 << 20))
    finally:
        vxplug.uninstall()
        sys.modules.pop("guestlimits", None)


def test_uninstall(hook, folder, calls_path):
    """Without it uninstall() could leave the hook, or take other people's finders with it."""
    shutil.copy(calls_path, folder / "guestgone.vxm")
    others = [finder for finder in sys.meta_path if type(finder).__module__ != "vxplug.importer"]
    vxplug.install()
    vxplug.install()
    assert len(sys.meta_path) == len(others) + 1
    vxplug.uninstall()
    assert sys.meta_path == others
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("guestgone")


@pytest.mark.parametrize(("limits", "error", "says"), [
    ({"bogus": 3}, TypeError, "no such limit of a sandbox: bogus"), ({"timeout": "2"}, TypeError, "timeout: expected float"),
    ({"memory": -1}, ValueError, "memory: -1 is not between"), ({"imports": ["f"]}, TypeError, "imports: expected a mapping"),
    ({"stdout": 3}, TypeError, "stdout: expected a callable or a file object"), ({"on_fault": "x"}, ValueError, "on_fault"),
])
def test_limits_are_checked_when_they_are_given(limits, error, says):
    """Without it a mistake would come out of the import of some plugin, in another file, with no word of install()."""
    before = list(sys.meta_path)
    with pytest.raises(error, match=says):
        vxplug.install(**limits)
    assert sys.meta_path == before
