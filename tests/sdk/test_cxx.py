"""C++ plugins: exceptions, the standard library, thread-local storage, static constructors."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

import vxplug
from vxplug import sdk

SOURCE = r"""
#include <vxplug.h>
#include <iostream>
#include <map>
#include <memory>
#include <new>
#include <sstream>
#include <stdexcept>
#include <string>
#include <typeinfo>
#include <vector>

struct Counter { int &count; ~Counter() { ++count; } };
struct Base { virtual ~Base() = default; virtual int id() const { return 1; } };
struct Derived : Base { int id() const override { return 2; } };

static int descend(int depth, int &destroyed) {
    Counter counter{destroyed};
    if (depth == 0) throw std::runtime_error("bottom");
    return descend(depth - 1, destroyed) + 1;
}

VX_EXPORT int32_t unwound(int32_t depth) {
    int destroyed = 0;
    try { return -descend(depth, destroyed); } catch (const std::exception &) { return destroyed; }
}
VX_EXPORT int32_t rethrown(void) {
    try {
        try { throw Derived(); } catch (const Base &) { throw; }
    } catch (const Base &thrown) { return thrown.id(); }
}
VX_EXPORT int32_t by_type(int32_t which) {
    try {
        if (which == 0) throw 40;
        if (which == 1) throw std::string("forty-one");
        return std::vector<int>(3).at(7);
    } catch (int value) { return value; } catch (const std::string &text) { return (int)text.size(); }
    catch (...) { return -1; }
}
VX_EXPORT bool no_memory(void) {
    std::vector<std::unique_ptr<char[]>> held;
    try { for (;;) held.emplace_back(new char[1 << 20]); } catch (const std::bad_alloc &) { return held.size() > 100; }
}
VX_EXPORT bool bad_cast(void) {
    std::unique_ptr<Base> base(new Base);
    try { return dynamic_cast<Derived &>(*base).id() == 0; } catch (const std::bad_cast &) { return true; }
}
VX_EXPORT int32_t words(const char *text) {
    std::map<std::string, int> seen;
    std::istringstream stream(text);
    for (std::string word; stream >> word;) seen[word]++;
    for (const auto &[word, count] : seen) std::cout << word << ' ' << count << '\n';
    std::cout << std::flush;
    return (int)seen.size();
}
static std::map<int, int> table = {{1, 10}, {2, 20}};
VX_EXPORT int32_t constructed(int32_t key) { return table.at(key); }
thread_local int counter = 5;
VX_EXPORT int32_t counted(void) { return counter++; }
VX_EXPORT void uncaught(void) { throw std::logic_error("nobody catches me"); }
VX_EXPORT void leaves_noexcept(void) { [&]() noexcept { throw 1; }(); }
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> vxplug.Plugin:
    folder: Path = tmp_path_factory.mktemp("cxx")
    (folder / "plugin.cc").write_text(SOURCE)
    return vxplug.open(sdk.build([folder / "plugin.cc"], folder / "plugin.vxm"))


@pytest.fixture
def box(plugin):
    with plugin.sandbox(timeout=20.0, stderr=lambda data: None) as sandbox:
        yield sandbox


@pytest.mark.parametrize("depth", [0, 1, 500])
def test_unwinding_runs_every_destructor(box, depth):
    """An unwinder that misses a frame leaks, or ends in terminate."""
    assert box.unwound(depth) == depth + 1


def test_exceptions_are_told_apart(box):
    """Catch clauses match by type information, which the linker could have merged or lost."""
    assert [box.by_type(which) for which in range(3)] == [40, 9, -1]
    assert box.rethrown() == 2 and box.bad_cast()


def test_memory_that_is_not_there_is_bad_alloc(box):
    """The sandbox's limit must look to C++ as an exhausted machine does."""
    assert box.no_memory()


def test_standard_library(plugin):
    """Streams, locales and containers are set up by constructors before the snapshot."""
    out = io.StringIO()
    with plugin.sandbox(stdout=out) as box:
        assert box.words("b a b") == 2
        assert out.getvalue() == "a 1\nb 2\n"
        assert box.constructed(2) == 20
        assert [box.counted() for _ in range(3)] == [5, 6, 7]
        box.reset()
        assert box.counted() == 5 and box.words("a") == 1


@pytest.mark.parametrize("name", ["uncaught", "leaves_noexcept"])
def test_what_nobody_catches(box, name):
    """terminate ends the call, not the process, and what libc++abi says of it is in the message."""
    with pytest.raises(vxplug.GuestFault, match="terminating due to uncaught exception") as caught:
        box[name]()
    assert caught.value.kind == "abort"
    assert box.unwound(3) == 4
