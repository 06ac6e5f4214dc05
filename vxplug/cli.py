"""The command line: ``vxplug build``, ``cc``, ``c++``, ``ar``, ``ranlib``, ``inspect``, ``call``, ``stubs``, ``run``."""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from . import __version__, describe, disasm, profile, project
from .classes import Stream
from .elf import Elf
from .errors import Error, GuestEnd, GuestTimeout, PluginFormatError, escape
from .interface import Export
from .plugin import Plugin, open as open_plugin
from .policy import Directory, LinuxPolicy
from .program import Program
from .sandbox import MIB, Sandbox
from .stubs import stub_text
from .trace import Trace
from .words import arguments_of, mebibytes, seconds, to_json, written_of

__all__ = ["main", "cc", "cxx", "ar", "ranlib"]


def _drive(tool: str, arguments: list[str]) -> int:
    from .sdk import sdk_path, tool_command
    from .toolchain import tool_environment

    command = tool_command(tool)
    extra = [f"-I{sdk_path() / 'include'}"] if tool in ("cc", "c++") else []
    return subprocess.run([*command, *extra, *arguments], check=False, env=tool_environment()).returncode


def _driver(tool: str) -> int:
    try:
        return _drive(tool, sys.argv[1:])
    except Error as error:
        print(f"vxplug-{tool}: {error}", file=sys.stderr)
        return 1


def cc() -> int:
    return _driver("cc")


def cxx() -> int:
    return _driver("c++")


def ar() -> int:
    return _driver("ar")


def ranlib() -> int:
    return _driver("ranlib")


class _Progress:
    """On a terminal one line that says how far a build is, and goes away; elsewhere only why it takes long, where it does."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._show(f"building {what}")

    def _show(self, text: str) -> None:
        if sys.stderr.isatty():
            print("\r\x1b[K" + escape(text), end="", file=sys.stderr, flush=True)

    def __call__(self, step: str) -> None:
        from .sdk import FIRST_BUILD

        self._show(step and f"{self._what}: {step}")
        if step == FIRST_BUILD and not sys.stderr.isatty():
            print(f"{self._what}: {step}", file=sys.stderr, flush=True)

    def close(self) -> None:
        self._show("")


def _build(options: argparse.Namespace) -> int:
    progress = _Progress(options.output)
    try:
        output = _built(options, progress)
    finally:
        progress.close()
    print(output)
    _warn_of_folder(output)
    return 0


def _warn_of_folder(plugin: Path) -> None:
    """Python takes any folder for a package, if only of namespaces, and before it asks for plugins."""
    folder = plugin.with_suffix("")
    if plugin.suffix == ".vxm" and folder.is_dir():
        print(f"note: `import {folder.name}` finds the folder {folder}, not the plugin beside it", file=sys.stderr)


def _built(options: argparse.Namespace, progress: _Progress) -> Path:
    from .sdk import build

    return build(
        options.sources, options.output, cflags=options.cflag, ldflags=[*options.ldflag, *options.linked],
        include=options.include, cc=options.cc, optimize=options.optimize,
        cxx=options.cxx, debug=options.debug, reproducible=options.reproducible, progress=progress,
    )


def _export_of(plugin: Plugin, name: str) -> Export:
    if name not in plugin.exports:
        raise Error(f"no function {name!r}; there are: {', '.join(plugin.exports)}")
    return plugin.exports[name]


def _put_bytes(data: bytes) -> None:
    if sys.stdout.isatty():
        print(data)
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)


@contextmanager
def named(export: Export) -> Iterator[None]:
    """The plugin's own errors, of any type, as ours."""
    try:
        yield
    except (Error, KeyboardInterrupt):
        raise
    except Exception as error:
        raise Error(f"{export.name}() raised {type(error).__name__}: {escape(str(error))}") from None


def _show(result: Any, export: Export) -> None:
    if isinstance(result, Stream):
        piece: bytes | None = b""
        while piece is not None:
            _put_bytes(piece)
            with named(export):
                piece = next(result, None)
    elif isinstance(result, (bytes, bytearray)):
        _put_bytes(bytes(result))
    elif result is not None:
        print(escape(result) if isinstance(result, str) else result)


def _called(box: Sandbox, export: Export, arguments: list[Any]) -> None:
    with named(export):
        result = box[export.name](*arguments)
    _show(result, export)
    for written in written_of(export, arguments).values():
        _show(written, export)


def _called_json(box: Sandbox, export: Export, arguments: list[Any]) -> dict[str, Any]:
    found = {"result": to_json(box[export.name](*arguments))}
    written = written_of(export, arguments)
    return found | {"written": {name: to_json(value) for name, value in written.items()}} if written else found


