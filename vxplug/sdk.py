"""Building plugins: the compiler, the link, and the interface note derived from DWARF."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from .cdecl import name_of, parameters, place
from .cnames import check_distinct, python_name
from .dwarf import Declarations, export_of, import_of
from .elfstrip import strip_debug
from .errors import PluginFormatError, SdkError
from .interface import Export, Import, Interface, decode_note, encode_note
from .plugin import Plugin
from .reproduce import absolute_flags, link_environment, prefix_maps
from .toolchain import tool_environment
from .types import HANDLE_NAMES, HandleType, StreamType, named_types

__all__ = ["FIRST_BUILD", "SdkError", "build", "compiler", "sdk_path"]

# i386 has no register to spare for frames, which debug information tells.  In a link it holds
# for the C library too, which zig compiles.
FRAMES = "-fomit-frame-pointer"
# zig traps undefined behaviour by default; a port of existing C must behave as it does elsewhere.
TARGET = ["-target", "x86-linux-musl", "-mcpu=pentium4", "-fno-sanitize=undefined", FRAMES]
COMPILE = ["-g"]
# -fno-pie: what other compilers do by default on many systems, and a plugin has no use for: it lies where it was linked.
FIXED = ["-fno-pie", FRAMES]
FIXED_LINK = ["-no-pie"]
# With -O2 zig defines NDEBUG, which no other compiler does: a failed assertion is to be heard.
PREPROCESS = ["-UNDEBUG"]
# Of the compiler's support library a plugin would have all, 350 KB, for the few functions it calls.  What the host
# looks for is marked to be kept (vxplug.h), in a way that linkers of other toolchains may be too old for.
LINK = ["-Wl,--gc-sections"]
C_SUFFIXES = {".c", ".s", ".S"}
CXX_SUFFIXES = {".cc", ".cpp", ".cxx"}
# For others the compiler takes one it knows, and says so of each file.
LEVELS = ("-O", *map("-O{}".format, ("0", "1", "2", "3", "s", "z", "g", "fast")))
# What progress hears when a link takes so many seconds: nearly always the toolchain then compiles its libraries, and says nothing.
FIRST_BUILD = "still linking: the first build on a machine compiles the guest's C and C++ libraries, once"
SLOW_LINK = 4.0
SOURCE_SUFFIXES = C_SUFFIXES | CXX_SUFFIXES | {".o", ".a"}
DEBUG_PLACES = ("inside", "beside", "none")
NAMES_SHOWN = 5  # of those that a mistyped one may have meant
TOOLS = {"cc": "cc", "c++": "c++", "ar": "ar", "ranlib": "ranlib"}
Progress = Callable[[str], None]
MADE = ("vx_doc_", "vx_declare_", "vx_handle_", "vx_import_")  # how names of variables begin that macros of vxplug.h make
Workplace = tuple[Path | None, dict[str, str]]  # a folder to work in, and the environment there


def sdk_path() -> Path:
    """The directory with the SDK's include/ and lib/: beside the package, or installed in it."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "sdk_files", package.parent / "sdk"):
        if (candidate / "include" / "vxplug.h").is_file():
            return candidate
    raise SdkError("the SDK's files are missing from this installation")


def tool_command(tool: str) -> list[str]:
    """The command line that starts a tool of the bundled toolchain (cc, c++, ar, ranlib)."""
    try:
        import ziglang  # noqa: F401
    except ImportError:
        raise SdkError("the compiler is not installed: pip install 'vxplug[sdk]'") from None
    command = [sys.executable, "-m", "ziglang", TOOLS[tool]]
    return command + TARGET if tool in ("cc", "c++") else command


def compiler(source: Path, cc: str | None) -> list[str]:
    if cc is not None:
        return cc.split()
    return tool_command("c++" if source.suffix in CXX_SUFFIXES else "cc")


