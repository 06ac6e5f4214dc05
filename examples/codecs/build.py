"""Fetches the upstream C of each codec, and builds it as a plugin and as native libraries.

    plugin_path("zstd")     the plugin, built if it is missing or out of date
    import_codec("zstd")    the plugin as an imported module, sandboxed.zstd
    native_library("zstd")  the same C built for the host by the system's compiler
    native_bench("zstd")    the same C built by the plugins' compiler into an i386 program that
                            times itself

Everything lands in a cache directory (``.cache/codecs`` in the tree, or ``VXPLUG_EXAMPLES_CACHE``).
Nothing of a downloaded package is ever executed: pip checks its hash and is given a build backend
that only copies the metadata (``backend/``), so no setup script runs.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import ModuleType

import vxplug
from vxplug import sdk

from .table import CODECS, COMMON_FLAGS, Codec

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SDK = ROOT / "sdk"
CACHE = Path(os.environ.get("VXPLUG_EXAMPLES_CACHE", ROOT / ".cache" / "codecs"))
PLUGINS = CACHE / "plugins" / "sandboxed"  # its parent goes on sys.path: `from sandboxed import zstd`
SOURCES_LIST = HERE / "sources.txt"
BACKENDS = HERE / "backend"
MOST_UNPACKED = 256 << 20  # bytes one package may unpack to; the largest today is 30 MB

Report = Callable[[str], object]


class BuildError(Exception):
    """A package could not be fetched or unpacked, or a compiler failed."""


@contextmanager
def _locked() -> Iterator[None]:
    """One builder at a time: test runs in parallel share the cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: Iterable[str | os.PathLike[str]], what: str, **options: object) -> None:
    done = subprocess.run([os.fspath(part) for part in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", **options)
    if done.returncode:
        raise BuildError(f"{what} failed with status {done.returncode}:\n{done.stdout}")


# Fetching


def _requirements() -> dict[str, tuple[str, str]]:
    """Package -> version, SHA-256, from sources.txt: the one place that states them."""
    table = {}
    for line in SOURCES_LIST.read_text().splitlines():
        if line and not line.startswith("#"):
            requirement, digest = line.split(" --hash=sha256:")
            name, version = requirement.split("==")
            table[name] = (version, digest)
    return table


def _archive(package: str) -> Path:
    """Where pip puts the package's file: it may spell the name with an underscore."""
    version, _ = _requirements()[package]
    return CACHE / "downloads" / f"{package.replace('-', '_')}-{version}.tar.gz"


def _intact(package: str) -> bool:
    archive, (_, digest) = _archive(package), _requirements()[package]
    return archive.is_file() and hashlib.sha256(archive.read_bytes()).hexdigest() == digest


def fetch() -> None:
    """Downloads what is missing through pip, with the user's own pip settings."""
    if all(_intact(package) for package in _requirements()):
        return
    path = os.pathsep.join(filter(None, [str(BACKENDS), os.environ.get("PYTHONPATH")]))
    _run([sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary=:all:",
          "--no-build-isolation", "--use-pep517", "--require-hashes", "--dest",
          CACHE / "downloads", "--requirement", SOURCES_LIST],
         "pip download", env={**os.environ, "PYTHONPATH": path})
    for package in _requirements():
        if not _intact(package):
            raise BuildError(f"pip left no intact {_archive(package).name}")


def _inside(name: str) -> PurePosixPath:
    """The member's path below its archive's top directory; BuildError if it would leave it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or len(path.parts) < 2:
        raise BuildError(f"archive member {name!r} leaves its directory")
    return PurePosixPath(*path.parts[1:])


def _extract(archive: Path, into: Path) -> None:
    """Regular files only: links and devices have no place in what is compiled."""
    left = MOST_UNPACKED
    with tarfile.open(archive) as tar:
        for member in tar:
            if not member.isfile():
                continue
            left -= member.size
            if left < 0:
                raise BuildError(f"{archive.name} unpacks to more than {MOST_UNPACKED} bytes")
            target = into / _inside(member.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(tar.extractfile(member).read())


def unpack(package: str) -> Path:
    """The unpacked package, named after its hash, so that another version is another directory."""
    target = CACHE / "upstream" / f"{package}-{_requirements()[package][1][:16]}"
    if not target.is_dir():
        fetch()
        partial = target.with_name(target.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        _extract(_archive(package), partial)
        partial.rename(target)
    return target


# Compiling


def _matches(top: Path, patterns: Iterable[str]) -> set[Path]:
    found: set[Path] = set()
    for pattern in patterns:
        hits = set(top.glob(pattern))
        if not hits:
            raise BuildError(f"nothing in {top.name} matches {pattern}")
        found |= hits
    return found


def _sources(codec: Codec) -> list[Path]:
    top = unpack(codec.package)
    upstream = _matches(top, codec.sources) - _matches(top, codec.without)
    return [HERE / codec.name / f"{codec.name}.c", *sorted(upstream)]


def _include_directories(codec: Codec) -> list[Path]:
    ours = [HERE / "common", HERE / codec.name / "config"]
    theirs = [unpack(codec.package) / directory for directory in codec.includes]
    return [directory for directory in ours if directory.is_dir()] + theirs


def _flags(codec: Codec) -> list[str]:
    return [*COMMON_FLAGS, *(f"-I{directory}" for directory in _include_directories(codec))]


def _digest(parts: Iterable[object]) -> str:
    """Files count by content, everything else by its text."""
    total = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else repr(part).encode()
        total.update(hashlib.sha256(data).digest())
    return total.hexdigest()


def _tree(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.suffix in {".c", ".h", ".S"})


def _key(codec: Codec, *more: object) -> str:
    """Changes whenever the output could: our files, upstream's hash, the SDK, the compiler."""
    ours = [*_tree(HERE / "common"), *_tree(HERE / codec.name), *_tree(HERE / "native"), *_tree(SDK)]
    return _digest([*ours, codec, COMMON_FLAGS, _requirements()[codec.package], *more])


def _cached(target: Path, key: str, make: Callable[[Path], None]) -> Path:
    """`target`, made anew unless it was made under the same key."""
    stamp = target.with_name(target.name + ".key")
    with _locked():
        if not (target.is_file() and stamp.is_file() and stamp.read_text() == key):
            target.parent.mkdir(parents=True, exist_ok=True)
            stamp.unlink(missing_ok=True)
            partial = target.with_name(f"partial-{target.name}")
            make(partial)
            partial.replace(target)
            stamp.write_text(key)
    return target


def _compile(command: list[str], codec: Codec, target: Path, *more: object) -> None:
    native = [HERE / "native" / "host.c", *more]
    _run([*command, *_flags(codec), f"-I{SDK / 'include'}", *native, *_sources(codec), "-lm", "-o",
          target], f"compiling {codec.name}")


def native_library(name: str) -> Path:
    """A shared library for the host; see native.py for how to call it."""
    codec, command = CODECS[name], ["cc", "-shared", "-fPIC", "-w"]
    return _cached(CACHE / "native" / f"{name}.so", _key(codec, command),
                   lambda target: _compile(command, codec, target))


def native_bench(name: str) -> Path:
    """An i386 program by the plugins' own compiler: FILE ARGUMENT RUNS, prints nanoseconds."""
    codec = CODECS[name]
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "x86-linux-musl", "-static", "-w",
               f"-DBENCH_FUNCTION={codec.export}"]
    bench = HERE / "native" / "bench.c"
    return _cached(CACHE / "native" / f"{name}-i386", _key(codec, command[3:]),
                   lambda target: _compile(command, codec, target, bench))


def _build_plugin(codec: Codec, target: Path) -> None:
    flags = [flag for flag in COMMON_FLAGS if not flag.startswith("-Wl,")]
    linker = [flag for flag in COMMON_FLAGS if flag.startswith("-Wl,")]
    sdk.build(_sources(codec), target, cflags=[*flags, "-w"], ldflags=linker,
              include=_include_directories(codec))


def plugin_path(name: str) -> Path:
    """The codec's plugin."""
    codec = CODECS[name]
    return _cached(PLUGINS / f"{name}.vxm", _key(codec, vxplug.__version__),
                   lambda target: _build_plugin(codec, target))


def import_codec(name: str) -> ModuleType:
    """The plugin through the import hook, as ``sandboxed.NAME``."""
    plugin_path(name)
    parent = str(PLUGINS.parent)
    if parent not in sys.path:
        sys.path.append(parent)
    return importlib.import_module(f"sandboxed.{name}")