def _show_json(call: Callable[[], dict[str, Any]]) -> int:
    """One object: ``result``, and ``written`` where the function writes into arguments; or ``error`` and ``message``, and the
    ``report`` that inspect --fault reads."""
    try:
        found, status = call(), 0
    except Exception as error:
        found, status = {"error": type(error).__name__, "message": str(error)}, 1
        if isinstance(error, GuestEnd) and error.details:
            found["report"] = error.report()
    print(json.dumps(found, indent=2))
    return status


def call_arguments(plugin: Plugin, function: str, texts: list[str]) -> tuple[Export, list[Any]]:
    """The export of that name, and words of the command line as its arguments."""
    export = _export_of(plugin, function)
    return export, arguments_of(export, texts, plugin.types)


Found = TypeVar("Found")


def _in_sandbox(options: argparse.Namespace, call: Callable[[Sandbox, Export, list[Any]], Found]) -> Found:
    plugin = open_plugin(options.file)
    export, arguments = call_arguments(plugin, options.function, options.arguments)
    policy = LinuxPolicy(directories=dict(options.dir), cwd=options.cwd, time=options.time, random=options.random)
    with _traced(options, "call") as trace, plugin.sandbox(
        memory=options.memory, timeout=options.timeout, linux=policy, trace=trace,
        stdout=sys.stderr if options.json else None,
    ) as box:
        return call(box, export, arguments)


def _call(options: argparse.Namespace) -> int:
    if options.json:
        return _show_json(lambda: _in_sandbox(options, _called_json))
    _in_sandbox(options, _called)
    return 0


@contextmanager
def _traced(options: argparse.Namespace, command: str) -> Iterator[Trace | None]:
    """The trace of ``--trace``, whose sum is shown however the guest ends."""
    trace = Trace(_trace_line) if options.trace else None
    try:
        yield trace
    finally:
        if trace is not None:
            print(trace, file=sys.stderr)
        if trace is not None and trace.options(command):
            print(f"options that allow it: {shlex.join(trace.options(command))}", file=sys.stderr)


def _stubs(options: argparse.Namespace) -> int:
    print(stub_text(open_plugin(options.file)))
    return 0


def _directory(text: str) -> tuple[str, Directory]:
    """GUEST=HOST or GUEST=HOST:rw."""
    guest, equals, host = text.partition("=")
    if not equals or not guest.startswith("/") or not host:
        raise argparse.ArgumentTypeError(f"{text!r} is not GUEST=HOST[:rw] with an absolute GUEST")
    for suffix, writable in ((":rw", True), (":ro", False)):
        if host.endswith(suffix):
            return guest, Directory(host[: -len(suffix)], writable)
    return guest, Directory(host)


