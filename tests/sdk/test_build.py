"""The guest SDK: what plugin authors build, and what they are told when they cannot."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import vxplug
from vxplug import sdk, toolchain


def _build(folder: Path, source: str, name: str = "plugin.c", **options) -> Path:
    (folder / name).write_text(source)
    sdk.build([folder / name], folder / "plugin.vxm", **options)
    return folder / "plugin.vxm"


def _refused(folder: Path, source: str) -> str:
    with pytest.raises(sdk.SdkError) as caught:
        _build(folder, source)
    assert not (folder / "plugin.vxm").exists()
    return str(caught.value)


HANDLE = "#include <vxplug.h>\ntypedef struct h h;\nVX_HANDLE(h, NULL);\nVX_EXPORT int f(h *a) { return 0; }\n"
REFUSALS = {
    "#include <vxplug.h>\nVX_EXPORT int broken(int a) { return a +; }\n": "plugin.c:2",
    "int add(int a, int b) { return a + b; }\n": "nothing is exported",
    "#include <vxplug.h>\nVX_EXPORT int f(int a, ...) { return a; }\n": "f(): variable arguments",
    "#include <vxplug.h>\nVX_EXPORT int f(long double v) { return v > 0; }\n": "f(): parameter v: type 'long double'",
    "#include <vxplug.h>\nVX_EXPORT _BitInt(40) f(int v) { return v; }\n":
        "f(): result type '_BitInt(40)' is not supported: numbers are integers of 8 to 64 bits, bool, float, double",
    "#include <vxplug.h>\nstruct s { unsigned _BitInt(9) a; };\nVX_EXPORT int f(struct s v) { return v.a; }\n":
        "f(): parameter v: type 'unsigned _BitInt(9)' of member a is not supported",
    "#include <vxplug.h>\nstruct s { int *a; };\nVX_EXPORT int f(struct s v) { return *v.a; }\n":
        "f(): parameter v: type 'int *' of member a",
    "#include <vxplug.h>\nVX_EXPORT int f(const double *v) { return *v > 0; }\n":
        "f(): parameter v: type 'const double *' is not supported: for one value take it without the pointer, for many take vx_array_f64",
    "#include <vxplug.h>\nVX_EXPORT int f(int *v) { return *v; }\n":
        "f(): parameter v: type 'int *' is not supported: for one value say VX_OUT(f, v) or VX_INOUT(f, v), for many take vx_mut_array_i32",
    "#include <vxplug.h>\nVX_EXPORT int f(int (*g)(int, ...)) { return g(1); }\n":
        "f(): parameter g: type 'int (*)(int, ...)', a function with variable arguments, is not supported: declare each parameter",
    "#include <vxplug.h>\nVX_EXPORT int f(int (*g)(char, uint8_t *)) { return g(0, 0); }\n":
        "f(): parameter g: type 'int (*)(char, uint8_t *)', whose parameter 2 is 'uint8_t *', is not supported: "
        "for one value take a pointer to a struct that has it, for many take vx_mut_array_u8",
    "#include <vxplug.h>\nVX_IMPORT(void, g, (const char **names));\nVX_EXPORT void f(void) { g(0); }\n":
        "import g(): parameter 1: type 'const char **' is not supported",
    "#include <vxplug.h>\nVX_IMPORT(long double, g, (void));\nVX_EXPORT int f(void) { return g() > 0; }\n":
        "import g(): result: type 'long double' is not supported: use double",
    "#include <vxplug.h>\nVX_IMPORT(void, g, (vx_bytes data));\nVX_EXPORT void f(void) { g(vx_take(0, 0)); }\n":
        "import g(): parameter 1: type 'vx_bytes' is not supported: a function of the host's takes bytes as vx_view",
    "#include <vxplug.h>\nVX_EXPORT int f(vx_new_array_i32 (*g)(void)) { return g().len; }\n":
        "whose result is 'vx_new_array_i32', is not supported: a function of the host's gives numbers as vx_array_i32",
    "#include <vxplug.h>\nVX_EXPORT int f(int (*(*g)(void))(int)) { return g()(1); }\n":
        "whose result is 'int (*)(int)', is not supported: a function of the host's gives no functions",
    "#include <vxplug.h>\nVX_EXPORT int f(int (*g)(vx_view (*)(void))) { return g(0); }\n":
        "whose parameter 1 is 'vx_view (*)(void)', a function that Python cannot call, is not supported: it may not give vx_view",
    "#include <vxplug.h>\nstruct s { const char *t; };\nVX_EXPORT void f(void (*g)(struct s *)) { g(0); }\n":
        "whose parameter 1 is 'struct s *', is not supported: text that a function of the host's changed would have no owner; "
        "make the pointer const",
    "#include <vxplug.h>\nstruct s { char raw[2000000]; };\nVX_EXPORT int f(const struct s *v) { return v->raw[0]; }\n":
        "f(): parameter v: type 'char [2000000]' of member raw, of 2000000 bytes where 1048576 are the limit, is not supported: "
        "take the bytes as vx_view or vx_mut, many numbers as a vx_array",
    "#include <vxplug.h>\nstruct s { int many[300][300]; };\nVX_EXPORT int f(struct s *v) { return v->many[0][0]; }\n":
        "f(): parameter v: type 'int [300][300]' of member many, of 90301 numbers and other parts where 65536 are the limit, is not",
    "#include <vxplug.h>\nstruct s { int many[40000]; };\nVX_EXPORT void f(void (*g)(const struct s *, struct s *)) { g(0, 0); }\n":
        "whose parameters have 80005 numbers and other parts where 65536 are the limit, is not supported: pass bytes as vx_view, many",
    "#include <vxplug.h>\nstruct s { int many[40000]; };\nVX_EXPORT void f(struct s *v, struct s *w) {}\n":
        "f(): its results have 80004 numbers and other parts where 65536 are the limit: give bytes as vx_bytes, many numbers as",
    "#include <vxplug.h>\nstruct s { int a[600]; };\nVX_EXPORT int f(struct s v) { return v.a[0]; }\n":
        "f(): parameter v: type 'struct s' by value is not supported: 2400 bytes are more than a call takes; take a pointer to it",
    "#include <vxplug.h>\nstruct s { int a[150]; };\nVX_EXPORT int f(struct s v, struct s w) { return v.a[0] + w.a[0]; }\n":
        "f(): its structs by value are more than a call takes: take pointers to them",
    "#include <vxplug.h>\nVX_EXPORT vx_view f(void) { return (vx_view){0, 0}; }\n":
        "f(): result type 'vx_view' is not supported: nobody would know who frees it; give vx_bytes",
    "#include <vxplug.h>\nVX_EXPORT void f(vx_new_array_u8 v) {}\n":
        "f(): parameter v: type 'vx_new_array_u8' is not supported: that is a result; take vx_array_u8",
    "#include <vxplug.h>\nVX_OUT(f, w);\nVX_EXPORT int f(int *v) { return *v; }\n":
        "plugin.c:2: VX_OUT(f, w): f() has no parameter w; there is v",
    '#include <vxplug.h>\nVX_DOC(decoed,\n"lost");\nVX_EXPORT int decode(int a) { return a; }\nVX_EXPORT int f(int a) { return a; }\n':
        "plugin.c:2: VX_DOC(decoed, …): no VX_EXPORT is called decoed; there are decode, f",
    "#include <vxplug.h>\n\nVX_NULLABLE(decoed, p);\nVX_EXPORT int decode(const char *p) { return !p; }\n":
        "plugin.c:3: VX_NULLABLE(decoed, p): no VX_EXPORT is called decoed; there is decode",
    "#include <vxplug.h>\nVX_INOUT(g, v);\nint g(int *v) { return *v; }\nVX_EXPORT int f(void) { return 0; }\n":
        "plugin.c:2: VX_INOUT(g, v): no VX_EXPORT is called g; there is f",
    "#include <vxplug.h>\nVX_NULLABLE(f, p);\nVX_EXPORT int f(void) { return 0; }\n":
        "plugin.c:2: VX_NULLABLE(f, p): f() has no parameter p; there are none",
    "#include <vxplug.h>\nVX_EXPORT int *f(void) { return 0; }\n": "f(): result type 'int *' is not supported: of pointers only those to structs",
    "#include <vxplug.h>\nstruct s { int a;\nint __init__; };\nVX_EXPORT int f(struct s v) { return v.a; }\n":
        "plugin.c:3: member of s __init__ cannot be a name in Python: it is reserved by Python; call it something else",
    "#include <vxplug.h>\nenum e {\nA,\n_missing_ };\nVX_EXPORT int f(enum e v) { return v; }\n":
        "plugin.c:2: enumerator _missing_ of e cannot be a name in Python's enums: call it something else",
    "#include <vxplug.h>\n\nVX_EXPORT int __call__(int a) { return a; }\n": "plugin.c:3: function __call__ cannot be a name in Python",
    "#include <vxplug.h>\nstruct s { int in, in_; };\nVX_EXPORT int f(struct s v) { return v.in; }\n":
        "plugin.c:2: member of s in_ is called in_ in Python, as is in (plugin.c:2): rename one",
    "#include <vxplug.h>\nVX_EXPORT int f(int in, int in_) { return in + in_; }\n":
        "plugin.c:2: parameter of f() in_ is called in_ in Python, as is in (plugin.c:2): rename one",
    "#include <vxplug.h>\nVX_EXPORT int del(int a) { return a; }\nVX_EXPORT int del_(int a) { return a; }\n":
        "plugin.c:3: function del_ is called del_ in Python, as is del (plugin.c:2): rename one",
    "#include <vxplug.h>\nVX_IMPORT(void, is, (void));\nVX_IMPORT(void, is_, (int a));\nVX_EXPORT void f(void) { is(); is_(1); }\n":
        "plugin.c:3: import is_ is called is_ in Python, as is is (plugin.c:2): rename one",
    "#include <vxplug.h>\nstruct in { int a; };\nenum in_ { A };\nstruct out { struct in a[2]; };\n"
    "VX_EXPORT int f(struct out *a, enum in_ b) { return b; }\n":
        "plugin.c:3: type in_ is called in_ in Python, as is in (plugin.c:2): rename one",
    "#include <vxplug.h>\ntypedef struct in in;\nVX_HANDLE(in, NULL);\nstruct in_ { int a; };\n"
    "VX_EXPORT int f(in *a, struct in_ b) { return b.a; }\n":
        "plugin.c:4: type in_ is called in_ in Python, as is in (plugin.c:3): rename one",
    HANDLE + "VX_METHOD(h, f, class);\nVX_METHOD(h, f, class_);\n":
        "plugin.c:6: method of h class_ is called class_ in Python, as is class (plugin.c:5): rename one",
    HANDLE + "VX_METHOD(h, f, closed);\n":
        "plugin.c:5: VX_METHOD(h, f, closed): all handles have a closed of their own; call it something else",
    HANDLE + "VX_METHOD(other, f, name);\n": "plugin.c:5: VX_METHOD(other, f, name): other is no VX_HANDLE; there is h",
    HANDLE + "VX_METHOD(h, feeder, feed);\n":
        "plugin.c:5: VX_METHOD(h, feeder, feed): no VX_EXPORT is called feeder; there is f",
    HANDLE + "VX_EXPORT int g(int b, h *a) { return b; }\nVX_METHOD(h, g, feed);\n":
        "plugin.c:6: VX_METHOD(h, g, feed): g() must take h * first, and not VX_NULLABLE",
    HANDLE + "VX_NULLABLE(f, a);\nVX_METHOD(h, f, feed);\n":
        "plugin.c:6: VX_METHOD(h, f, feed): f() must take h * first, and not VX_NULLABLE",
    "#include <vxplug.h>\nenum e { is,\nis_ };\nVX_EXPORT int f(enum e v) { return v; }\n":
        "plugin.c:2: enumerator of e is_ is called is_ in Python, as is is (plugin.c:2): rename one",
    "#include <vxplug.h>\nint missing(int);\nVX_EXPORT int f(int a) { return missing(a); }\n": "missing",
}


@pytest.mark.parametrize("source", REFUSALS, ids=list(REFUSALS.values()))
def test_refusals_name_the_place(tmp_path, source):
    """Without it an author would get a plugin that lies about its types, or a message without a place."""
    assert REFUSALS[source] in _refused(tmp_path, source)


def test_declarations_may_stand_in_another_file(tmp_path):
    """Without it a header that says all of a plugin's functions could not be: the word would be taken for a mistyped one."""
    (tmp_path / "said.h").write_text('#include <vxplug.h>\nint decode(const char *p);\n#ifdef SAY\nVX_DOC(decode, "Said.");\n'
                                     "VX_NULLABLE(decode, p);\n#endif\n")
    (tmp_path / "one.c").write_text('#define SAY\n#include "said.h"\nVX_EXPORT int f(void) { return decode(0); }\n')
    (tmp_path / "two.c").write_text('#include "said.h"\nVX_EXPORT int decode(const char *text) { return !text; }\n')
    with pytest.raises(sdk.SdkError, match=r"^said\.h:5: VX_NULLABLE\(decode, p\): decode\(\) has no parameter p; there is text$"):
        sdk.build([tmp_path / "one.c", tmp_path / "two.c"], tmp_path / "plugin.vxm")
    (tmp_path / "two.c").write_text('#include "said.h"\nVX_EXPORT int decode(const char *p) { return !p; }\n')
    sdk.build([tmp_path / "one.c", tmp_path / "two.c"], tmp_path / "plugin.vxm")
    with vxplug.open(tmp_path / "plugin.vxm").sandbox() as box:
        assert box.decode.__doc__ == "Said." and box.decode(None) == 1


