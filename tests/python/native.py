"""C compiled for this machine and called through cffi: the oracle of the types' tests."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import cffi


def load(folder: Path, declarations: list[tuple[str, bool]], source: str) -> Any:
    """The cffi module (API mode) of a C text; ``declarations`` are (text, whether packed)."""
    ffi = cffi.FFI()
    for text, packed in declarations:
        ffi.cdef(text, packed=packed)
    name = "native_" + hashlib.sha256(repr((declarations, source)).encode()).hexdigest()[:16]
    ffi.set_source(name, "#define NATIVE\n" + source)
    text, target = folder / f"{name}.c", folder / f"{name}.so"
    with contextlib.redirect_stdout(io.StringIO()):  # it tells what it generates
        ffi.emit_c_code(str(text))
    include = sysconfig.get_path("include")
    subprocess.run(["cc", "-O1", "-w", "-shared", "-fPIC", f"-I{include}", str(text), "-o", str(target)], check=True)
    spec = importlib.util.spec_from_file_location(name, target)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
