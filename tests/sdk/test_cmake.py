"""The CMake toolchain file: a library's own CMakeLists.txt, built for the sandbox."""

from __future__ import annotations

import os
import re
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


class Project:
    """A folder with CMake projects, and the commands that build them."""

    def __init__(self, folder: Path, cmake: str) -> None:
        self.folder, self._cmake = folder, cmake
        (folder / "bin").mkdir()
        root = str(Path(vxplug.__file__).parents[1])
        self._environment = os.environ | {
            "PATH": programs(folder / "bin"), "PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)]),
        }
        self._environment.pop("CC", None)

    def run(self, *command: str) -> str:
        done = subprocess.run(command, cwd=self.folder, env=self._environment, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, check=False)
        assert done.returncode == 0, done.stdout
        return done.stdout.strip()

    def configure(self, files: dict[str, str], *options: str) -> str:
        """What CMake says of the project."""
        for name, text in files.items():
            path = self.folder / "source" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        toolchain = self.run("vxplug", "cmake-toolchain")
        return self.run(self._cmake, "-S", "source", "-B", "build", "-G", "Unix Makefiles",
                         f"-DCMAKE_TOOLCHAIN_FILE={toolchain}", *options)

    def build(self) -> vxplug.Plugin:
        self.run(self._cmake, "--build", "build")
        return vxplug.open(self.folder / "build" / "plugin.vxm")


@pytest.fixture
def project(tmp_path):
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("cmake is not installed")
    return Project(tmp_path, cmake)


def test_a_library_with_cmake(project):
    """Without it every library built by CMake would need a build of its own for the sandbox."""
    project.configure(FILES)
    with project.build().sandbox() as box:
        assert [box.f(20), box.f(-1)] == [42, 2]


CHECKS = """
cmake_minimum_required(VERSION 3.16)
project(checks C)
include(CheckFunctionExists)
include(CheckLibraryExists)
include(CheckSymbolExists)
include(CheckCSourceRuns)
check_function_exists(malloc has_malloc)
check_function_exists(no_such_function has_no_such_function)
check_library_exists(m sin "" has_sin)
check_library_exists(no_such_library sin "" has_no_such_library)
check_symbol_exists(no_such_symbol string.h has_no_such_symbol)
check_c_source_runs("int main(void) { return sizeof(void *) != 4; }" has_run)
check_c_source_runs("int main(void) { return 1; }" has_failed)
foreach(name IN ITEMS malloc no_such_function sin no_such_library no_such_symbol run failed)
    if(has_${name})
        message("has ${name};")
    endif()
endforeach()
"""


def test_checks_tell_the_truth(project):
    """A check that says yes to everything makes a project call functions that are not there."""
    said = project.configure({"CMakeLists.txt": CHECKS})
    assert re.findall(r"has (\w+);", said) == ["malloc", "sin", "run"], said


CHAIN = {
    "CMakeLists.txt": """
cmake_minimum_required(VERSION 3.16)
project(chain C)
add_subdirectory(inner)
add_library(outer STATIC outer.c)
target_link_libraries(outer PRIVATE inner)
vxplug_add_plugin(plugin plugin.c LIBRARIES outer)
target_compile_definitions(plugin_vxm PRIVATE LAST=1)
target_link_options(plugin_vxm PRIVATE -Wl,--image-base=0x2000000)
""",
    "inner/CMakeLists.txt": """
add_library(inner STATIC inner.c)
target_compile_definitions(inner INTERFACE TIMES=10)
target_link_libraries(inner INTERFACE m)
""",
    "inner/inner.c": "#include <math.h>\nint inner(int v) { volatile double d = v; return (int)sqrt(d); }\n",
    "outer.c": "int inner(int);\nint outer(int v) { return TIMES * inner(v); }\n",
    "plugin.c": "#include <vxplug.h>\nint outer(int);\nVX_EXPORT int32_t f(int32_t v) { return outer(v) + LAST; }\n"
                "VX_EXPORT uint32_t place(void) { return (uint32_t)&outer; }\n",
}


def test_libraries_of_libraries(project):
    """A plugin of a library is linked with what that library needs, by CMake's own link line, and nothing else."""
    project.configure(CHAIN, "-DCMAKE_BUILD_TYPE=Release")
    with project.build().sandbox() as box:
        assert [box.f(16), box.f(81)] == [41, 91]
        assert box.place() > 0x2000000
    link = (project.folder / "build" / "CMakeFiles" / "plugin_vxm.dir" / "link.txt").read_text()
    archives = [Path(word).name for word in link.split() if word.endswith(".a")]
    assert archives == ["libouter.a", "libinner.a"]  # and none of the compiler's own, out of its cache


CONFIG = """
add_library(Part::part STATIC IMPORTED)
set_target_properties(Part::part PROPERTIES IMPORTED_LOCATION "${CMAKE_CURRENT_LIST_DIR}/../../libpart.a"
    INTERFACE_INCLUDE_DIRECTORIES "${CMAKE_CURRENT_LIST_DIR}/../../../include")
"""
FINDING = """
cmake_minimum_required(VERSION 3.16)
project(finding C)
find_package(Part CONFIG)
find_library(LIBRARY part)
find_path(HEADER part.h)
find_library(OF_THE_HOST NAMES c m dl gcc_s PATHS /lib /usr/lib /usr/lib/x86_64-linux-gnu)
find_path(HEADER_OF_THE_HOST stdio.h PATHS /usr/include)
message("found ${Part_FOUND} ${LIBRARY} ${HEADER} ${OF_THE_HOST} ${HEADER_OF_THE_HOST};")
if(Part_FOUND)
    vxplug_add_plugin(plugin plugin.c LIBRARIES Part::part)
endif()
"""


@pytest.mark.parametrize("option", ["CMAKE_PREFIX_PATH", "CMAKE_FIND_ROOT_PATH"])
def test_libraries_in_a_prefix_of_ones_own(project, option):
    """Without it what was installed for the sandbox had to be named package by package, or the machine's own would be found."""
    prefix = project.folder / "prefix"
    for name, text in {"lib/cmake/Part/PartConfig.cmake": CONFIG, "include/part.h": FILES["include/part.h"],
                       "part.c": "int part(int v) { return 2 * v; }\n"}.items():
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).write_text(text)
    project.run("vxplug-cc", "-c", "prefix/part.c", "-o", "part.o")
    project.run("vxplug-ar", "rcs", "prefix/lib/libpart.a", "part.o")
    files = {"CMakeLists.txt": FINDING, "plugin.c": FILES["plugin.c"]}
    found = re.compile(r"found (\S+) (\S+) (\S+) (\S+) (\S+);")
    nothing = found.search(project.configure(files))
    assert nothing and nothing.groups() == ("0", "LIBRARY-NOTFOUND", "HEADER-NOTFOUND", "OF_THE_HOST-NOTFOUND", "HEADER_OF_THE_HOST-NOTFOUND")
    shutil.rmtree(project.folder / "build")
    said = found.search(project.configure(files, f"-D{option}={prefix}"))
    assert said and said.groups() == ("1", f"{prefix}/lib/libpart.a", f"{prefix}/include", "OF_THE_HOST-NOTFOUND", "HEADER_OF_THE_HOST-NOTFOUND")
    with project.build().sandbox() as box:
        assert box.f(21) == 42