@pytest.mark.parametrize(("taken", "shown"), [
    ("const char &v", "const char &"), ("char &&v", "char &&"), ("int *const &v", "int *const &"),
    ("volatile double *v", "volatile double *"),
])
def test_types_of_cxx_are_spelled(tmp_path, taken, shown):
    """Without it the author would hear that the type '(unnamed)' is not supported, and look for it."""
    with pytest.raises(sdk.SdkError, match=re.escape(f"f(): parameter v: type '{shown}'")):
        _build(tmp_path, f"#include <vxplug.h>\nVX_EXPORT int f({taken}) {{ return 0; }}\n", "plugin.cc")


def test_prototypes_have_their_qualifiers(tmp_path):
    """Without it `vxplug inspect` would show '(unnamed) text' of what C calls restrict, and const on the wrong side."""
    source = "#include <vxplug.h>\nVX_EXPORT int f(const char *restrict a, const char *const b) { return *a + *b; }\n"
    assert vxplug.open(_build(tmp_path, source)).exports["f"].prototype == "int f(const char *restrict a, const char *const b)"


def test_unknown_include_folder(tmp_path):
    """Without it a mistyped -I would show in headers that are missing, or not at all where another folder has some of their names."""
    (tmp_path / "plugin.c").write_text("#include <vxplug.h>\nVX_EXPORT int f(void) { return 0; }\n")
    command = [sys.executable, "-m", "vxplug", "build", "-I", "nodir", "-o", "plugin.vxm", "plugin.c"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr == "vxplug: nodir: no such folder to include from\n"


SMALL = "#include <vxplug.h>\nVX_EXPORT int f(void) { return 0; }\n"


def test_a_level_that_there_is_not(tmp_path):
    """Without it the compiler would take another, and say so of each file, of which the author has written one."""
    (tmp_path / "plugin.c").write_text(SMALL)
    command = [sys.executable, "-m", "vxplug", "build", "-O9", "-o", "plugin.vxm", "plugin.c"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith("vxplug: -O9: no such level of optimization; there are -O0, ")
    assert done.stderr.count("\n") == 1 and not (tmp_path / "plugin.vxm").exists()


@pytest.mark.parametrize(("output", "says"), [
    ("plugin.c", "plugin.c: a plugin in its place would replace a source: call the output plugin.vxm"), ("folder", "folder: a folder, where"),
    ("none/plugin.vxm", "none/plugin.vxm: no such folder as none to write to"),
])
def test_an_output_that_cannot_be(tmp_path, monkeypatch, output, says):
    """Without it `-o plugin.c`, with the output's name left out, replaces the author's source; of others the compiler
    would work first, maybe for a minute, and what is shown be an error's number."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugin.c").write_text(SMALL)
    (tmp_path / "folder").mkdir()
    with pytest.raises(sdk.SdkError, match=re.escape(says)):
        sdk.build(["plugin.c"], output, progress=pytest.fail)
    assert (tmp_path / "plugin.c").read_text() == SMALL


def test_a_full_disk_leaves_no_half_of_a_plugin(tmp_path):
    """Without it make, which looks at dates, would take what is there for built."""
    (tmp_path / "plugin.c").write_text(SMALL)
    sdk.build([tmp_path / "plugin.c"], tmp_path / "plugin.vxm")
    script = ("import resource, sys\nfrom pathlib import Path\nfrom vxplug import sdk\n"
              "target = Path(sys.argv[1])\ndata = target.read_bytes()\n"
              "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
              "try: sdk._write_whole(target, data)\nexcept sdk.SdkError as error: print(error)")
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "plugin.vxm"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{tmp_path / 'plugin.vxm'}: File too large\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["plugin.c"]


def test_a_compiler_that_says_nothing(tmp_path):
    """Without it the error would be an empty line; one that a signal killed, for want of memory, has no words either."""
    with pytest.raises(sdk.SdkError, match=r"^false failed with status 1, and said nothing$"):
        _build(tmp_path, SMALL, cc="false")


def test_another_compiler(tmp_path, monkeypatch, capfd):
    """Without it nobody would know that --cc works, or does with one whose default is code for any address, as many have it."""
    monkeypatch.setenv("ZIG_LIB_DIR", toolchain.tool_environment()["ZIG_LIB_DIR"])  # whose libc is compiled already
    other = " ".join([sys.executable, "-m", "ziglang", "cc", "-target", "x86-linux-musl", "-mcpu=pentium4", "-fPIE"])
    source = '#include <vxplug.h>\nVX_EXPORT vx_stream f(uint32_t n) { while (n--) vx_yield("ab", 2); return VX_END; }\n'
    with vxplug.open(_build(tmp_path, source, cc=other)).sandbox() as box:
        assert b"".join(box.f(3)) == b"ababab"
    assert capfd.readouterr() == ("", "")


def test_a_compiler_for_another_processor(tmp_path):
    """Without it `--cc gcc` ended in hundreds of lines about instructions that the author has not written."""
    native = " ".join([sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-musl"])
    with pytest.raises(sdk.SdkError, match="no code for i386: a plugin needs one for i386 and musl"):
        _build(tmp_path, SMALL, cc=native)


def test_a_warning_of_an_option_is_shown_once(tmp_path, capfd):
    """Without it an author would read it for each file of the SDK, too."""
    flag = f"-Wnone-{time.time_ns()}"  # of what it has compiled before, zig repeats no warnings
    _build(tmp_path, SMALL, cflags=[flag])
    assert capfd.readouterr().err.count(f"'{flag}'") == 1


def test_steps_of_a_build(tmp_path, monkeypatch, capfd):
    """Without it the first build on a machine would look as if it hung; one that nobody asked to speak must not."""
    steps: list[str] = []
    monkeypatch.setattr(sdk, "SLOW_LINK", 0.0)
    _build(tmp_path, SMALL, progress=steps.append)
    assert "compiled plugin.c" in steps and steps[-2:] == ["linking", sdk.FIRST_BUILD]
    _build(tmp_path, SMALL)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(sdk, "SLOW_LINK", 600.0)
    steps.clear()
    _build(tmp_path, SMALL, progress=steps.append)
    assert steps[-1] == "linking"


def test_an_image_that_no_sandbox_takes(tmp_path):
    """Without it the author would hear of the limit from those who cannot load the plugin."""
    source = "#include <vxplug.h>\nstatic char table[128 << 20];\nVX_EXPORT uint32_t at(int i) { return (uint32_t)&table[i]; }\n"
    said = re.search(r"takes (\d+) bytes of memory, over the limit of 134217728", _refused(tmp_path, source))
    assert said and 128 << 20 < int(said.group(1)) < 129 << 20


def test_unknown_file(tmp_path):
    """Without it a mistyped name would be the compiler's riddle."""
    with pytest.raises(sdk.SdkError, match="no such file"):
        sdk.build([tmp_path / "nowhere.c"], tmp_path / "plugin.vxm")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(sdk.SdkError, match=r"notes\.txt: not a C, C\+\+ or assembly source"):
        sdk.build([tmp_path / "notes.txt"], tmp_path / "plugin.vxm")


def test_same_source_same_bytes(tmp_path):
    """Without it nobody could check that a plugin was built from the source it names."""
    source = "#include <vxplug.h>\nVX_EXPORT int32_t add(int32_t a, int32_t b) { return a + b; }\n"
    first = _build(tmp_path, source).read_bytes()
    assert _build(tmp_path, source).read_bytes() == first


def test_cxx(tmp_path):
    """Without it a C++ author could not export a function."""
    source = (
        "#include <vxplug.h>\ntemplate <class T> static T twice(T value) { return value * 2; }\n"
        "VX_EXPORT int64_t doubled(int64_t value) { return twice(value); }\n"
    )
    with vxplug.open(_build(tmp_path, source, "plugin.cc")).sandbox() as box:
        assert box.doubled(1 << 40) == 1 << 41


def test_archive_from_the_drivers(tmp_path):
    """Without it a library's own makefile could not be used with `vxplug cc` and `vxplug ar`."""
    (tmp_path / "part.c").write_text("int part(int value) { return value + 40; }\n")
    for command in (["cc", "-O2", "-c", "part.c", "-o", "part.o"], ["ar", "rcs", "libpart.a", "part.o"],
                    ["ranlib", "libpart.a"]):
        subprocess.run([sys.executable, "-m", "vxplug", *command], cwd=tmp_path, check=True)
    (tmp_path / "main.c").write_text(
        "#include <vxplug.h>\nint part(int);\nVX_EXPORT int32_t answer(void) { return part(2); }\n"
    )
    sdk.build([tmp_path / "main.c", tmp_path / "libpart.a"], tmp_path / "plugin.vxm")
    with vxplug.open(tmp_path / "plugin.vxm").sandbox() as box:
        assert box.answer() == 42


def test_flags_reach_the_compiler(tmp_path):
    """Without it -D, -I and -O of an author's build would be dropped without a word."""
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "answer.h").write_text("#define BASE 40\n")
    source = "#include <vxplug.h>\n#include <answer.h>\nVX_EXPORT int32_t f(void) { return BASE + MORE; }\n"
    flags = ["-DMORE=2", f"-I{tmp_path / 'include'}"]
    with vxplug.open(_build(tmp_path, source, cflags=flags)).sandbox() as box:
        assert box.f() == 42


def test_command_line(tmp_path):
    """Without it the README's `vxplug build` and `vxplug call` could break unseen."""
    (tmp_path / "sum.c").write_text(
        "#include <vxplug.h>\nVX_EXPORT int32_t add(int32_t a, int32_t b) { return a + b; }\n"
    )
    run = [sys.executable, "-m", "vxplug"]
    subprocess.run([*run, "build", "sum.c", "-o", "sum.vxm"], cwd=tmp_path, check=True)
    done = subprocess.run([*run, "call", "sum.vxm", "add", "2", "3"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "5" and done.returncode == 0
    done = subprocess.run([*run, "call", "sum.vxm", "add", "2"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0 and "takes 2 arguments" in done.stderr and "Traceback" not in done.stderr


def test_the_driver_adds_no_checks(tmp_path):
    """Without it code that every other compiler accepts, as configure scripts and old C have it, would die."""
    (tmp_path / "wrap.c").write_text(
        "#include <limits.h>\n"
        "int main(int argc, char **argv) { (void)argv; int x = INT_MAX; x += argc; return x == INT_MIN ? 7 : 8; }\n"
    )
    command = [sys.executable, "-m", "vxplug", "cc", str(tmp_path / "wrap.c"), "-o", str(tmp_path / "wrap")]
    subprocess.run(command, check=True)
    assert vxplug.run_program(tmp_path / "wrap").status == 7