class _Warnings:
    """What compiler and linker said where they did not fail.  Of their options they say the same for each file: it is shown once."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._shown = {""}
        self._lock = threading.Lock()

    def show(self, text: str) -> None:
        with self._lock:
            if text not in self._shown:
                self._progress("")
                sys.stderr.write(text)
            self._shown.add(text)


def _run(command: list[str], warnings: _Warnings, workplace: Workplace | None = None) -> None:
    folder, environment = workplace or (None, None)
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, cwd=folder, env=environment)
    except OSError as error:
        raise SdkError(f"cannot run {command[0]}: {error}") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode("utf-8", "replace")
        raise SdkError(said or f"{command[0]} failed with status {done.returncode}, and said nothing")
    warnings.show(done.stderr.decode("utf-8", "replace"))


def _compile(source: Path, target: Path, flags: Sequence[str], cc: str | None, warnings: _Warnings) -> None:
    first = COMPILE + ([] if cc is None else FIXED) + ([] if source.suffix == ".s" else PREPROCESS)
    _run([*compiler(source, cc), *first, *flags, "-c", str(source), "-o", str(target)], warnings)


def _compile_all(
    sources: Sequence[tuple[Path, Sequence[str]]], folder: Path, cc: str | None, warnings: _Warnings, progress: Progress
) -> list[Path]:
    """The objects of sources, each with its flags."""
    objects = [folder / f"{number}.o" for number in range(len(sources))]

    def work(number: int) -> None:
        source, flags = sources[number]
        _compile(source, objects[number], flags, cc, warnings)
        progress(f"compiled {source.name}")

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 4)) as pool:
        list(pool.map(work, range(len(sources))))
    return objects


def _link(
    objects: Sequence[Path], target: Path, flags: Sequence[str], cxx: bool, cc: str | None, warnings: _Warnings,
    workplace: Workplace | None,
) -> None:
    command = compiler(Path("x.cc" if cxx else "x.c"), cc)
    try:
        _run([*command, "-static", *(LINK if cc is None else FIXED_LINK), *map(str, objects), *flags, "-o", str(target)], warnings, workplace)
    except SdkError as error:
        if "duplicate symbol: main" not in str(error):
            raise
        raise SdkError(f"{error}\na plugin has no main of its own: mark functions with VX_EXPORT") from None


@contextmanager
def _said_when_slow(progress: Progress) -> Iterator[None]:
    """FIRST_BUILD, once, unless what is done here ends before SLOW_LINK seconds."""
    timer = threading.Timer(SLOW_LINK, progress, [FIRST_BUILD])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # nothing is said after the build


# --- the interface from DWARF ------------------------------------------------------------------------


class _Word(NamedTuple):
    """What VX_DOC, VX_OUT, VX_METHOD or their like said of a function, and where."""

    word: str
    parts: tuple[str, ...]
    place: str

    @property
    def function(self) -> str:
        return self.parts[-2]

    def refused(self, why: str) -> SdkError:
        return SdkError(f"{self.place}: VX_{self.word.upper()}({', '.join(self.parts)}): {why}")


class _Method(NamedTuple):
    """A function as VX_METHOD has it."""

    name: str  # in Python
    function: str
    shown: str
    said: _Word

    @classmethod
    def declared(cls, said: _Word, die: Any) -> _Method:
        shown = said.parts[2]
        if shown in HANDLE_NAMES:
            raise said.refused(f"all handles have a {shown} of their own; call it something else")
        return cls(python_name(shown, "VX_METHOD", die), python_name(said.function, "function"), shown, said)


def _there_is(wanted: str, names: Iterable[str]) -> str:
    """Of many the most alike: one of them was meant."""
    alike = get_close_matches(wanted, list(names), NAMES_SHOWN, 0)
    return f"there {'is' if len(alike) == 1 else 'are'} {', '.join(alike) or 'none'}"


class _Linked:
    """A linked image: its symbols, its bytes by address, its DWARF."""

    def __init__(self, path: Path) -> None:
        from elftools.elf.elffile import ELFFile

        self._file = path.open("rb")
        self.elf = ELFFile(self._file)
        table: Any = self.elf.get_section_by_name(".symtab")
        self.symbols = {s.name: s for s in table.iter_symbols() if s.entry.st_shndx != "SHN_UNDEF"}

    def close(self) -> None:
        self._file.close()

    def section_of(self, symbol: Any) -> str:
        index = symbol.entry.st_shndx
        return self.elf.get_section(index).name if isinstance(index, int) else ""

    def text(self, name: str) -> str | None:
        """The C string a symbol names."""
        symbol = self.symbols.get(name)
        if symbol is None:
            return None
        for offset in self.elf.address_offsets(symbol.entry.st_value, symbol.entry.st_size):
            self._file.seek(offset)
            return self._file.read(symbol.entry.st_size).split(b"\0", 1)[0].decode("utf-8", "replace")
        return None

    def _said(self) -> Iterator[tuple[_Word, Any]]:
        """With the DWARF entries of the variables that the macros made."""
        for name in sorted(self.symbols):
            if name.startswith("vx_doc_"):
                word, *parts = "doc", name.removeprefix("vx_doc_"), "…"
            elif name.startswith("vx_declare_"):
                word, *parts = (self.text(name) or "").split(" ")
            else:
                continue
            die = self._variables.get(name)
            yield _Word(word, tuple(parts), "(unknown file)" if die is None else place(die)), die

    def declarations(self, exports: Mapping[str, Any]) -> Declarations:
        """What VX_OUT, VX_METHOD and their like say, each in words of its own, of exports with these DWARF entries."""
        words: dict[tuple[str, str], frozenset[str]] = {}
        for said, _ in self._said():
            function = said.function
            if function not in exports:
                raise said.refused(f"no VX_EXPORT is called {function}; {_there_is(function, exports)}")
            if said.word in ("doc", "method"):
                continue
            parameter, names = said.parts[1], [name for name in map(name_of, parameters(exports[function])) if name]
            if parameter not in names:
                raise said.refused(f"{function}() has no parameter {parameter}; {_there_is(parameter, names)}")
            words[function, parameter] = words.get((function, parameter), frozenset()) | {said.word}
        parts = (self.symbols[f"vx_stream_{part}_"].entry.st_value for part in ("open", "alloc", "next", "close"))
        return Declarations(words, self._handles(), StreamType(*parts))

    @cached_property
    def methods(self) -> dict[str, list[_Method]]:
        """Of each type that VX_METHOD names."""
        found: dict[str, list[_Method]] = {}
        for said, die in self._said():
            if said.word == "method":
                found.setdefault(said.parts[0], []).append(_Method.declared(said, die))
        return found

    def check_methods(self, exports: Mapping[str, Export], handles: Mapping[str, HandleType]) -> None:
        for type, methods in self.methods.items():
            for method in methods:
                params = exports[method.said.function].params
                if not params or params[0][1] != handles[type]:
                    raise method.said.refused(f"{method.said.function}() must take {type} * first, and not VX_NULLABLE")

    def _handles(self) -> dict[str, HandleType]:
        """What VX_HANDLE declared, by the pointers to destructors that it made."""
        found, variables = {}, self.variables("vx_handle_")
        for name in self.symbols:
            if name.startswith("vx_handle_"):
                type = name.removeprefix("vx_handle_")
                die = variables.get(name)
                source = type, place(die) if die is not None else "(unknown file)"
                shown = python_name(type, "VX_HANDLE", die)
                own = self.methods.get(type, [])
                check_distinct([(method.name, method.shown, method.said.place) for method in own], f"method of {type}")
                calls = tuple((method.name, method.function) for method in own)
                found[type] = HandleType(shown, self._word(name), calls, source)
        for type, (method, *_) in self.methods.items():
            if type not in found:
                raise method.said.refused(f"{type} is no VX_HANDLE; {_there_is(type, found)}")
        return found

    def _word(self, name: str) -> int:
        """The 32 bits that a symbol names."""
        for offset in self.elf.address_offsets(self.symbols[name].entry.st_value, 4):
            self._file.seek(offset)
            return int.from_bytes(self._file.read(4), "little")
        return 0  # in zeros that the file does not have: no destructor

    def exports(self) -> dict[str, int]:
        return {
            name: s.entry.st_value
            for name, s in self.symbols.items()
            if s.entry.st_info.type == "STT_FUNC" and self.section_of(s) == "vx_export"
        }

    def imports(self, declared: Declarations) -> list[Import]:
        """What VX_IMPORT declared, by the pointers it made."""
        dies = {name.removeprefix("vx_import_"): die for name, die in self.variables("vx_import_").items()}
        found = [import_of(dies[name], name, self.symbols[name].entry.st_value, declared) for name in sorted(dies)]
        check_distinct([(i.name, name, place(dies[name])) for i, name in zip(found, sorted(dies), strict=True)], "import")
        return found

    @cached_property
    def _variables(self) -> dict[str, Any]:
        """DWARF entries of the variables that macros of vxplug.h made, by name; where there are several, the first, whose
        the symbol is."""
        wanted = {name for name in self.symbols if name.startswith(MADE)}
        found: dict[str, Any] = {}
        for unit in self.elf.get_dwarf_info().iter_CUs():  # in the order of the link
            if len(found) == len(wanted):
                break  # before the units of libc: they are most of all
            for die in unit.get_top_DIE().iter_children():
                name = name_of(die) if die.tag == "DW_TAG_variable" else None
                if name is not None and name in wanted:
                    found.setdefault(name, die)
        return found

    def variables(self, prefix: str) -> dict[str, Any]:
        """DWARF entries of what macros of vxplug.h declared."""
        return {name: die for name, die in self._variables.items() if name.startswith(prefix)}

    def functions(self, addresses: set[int]) -> dict[int, Any]:
        """DWARF subprograms by address."""
        found: dict[int, Any] = {}
        for unit in self.elf.get_dwarf_info().iter_CUs():
            if len(found) == len(addresses):
                break
            for die in unit.iter_DIEs():
                low = die.attributes.get("DW_AT_low_pc")
                if die.tag == "DW_TAG_subprogram" and low is not None:
                    address = _address(die, low)
                    if address in addresses:
                        found[address] = _declared(die)
        return found


def _declared(die: Any) -> Any:
    """Where a function's names and types are: one that was also inlined refers to another entry."""
    for reference in ("DW_AT_abstract_origin", "DW_AT_specification"):
        if reference in die.attributes:
            return _declared(die.get_DIE_from_attribute(reference))
    return die


