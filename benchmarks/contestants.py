"""The same program built for every contestant, and its tasks run there."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import vxplug
from examples.codecs import build as codecs
from examples.codecs.upstream import CACHE, Packages, cached, digest, matches, run, tree
from vxplug import sdk
from vxplug.toolchain import tool_environment

from . import inputs
from .programs import Program, Task
from .timing import Run

HERE = Path(__file__).resolve().parent
BUILT = CACHE / "benchmarks"
# For every contestant: what sdk.build gives a plugin by itself, and floats that are IEEE everywhere, so that
# outputs can be compared.
FLAGS = ("-O2", "-g", "-fomit-frame-pointer", "-ffp-contract=off", "-fno-sanitize=undefined", "-UNDEBUG", "-w")
ZIG = (sys.executable, "-m", "ziglang", "cc")


class Checked:
    """Compares a result's checksum with what the row's first contestant found."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.expected: tuple[str, int] | None = None

    def __call__(self, column: str, checksum: int) -> None:
        if self.expected is None:
            self.expected = column, checksum
        first, expected = self.expected
        if checksum != expected:
            raise AssertionError(f"{self.subject}: {column} gives {checksum:#x}, {first} {expected:#x}")


# Building


def _packages(program: Program) -> Packages:
    return inputs.PACKAGES if program.package in inputs.PACKAGES.pins else codecs.PACKAGES


def _top(program: Program) -> Path:
    return _packages(program).unpack(program.package, program.part)


def _sources(program: Program) -> list[Path]:
    ours = [HERE / "c" / "harness.c", HERE / "c" / f"{program.name}.c"]
    if not program.package:
        return ours
    top = _top(program)
    return [*ours, *sorted(matches(top, program.sources) - matches(top, program.without))]


def _includes(program: Program) -> list[Path]:
    config = codecs.HERE / program.name / "config"
    found = [HERE / "c", *([config] if config.is_dir() else [])]
    return found + [_top(program) / path for path in program.includes]


def _key(program: Program, *more: object) -> str:
    """Changes whenever the output could."""
    pin = _packages(program).pins[program.package] if program.package else ()
    ours = [HERE / "c" / name for name in ("bench.h", "harness.c", f"{program.name}.c")] + codecs.sdk_files()
    return digest([*ours, program, FLAGS, pin, vxplug.__version__, metadata.version("ziglang"), *more])


def _built(program: Program, suffix: str, command: Sequence[str], flags: Sequence[str] = ()) -> Path:
    def make(target: Path) -> None:
        includes = [f"-I{path}" for path in _includes(program)]
        run([*command, *FLAGS, *includes, *program.flags, *_sources(program), *flags, "-lm", "-o", target],
            f"compiling {program.name} ({suffix})", ZIG_LIB_DIR=tool_environment()["ZIG_LIB_DIR"])

    return cached(BUILT / f"{program.name}-{suffix}", _key(program, command[3:], flags), make)


def native32(program: Program) -> Path:
    """By the plugins' own compiler and flags, so that the sandbox is the only difference."""
    return _built(program, "i386", [*sdk.tool_command("cc"), "-static"])


def native64(program: Program) -> Path:
    return _built(program, "x86-64", [*ZIG, "-target", "x86_64-linux-musl", "-static"])


def webassembly(program: Program) -> Path:
    """With its vectors: i386 has SSE2, x86-64 too."""
    command = [*ZIG, "-target", "wasm32-wasi", "-msimd128", "-mexec-model=reactor"]
    return _built(program, "wasm", command, program.wasm_flags)


def plugin(program: Program) -> Path:
    def make(target: Path) -> None:
        sdk.build(_sources(program), target, cflags=[*FLAGS, *program.flags, "-DBENCH_PLUGIN"], ldflags=["-lm"],
                  include=_includes(program))

    return cached(BUILT / f"{program.name}.vxm", _key(program, "plugin"), make)


# Running: each yields a function that runs the task once and returns nanoseconds and checksum

