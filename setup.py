"""Build of the extension module vxplug._vx; everything else is in pyproject.toml.

One extension module holds both the core (csrc/core) and the binding (csrc/py).  The core keeps
process-wide state (signal handlers, the watchdog thread, the table of code caches that the fault
handler searches), so it must exist once in a process; a second module that linked the core
again, such as one made by cffi for the rest of the API, would install a second set of handlers
that knows nothing of the first one's sandboxes.  The binding is hand-written because a call must
cost about as much as a METH_FASTCALL function.

Environment switches:
    VXPLUG_SANITIZE   list for -fsanitize=, for example address,undefined
    VXPLUG_COVERAGE   any value: instrument for gcov, without optimisation
    VXPLUG_WERROR     1: warnings are errors (continuous integration)
"""

from __future__ import annotations

import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, __version__, setup
from setuptools.command.build_ext import build_ext

# Relative paths: setuptools wants sources and depends relative to this file's folder.
ROOT = Path(__file__).parent
os.chdir(ROOT)

# Builds in isolation get it; what Python 3.10's venv brings would refuse the licence field by printing its schema.
NEEDED = re.search(r"setuptools>=(\d+)", Path("pyproject.toml").read_text())
if NEEDED and int(__version__.split(".")[0]) < int(NEEDED[1]):
    sys.exit(f"setup.py: setuptools {__version__} is too old: pip install '{NEEDED[0]}'")


def matching(*patterns: str) -> list[str]:
    """Sorted, so that builds do not depend on the order of a directory."""
    return sorted(str(path) for pattern in patterns for path in Path().glob(pattern))


def compile_flags() -> list[str]:
    flags = ["-std=c11", "-O3", "-Wall", "-Wextra", "-fvisibility=hidden", *switch_flags()]
    if os.environ.get("VXPLUG_WERROR") == "1":
        flags.append("-Werror")
    if os.environ.get("VXPLUG_COVERAGE"):
        flags.append("-O0")
    return flags


def switch_flags() -> list[str]:
    """Flags that the compiler and the linker must agree on."""
    flags = []
    if checks := os.environ.get("VXPLUG_SANITIZE"):
        flags += [f"-fsanitize={checks}", "-fno-omit-frame-pointer", "-g"]
    if os.environ.get("VXPLUG_COVERAGE"):
        flags += ["--coverage", "-g"]
    return flags


class BuildExt(build_ext):
    """Lets distutils compile the core's assembly files as it compiles C, and several files at a time."""

    def build_extensions(self) -> None:
        self.compiler.src_extensions.append(".S")
        compile_some = self.compiler.compile

        def compile_all(sources: list[str], *args: Any, **options: Any) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = pool.map(lambda source: compile_some([source], *args, **options), sources)
                return [name for one in objects for name in one]

        self.compiler.compile = compile_all
        super().build_extensions()


setup(
    ext_modules=[
        Extension(
            "vxplug._vx",
            sources=matching("csrc/py/*.c", "csrc/core/*.c", "csrc/core/*.S"),
            depends=matching("csrc/**/*.h", "csrc/**/*.def", "sdk/include/*.h"),
            include_dirs=["csrc", "sdk/include"],
            define_macros=[("_GNU_SOURCE", "1")],
            extra_compile_args=compile_flags(),
            extra_link_args=["-pthread", *switch_flags()],
        )
    ],
    cmdclass={"build_ext": BuildExt},
)
