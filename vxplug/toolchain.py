"""The installation of zig, and what all installations on a machine share.

Zig compiles libc, libc++ and compiler-rt when it first links with them, which takes a minute, and finds them again by the
files that they were made of: by path, time and inode.  Each virtual environment has files of its own, and each wheel
that is built in isolation a new environment.  So zig's own sources are kept once, beside its cache.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib import metadata
from pathlib import Path

from .errors import SdkError

__all__ = ["cache_folder", "kept_toolchain", "tool_environment", "toolchain_folder"]


def toolchain_folder() -> Path:
    import ziglang

    return Path(ziglang.__file__).resolve().parent


def cache_folder() -> Path:
    """Ours, in that of zig for all users of its default."""
    given, caches = os.environ.get("ZIG_GLOBAL_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME")
    zigs = Path(given) if given else Path(caches or Path.home() / ".cache", "zig")
    return Path(os.path.abspath(zigs), "vxplug")


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or another owner's file
        shutil.copy2(source, target)


def _keep(target: Path) -> None:
    """All or nothing, whoever else does the same meanwhile."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        fresh = Path(name, "ziglang")
        shutil.copytree(toolchain_folder() / "lib", fresh / "lib", copy_function=_link_or_copy)
        try:
            fresh.rename(target)
        except OSError:
            if not target.is_dir():
                raise


def kept_toolchain() -> Path:
    """The folder ``ziglang`` whose ``lib`` zig is to use: links to the files of the first installation of its version."""
    target = cache_folder() / metadata.version("ziglang") / "ziglang"
    if not target.is_dir():
        try:
            _keep(target)
        except OSError as error:
            why = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror  # the first of many files
            raise SdkError(f"{target}: {why}: that is where zig keeps its libraries (ZIG_GLOBAL_CACHE_DIR)") from None
    return target


def tool_environment() -> dict[str, str]:
    """In which zig finds what other installations have compiled, unless it is told otherwise."""
    return {"ZIG_LIB_DIR": str(kept_toolchain() / "lib"), **os.environ}
