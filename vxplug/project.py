"""``vxplug new NAME``: a project that builds, tests and ships; ``vxplug cmake-toolchain``: for those with CMake."""

from __future__ import annotations

import argparse
import keyword
import sys
from pathlib import Path
from typing import Any

from .errors import Error
from .sdk import sdk_path

__all__ = ["add_commands", "check_import_name", "make_project"]

PLACEHOLDER = "@NAME@"
# What an import finds before any plugin.  The standard library's list of itself has all but its tests and the program.
TAKEN = {*sys.stdlib_module_names, "test", "__main__", "vxplug"}


def check_import_name(name: str) -> None:
    """Of a plugin, with dots where it is in packages: Error says why no program could import it."""
    parts = name.split(".")
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
        raise Error(f"{name!r} cannot be imported: take letters, digits and underscores, no digit first, and no Python keyword")
    if parts[0] in TAKEN:
        raise Error(f"{name!r} cannot be imported: `import {parts[0]}` finds the module that Python programs have already")


def _check_project_name(name: str, template: Path) -> None:
    """The one name is that of a module, of a distribution and of a file."""
    check_import_name(name)
    if "." in name:
        raise Error(f"{name!r} is a plugin in a package: make a project of a name without dots, and name its plugin in pyproject.toml")
    if not name.isascii() or name.strip("_") != name:
        raise Error(f"{name!r} cannot be the name of a distribution: take letters of ASCII, and no underscore first or last")
    if (template / name).exists():
        raise Error(f"{name!r} is a folder of every new project, and `import {name}` would find that first")


def _target(folder: Path, relative: Path, name: str) -> Path:
    """Hidden files are stored as dot.NAME, since packaging tools pass over them."""
    parts = [part.replace(PLACEHOLDER, name).replace("dot.", ".", 1) for part in relative.parts]
    return folder.joinpath(*parts)


def make_project(name: str, folder: Path) -> list[Path]:
    """Write a new project into a folder that is empty or not there; the files it has."""
    template = sdk_path() / "template"
    _check_project_name(name, template)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Error(f"{folder} exists: give another name, or another folder with --in")
    written = []
    for source in sorted(path for path in template.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        target = _target(folder, source.relative_to(template), name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text(encoding="utf-8").replace(PLACEHOLDER, name), encoding="utf-8")
        written.append(target)
    return written


def _new(options: argparse.Namespace) -> int:
    folder = Path(options.folder or options.name)
    for path in make_project(options.name, folder):
        print(path)
    sys.stdout.flush()
    print(f"\nNext: cd {folder} && pip install -e '.[dev]' && pytest", file=sys.stderr)
    return 0


def _cmake_toolchain(options: argparse.Namespace) -> int:
    print(sdk_path() / "cmake" / "vxplug.cmake")
    return 0


def add_commands(commands: Any) -> None:
    new = commands.add_parser("new", help="make a project for a plugin: source, tests, packaging")
    new.add_argument("name", metavar="NAME", help="what programs will import")
    new.add_argument("--in", dest="folder", metavar="DIR", help="the folder to make (default: NAME)")
    new.set_defaults(run=_new)
    toolchain = commands.add_parser("cmake-toolchain", help="print where the CMake toolchain file is")
    toolchain.set_defaults(run=_cmake_toolchain)
