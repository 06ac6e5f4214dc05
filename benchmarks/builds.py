"""The same C for every peer, built into a cache directory."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import io
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import cffi
import wasmtime

import vxplug
from vxplug import sdk

from .places import CACHE, IMPORTS, SOURCES

LIBRARY = "int32_t nothing(void); const void *same(const void *data); int32_t add(int32_t a, int32_t b); int32_t callbacks(int32_t (*function)(int32_t), int32_t count); uint32_t take(const void *data, uint32_t size); void *give(uint32_t size);"
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int32)
EXTENSION_FLAGS = ("-O2", "-shared", "-fPIC", f"-I{sysconfig.get_path('include')}")


def run(command: Sequence[object]) -> None:
    subprocess.run([str(part) for part in command], check=True, stdin=subprocess.DEVNULL)


def _output(name: str) -> Path:
    CACHE.mkdir(parents=True, exist_ok=True)
    return CACHE / name


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not an extension module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def extension() -> ModuleType:
    target = _output("calls_extension.so")
    run(["cc", *EXTENSION_FLAGS, SOURCES / "calls_extension.c", "-o", target])
    return _load("calls_extension", target)


@functools.cache
def cffi_module() -> ModuleType:
    """API mode: a generated extension module, the faster of cffi's two."""
    source, target = _output("calls_cffi.c"), _output("calls_cffi.so")
    ffi = cffi.FFI()
    ffi.cdef(LIBRARY)
    ffi.set_source("calls_cffi", '#include "calls_library.c"')
    with contextlib.redirect_stdout(io.StringIO()):  # it tells what it generates
        ffi.emit_c_code(str(source))
    run(["cc", *EXTENSION_FLAGS, f"-I{SOURCES}", source, "-o", target])
    return _load("calls_cffi", target)


@functools.cache
def shared_library(source: str) -> ctypes.CDLL:
    target = _output(f"{Path(source).stem}.so")
    run(["cc", "-O2", "-shared", "-fPIC", SOURCES / source, "-o", target])
    return ctypes.CDLL(str(target))


@functools.cache
def ctypes_library() -> ctypes.CDLL:
    library = shared_library("calls_library.c")
    library.add.argtypes = [ctypes.c_int32, ctypes.c_int32]
    library.take.argtypes = [ctypes.c_char_p, ctypes.c_uint32]
    library.callbacks.argtypes = [CALLBACK, ctypes.c_int32]
    library.same.argtypes, library.same.restype = [ctypes.c_char_p], ctypes.c_void_p
    library.give.argtypes, library.give.restype = [ctypes.c_uint32], ctypes.c_void_p
    return library


def wasm_module(source: str, exports: Sequence[str], engine: wasmtime.Engine) -> wasmtime.Module:
    target = _output(f"{Path(source).stem}.wasm")
    run([sys.executable, "-m", "ziglang", "cc", "-target", "wasm32-freestanding", "-O2", "-nostdlib",
         "-Wl,--no-entry", *(f"-Wl,--export={name}" for name in exports), SOURCES / source, "-o", target])
    return wasmtime.Module.from_file(engine, str(target))


def wasm_library() -> Path:
    """calls_library.c for those who compile it themselves."""
    wasm_module("calls_library.c", ("nothing", "add", "take", "give"), wasmtime.Engine())
    return _output("calls_library.wasm")


def import_pair(size: int) -> None:
    """The extension and the plugin of the call table, each a file of about that size, without debug information: as
    they would be shipped."""
    IMPORTS.mkdir(parents=True, exist_ok=True)
    extension, plugin = IMPORTS / "calls_extension.so", IMPORTS / "lean_plugin.vxm"

    def build(ballast: int) -> None:
        run(["cc", *EXTENSION_FLAGS, f"-DBALLAST={ballast}", SOURCES / "calls_extension.c", "-o", extension])
        sdk.build([SOURCES / "calls_plugin.c"], plugin, cflags=[f"-DBALLAST={ballast}"], debug="none")

    build(1)
    build(size - plugin.stat().st_size)


def plugin(source: str, cflags: Sequence[str] = ()) -> vxplug.Plugin:
    target = _output(f"{Path(source).stem}.vxm")
    sdk.build([SOURCES / source], target, cflags=list(cflags))
    return vxplug.open(target)
