"""Upstream sources from the source distributions of Python packages, and what is built from them.

Everything lands in a cache directory (``.cache/codecs`` in the tree, or ``VXPLUG_EXAMPLES_CACHE``).
Nothing of a downloaded package is ever executed: pip checks its hash and is given a build backend
that only copies the metadata (``backend/``), so no setup script runs.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = Path(os.environ.get("VXPLUG_EXAMPLES_CACHE", ROOT / ".cache" / "codecs"))
BACKENDS = HERE / "backend"
MOST_UNPACKED = 256 << 20  # bytes one package may unpack to; the largest today is 30 MB


class BuildError(Exception):
    """A package could not be fetched or unpacked, or a compiler failed."""


def run(command: Iterable[str | os.PathLike[str]], what: str, **environment: str) -> None:
    done = subprocess.run([os.fspath(part) for part in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace",
                          env={**os.environ, **environment})
    if done.returncode:
        raise BuildError(f"{what} failed with status {done.returncode}:\n{done.stdout}")


# Fetching


def _inside(name: str) -> PurePosixPath:
    """The member's path below its archive's top directory; BuildError if it would leave it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or len(path.parts) < 2:
        raise BuildError(f"archive member {name!r} leaves its directory")
    return PurePosixPath(*path.parts[1:])


def _extract(archive: Path, into: Path, part: PurePosixPath) -> None:
    """Regular files only: links and devices have no place in what is compiled."""
    left = MOST_UNPACKED
    with tarfile.open(archive) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() else None
            if content is None or not _inside(member.name).is_relative_to(part):
                continue
            left -= member.size
            if left < 0:
                raise BuildError(f"{archive.name} unpacks to more than {MOST_UNPACKED} bytes")
            target = into / _inside(member.name).relative_to(part)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.read())


class Packages:
    """The packages that a requirements file lists with version and SHA-256: the one place that states them."""

    def __init__(self, listing: Path) -> None:
        self.pins: dict[str, tuple[str, str]] = {}  # package -> version, SHA-256
        for line in listing.read_text().splitlines():
            if line and not line.startswith("#"):
                requirement, digest = line.split(" --hash=sha256:")
                name, version = requirement.split("==")
                self.pins[name] = (version, digest)

    def _archive(self, package: str) -> Path:
        """Where pip puts the package's file: it may spell the name with an underscore."""
        version, _ = self.pins[package]
        return CACHE / "downloads" / f"{package.replace('-', '_')}-{version}.tar.gz"

    def _intact(self, package: str) -> bool:
        archive, (_, digest) = self._archive(package), self.pins[package]
        return archive.is_file() and hashlib.sha256(archive.read_bytes()).hexdigest() == digest

    def fetch(self, *packages: str) -> None:
        """Downloads what is missing of these, or of all, through pip, with the user's own pip settings."""
        absent = [package for package in packages or self.pins if not self._intact(package)]
        if not absent:
            return
        path = os.pathsep.join(filter(None, [str(BACKENDS), os.environ.get("PYTHONPATH")]))
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
            for package in absent:
                requirements.write("{}=={} --hash=sha256:{}\n".format(package, *self.pins[package]))
            requirements.flush()
            run([sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary=:all:",
                 "--no-build-isolation", "--use-pep517", "--require-hashes", "--dest",
                 CACHE / "downloads", "--requirement", requirements.name],
                "pip download", PYTHONPATH=path)
        for package in absent:
            if not self._intact(package):
                raise BuildError(f"pip left no intact {self._archive(package).name}")

    def unpack(self, package: str, part: str = "") -> Path:
        """The unpacked package, or one directory of it, named after its hash, so that another
        version is another directory."""
        name = "-".join([package, self.pins[package][1][:16], *PurePosixPath(part).parts])
        target = CACHE / "upstream" / name
        if not target.is_dir():
            self.fetch(package)
            partial = target.with_name(target.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            _extract(self._archive(package), partial, PurePosixPath(part))
            partial.rename(target)
        return target


def matches(top: Path, patterns: Iterable[str]) -> set[Path]:
    found: set[Path] = set()
    for pattern in patterns:
        hits = set(top.glob(pattern))
        if not hits:
            raise BuildError(f"nothing in {top.name} matches {pattern}")
        found |= hits
    return found


# What was built is kept


@contextmanager
def _locked() -> Iterator[None]:
    """One builder at a time: test runs in parallel share the cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def digest(parts: Iterable[object]) -> str:
    """Files count by content, everything else by its text."""
    total = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else repr(part).encode()
        total.update(hashlib.sha256(data).digest())
    return total.hexdigest()


def tree(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.suffix in {".c", ".h", ".S"})


def cached(target: Path, key: str, make: Callable[[Path], object]) -> Path:
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
