"""Where guest code ended: frames, lines, last words, reports; and none of it can be turned on the host."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import time
import traceback
import tracemalloc
from pathlib import Path

import pytest

import vxplug
from vxplug import faults, sdk, unwind
from vxplug.callframes import WALK_BYTES_MAX
from vxplug.debuginfo import DebugInfo, _Symbols
from vxplug.linetable import ALL_NAMES_MAX, Budget, LineTable
from vxplug.report import decode_report

from .life import good

SOURCE = Path(__file__).parent / "guests" / "frames.c"
LINES = SOURCE.read_text().splitlines()
ALL = pytest.mark.parametrize("flags", [(), ("-fno-omit-frame-pointer", "-fno-asynchronous-unwind-tables"), ("-O0",)],
                              ids=["default", "frame-pointers", "O0"])


def mark(name: str) -> int:
    return next(number for number, line in enumerate(LINES, 1) if f"mark: {name} " in line)


@pytest.fixture(scope="session")
def frames_plugin(build_plugin) -> vxplug.Plugin:
    return vxplug.open(build_plugin(SOURCE))


@pytest.fixture
def box(frames_plugin):
    with frames_plugin.sandbox(timeout=20.0, stderr=lambda data: None) as sandbox:
        yield sandbox


def ended(function, *arguments) -> vxplug.GuestEnd:
    with pytest.raises(vxplug.GuestEnd) as caught:
        function(*arguments)
    return caught.value


def places(error: vxplug.GuestEnd) -> list[tuple[str, int | None]]:
    return [(function, line) for function, _, line in error.traceback]


# ---- frames ----


@ALL
def test_frames_name_functions_and_lines(build_plugin, flags):
    """Without it a fault names an address, and its author has to guess."""
    with vxplug.open(build_plugin(SOURCE, flags)).sandbox() as box:
        error = ended(box.crash, 5)
    assert places(error) == [
        ("innermost", mark("fault")), ("middle", mark("middle")), ("crash", mark("crash"))]
    assert all(Path(file).is_absolute() and file.endswith(".c") for _, file, _ in error.traceback)


def test_frames_through_libc(box):
    """A C library is compiled by others, with other flags: its frames must not end the trace."""
    found = places(ended(box.through_libc))
    assert found[0] == ("compare", mark("compare")) and found[-1] == ("through_libc", mark("qsort"))
    assert "qsort" in [name for name, _ in found]


def test_frames_of_the_toolchain_have_names_of_their_own(build_plugin):
    """Its libraries are compiled once for a machine: they would be named by the folder of whatever was built first."""
    code = "#include <vxplug.h>\nVX_EXPORT int64_t divide(int64_t a, int64_t b) { return a / b; }\n" \
           "#include <stdlib.h>\nVX_EXPORT void give_up(void) { abort(); }\n"
    with vxplug.open(build_plugin(code)).sandbox() as box:
        *inner, (function, file, _) = ended(box.divide, 1, 0).traceback
        assert function == "divide" and Path(str(file)).is_absolute() and inner
        assert all(str(file).startswith("zig/lib/compiler_rt/") for _, file, _ in inner)
        files = {name: file for name, file, _ in ended(box.give_up).traceback}
        assert files["abort"] == "zig/lib/libc/musl/src/exit/abort.c"


def test_a_call_at_the_end_of_a_function_is_that_function(build_plugin):
    """A return address may be the next function's first byte: one less is the call."""
    plugin = vxplug.open(build_plugin(SOURCE.read_text().replace("innermost((int *)4);\n    abort", "abort")))
    with plugin.sandbox() as box:
        names = [name for name, _ in places(ended(box.last_call))]
    assert "ends_with_a_call" in names


def test_deep_recursion_is_cut(box):
    """Threat 49: a million guest frames must cost the host a fixed number."""
    error = ended(box.deep, 0)
    assert error.kind == "stack-overflow" and len(error.traceback) == unwind.FRAMES_MAX
    assert {name for name, _ in places(error)} == {"deep"}


