"""Fixtures for every test that runs guests: plugins built once, by content."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

import vxplug
from vxplug import sdk

BuildPlugin = Callable[..., Path]

# A job in the background may have been started with these ignored, and every program it starts with it.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _toolchain_digest() -> bytes:
    """Everything besides the source that decides what a build makes."""
    digest = hashlib.sha256(version("ziglang").encode())
    package = Path(vxplug.__file__).parent
    files = [path for path in sdk.sdk_path().rglob("*") if path.is_file()]
    modules = ("cdecl", "cnames", "dwarf", "elfstrip", "extent", "interface", "reproduce", "sdk", "types")
    for path in sorted([*files, *(package / f"{module}.py" for module in modules)]):
        digest.update(path.read_bytes())
    return digest.digest()


def _read_source(source: str | Path) -> tuple[bytes, str]:
    if isinstance(source, Path):
        return source.read_bytes(), source.suffix
    return source.encode(), ".c"


@pytest.fixture(scope="session")
def build_plugin(pytestconfig: pytest.Config) -> BuildPlugin:
    """``build_plugin(source, cflags=())``: the .vxm of a C text or file, cached by its content."""
    folder = Path(pytestconfig.cache.mkdir("plugins"))
    toolchain = _toolchain_digest()

    def build(source: str | Path, cflags: tuple[str, ...] = ()) -> Path:
        code, suffix = _read_source(source)
        key = hashlib.sha256(toolchain + repr(cflags).encode() + code).hexdigest()[:24]
        output = folder / f"{key}.vxm"
        if not output.exists():
            text = folder / f"{key}{suffix}"
            text.write_bytes(code)
            fresh = folder / f"{key}.{os.getpid()}.vxm"
            sdk.build([text], fresh, cflags=list(cflags))
            os.replace(fresh, output)  # whole or not there, whoever else builds it now
        return output

    return build