def _address(die: Any, attribute: Any) -> int:
    """DWARF 5 writes addresses as indexes into .debug_addr."""
    if attribute.form.startswith("DW_FORM_addrx"):
        return int(die.dwarfinfo.get_addr(die.cu, attribute.raw_value))
    return int(attribute.value)


def _interface(path: Path) -> Interface:
    linked = _Linked(path)
    try:
        addresses = linked.exports()
        if not addresses:
            raise SdkError("nothing is exported: mark functions with VX_EXPORT")
        dies = linked.functions(set(addresses.values()))
        missing = [name for name, address in addresses.items() if address not in dies]
        if missing:
            raise SdkError(f"no debug information for {', '.join(missing)}: compile with -g")
        declared = linked.declarations({name: dies[address] for name, address in addresses.items()})
        exports = tuple(
            export_of(dies[address], name, address, linked.text(f"vx_doc_{name}"), declared)
            for name, address in sorted(addresses.items())
        )
        names = zip(exports, sorted(addresses), strict=True)
        check_distinct([(e.name, name, place(dies[addresses[name]])) for e, name in names], "function")
        linked.check_methods(dict(zip(sorted(addresses), exports, strict=True)), declared.handles)
        release = linked.symbols["vx_release_"].entry.st_value
        interface = Interface(linked.text("vx_module_doc"), release, exports, tuple(linked.imports(declared)))
        check_distinct([(type.name, *type.source) for type in named_types(interface.types)], "type")
        return interface
    finally:
        linked.close()