def test_jump_to_nowhere_names_the_caller(box):
    """There the only thing that helps is who jumped."""
    error = ended(box.jump, 64)
    assert error.kind == "execute" and error.eip == 64
    assert places(error)[0] == ("0x00000040", None) and ("jump", mark("jump")) in places(error)


def test_python_prints_guest_frames_like_its_own(frames_plugin):
    """What a user sees of an uncaught fault is all that many bug reports will have."""
    script = f"import vxplug; vxplug.open({frames_plugin.path!r}).sandbox().crash(5)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    printed = done.stderr.splitlines()
    entry = next(number for number, line in enumerate(printed) if line.endswith(f"line {mark('fault')}, in innermost"))
    assert printed[entry + 1].strip() == LINES[mark("fault") - 1].strip()
    assert printed[entry + 2].startswith("vxplug.errors.GuestFault: memory: ")  # nothing underlined between
    order = [line.rsplit(" ", 1)[1] for line in printed if line.startswith("  File") and ".c" in line]
    assert order == ["crash", "middle", "innermost"]


def test_traceback_module_shows_the_same(box):
    """Loggers and test runners use it instead of the interpreter's own printer."""
    entries = traceback.extract_tb(ended(box.crash, 5).__traceback__)
    assert [(e.name, e.lineno) for e in entries[-3:]] == [
        ("crash", mark("crash")), ("middle", mark("middle")), ("innermost", mark("fault"))]
    assert entries[-1].line == LINES[mark("fault") - 1].strip()


def test_initialisation_has_frames(build_plugin):
    """A constructor's fault has no call to be named by."""
    source = "#include <vxplug.h>\n__attribute__((constructor)) static void early(void) {\n" \
             "    *(volatile int *)4 = 1;\n}\nVX_EXPORT void f(void) {}\n"
    error = ended(vxplug.open(build_plugin(source)).sandbox)
    assert places(error)[0] == ("early", 3) and "during initialisation" in str(error)


def test_timeout_has_frames(box, frames_plugin):
    """Where the loop is, is what its author wants to know."""
    with frames_plugin.sandbox(timeout=0.1) as quick:
        error = ended(quick.spin)
    assert type(error) is vxplug.GuestTimeout and places(error)[0][0] == "spin"
    assert "0.1 s" in str(error)


# ---- lies ----

STACKS = [(0, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0xFFFDFFFF, 0xFFFDFFFC), (0x10000, 0x10000), (0xFFFDF000, 0xFFFDF003)]


@pytest.mark.parametrize(("esp", "ebp"), STACKS)
def test_a_stack_that_lies(box, esp, ebp):
    """Threat 49: reading callers from where a hostile guest points must end, and touch only its memory."""
    error = ended(box.pivot, esp, ebp)
    assert error.kind == "illegal-instruction" and error.traceback[0][0] == "pivot"
    assert box.overflow(1) == 2


def test_a_cyclic_chain_of_frames_ends(build_plugin):
    """Threat 49: a frame pointer that points at itself is an endless stack."""
    flags = ("-fno-omit-frame-pointer", "-fno-asynchronous-unwind-tables")
    with vxplug.open(build_plugin(SOURCE, flags)).sandbox() as box:
        assert len(ended(box.cyclic).traceback) < unwind.FRAMES_MAX


def test_walk_needs_progress():
    """A rule that does not move up the stack would be followed for ever."""
    registers = dict.fromkeys(unwind.NAMES, 0x1000) | {"eip": 0x5000}
    stack = unwind.Stack(0x1000, struct.pack("<64I", *[0x5001] * 64))
    for rule in (unwind.Rule(4, 0, {8: 0}), unwind.Rule(4, -4, {8: 4}), unwind.Rule(5, 0, {8: 0})):
        assert unwind.walk(registers, stack, lambda a, rule=rule: rule, lambda a: True, False) == [0x5000]
    moving = unwind.walk(registers, stack, lambda a: unwind.Rule(4, 4, {8: -4}), lambda a: True, False)
    assert len(moving) == unwind.FRAMES_MAX


