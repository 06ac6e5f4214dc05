"""The command line: ``vxplug build``, ``cc``, ``c++``, ``ar``, ``ranlib``, ``inspect``, ``call``, ``stubs``, ``run``."""

from __future__ import annotations

import argparse
import enum
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from . import describe, disasm, profile, project
from .errors import Error, GuestTimeout, escape
from .interface import Export
from .plugin import Plugin, open as open_plugin
from .policy import Directory, LinuxPolicy
from .program import Program
from .stubs import stub_text

__all__ = ["main", "cc", "cxx", "ar", "ranlib"]


def _drive(tool: str, arguments: list[str]) -> int:
    from .sdk import sdk_path, tool_command

    extra = [f"-I{sdk_path() / 'include'}"] if tool in ("cc", "c++") else []
    return subprocess.run([*tool_command(tool), *extra, *arguments], check=False).returncode


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
    """One line on a terminal that says how far a build is, and goes away; nothing anywhere else."""

    def __init__(self, what: str) -> None:
        self._count = 0
        self._say(f"building {what} (the first build on a machine compiles the C library, too)")

    def _say(self, text: str) -> None:
        if sys.stderr.isatty():
            print("\r\x1b[K" + escape(text), end="", file=sys.stderr, flush=True)

    def __call__(self, name: str) -> None:
        self._count += 1
        self._say(f"{self._count} compiled, last {name}")

    def close(self) -> None:
        self._say("")


def _build(options: argparse.Namespace) -> int:
    progress = _Progress(options.output)
    try:
        print(_built(options, progress))
    finally:
        progress.close()
    return 0


def _built(options: argparse.Namespace, progress: _Progress) -> Path:
    from .sdk import build

    return build(
        options.sources, options.output, cflags=options.cflag, ldflags=options.ldflag,
        include=options.include, cc=options.cc, optimize=options.optimize,
        cxx=options.cxx, debug=options.debug, reproducible=options.reproducible, progress=progress,
    )


def _argument(text: str, name: str, kind: Any) -> Any:
    try:
        if kind in (bytes, bytearray):
            return kind(Path(text[1:]).read_bytes() if text.startswith("@") else text.encode())
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if isinstance(kind, enum.EnumMeta):
            return kind[text] if text in kind.__members__ else int(text, 0)
        return int(text, 0) if kind is int else kind(text)
    except (ValueError, KeyError, TypeError):
        raise Error(f"argument {name}: {text!r} is not a {getattr(kind, '__name__', kind)}") from None


def _export_of(plugin: Plugin, name: str) -> Export:
    if name not in plugin.exports:
        raise Error(f"no function {name!r}; there are: {', '.join(plugin.exports)}")
    return plugin.exports[name]


def _show(result: Any) -> None:
    if isinstance(result, bytes) and not sys.stdout.isatty():
        sys.stdout.buffer.write(result)
    elif result is not None:
        print(escape(result) if isinstance(result, str) else result)


def call_arguments(plugin: Plugin, function: str, texts: list[str]) -> tuple[Export, list[Any]]:
    """The export of that name, and words of the command line as its arguments."""
    export = _export_of(plugin, function)
    if len(texts) != len(export.inputs):
        raise Error(f"{export.name}{export.signature} takes {len(export.inputs)} arguments")
    return export, [_argument(text, *param) for text, param in zip(texts, export.inputs, strict=True)]


def _call(options: argparse.Namespace) -> int:
    plugin = open_plugin(options.file)
    export, arguments = call_arguments(plugin, options.function, options.arguments)
    with plugin.sandbox(memory=options.memory << 20, timeout=options.timeout) as box:
        try:
            result = box[export.name](*arguments)
        except (Error, KeyboardInterrupt):
            raise
        except Exception as error:  # the plugin's own, of any type
            raise Error(f"{export.name}() raised {type(error).__name__}: {escape(str(error))}") from None
    _show(result)
    return 0


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


