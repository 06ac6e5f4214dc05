"""Builds whose bytes depend on nothing but the sources and the toolchain's version.

The compiler is told to shorten every path.  It cannot be told so for libc, libc++ and compiler-rt, which
zig compiles when it links, once for all builds that share its cache: debug information names the folder, and the
installation of zig, of whichever was first.  So zig links in a folder where all that it is to know of has the same name
on every machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from .toolchain import cache_folder, kept_toolchain, toolchain_folder

__all__ = ["absolute_flags", "link_environment", "prefix_maps"]

_HERE = "/proc/self/cwd"
# Of the linker, without those of shared libraries.
FILE_OPTIONS = {"-Map", "--Map", "-T", "--script", "-R", "--just-symbols", "--symbol-ordering-file", "--version-script"}


def _root(sources: Sequence[Path]) -> Path:
    """What the names of sources are relative to: the working directory, or else the folder they share."""
    folders = [os.fspath(source.absolute().parent) for source in sources]
    here = os.getcwd()
    return Path(here if os.path.commonpath([here, *folders]) == here else os.path.commonpath(folders))


def prefix_maps(sources: Sequence[Path], sdk: Path, cc: str | None) -> list[str]:
    """Compiler flags that shorten every path; of two that fit, compilers take the last, so longer ones follow."""
    names = {os.getcwd(): ".", os.fspath(sdk): "vxplug"}
    if cc is None:
        names[os.fspath(toolchain_folder())] = "zig"
    if sources:
        names[os.fspath(_root(sources))] = "."
    return [f"-ffile-prefix-map={path}={names[path]}" for path in sorted(names, key=len)]


def link_environment(folder: Path) -> dict[str, str]:
    """The environment of a link in `folder`, for which zig names its libraries' files alike on every machine.

    zig names a file by the path that it was given for its installation, and clang a working directory by $PWD, if that is
    one of its names.  What was compiled for other links has other names: a cache of its own keeps it away.
    """
    (folder / "ziglang").symlink_to(kept_toolchain())
    (folder / "cache").symlink_to(cache_folder())
    return {**os.environ, "PWD": _HERE, "ZIG_LIB_DIR": f"{_HERE}/ziglang/lib", "ZIG_GLOBAL_CACHE_DIR": f"{_HERE}/cache",
            "ZIG_LOCAL_CACHE_DIR": f"{_HERE}/cache"}


def _absolute_parts(parts: Sequence[str]) -> Iterator[str]:
    """Of -Wl: values of the options that name a file, behind a sign or as a part of their own."""
    names_file = False
    for part in parts:
        option, equals, value = part.partition("=")
        if equals and option in FILE_OPTIONS:
            yield f"{option}={os.path.abspath(value)}"
        else:
            yield os.path.abspath(part) if names_file else part
        names_file = part in FILE_OPTIONS


def _absolute_flag(flag: str) -> str:
    if flag.startswith("-Wl,"):
        return ",".join(_absolute_parts(flag.split(",")))
    for option in ("-I", "-L"):
        if flag.startswith(option) and len(flag) > 2:
            return option + os.path.abspath(flag[2:])
    return os.path.abspath(flag) if not flag.startswith("-") and os.path.exists(flag) else flag


def absolute_flags(flags: Sequence[str]) -> list[str]:
    """Flags with the same meaning in every folder."""
    return [_absolute_flag(flag) for flag in flags]