def _note_source(note: bytes) -> str:
    rows = [", ".join(map(str, note[i : i + 32])) for i in range(0, len(note), 32)]
    body = "\n".join(f"    .byte {row}" for row in rows)
    # Without the second section linkers of other toolchains take it that the code wants an executable stack, and warn.
    return f'    .section .note.vxplug, "", @note\n    .p2align 2\n{body}\n    .section .note.GNU-stack, "", @progbits\n'


def _same_layout(first: Path, second: Path) -> None:
    one, two = _Linked(first), _Linked(second)
    try:
        if one.exports() != two.exports():
            raise SdkError("the linker moved functions when the interface note was added")
    finally:
        one.close()
        two.close()


def _checked(sources: Sequence[str | os.PathLike[str]]) -> list[Path]:
    paths = [Path(source) for source in sources]
    for path in paths:
        if path.suffix not in SOURCE_SUFFIXES:
            raise SdkError(f"{path}: not a C, C++ or assembly source, object or archive")
        if not path.is_file():
            raise SdkError(f"{path}: no such file")
    return paths


def _checked_output(target: Path) -> Path:
    """Told before the compiler works, and before a source that follows -o by mistake is lost."""
    if target.suffix in SOURCE_SUFFIXES:
        raise SdkError(f"{target}: a plugin in its place would replace a source: call the output {target.stem}.vxm")
    if target.is_dir():
        raise SdkError(f"{target}: a folder, where the output is a file")
    if not target.parent.is_dir():
        raise SdkError(f"{target}: no such folder as {target.parent} to write to")
    return target