def _run(options: argparse.Namespace) -> int:
    """The program's own status; 128 and the signal's number when one killed it; 124 at the time limit."""
    policy = LinuxPolicy(
        directories=dict(options.dir), cwd=options.cwd, env=dict(options.env), time=True, random=True, terminal=options.tty,
    )
    try:
        ended = Program(options.program).run(
            *options.arguments, policy=policy, stdin=0, stdout=1, stderr=2, memory=options.memory << 20,
            timeout=options.timeout, trace=_trace_line if options.trace else None,
        )
    except GuestTimeout as error:
        print(f"vxplug: {options.program}: {error}", file=sys.stderr)
        return 124
    if ended.signal is not None:
        print(f"vxplug: {options.program}: {ended}", file=sys.stderr)
    return ended.code


def _add_run(commands: Any) -> None:
    run = commands.add_parser("run", help="run a static i386 Linux program; nothing is allowed that is not asked for")
    run.add_argument("--dir", type=_directory, action="append", default=[], metavar="GUEST=HOST[:rw]", help="map a directory")
    run.add_argument("--cwd", default="/", metavar="DIR", help="working directory, a guest path")
    run.add_argument("--env", type=_variable, action="append", default=[], metavar="K=V", help="environment variable")
    run.add_argument("--memory", type=int, default=512, metavar="MIB")
    run.add_argument("--timeout", type=float, metavar="SECONDS")
    run.add_argument("--tty", action="store_true", help="let it ask and set the attributes of a terminal it has as a stream")
    run.add_argument("--trace", action="store_true", help="print every system call to stderr")
    run.add_argument("program", metavar="PROGRAM")
    run.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARG")
    run.set_defaults(run=_run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vxplug", description="Native plugins that nobody has to trust.",
                                     epilog="Exit status: 0 done, 1 failed (stderr says how), 2 not understood.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="compile C or C++ sources to a plugin")
    build.add_argument("-o", dest="output", required=True, metavar="NAME.vxm")
    build.add_argument("-I", dest="include", action="append", default=[], metavar="DIR")
    build.add_argument("-O", dest="optimize", type="-O{}".format, default="2", metavar="LEVEL")
    build.add_argument("--cflag", action="append", default=[], help="passed to the compiler")
    build.add_argument("--ldflag", action="append", default=[], help="passed to the linker")
    build.add_argument("--c++", dest="cxx", action="store_true", help="link the C++ library even if no source is C++")
    build.add_argument("--debug", choices=["inside", "beside", "none"],
                       help="where debug information goes; beside: NAME.vxm.debug (default: inside)")
    build.add_argument("--reproducible", action="store_true",
                       help="the same source gives the same bytes on every machine; debug information goes beside")
    build.add_argument("--cc", help="another compiler command for i386")
    build.add_argument("sources", nargs="+", metavar="SRC")
    build.set_defaults(run=_build)
    for tool in (describe, disasm, profile):
        tool.add_command(commands)
    call = commands.add_parser("call", help="call one function; @FILE passes a file's bytes")
    call.add_argument("--memory", type=int, default=256, metavar="MIB")
    call.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS")
    call.add_argument("file")
    call.add_argument("function")
    call.add_argument("arguments", nargs="*", metavar="ARG")
    call.set_defaults(run=_call)
    stubs = commands.add_parser("stubs", help="print type stubs (.pyi)")
    stubs.add_argument("file")
    stubs.set_defaults(run=_stubs)
    _add_run(commands)
    project.add_commands(commands)
    for tool in ("cc", "c++", "ar", "ranlib"):
        commands.add_parser(tool, help=f"the guest toolchain's {tool}", add_help=False)
    return parser


def _main(arguments: list[str]) -> int:
    if arguments and arguments[0] in ("cc", "c++", "ar", "ranlib"):
        return _drive(arguments[0], arguments[1:])
    options = _parser().parse_args(arguments)
    return int(options.run(options))


def main() -> int:
    """Run the command line.

    The exit status is 0 when all went well, 1 when an input is wrong or the plugin failed (stderr says in one
    line how), 2 when the command line is not understood, 130 after Ctrl-C.  ``run`` ends with the program's own,
    or 124 at its time limit; ``cc``, ``c++``, ``ar`` and ``ranlib`` with the tool's.  Output has no colour.
    """
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