@pytest.mark.parametrize("path", ["/dev/zero", "passwd", "/proc/self/environ"])
def test_a_traceback_opens_source_files_only(path, tmp_path):
    """Python opens the file that a frame names, and the name is the plugin's: a device would never end,
    and a secret's line would land in a log."""
    (tmp_path / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    shown = faults._shown_file(str(tmp_path / path), None)
    assert shown == f"<{tmp_path / path}>"


def test_a_named_pipe_is_not_opened(tmp_path):
    """Opening one waits for a writer: a traceback that hangs the host."""
    pipe = tmp_path / "source.c"
    os.mkfifo(pipe)
    assert faults._shown_file(str(pipe), None) == f"<{pipe}>"
    assert faults._shown_file(str(SOURCE), None) == str(SOURCE)


def test_a_hostile_file_name_is_escaped(build_plugin):
    """Threat 42: debug information is the plugin's text."""
    source = '#include <vxplug.h>\n#line 7 "/x/\\033[31m\\342\\200\\256.c"\nVX_EXPORT void f(void) { __builtin_trap(); }\n'
    with vxplug.open(build_plugin(source)).sandbox() as box:
        error = ended(box.f)
    text = "".join(traceback.format_exception(error))
    assert "\x1b" not in text and "\u202e" not in text and "\\x1b[31m\\u202e.c" in text


# ---- debug information ----


def dwarf_of(path: str):
    from elftools.elf.elffile import ELFFile

    return ELFFile(io.BytesIO(Path(path).read_bytes())).get_dwarf_info()


@pytest.mark.parametrize("version", ["-gdwarf-4", "-gdwarf-5"])
def test_line_tables_agree_with_pyelftools(build_plugin, version):
    """The decoder is ours; another one's reading of whole plugins, libc included, is the oracle."""
    path = str(build_plugin(SOURCE, (version,)))
    dwarf, checked = dwarf_of(path), 0
    info = DebugInfo(Path(path).read_bytes())
    for unit in dwarf.iter_CUs():
        program = dwarf.line_program_for_CU(unit)
        offset = unit.get_top_DIE().attributes["DW_AT_stmt_list"].value
        table = LineTable(info._lines._sections, offset, "/", Budget())
        expected = {}
        for entry in program.get_entries():
            if entry.state is not None and not entry.state.end_sequence:
                expected[entry.state.address] = entry.state.line  # the last row of an address counts
        for address, line in expected.items():
            assert table.find(address)[1] == line
        checked += len(expected)
    assert checked > 3000


def test_call_frame_rules_cover_every_function(frames_plugin):
    """Rules missing for some would end traces there, unseen by the tests above."""
    info = DebugInfo(Path(frames_plugin.path).read_bytes())
    without = [name for address, size, name in info._symbols if size and info.rule_at(address, [WALK_BYTES_MAX]) is None]
    assert len(without) < len(info._symbols) // 20, without


def test_a_file_without_debug_information(build_plugin, tmp_path):
    """A stripped plugin still says where, in addresses; and NAME.vxm.debug beside it gives the names."""
    objcopy = shutil.which("objcopy")
    if objcopy is None:
        pytest.skip("objcopy (binutils) is not installed")
    whole, lean = build_plugin(SOURCE), tmp_path / "lean.vxm"
    subprocess.run([objcopy, "--strip-all", whole, lean], check=True)
    with vxplug.open(lean).sandbox() as box:
        bare = ended(box.crash, 5)
    assert [name for name, _ in places(bare)] == [f"{a:#010x}" for a in bare.details["addresses"]]
    assert len(bare.traceback) == 3  # .eh_frame stays: it is loaded
    subprocess.run([objcopy, "--only-keep-debug", whole, f"{lean}.debug"], check=True)
    with vxplug.open(lean).sandbox() as box:
        assert places(ended(box.crash, 5))[0] == ("innermost", mark("fault"))


def test_another_plugins_debug_file_is_not_believed(build_plugin, tmp_path):
    """Names of another build would be wrong, and look right."""
    lean = tmp_path / "lean.vxm"
    lean.write_bytes(build_plugin(SOURCE).read_bytes())
    (tmp_path / "lean.vxm.debug").write_bytes(build_plugin("#include <vxplug.h>\nVX_EXPORT void f(void) {}\n").read_bytes())
    with vxplug.open(lean).sandbox() as box:
        assert places(ended(box.crash, 5))[0] == ("innermost", mark("fault"))


def _v5_header(entries: bytes) -> bytes:
    body = bytes([4, 0]) + b"\0\0\0\0" + bytes([1, 1, 1, 251, 14, 13]) + bytes(12) + entries
    return struct.pack("<IH", len(body) + 2, 5) + body


@pytest.mark.parametrize("entries", [
    bytes([0]) + b"\xff\xff\xff\xff\x0f" + bytes(2),  # four thousand million folders of no bytes
    bytes([1, 1, 8]) + b"\xff\xff\xff\xff\x0f" + b"a\0" * 20,
    bytes([1, 1, 0x21]) + b"\x05",  # DW_FORM_implicit_const: no bytes either
    b"\x80" * 40,
])
def test_a_line_table_that_would_never_end(entries):
    """Threat 49: a header of twenty bytes may ask for the host's whole memory."""
    with pytest.raises(ValueError):
        LineTable({".debug_line": _v5_header(entries)}, 0, "/", Budget())


def test_a_name_without_an_end_costs_what_is_shown_of_it():
    """Threat 49: four bytes of a line table name a text anywhere; each may be as long as the section."""
    count, forms = 20, 50
    entries = bytes([forms]) + bytes([1, 0x0E]) * forms + bytes([count]) + bytes(4 * forms * count)  # DW_FORM_strp
    sections = {".debug_line": _v5_header(entries + entries), ".debug_str": b"A" * (30 << 20) + b"\0"}
    started = time.monotonic()
    table = LineTable(sections, 0, "/", Budget())
    assert time.monotonic() - started < 5  # half a minute, when each was looked at whole
    assert table._files == [(b"A" * 4096, 0)] * count


def test_names_of_a_plugins_line_tables_are_bounded_together():
    """Threat 49: each table may name 40,000 files in four bytes each, by text of 4096 that they share.  Fifty such tables,
    one for each frame of a forged stack, took eight gigabytes."""
    entries = bytes([1, 1, 0x1F]) + b"\xa0\x9c\x01" + bytes(4 * 20_000)  # DW_LNCT_path, DW_FORM_line_strp
    with pytest.raises(ValueError, match="too many bytes"):
        LineTable({".debug_line": _v5_header(entries), ".debug_line_str": b"a" * 5000}, 0, "/", Budget())
    numbers, budget = _v5_header(bytes([1, 2, 0x0B]) + b"\xa0\x9c\x01" + bytes(20_000) + bytes(2)), Budget()
    with pytest.raises(ValueError, match="too many names"):
        for _ in range(ALL_NAMES_MAX // 20_000 + 1):
            LineTable({".debug_line": numbers}, 0, "/", budget)


def test_the_line_tables_of_a_plugin_are_bounded_together():
    """Threat 49: each frame of a forged stack may lie in a unit of its own, with a table as large as there can be."""
    table, budget = _v5_header(bytes(4) + b"\xff" * 300_000), Budget()
    LineTable({".debug_line": table}, 0, "/", budget)
    with pytest.raises(ValueError, match="too many rows"):
        LineTable({".debug_line": table}, 0, "/", budget)
    started = time.monotonic()
    with pytest.raises(ValueError, match="too many bytes"):  # of operations that make no rows
        LineTable({".debug_line": _v5_header(bytes(4) + b"\x06" * (9 << 20))}, 0, "/", Budget())
    assert time.monotonic() - started < 1


def _patched(data: bytes, name: str, change) -> bytes:
    from elftools.elf.elffile import ELFFile

    header = ELFFile(io.BytesIO(data)).get_section_by_name(name).header
    start, end = header.sh_offset, header.sh_offset + header.sh_size
    return data[:start] + change(data[start:end]) + data[end:]


@pytest.mark.parametrize("section", [".debug_line", ".debug_info", ".debug_abbrev", ".debug_ranges", ".symtab"])
@pytest.mark.parametrize("fill", [0x00, 0x7F, 0xFF])
def test_debug_information_of_one_byte_value(frames_plugin, section, fill):
    """Threat 49: whatever a section holds, a fault is reported, and soon."""
    data = Path(frames_plugin.path).read_bytes()
    plugin = vxplug.open(_patched(data, section, lambda old: bytes([fill]) * len(old)))
    with plugin.sandbox() as box:
        started = time.monotonic()
        error = ended(box.crash, 5)
        assert time.monotonic() - started < 20
    assert error.kind == "memory" and len(error.traceback) >= 1


def test_random_damage_to_debug_information(frames_plugin):
    """Threat 49, seeded: damaged tables and frame rules cost names, never an error."""
    import random

    rng = random.Random(5)
    data = bytearray(Path(frames_plugin.path).read_bytes())
    from elftools.elf.elffile import ELFFile

    spans = [(s.header.sh_offset, s.header.sh_size) for s in ELFFile(io.BytesIO(data)).iter_sections()
             if s.name in (".debug_line", ".debug_info", ".debug_abbrev", ".eh_frame", ".debug_ranges")]
    addresses = list(DebugInfo(bytes(data))._symbols)[::60]
    for _ in range(12):
        damaged = bytearray(data)
        for start, size in spans:
            for _ in range(40):
                damaged[start + rng.randrange(size)] = rng.randrange(256)
        info = DebugInfo(bytes(damaged))
        for address, _, _ in addresses:
            info.locate(address), info.rule_at(address, [WALK_BYTES_MAX])


def test_too_much_debug_information_costs_names_only(frames_plugin, monkeypatch):
    """Threat 49: the meter that stops pyelftools must stop it, and leave a fault that is still reported."""
    monkeypatch.setattr("vxplug.debuginfo.READS_MAX", 150)  # headers of the file and its segments, no more
    with vxplug.open(Path(frames_plugin.path).read_bytes()).sandbox() as box:
        error = ended(box.crash, 5)
        assert "takes too long" in box.plugin._debug.failure
    assert error.traceback[0] == (f"{error.eip:#010x}", None, None)


def test_names_of_the_same_bytes_are_not_kept(frames_plugin):
    """Threat 49: symbols of 16 bytes may share their names' bytes.  As text they were 100 MB of a file of four."""
    count, start = 200_000, 0x10000
    table = b"".join(struct.pack("<IIIBBH", number % 500, start + number, 1, 2, 0, 1) for number in range(count))
    tracemalloc.start()
    symbols = _Symbols(table, b"\xff" * 2000)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 4 << 20 and len(symbols) == count
    assert symbols.name_at(start + 1) == "\ufffd" * 200 and symbols.size_at(start + count - 1) == 1


def test_of_a_functions_names_the_plain_one_is_shown():
    """C libraries give their functions more names, with underscores, that an author has never called."""
    names = b"\0printf\0__printf\0"
    table = b"".join(struct.pack("<IIIBBH", name, 64, size, 2, 0, 1) for name, size in ((1, 8), (8, 8), (1, 0)))
    assert _Symbols(table, names).name_at(70) == "printf" == _Symbols(table[16:32] + table[:16], names).name_at(64)


def test_a_null_function_pointer_has_no_line(build_plugin):
    """Linkers leave the lines of functions that nobody calls at address 0: calling a null pointer seemed to be in libc."""
    source = "#include <vxplug.h>\nVX_EXPORT void call(uint32_t at) { ((void (*)(void))at)(); __asm__ volatile(\"\"); }\n"
    plugin = vxplug.open(build_plugin(source))
    with plugin.sandbox() as box:
        error = ended(box.call, 0)
    assert (error.kind, error.address, error.traceback[0]) == ("execute", 0, ("0x00000000", None, None))
    assert error.traceback[1][::2] == ("call", 2)
    assert plugin.locate(0) is None and plugin.locate(40) is None


@pytest.mark.parametrize("line", [1 << 31, 1 << 70, 0, -1])
def test_a_line_that_cannot_be_is_unknown(box, monkeypatch, line):
    """A line of 2**31 made Python raise OverflowError, and the application's GuestFault was lost."""
    monkeypatch.setattr(LineTable, "find", lambda self, address: ("/x.c", line))
    error = ended(box.crash, 5)
    assert error.traceback[0] == ("innermost", "/x.c", None)
    entry = traceback.extract_tb(error.__traceback__)[-1]
    assert (entry.name, entry.filename) == ("innermost", "/x.c")


@pytest.mark.parametrize("version", ["-gdwarf-4", "-gdwarf-5"])
def test_a_folder_without_an_end_costs_what_a_path_may_have(build_plugin, version):
    """Threat 49: each frame's file name is made of the unit's folder, which may be as long as debug information may."""
    source = '#include <vxplug.h>\n#line 7 "x.c"\nVX_EXPORT void f(void) { __builtin_trap(); }\n'
    flags = (version, "-fdebug-compilation-dir=/" + "a/" * 40_000)
    with vxplug.open(build_plugin(source, flags)).sandbox() as box:
        (function, file, line), *_ = ended(box.f).traceback
        assert max(len(folder) for *_, folder in box.plugin._debug._lines._units) == 4096
    assert (function, line) == ("f", 7) and file.startswith("/a/a") and len(file) <= 4096


def test_a_name_in_a_block_costs_what_a_path_may_have():
    """Threat 49: of the forms that a name may have, this one says its own length."""
    entries = bytes([1, 1, 0x09, 1]) + b"\x80\x80\x04" + b"a" * 65536  # DW_LNCT_path, DW_FORM_block
    table = LineTable({".debug_line": _v5_header(entries + entries)}, 0, "/", Budget())
    assert table._files == [(b"a" * 4096, 0)] and len(table._path(0)) <= 4096


@pytest.mark.parametrize("broken", ["vxplug.binary.Binary.callers", "vxplug.binary.Binary.locate", "vxplug.faults._python_frame"])
def test_whatever_fails_in_naming_a_fault_costs_names(box, monkeypatch, broken):
    """The application waits for GuestFault: another error would pass every handler that it has."""
    def fails(*arguments):
        raise error

    monkeypatch.setattr(broken, fails)
    for error in (OverflowError(), RecursionError(), AssertionError()):
        fault = ended(box.crash, 5)
        assert (fault.kind, fault.address) == ("memory", 5) and len(fault.traceback) >= 1
    error = MemoryError()
    with pytest.raises(MemoryError):
        box.crash(5)


@pytest.mark.parametrize("where", ["read_units", "LineTable.__init__"])
@pytest.mark.parametrize("end", [vxplug.GuestTimeout, KeyboardInterrupt])
def test_an_end_in_the_middle_of_a_look_costs_that_look(frames_plugin, monkeypatch, where, end):
    """The time of a call outside is over, or Ctrl-C comes, while names are read: the plugin had none from then on."""
    def ends(*arguments):
        raise end("outside")

    with vxplug.open(Path(frames_plugin.path).read_bytes()).sandbox() as box:
        with monkeypatch.context() as patch:
            patch.setattr(f"vxplug.debuginfo.{where}", ends)
            with pytest.raises((vxplug.GuestFault, KeyboardInterrupt)):
                box.crash(5)
        assert places(ended(box.crash, 5))[0] == ("innermost", mark("fault"))


def test_a_fault_while_python_ends_is_that_fault(run_life):
    """Nothing can be imported then: what a finaliser caught, or Python printed, was ImportError."""
    good(run_life("""
        class Last:
            def __del__(self, box=plugin.sandbox(), sys=sys, write=os.write, fault=vxplug.GuestFault):
                try:
                    box.crash()
                except fault as error:
                    assert sys.meta_path is None and error.kind == 'memory' and error.report()['digest'] == ''
                    write(1, b'good\\n')
        last = Last()
    """))


# ---- faults in the middle of a look ----


def test_a_fault_inside_a_look_ends(run_life):
    """A collection may run a finaliser that calls a guest, also while the names of a fault are looked up: when that
    guest faulted as well, the thread waited for itself for ever."""
    good(run_life("""
        from vxplug.debuginfo import DebugInfo
        faulthandler.dump_traceback_later(20, exit=True)
        a, b, inner = plugin.sandbox(), plugin.sandbox(), []
        def crash():
            try:
                b.crash()
            except vxplug.GuestFault as error:
                inner.append(error)
        def in_the_middle(method):
            def run(*arguments):
                crash()
                return method(*arguments)
            return run
        DebugInfo.__init__, DebugInfo.locate = in_the_middle(DebugInfo.__init__), in_the_middle(DebugInfo.locate)
        try:
            a.crash()
        except vxplug.GuestFault as error:
            assert error.traceback[0][0] == 'crash', error.traceback
        assert len(inner) > 1 and {error.kind for error in inner} == {'memory'}
        assert all(error.traceback == [(f'{error.eip:#010x}', None, None)] for error in inner)
        crash()
        assert inner[-1].traceback[0][0] == 'crash'
        print('good')
    """))


@pytest.mark.parametrize(("method", "named"), [("__init__", False), ("locate", True)])
def test_a_fork_beside_a_look_leaves_no_lock(run_life, method, named):
    """The child had the lock of a thread that it has not, and waited for it at every fault.  It has names again, but for
    one that was forked at the first reading, when modules and their locks may be half there."""
    good(run_life(f"""
        from vxplug.debuginfo import DebugInfo
        faulthandler.dump_traceback_later(20, exit=True)
        a, b, other = plugin.sandbox(), plugin.sandbox(), vxplug.open(plugin.data).sandbox()
        looks, forked, original = threading.Event(), threading.Event(), DebugInfo.{method}
        def waits(*arguments):
            looks.set()
            forked.wait()
            return original(*arguments)
        DebugInfo.{method} = waits
        thread = threading.Thread(target=ends, args=(a.crash,))
        thread.start()
        looks.wait()
        child = os.fork()
        forked.set()
        if child == 0:
            signal.alarm(20)
            DebugInfo.{method}, found = original, []
            for box in (b, other):
                try:
                    box.crash()
                except vxplug.GuestFault as error:
                    found.append(error.traceback[0][0] == 'crash')
            os._exit(found != [{named}] * 2)
        thread.join()
        assert os.waitpid(child, 0)[1] == 0
        print('good')
    """))


# ---- last words ----


def test_a_failed_assertion_says_which(box):
    """assert() writes to stderr and aborts: without the text the exception says only that."""
    error = ended(box.fail)
    assert error.kind == "abort" and "the mark of the guest" in str(error) and f": {mark('assert')})" in str(error)
    assert ("fail", mark("assert")) in places(error)


def test_last_words_are_escaped(box):
    """Threat 42: the text lands on terminals and in logs."""
    error = ended(box.quit, 3)
    assert error.code == 3 and r"bad \x1b[31m thing \u202e" in str(error)
    assert b"\x1b" in error.stderr


def test_last_words_are_bounded_and_the_last(box):
    """Threat 48: an exception's text must not grow with what a guest writes."""
    error = ended(box.say_and_crash, "x" * 100_000 + "\nthe end")
    assert str(error).endswith("the end") and len(str(error)) < 1000
    assert len(error.stderr) <= 1024 and error.stderr.endswith(b"the end")


def test_last_words_are_of_this_call(box):
    """Those of an earlier call would explain the wrong failure."""
    box.say("an earlier call\n")
    assert "earlier" not in str(ended(box.crash, 5))


CHECKS = [("overflow", 2**31 - 1, "integer addition overflows"), ("shift", 40, "shift out of bounds"),
          ("element", 7, "array index out of bounds")]


@pytest.mark.parametrize(("export", "argument", "text"), CHECKS)
def test_undefined_behaviour_trap(build_plugin, export, argument, text):
    """-fsanitize-trap leaves a number in an instruction; a person wants the check's name."""
    flags = ("-fsanitize=undefined", "-fsanitize-trap=undefined")
    with vxplug.open(build_plugin(SOURCE, flags)).sandbox() as box:
        error = ended(box[export], argument)
        assert error.kind == "illegal-instruction" and f"(undefined behaviour: {text})" in str(error)
        assert box.overflow(1) == 2


def test_stack_protector(build_plugin):
    """musl answers a smashed stack with `hlt`: a privileged instruction, which says nothing to an author."""
    with vxplug.open(build_plugin(SOURCE, ("-fstack-protector-strong",))).sandbox() as box:
        assert "stack smashing detected" in str(ended(box.smash, 64))
        box.smash(16)


# ---- reports ----


def test_report_is_json_and_complete(box):
    """A report is all that a developer gets from a machine that is not theirs."""
    error = ended(box.crash, 5)
    report = decode_report(error.to_json().encode())
    assert report == json.loads(json.dumps(error.report()))
    assert (report["kind"], report["address"], report["digest"]) == ("memory", 5, box.plugin.digest)
    assert [f["line"] for f in report["frames"]] == [mark("fault"), mark("middle"), mark("crash")]


def test_errors_pickle_whole(box):
    """A pool sends exceptions between processes: what is lost on the way is lost for the report."""
    for function, arguments in ((box.crash, (5,)), (box.quit, (3,)), (box.fail, ())):
        error = ended(function, *arguments)
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error) and again.report() == error.report()


def inspect_fault(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "vxplug", "inspect", *arguments],
                          capture_output=True, text=True, timeout=60)