Once = Callable[[], tuple[int, int]]


@contextlib.contextmanager
def _process(command: Sequence[str | Path], task: Task, size: int) -> Iterator[Once]:
    """A program that stays, so that no start and no first touch of memory is measured."""
    process = subprocess.Popen([*command, task.name, str(size), inputs.input_file(task.input)],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    to, answers = process.stdin, process.stdout
    assert to is not None and answers is not None

    def once() -> tuple[int, int]:
        return _asked(to, answers, command[0])

    try:
        yield once
    finally:
        with contextlib.suppress(BrokenPipeError):  # it has ended: the run that noticed says so
            to.close()
        process.wait()
        answers.close()


def _asked(to: IO[str], answers: IO[str], program: str | Path) -> tuple[int, int]:
    with contextlib.suppress(BrokenPipeError):  # no answer then
        to.write("\n")
        to.flush()
    words = answers.readline().split()
    if len(words) != 2:
        raise RuntimeError(f"{Path(program).name} ended without an answer")
    return int(words[0]), int(words[1])


def _timed(work: Callable[[], object], checksum: Callable[[], int]) -> Once:
    def once() -> tuple[int, int]:
        start = time.thread_time_ns()
        work()
        taken = time.thread_time_ns() - start
        return taken, checksum() & 0xFFFFFFFF

    return once


@contextlib.contextmanager
def _sandbox(program: Program, task: Task, size: int) -> Iterator[Once]:
    with vxplug.open(plugin(program)).sandbox(timeout=120.0, memory=1 << 30) as box:
        box.load(task.name, size, inputs.input_file(task.input).read_bytes())
        yield _timed(box.run, box.checksum)


@contextlib.contextmanager
def _wasm(program: Program, task: Task, size: int) -> Iterator[Once]:
    import wasmtime

    engine = wasmtime.Engine()
    store, linker = wasmtime.Store(engine), wasmtime.Linker(engine)
    store.set_wasi(wasmtime.WasiConfig())
    linker.define_wasi()
    instance = linker.instantiate(store, wasmtime.Module.from_file(engine, str(webassembly(program))))
    exports: Any = instance.exports(store)
    exports["_initialize"](store)
    message = task.name.encode() + b"\0" + inputs.input_file(task.input).read_bytes()
    exports["memory"].write(store, message, exports["space"](store, len(message)))
    exports["load"](store, size, len(message))
    yield _timed(lambda: exports["run"](store), lambda: exports["checksum"](store))


NATIVE32, NATIVE64, VXPLUG, WASMTIME, QEMU = "native -m32", "native -m64", "vxplug", "wasmtime", "qemu-i386"
COLUMNS: dict[str, Callable[[Program, Task, int], contextlib.AbstractContextManager[Once]]] = {
    NATIVE32: lambda program, task, size: _process([native32(program)], task, size),
    VXPLUG: _sandbox,
    WASMTIME: _wasm,
    QEMU: lambda program, task, size: _process(["qemu-i386", native32(program)], task, size),
    NATIVE64: lambda program, task, size: _process([native64(program)], task, size),
}
NEEDS = {QEMU: "qemu-i386"}  # programs that a column runs


def missing(column: str) -> bool:
    return column in NEEDS and shutil.which(NEEDS[column]) is None


@contextlib.contextmanager
def contest(program: Program, task: Task, columns: Sequence[str], size: int | None = None) -> Iterator[dict[str, Run]]:
    """The task in every column that this machine has, each checked against the first."""
    check = Checked(task.subject)
    with contextlib.ExitStack() as stack:
        runs = {}
        for column in columns:
            if not missing(column):
                once = stack.enter_context(COLUMNS[column](program, task, task.size if size is None else size))
                runs[column] = _checking(once, check, column)
        yield runs


def _checking(once: Once, check: Checked, column: str) -> Run:
    def run_once() -> float:
        taken, checksum = once()
        check(column, checksum)
        return taken

    return run_once
