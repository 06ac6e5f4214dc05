"""The import hook: ``import name`` finds ``name.vxm`` where it would find ``name.py``.

All other finders come first, so a module that exists wins, wherever on the path it is: a plugin that somebody puts
into a folder takes no trusted module's place.  Each entry of the path is asked for the bytes: directories by reading,
anything else (zip files) through the ``get_data`` of the importer that the standard path hooks give for it.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .plugin import Plugin, read_file
from .sandbox import check_options

if TYPE_CHECKING:
    from importlib.abc import Loader
else:
    Loader = object  # its methods are all that importing asks for, and its module brings a good part of the standard library

__all__ = ["install", "uninstall"]

SUFFIX = ".vxm"


def _find(entry: str, name: str) -> tuple[str, bytes | None] | None:
    """The plugin's path, and its bytes where it is no file of its own."""
    path = os.path.join(entry or os.getcwd(), name + SUFFIX)
    if os.path.isfile(path):
        return path, None
    if not entry or os.path.isdir(entry):
        return None
    import pkgutil

    importer = pkgutil.get_importer(entry)
    if not hasattr(importer, "get_data"):
        return None
    return _read_archive(importer, path)


def _read_archive(importer: Any, path: str) -> tuple[str, bytes] | None:
    try:
        return path, importer.get_data(path)
    except OSError:
        return None


class PluginLoader(Loader):
    """Loads one plugin: module attributes are the exports of a sandbox of its own."""

    def __init__(self, name: str, path: str, data: bytes | None, limits: dict[str, Any]) -> None:
        self.name = name
        self.path = path
        self._data = data  # None: the file's
        self._limits = limits

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        plugin = Plugin(self.get_data(self.path), self.path)
        limits = dict(self._limits)
        if "imports" in limits:  # given for all plugins: each takes what it knows
            limits["imports"] = {n: f for n, f in (limits["imports"] or {}).items() if n in plugin.imports}
        sandbox = plugin.sandbox(module=module.__name__, **limits)
        module.__doc__ = plugin.doc
        module.__all__ = sorted({*plugin.exports, *plugin.types})  # type: ignore[attr-defined]
        module.__sandbox__ = sandbox  # type: ignore[attr-defined]
        plugin._interface.classes.adopt(module.__name__)
        for name, cls in plugin.types.items():
            setattr(module, name, cls)
        for name in plugin.exports:
            setattr(module, name, sandbox[name])

    def get_filename(self, name: str) -> str:
        return self.path

    def get_data(self, path: str) -> bytes:
        return self._data if path == self.path and self._data is not None else read_file(path)

    def is_package(self, name: str) -> bool:
        return False

    def get_source(self, name: str) -> None:
        return None

    def get_code(self, name: str) -> None:
        return None


class PluginFinder:
    """A meta path finder for ``.vxm`` files, with the limits their sandboxes get."""

    def __init__(self, limits: dict[str, Any]) -> None:
        self.limits = limits

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        for entry in sys.path if path is None else path:
            found = _find(entry, name.rpartition(".")[2])
            if found is not None:
                loader = PluginLoader(name, *found, self.limits)
                spec = importlib.machinery.ModuleSpec(name, loader, origin=found[0])
                spec.has_location = True
                return spec
        return None

    def invalidate_caches(self) -> None:
        return None


def install(**limits: Any) -> None:
    """Install the import hook; ``limits`` (see :class:`vxplug.Sandbox`) become the defaults.

    Idempotent: a second call replaces the limits for plugins imported later.  Raises TypeError or ValueError for
    what no sandbox takes.
    """
    check_options(limits)
    uninstall()
    sys.meta_path.append(PluginFinder(limits))


def uninstall() -> None:
    """Remove the import hook; modules already imported stay."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, PluginFinder)]
