"""Fetches the upstream C of each codec, and builds it as a plugin.

    plugin_path("zstd")     the plugin, built if it is missing or out of date
    import_codec("zstd")    the plugin as an imported module, sandboxed.zstd

Sources and results lie in the cache directory that upstream.py describes.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import vxplug
from vxplug import sdk

from .table import CODECS, COMMON_FLAGS, Codec
from .upstream import CACHE, HERE, ROOT, BuildError, Packages, cached, digest, matches, tree

__all__ = ["CACHE", "BuildError", "fetch", "import_codec", "plugin_path", "unpack"]

SDK = ROOT / "sdk"
PLUGINS = CACHE / "plugins" / "sandboxed"  # its parent goes on sys.path: `from sandboxed import zstd`
PACKAGES = Packages(HERE / "sources.txt")

fetch = PACKAGES.fetch
unpack = PACKAGES.unpack


def _sources(codec: Codec) -> list[Path]:
    top = unpack(codec.package)
    upstream = matches(top, codec.sources) - matches(top, codec.without)
    return [HERE / codec.name / f"{codec.name}.c", *sorted(upstream)]


def _include_directories(codec: Codec) -> list[Path]:
    ours = [HERE / "common", HERE / codec.name / "config"]
    theirs = [unpack(codec.package) / directory for directory in codec.includes]
    return [directory for directory in ours if directory.is_dir()] + theirs


def sdk_files() -> list[Path]:
    """What plugins are made with: the SDK's sources, and the code that has its flags."""
    return [*tree(SDK), Path(sdk.__file__)]


def _key(codec: Codec, *more: object) -> str:
    """Changes whenever the output could: our files, upstream's hash, the SDK, the compiler."""
    ours = [*tree(HERE / "common"), *tree(HERE / codec.name), *sdk_files()]
    return digest([*ours, codec, COMMON_FLAGS, PACKAGES.pins[codec.package], *more])


def _build_plugin(codec: Codec, target: Path) -> None:
    flags = [flag for flag in COMMON_FLAGS if not flag.startswith("-Wl,")]
    linker = [flag for flag in COMMON_FLAGS if flag.startswith("-Wl,")]
    sdk.build(_sources(codec), target, cflags=[*flags, "-w"], ldflags=linker,
              include=_include_directories(codec))


def plugin_path(name: str) -> Path:
    """The codec's plugin."""
    codec = CODECS[name]
    return cached(PLUGINS / f"{name}.vxm", _key(codec, vxplug.__version__),
                  lambda target: _build_plugin(codec, target))


def import_codec(name: str) -> ModuleType:
    """The plugin through the import hook, as ``sandboxed.NAME``."""
    plugin_path(name)
    parent = str(PLUGINS.parent)
    if parent not in sys.path:
        sys.path.append(parent)
    return importlib.import_module(f"sandboxed.{name}")