def _variable(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not K=V")
    return key, value


def _trace_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _is_plugin(program: Program) -> bool:
    try:
        return Elf(program._data).section(b".note.vxplug") is not None
    except PluginFormatError:  # Linux does not read sections, so what is wrong with them keeps no program from running
        return False


def _run(options: argparse.Namespace) -> int:
    """The program's own status; 128 and the signal's number when one killed it; 124 at the time limit."""
    policy = LinuxPolicy(
        directories=dict(options.dir), cwd=options.cwd, env=dict(options.env), time=True, random=True, terminal=options.tty,
    )
    program = Program(options.program)
    if _is_plugin(program):
        raise Error(f"{options.program}: this is a plugin: use `vxplug call`")
    try:
        with _traced(options, "run") as trace:
            ended = program.run(
                *options.arguments, policy=policy, stdin=0, stdout=1, stderr=2, memory=options.memory, stack=min(8 * MIB, options.memory // 2),
                timeout=options.timeout, trace=trace,
            )
    except GuestTimeout as error:
        print(f"vxplug: {options.program}: {error}", file=sys.stderr)
        return 124
    if ended.signal is not None:
        print(f"vxplug: {options.program}: {ended}", file=sys.stderr)
    return ended.code


def _guest_path(text: str) -> str:
    if not text.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text!r} is not an absolute path of the guest's")
    return text


def _add_policy(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dir", type=_directory, action="append", default=[], metavar="GUEST=HOST[:rw]", help="map a directory")
    command.add_argument("--cwd", type=_guest_path, default="/", metavar="DIR", help="working directory, a guest path")
    command.add_argument("--trace", action="store_true",
                         help="print every system call to stderr, and at the end the policy that allows them")


def _add_call(commands: Any) -> None:
    call = commands.add_parser(
        "call", help="call one function; @FILE passes a file's bytes, structs and arrays are JSON",
        epilog="null is NULL where the function takes it; in JSON's quotes, '\"null\"', it is text. After the result comes what the "
               "function left in each vx_mut and vx_mut_array, with --json as the object's member written.",
    )
    call.add_argument("--memory", type=mebibytes, default=256 * MIB, metavar="MIB")
    call.add_argument("--timeout", type=seconds, default=30.0, metavar="SECONDS")
    call.add_argument("--json", action="store_true", help="the result, or the error, as one JSON object; its output goes to stderr")
    _add_policy(call)
    call.add_argument("--time", action="store_true", help="let it read clocks and sleep")
    call.add_argument("--random", action="store_true", help="let it have random numbers")
    call.add_argument("file")
    call.add_argument("function")
    call.add_argument("arguments", nargs="*", default=[], metavar="ARG")
    call.set_defaults(run=_call)


def _add_run(commands: Any) -> None:
    run = commands.add_parser("run", help="run a static i386 Linux program; nothing is allowed that is not asked for")
    _add_policy(run)
    run.add_argument("--env", type=_variable, action="append", default=[], metavar="K=V", help="environment variable")
    run.add_argument("--memory", type=mebibytes, default=512 * MIB, metavar="MIB")
    run.add_argument("--timeout", type=seconds, metavar="SECONDS")
    run.add_argument("--tty", action="store_true", help="let it ask and set the attributes of a terminal it has as a stream")
    run.add_argument("program", metavar="PROGRAM")
    rest = run.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARG")
    rest.required = False  # argparse says otherwise of all that is left, which may be nothing
    run.set_defaults(run=_run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vxplug", description="Native plugins that nobody has to trust.",
                                     epilog="Exit status: 0 done, 1 failed (stderr says how), 2 not understood.")
    parser.add_argument("--version", action="version", version=f"vxplug {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="compile C or C++ sources to a plugin")
    build.add_argument("-o", dest="output", required=True, metavar="NAME.vxm")
    build.add_argument("-I", dest="include", action="append", default=[], metavar="DIR")
    build.add_argument("-O", dest="optimize", type="-O{}".format, default="2", metavar="LEVEL")
    build.add_argument("--cflag", action="append", default=[], metavar="FLAG", help="passed to the compiler, as in --cflag=-DNAME")
    build.add_argument("--ldflag", action="append", default=[], metavar="FLAG", help="passed to the linker, as in --ldflag=-s")
    build.add_argument("--c++", dest="cxx", action="store_true", help="link the C++ library even if no source is C++")
    build.add_argument("--debug", choices=["inside", "beside", "none"],
                       help="where debug information goes; beside: NAME.vxm.debug (default: inside)")
    build.add_argument("--reproducible", action="store_true",
                       help="the same source gives the same bytes on every machine; debug information goes beside unless told otherwise")
    build.add_argument("--cc", help="another compiler command, for i386 and musl, such as i686-linux-musl-gcc")
    build.add_argument("sources", nargs="+", metavar="SRC")
    build.add_argument("--link", dest="linked", nargs=argparse.REMAINDER, default=[], metavar="WORD",
                       help="all that follows is passed to the linker: -L, -l, archives")
    build.set_defaults(run=_build)
    describe.add_command(commands)
    disasm.add_command(commands)
    profile.add_command(commands)
    _add_call(commands)
    stubs = commands.add_parser("stubs", help="print type stubs (.pyi)")
    stubs.add_argument("file")
    stubs.set_defaults(run=_stubs)
    _add_run(commands)
    project.add_commands(commands)
    for driver in ("cc", "c++", "ar", "ranlib"):
        commands.add_parser(driver, help=f"the guest toolchain's {driver}", add_help=False)
    return parser


def _main(arguments: list[str]) -> int:
    if arguments and arguments[0] in ("cc", "c++", "ar", "ranlib"):
        return _drive(arguments[0], arguments[1:])
    options = _parser().parse_args(arguments)
    return int(options.run(options))


def _open_streams() -> None:
    """What a shell closed, as >&- does, leads nowhere.  Else a file that is opened next would have the stream's number, and
    Python's print would write errors to stdout."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))


def main() -> int:
    """Run the command line.

    The exit status is 0 when all went well, 1 when an input is wrong or the plugin failed (stderr says in one
    line how), 2 when the command line is not understood, 130 after Ctrl-C.  ``run`` ends with the program's own,
    or 124 at its time limit; ``cc``, ``c++``, ``ar`` and ``ranlib`` with the tool's.  Output has no colour.
    """
    _open_streams()
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: text of a plugin's may be any
    try:
        return _main(sys.argv[1:])
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except (Error, OSError) as error:
        print(f"vxplug: {error}", file=sys.stderr)
        return 1
