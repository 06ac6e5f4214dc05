"""C names that Python has other uses for."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import pytest

import vxplug
from vxplug.stubs import stub_text

SOURCE = r"""
#include <stdlib.h>
#include <vxplug.h>
typedef enum is { mro, from, None, name, value } is;
struct in { int32_t lambda; is with; struct { int16_t yield; }; };
union def { int32_t pass; float raise; int32_t self; };
typedef struct global { int32_t n; } global;
VX_HANDLE(global, (void (*)(global *))free);
VX_METHOD(global, nonlocal, try);
VX_IMPORT(int32_t, import, (int32_t async));
VX_DOC(del, "A keyword.");
VX_EXPORT struct in del(struct in in, is is) { in.lambda += in.yield + import(is); in.with = is; return in; }
VX_NULLABLE(or, and);
VX_EXPORT float or(const union def *and) { return and ? and->raise : -1; }
VX_EXPORT global *class(int32_t n) { global *g = malloc(sizeof *g); g->n = n; return g; }
VX_EXPORT int32_t nonlocal(global *self, int32_t except) { return self->n + except; }
"""


@pytest.fixture(scope="module")
def path(build_plugin):
    return build_plugin(SOURCE)


@pytest.fixture(scope="module")
def plugin(path):
    return vxplug.open(path)


def test_keywords_end_in_an_underscore(plugin):
    """Without it C that is fine could not be exported, or only be reached by getattr."""
    assert set(plugin.exports) == {"del_", "or_", "class_", "nonlocal_"} and list(plugin.imports) == ["import_"]
    assert set(plugin.types) == {"is_", "in_", "def_", "global_"}
    with plugin.sandbox(imports={"import_": lambda n: n * 100}) as box:
        value = box.in_(lambda_=1, with_=box.is_.None_, yield_=7)
        assert box.del_(value, is_=box.is_.from_) == box.in_(108, box.is_.from_, 7)
        assert box.is_.mro_ == 0 and box.is_.name == 3 and box.is_["value"] == 4
        assert box.or_(box.def_(self=0x40200000)) == box.or_(box.def_(raise_=2.5)) == 2.5 and box.or_(and_=None) == -1
        assert box.class_(5).try_(except_=2) == 7
        assert box.del_.__name__ == "del_" and box.del_.__doc__ == "A keyword."
        with pytest.raises(TypeError, match=r"del_\(\) argument 'in_\.lambda_': expected int, got str"):
            box.del_(box.in_("x", 0, 0), 0)
        assert pickle.loads(pickle.dumps(value)) == value and pickle.loads(pickle.dumps(box.is_.from_)) is box.is_.from_
    assert plugin.exports["del_"].prototype == "struct in del(struct in in, is is)", "C's own names"


def test_imports_are_asked_for_by_their_name_in_python(plugin, path):
    """Without it who loads the plugin would give `import`, as its prototype has it, and be told that it has no use for that."""
    with pytest.raises(vxplug.MissingImportError, match=r"not given: int32_t import\(int32_t\) as import_$"):
        plugin.sandbox()
    shown = subprocess.run([sys.executable, "-m", "vxplug", "inspect", path], check=True, capture_output=True, text=True).stdout
    assert "            int32_t import(int32_t) as import_\n" in shown


def test_tools(plugin, path, tmp_path):
    """Without it stubs would be no Python, or the command line not find what inspect shows."""
    text = stub_text(plugin)
    compile(text, "stub", "exec")
    assert "def del_(in_: in_, is_: is_ | int) -> in_:" in text and "    lambda_: int\n" in text and "'None_': 2" in text
    run = [sys.executable, "-m", "vxplug"]
    shown = json.loads(subprocess.run([*run, "inspect", "--json", path], check=True, capture_output=True, text=True).stdout)
    assert sorted(e["name"] for e in shown["exports"]) == ["class_", "del_", "nonlocal_", "or_"]


def test_call_by_name(build_plugin):
    """Without it a function could be seen but not called from a shell."""
    path = build_plugin("#include <vxplug.h>\nVX_EXPORT int32_t del(int32_t in) { return in + 1; }\n")
    done = subprocess.run([sys.executable, "-m", "vxplug", "call", path, "del_", "4"], check=True, capture_output=True, text=True)
    assert done.stdout == "5\n"