def test_inspect_decodes_a_saved_report(box, tmp_path):
    """The command is how a report becomes readable."""
    saved = tmp_path / "fault.json"
    saved.write_text(ended(box.crash, 5).to_json())
    shown = inspect_fault("--fault", str(saved))
    assert shown.returncode == 0 and f"in innermost at {ended(box.crash, 5).traceback[0][1]}:" in shown.stdout
    assert json.loads(inspect_fault("--json", "--fault", str(saved)).stdout)["kind"] == "memory"


def test_inspect_decodes_what_call_printed(build_plugin, tmp_path):
    """Without it who kept that output would have to cut the report out of it."""
    with (tmp_path / "out.json").open("wb") as saved:
        subprocess.run([sys.executable, "-m", "vxplug", "call", "--json", str(build_plugin(SOURCE)), "crash", "5"], stdout=saved, check=False)
    shown = inspect_fault("--fault", str(tmp_path / "out.json"))
    assert shown.returncode == 0 and "in innermost at " in shown.stdout


def test_inspect_takes_names_from_the_plugin(build_plugin, tmp_path):
    """A report without names, from a machine without debug information, gets them from the plugin at home."""
    plugin = build_plugin(SOURCE)
    with vxplug.open(plugin).sandbox() as box:
        report = ended(box.crash, 5).report()
    report["frames"] = [{"function": "?", "address": frame["address"]} for frame in report["frames"]]
    saved = tmp_path / "fault.json"
    saved.write_text(json.dumps(report))
    assert f"in innermost at {tmp_path}" not in inspect_fault(str(plugin), "--fault", str(saved)).stdout
    assert "in innermost at " in inspect_fault(str(plugin), "--fault", str(saved)).stdout
    other = build_plugin("#include <vxplug.h>\nVX_EXPORT void f(void) {}\n")
    assert "another plugin" in inspect_fault(str(other), "--fault", str(saved)).stderr


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"report": 1}', '{"report": {"report": {}}}', "\x00", '{"report": 1, "error": 3}'])
def test_inspect_refuses_what_is_no_report(tmp_path, text):
    """A report comes from elsewhere: whatever it holds, one line says what is wrong."""
    saved = tmp_path / "fault.json"
    saved.write_text(text)
    done = inspect_fault("--fault", str(saved))
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "not a fault report" in done.stderr


def test_inspect_escapes_a_hostile_report(box, tmp_path):
    """Threat 42: the report's texts are the plugin's, or anybody's."""
    report = ended(box.crash, 5).report()
    for key in ("message", "bytes", "plugin", "error"):
        report[key] = "\x1b[31m"
    report["frames"][0] |= {"function": "\x1b[31m", "file": "\x1b[31m"}
    report["limits"] = {"\x1b[31m": "\x1b[31m"}
    saved = tmp_path / "fault.json"
    saved.write_text(json.dumps(report))
    assert "\x1b" not in inspect_fault("--fault", str(saved)).stdout
