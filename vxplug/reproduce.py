"""Builds whose bytes depend on nothing but the sources and the toolchain's version.

The compiler is told to shorten every path.  It cannot be told so for libc, libc++ and compiler-rt, which
zig compiles when it links, once for all builds that share its cache: debug information names the folder, and the
installation of zig, of whichever was first.  But a reproducible plugin has that beside it or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

__all__ = ["absolute_flags", "prefix_maps"]


def _toolchain_folder() -> Path:
    import ziglang

    return Path(ziglang.__file__).resolve().parent


def _root(sources: Sequence[Path]) -> Path:
    """What the names of sources are relative to: the working directory, or else the folder they share."""
    folders = [os.fspath(source.absolute().parent) for source in sources]
    here = os.getcwd()
    return Path(here if os.path.commonpath([here, *folders]) == here else os.path.commonpath(folders))


def prefix_maps(sources: Sequence[Path], sdk: Path, cc: str | None) -> list[str]:
    """Compiler flags that shorten every path; of two that fit, compilers take the last, so longer ones follow."""
    names = {os.getcwd(): ".", os.fspath(sdk): "vxplug"}
    if cc is None:
        names[os.fspath(_toolchain_folder())] = "zig"
    if sources:
        names[os.fspath(_root(sources))] = "."
    return [f"-ffile-prefix-map={path}={names[path]}" for path in sorted(names, key=len)]


def _absolute_flag(flag: str) -> str:
    for option in ("-I", "-L"):
        if flag.startswith(option) and len(flag) > 2:
            return option + os.path.abspath(flag[2:])
    return os.path.abspath(flag) if not flag.startswith("-") and os.path.exists(flag) else flag


def absolute_flags(flags: Sequence[str]) -> list[str]:
    """Flags with the same meaning in every folder."""
    return [_absolute_flag(flag) for flag in flags]
