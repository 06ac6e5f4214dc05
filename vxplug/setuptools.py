"""Building plugins with setuptools: ``[tool.vxplug.plugins]`` in pyproject.toml, or ``ext_modules=[Plugin(...)]``.

A plugin is no part of any platform, so the wheel of a project that has only plugins and Python is
``py3-none-any``.  The plugin's import name says where it is installed: ``"rotate"`` beside the packages,
``"pkg.rotate"`` inside ``pkg``; a type stub is written for it.  ``sources`` and ``depends`` may be patterns, as paths
are elsewhere in setuptools: ``"src/*.c"``, and with ``**`` folders of any depth.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from setuptools import Command, Distribution, Extension
from setuptools.command.build import build
from setuptools.errors import CompileError, OptionError

from .errors import Error

__all__ = ["Plugin", "build_vxm", "finalize_distribution"]

PYPROJECT = Path("pyproject.toml")
# What a table in pyproject.toml may say: the keywords of Plugin, and the type of each.
LISTS = ("sources", "include", "cflags", "ldflags", "depends")
WORDS = ("optimize", "debug")


class Plugin(Extension):
    """One .vxm file to build, for ``setup(ext_modules=[...])``; lists are of paths and flags, and sources and depends also
    of patterns, which are relative to the project."""

    def __init__(
        self,
        name: str,
        sources: Sequence[str],
        *,
        include: Sequence[str] = (),
        cflags: Sequence[str] = (),
        ldflags: Sequence[str] = (),
        depends: Sequence[str] = (),
        optimize: str = "2",
        debug: str = "none",
    ) -> None:
        super().__init__(name, list(sources), depends=list(depends))
        self.include, self.cflags, self.ldflags = list(include), list(cflags), list(ldflags)
        self.optimize, self.debug = optimize, debug

    @property
    def path(self) -> str:
        return self.name.replace(".", "/") + ".vxm"

    @property
    def stub_path(self) -> str:
        """In a package it lies beside the plugin; alone it needs a stub-only package (PEP 561)."""
        return self.path.replace(".vxm", ".pyi") if "." in self.name else f"{self.name}-stubs/__init__.pyi"

    def expand(self) -> None:
        """Files in the place of patterns, as they are now."""
        self.sources, self.depends = self._files("sources", self.sources), self._files("depends", self.depends)

    def _files(self, kind: str, paths: Iterable[str | os.PathLike[str]]) -> list[str]:
        """In an order that every file system has, since that of sources is seen in the bytes; each once, or a file that two
        patterns name would be linked twice."""
        return list(dict.fromkeys(found for path in paths for found in self._matches(kind, os.fspath(path))))

    def _matches(self, kind: str, path: str) -> list[str]:
        if not glob.has_magic(path) or os.path.exists(path):
            return [path]
        found = sorted(name for name in glob.glob(path, recursive=True) if os.path.isfile(name))
        if not found:
            raise OptionError(f"plugin {self.name!r}: {kind}: no file matches {path}")
        return found

    def inputs(self) -> list[str]:
        """Every file a source distribution must have: sources, named dependencies, headers of include folders."""
        folders = [*self.include, *(os.path.dirname(source) for source in self.sources)]
        headers = [path for folder in folders for path in Path(folder).glob("*.h*")]
        return sorted({str(path) for path in (*self.sources, *self.depends, *headers)})


def _plugins_of(distribution: Distribution) -> list[Plugin]:
    """What finalize_distribution left on it."""
    plugins: list[Plugin] = vars(distribution)["vxplug_plugins"]
    return plugins


class build_vxm(Command):  # noqa: N801  setuptools names its commands so
    """The ``build`` sub-command that compiles the plugins; see setuptools.command.build.SubCommand."""

    description = "build vxplug plugins"
    user_options: ClassVar[Any] = []
    editable_mode = False

    def initialize_options(self) -> None:
        self.build_lib: str | None = None

    def finalize_options(self) -> None:
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def _targets(self, plugin: Plugin) -> tuple[Path, Path]:
        """Where the plugin and its stub go: the build folder, or, for an editable install, beside the sources."""
        if not self.editable_mode:
            return Path(str(self.build_lib), plugin.path), Path(str(self.build_lib), plugin.stub_path)
        folder = Path(self.get_finalized_command("build_py").get_package_dir(plugin.name.rpartition(".")[0]))
        return folder / Path(plugin.path).name, folder / (
            Path(plugin.stub_path).name if "." in plugin.name else plugin.stub_path)

    def run(self) -> None:
        for plugin in _plugins_of(self.distribution):
            self._build(plugin)

    def _build(self, plugin: Plugin) -> None:
        from .plugin import open as open_plugin
        from .sdk import build as build_plugin
        from .stubs import stub_text

        target, stub = self._targets(plugin)
        target.parent.mkdir(parents=True, exist_ok=True)
        stub.parent.mkdir(parents=True, exist_ok=True)
        try:
            build_plugin(
                list(plugin.sources), target, include=plugin.include, cflags=plugin.cflags, ldflags=plugin.ldflags,
                optimize="-O" + plugin.optimize, reproducible=not self.editable_mode,
                debug="inside" if self.editable_mode else plugin.debug,
                progress=lambda step: self.announce(f"{plugin.name}: {step}" if step else "", 2),
            )
        except (Error, ValueError) as error:
            raise CompileError(f"{plugin.name}: {error}") from None
        stub.write_text(stub_text(open_plugin(target)) + "\n", encoding="utf-8")

    def get_source_files(self) -> list[str]:
        return [path for plugin in _plugins_of(self.distribution) for path in plugin.inputs()]

    def get_outputs(self) -> list[str]:
        files = []
        for plugin in _plugins_of(self.distribution):
            target, stub = self._targets(plugin)
            files += [str(target), str(stub), *([f"{target}.debug"] if plugin.debug == "beside" else [])]
        return files

    def get_output_mapping(self) -> dict[str, str]:
        return {}


def _table(name: str, table: Any) -> Plugin:
    """One row of [tool.vxplug.plugins], each value of the type it must have."""
    where = f"pyproject.toml: tool.vxplug.plugins.{name}"
    if not isinstance(table, dict):
        raise OptionError(f"{where}: not a table")
    for key, value in table.items():
        if key in LISTS:
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise OptionError(f"{where}: {key} is not a list of strings")
        elif key not in WORDS:
            raise OptionError(f"{where}: unknown key {key!r}; there are: {', '.join(LISTS + WORDS)}")
        elif not isinstance(value, str):
            raise OptionError(f"{where}: {key} is not a string")
    if not table.get("sources"):
        raise OptionError(f"{where}: sources is missing")
    return Plugin(name, **table)


def _configured() -> list[Plugin]:
    """The plugins of pyproject.toml; a project that does not mention vxplug is not parsed."""
    if not PYPROJECT.is_file() or "tool.vxplug" not in PYPROJECT.read_text(encoding="utf-8"):
        return []
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    table = tomllib.loads(PYPROJECT.read_text(encoding="utf-8")).get("tool", {}).get("vxplug", {})
    for key in table:
        if key != "plugins":
            raise OptionError(f"pyproject.toml: tool.vxplug: unknown key {key!r}; there is: plugins")
    plugins = table.get("plugins", {})
    if not isinstance(plugins, dict):
        raise OptionError("pyproject.toml: tool.vxplug.plugins is not a table of plugins by name")
    return [_table(name, row) for name, row in plugins.items()]


def _check(plugin: Plugin, names: list[str]) -> None:
    """What would build and be of no use: nobody can import it, or it lacks what it says it is made of."""
    from .project import check_import_name

    try:
        check_import_name(plugin.name)
    except Error as error:
        raise OptionError(f"plugin {error}") from None
    if names.count(plugin.name) > 1:
        raise OptionError(f"plugin {plugin.name!r}: the name of two plugins")
    for kind, paths in (("include", plugin.include), ("depends", plugin.depends)):
        for path in paths:
            if not os.path.exists(path):
                raise OptionError(f"plugin {plugin.name!r}: {kind}: {path} does not exist")


def _with_plugins(command: type[build]) -> type[build]:
    class BuildWithPlugins(command):  # type: ignore[misc, valid-type]
        sub_commands = [*command.sub_commands, ("build_vxm", None)]

    return BuildWithPlugins


def finalize_distribution(distribution: Distribution) -> None:
    """The hook that setuptools calls for every project built where vxplug is installed."""
    extensions = distribution.ext_modules or []
    plugins = [e for e in extensions if isinstance(e, Plugin)] + _configured()
    if not plugins:
        return
    for plugin in plugins:
        plugin.expand()
        _check(plugin, [plugin.name for plugin in plugins])
    distribution.ext_modules = [e for e in extensions if not isinstance(e, Plugin)] or None
    vars(distribution)["vxplug_plugins"] = plugins
    distribution.cmdclass["build"] = _with_plugins(distribution.get_command_class("build"))
    distribution.cmdclass["build_vxm"] = build_vxm
    # A project may have plugins and no Python; setuptools would then install nothing at all.
    distribution.has_pure_modules = lambda: True  # type: ignore[method-assign]