def _write_whole(target: Path, data: bytes) -> None:
    """Or nothing: half a plugin, of a full disk, would be newer than its sources, and never built again."""
    with open(target, "wb", buffering=0) as file:
        try:
            while data:
                data = data[file.write(data):]
        except OSError as error:
            if target.is_file():
                target.unlink()
            raise SdkError(f"{target}: {error.strerror}") from None


def _write(target: Path, data: bytes, debug: str) -> None:
    """The plugin, and its debug information where it was asked for; none of an earlier build stays."""
    beside = target.with_name(target.name + ".debug")
    shipped = data if debug == "inside" else strip_debug(data)
    try:
        Plugin(shipped)
    except PluginFormatError as error:  # what the loader will not take is the author's error, now
        raise SdkError(str(error)) from None
    _write_whole(target, shipped)
    if debug == "beside":
        _write_whole(beside, data)
    else:
        beside.unlink(missing_ok=True)


def build(
    sources: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    cflags: Sequence[str] = (),
    ldflags: Sequence[str] = (),
    include: Sequence[str | os.PathLike[str]] = (),
    cc: str | None = None,
    optimize: str = "-O2",
    cxx: bool = False,
    debug: str | None = None,
    reproducible: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Compile and link C, C++ and assembly sources to a plugin; returns the output's path.

    ``cxx`` links the C++ library, as C++ sources do by themselves: for C with archives made from C++.
    ``debug`` says where debug information goes: ``"inside"`` the plugin (the default), ``"beside"`` it in
    ``NAME.vxm.debug`` (tracebacks find it there too), or ``"none"``.  With ``reproducible`` all bytes
    depend on the sources and the toolchain's version only: file names are relative to the working
    directory, or to the folder that the sources share, and debug information is beside unless told
    otherwise.  With a ``cc`` of your own its libraries' debug information is as that names it.

    ``progress`` is called with a line for each step, such as ``"compiled hello.c"``, from any thread, and
    with an empty one before the compiler's warnings are written to stderr.
    Raises SdkError with the compiler's own words, or with the function, parameter and C type that has no
    place in an interface.
    """
    if cc is None and optimize not in LEVELS:
        raise SdkError(f"{optimize}: no such level of optimization; there are {', '.join(LEVELS[1:])}")
    debug = debug or ("beside" if reproducible else "inside")
    if debug not in DEBUG_PLACES:
        raise ValueError(f"debug={debug!r} is none of {', '.join(DEBUG_PLACES)}")
    for folder in map(Path, include):
        if not folder.is_dir():  # compilers say nothing of it
            raise SdkError(f"{folder}: no such folder to include from")
    sdk, target = sdk_path(), _checked_output(Path(output))
    paths = _checked(sources)
    flags = [optimize, f"-I{sdk / 'include'}", *(f"-I{os.fspath(i)}" for i in include), *cflags]
    if reproducible:
        paths = [path.absolute() for path in paths]
        flags = absolute_flags(flags) + prefix_maps(paths, sdk, cc)
        ldflags = absolute_flags(ldflags)
    cxx = cxx or any(path.suffix in CXX_SUFFIXES for path in paths)
    apart = cc is None and (reproducible or not ldflags)  # flags of a reproducible build mean the same everywhere
    data = _build(paths, sdk, flags, ldflags, cxx, cc, apart, progress or (lambda _: None))
    _write(target, data, debug)
    return target


def _library(sdk: Path, flags: Sequence[str], checked: bool, cc: str | None) -> list[tuple[Path, Sequence[str]]]:
    """The SDK's own sources.  What -fsanitize=undefined calls is left out where nothing can have been compiled so.

    Their folder is their own: zig keeps what it compiled, and the next plugin's debug information would name the folder
    that the first was built in.
    """
    checked = checked or any("-fsanitize" in flag for flag in flags)
    if cc is None:
        flags = [*flags, f"-ffile-compilation-dir={sdk / 'lib'}"]
    return [(path, flags) for path in sorted((sdk / "lib").glob("*.c")) if checked or path.name != "vx_undefined.c"]


def _build(
    paths: Sequence[Path], sdk: Path, flags: Sequence[str], ldflags: Sequence[str], cxx: bool,
    cc: str | None, apart: bool, progress: Progress,
) -> bytes:
    """Two links: the first tells what the interface note must say, the second has it.

    ``apart``, in a folder of their own, they take the toolchain's libraries from what any other build has compiled
    before, and their debug information names no folder of this machine.
    """
    code = [p for p in paths if p.suffix not in (".o", ".a")]
    extra = [p.absolute() for p in paths if p.suffix in (".o", ".a")]
    warnings = _Warnings(progress)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library = _library(sdk, flags, bool(extra or ldflags), cc)
        objects = _compile_all([*((path, flags) for path in code), *library], folder, cc, warnings, progress) + extra
        draft, final, note = folder / "draft", folder / "final", folder / "note.s"
        workplace: Workplace | None = None
        if apart:
            here = folder / "here"
            here.mkdir()
            workplace = here, link_environment(here)
        elif cc is None:
            workplace = None, tool_environment()
        progress("linking")
        with _said_when_slow(progress):
            _link(objects, draft, ldflags, cxx, cc, warnings, workplace)
        interface = _interface(draft)
        encoded = encode_note(interface)
        try:
            decode_note(encoded)
        except PluginFormatError as error:  # what the loader will not take is the author's error, now
            raise SdkError(str(error)) from None
        note.write_text(_note_source(encoded))
        _compile(note, folder / "note.o", [], cc, warnings)
        _link([*objects, folder / "note.o"], final, ldflags, cxx, cc, warnings, workplace)
        _same_layout(draft, final)
        return final.read_bytes()
