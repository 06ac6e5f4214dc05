"""The CMake toolchain file: a library's own CMakeLists.txt, built for the sandbox."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vxplug

LISTS = """
cmake_minimum_required(VERSION 3.16)
project(part C CXX)
include(CheckCSourceCompiles)
check_c_source_compiles("int main(void) { _Static_assert(sizeof(void *) == 4, \\"i386\\"); return 0; }" IS_32)
if(NOT IS_32)
    message(FATAL_ERROR "not compiled for i386")
endif()
add_library(part part.c twice.cpp)
target_include_directories(part PUBLIC include)
vxplug_add_plugin(plugin plugin.c LIBRARIES part)
"""
FILES = {
    "CMakeLists.txt": LISTS,
    "include/part.h": "int part(int);\n",
    "part.c": "#include <part.h>\nint twice(int);\nint part(int v) { return twice(v) + 2; }\n",
    "twice.cpp": 'extern "C" int twice(int v) { try { if (v < 0) throw v; return 2 * v; } catch (int) { return 0; } }\n',
    "plugin.c": "#include <vxplug.h>\n#include <part.h>\nVX_EXPORT int32_t f(int32_t v) { return part(v); }\n",
}


def programs(folder: Path) -> str:
    """PATH with the commands that an installation has, for this tree."""
    for name, function in {"vxplug": "main", "vxplug-cc": "cc", "vxplug-c++": "cxx", "vxplug-ar": "ar",
                           "vxplug-ranlib": "ranlib"}.items():
        (folder / name).write_text(f"#!{sys.executable}\nimport sys\nfrom vxplug.cli import {function}\nsys.exit({function}())\n")
        (folder / name).chmod(0o755)
    return os.pathsep.join([str(folder), os.environ["PATH"]])


def test_a_library_with_cmake(tmp_path):
    """Without it every library built by CMake would need a build of its own for the sandbox."""
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("cmake is not installed")
    for name, text in FILES.items():
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_text(text)
    (tmp_path / "bin").mkdir()
    root = str(Path(vxplug.__file__).parents[1])
    environment = os.environ | {"PATH": programs(tmp_path / "bin"), "PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)])}
    environment.pop("CC", None)

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, check=False)
        assert done.returncode == 0, done.stdout
        return done.stdout.strip()

    toolchain = run("vxplug", "cmake-toolchain")
    run(cmake, "-S", "source", "-B", "build", "-G", "Unix Makefiles", f"-DCMAKE_TOOLCHAIN_FILE={toolchain}")
    run(cmake, "--build", "build")
    with vxplug.open(tmp_path / "build" / "plugin.vxm").sandbox() as box:
        assert [box.f(20), box.f(-1)] == [42, 2]
