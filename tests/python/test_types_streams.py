"""Streams: functions that give their result in pieces, when they are asked for."""

from __future__ import annotations

import array
import collections.abc
import gc
import itertools
import re
import sys
import weakref

import pytest

import vxplug
from vxplug import sdk

GUEST = r"""
#include <stdlib.h>
#include <string.h>
#include <vxplug.h>
typedef struct pos { int32_t x; double y; } pos;
typedef struct box { int32_t left; } box;
static int32_t live, ended;
static void box_free(box *b) { free(b); }
VX_HANDLE(box, box_free);
VX_METHOD(box, box_pieces, pieces);
VX_EXPORT box *box_new(int32_t n) { box *b = malloc(sizeof *b); b->left = n; return b; }
VX_EXPORT vx_stream box_pieces(box *self, uint32_t size) {
    char piece[16];
    for (; self->left > 0; self->left--) { memset(piece, self->left, 16); if (!vx_yield(piece, size)) break; }
    return VX_END;
}
VX_EXPORT vx_stream split(vx_view data, uint32_t size) {
    const char *at = data.ptr;
    live++;
    for (size_t i = 0; i < data.len; i += size)
        if (!vx_yield(at + i, data.len - i < size ? data.len - i : size)) { ended++; break; }
    live--;
    return VX_END;
}
VX_EXPORT int32_t count_live(void) { return live; }
VX_EXPORT int32_t count_ended(void) { return ended; }
VX_NULLABLE(show, none);
VX_EXPORT vx_stream show(int8_t a, int64_t b, double c, const char *text, pos p, const pos *q, vx_array_i32 numbers, vx_view none) {
    double sum[] = {a, (double)b, c, p.x, p.y, q->x, q->y, numbers.len, none.ptr != NULL};
    vx_yield(text, strlen(text));
    vx_yield(sum, sizeof sum);
    vx_yield(numbers.ptr, numbers.len * 4);
    return VX_END;
}
VX_EXPORT vx_stream squares(void) {
    for (double i = 0;; i++) { double r = i * i; if (!vx_yield(&r, sizeof r)) return VX_END; }
}
VX_EXPORT vx_stream empty(void) { vx_yield("", 0); vx_yield(NULL, 0); return VX_END; }
VX_EXPORT vx_stream fails(int32_t how) {
    live++;
    if (!vx_yield("first", 5)) { live--; return VX_END; }
    if (how == 1) vx_raise(VX_EOFError, "in the middle");
    if (how == 2) *(volatile int *)16 = 0;
    if (how == 3) for (;;) __asm__ volatile("");
    if (how == 4) vx_yield((void *)16, 5);
    if (how == 5) vx_yield((void *)0x10000, 0xffffffff);
    if (how == 1) vx_yield("second", 6);
    live--;
    return VX_END;
}
VX_EXPORT vx_stream stubborn(void) { for (int i = 0; i < 1000; i++) vx_yield("x", 1); ended++; return VX_END; }
VX_EXPORT vx_stream endless_end(void) { while (vx_yield("x", 1)) { } for (;;) __asm__ volatile(""); }
VX_IMPORT(int32_t, ask, (int32_t n));
VX_EXPORT vx_stream asking(void) { for (int32_t i = 0; i < 3; i++) { int32_t r = ask(i); vx_yield(&r, 4); } return VX_END; }
static int32_t deep(int32_t n, volatile char *above) {
    volatile char room[4096];
    room[0] = above[0];
    return n == 0 ? 0 : deep(n - 1, room) + room[0];
}
VX_EXPORT vx_stream overflow(void) { volatile char c = 1; int32_t r = deep(1000, &c); vx_yield(&r, 4); return VX_END; }
VX_EXPORT bool stray(void) { return vx_yield("x", 1); }
"""


@pytest.fixture(scope="module")
def plugin(build_plugin):
    return vxplug.open(build_plugin(GUEST))


@pytest.fixture
def box(plugin):
    with plugin.sandbox(timeout=20.0, imports={"ask": lambda n: n * 10}) as sandbox:
        yield sandbox


def test_pieces(box):
    """Without it pieces could be lost, doubled or out of order, or all be made at once."""
    data = bytes(range(256)) * 10
    for size in (1, 3, 256, 2559, 2560, 5000):
        assert list(box.split(data, size)) == [data[i : i + size] for i in range(0, len(data), size)]
    assert list(box.split(b"", 5)) == [] == list(box.empty())
    stream = box.squares()
    assert isinstance(stream, collections.abc.Iterator) and iter(stream) is stream
    assert [array.array("d", piece)[0] for piece in itertools.islice(stream, 100)] == [i * i for i in range(100)]


def test_arguments_stay(box):
    """Without it a stream would read arguments that the host has already used again."""
    stream = box.show(-1, 2**40, 0.5, "téxt", box.pos(3, 4.5), box.pos(5, 6.5), array.array("i", [7, 8]), None)
    data = bytearray(b"\xff" * 100000)
    for _ in range(50):
        assert sum(map(len, box.split(data, 999))) == len(data)
    text, numbers, items = stream
    assert text == "téxt".encode() and items == array.array("i", [7, 8]).tobytes()
    assert array.array("d", numbers).tolist() == [-1, 2**40, 0.5, 3, 4.5, 5, 6.5, 2, 0]
    source = bytearray(b"abc")
    stream = box.split(source, 1)
    source[:] = b"xyz"
    source.append(1)
    assert list(stream) == [b"a", b"b", b"c"], "a copy, and no lock on the caller's buffer"


def test_interleaved(box):
    """Without it two streams could share a stack."""
    streams = [box.split(bytes([n]) * 100, 7) for n in range(20)]
    for pieces in itertools.zip_longest(*streams):
        assert [piece[0] for piece in pieces] == list(range(20)) and len({len(p) for p in pieces}) == 1
    assert box.count_live() == 0


def test_close(box):
    """Without it a stream that nobody wants could not free what its function holds."""
    stream = box.split(b"abcdef", 2)
    assert next(stream) == b"ab" and box.count_live() == 1
    stream.close()
    stream.close()
    assert (box.count_live(), box.count_ended()) == (0, 1) and list(stream) == [] and stream.closed
    with box.split(b"abcdef", 2) as stream:
        next(stream)
    assert box.count_ended() == 2
    for _ in box.split(b"abcdef", 2):
        break
    gc.collect()
    assert box.count_ended() == 3 and box.count_live() == 0
    box.split(b"abcdef", 2).close()
    assert box.count_ended() == 3, "what has not begun does not begin"
    stream = box.stubborn()
    next(stream)
    stream.close()
    assert box.count_ended() == 4
    used = box.memory_used
    for _ in range(50):
        next(box.split(bytes(100000), 10))
    gc.collect()
    assert box.memory_used <= used + (2 << 20), "stacks and arguments are given back"


def test_errors(plugin):
    """Without it an error in the middle could be lost, or leave a stream that goes on."""
    with plugin.sandbox(timeout=0.3, imports={"ask": int}) as box:
        stream = box.fails(1)
        assert next(stream) == b"first"
        with pytest.raises(EOFError, match="in the middle"):
            next(stream)
        assert list(stream) == [] and stream.closed and box.count_live() == 0
        for how, kind in ((2, vxplug.GuestFault), (3, vxplug.GuestTimeout), (4, vxplug.GuestFault), (5, vxplug.GuestFault)):
            stream, other = box.fails(how), box.squares()
            next(other)
            assert next(stream) == b"first"
            with pytest.raises(kind):
                next(stream)
            assert stream.closed and other.closed and list(stream) == []
            with pytest.raises(vxplug.Error, match="died when its sandbox was reset"):
                next(other)
        stream = box.endless_end()
        next(stream)
        with pytest.raises(vxplug.GuestTimeout):
            stream.close()
        assert box.count_live() == 0
        with pytest.raises(RuntimeError, match="vx_yield outside a vx_stream function"):
            box.stray()
        with pytest.raises(vxplug.GuestFault) as caught:
            next(box.overflow())
        assert caught.value.kind == "memory", "the guard below the stream's own stack"


@pytest.mark.parametrize("end", ["reset", "close"])
def test_death_with_the_sandbox(plugin, end):
    """Without it a stream could go on in memory that has been replaced."""
    with plugin.sandbox(imports={"ask": int}) as box:
        stream = box.split(b"abcdef", 2)
        next(stream)
        getattr(box, end)()
        with pytest.raises(vxplug.Error, match="closed" if end == "close" else "the Stream died when its sandbox was reset"):
            next(stream)
        stream.close()


def test_callbacks_in_a_stream(plugin):
    """Without it a host function called by a stream could not use the sandbox, or the stream itself could be entered twice."""
    with plugin.sandbox(imports={"ask": lambda n: len(list(box.split(bytes(n), 1))) + 100}) as box:
        assert b"".join(box.asking()) == array.array("i", [100, 101, 102]).tobytes()
    with plugin.sandbox(imports={"ask": lambda n: next(stream)}) as box:
        stream = box.asking()
        with pytest.raises(ValueError, match="the stream is already running"):
            next(stream)
    with plugin.sandbox(imports={"ask": lambda n: stream.close() or n}) as box:
        stream = box.asking()
        assert list(stream) == [] and stream.closed
        used = box.memory_used
        for _ in range(30):
            stream = box.asking()
            list(stream)
        assert box.memory_used <= used + (1 << 20)


def test_handles_live_as_long(box):
    """Without it the object behind a stream could be freed while the stream uses it."""
    stream = box.box_new(3).pieces(4)
    gc.collect()
    assert list(stream) == [b"\3" * 4, b"\2" * 4, b"\1" * 4]


def test_limits(plugin):
    """Without it streams could take more than the sandbox has, or the host's memory."""
    with plugin.sandbox(memory=24 << 20, imports={"ask": int}) as box:
        streams = []
        with pytest.raises(vxplug.GuestMemoryError, match="no guest memory left for the stream"):
            for _ in range(1000):
                streams.append(box.squares())
        assert 10 < len(streams) < 200 and len(next(streams[0])) == 8
        streams.clear()
        gc.collect()
        with pytest.raises(vxplug.GuestMemoryError):
            box.split(bytes(30 << 20), 1)
        assert list(box.split(b"ab", 1)) == [b"a", b"b"]


def test_build_refuses(tmp_path):
    """Without it what a call lends could be left with a stream that outlives it."""
    cases = {
        "VX_EXPORT vx_stream f(vx_mut m) { return VX_END; }": "parameter m: a stream has no outputs",
        "VX_EXPORT int f(vx_stream s) { return s; }": "vx_stream",
    }
    for source, text in cases.items():
        (tmp_path / "plugin.c").write_text("#include <vxplug.h>\n" + source + "\n")
        with pytest.raises(sdk.SdkError, match=text):
            sdk.build([tmp_path / "plugin.c"], tmp_path / "plugin.vxm")


def test_references(plugin):
    """Without it streams, what they keep, or their sandbox could stay for ever."""
    box = plugin.sandbox(imports={"ask": int})

    def work() -> None:
        for i in range(200):
            list(box.split(b"abc", 1))
            next(box.box_new(3).pieces(4))
            with box.squares() as stream:
                next(stream)

    work()
    gc.collect()
    before = sys.getallocatedblocks(), sys.getrefcount(box._box)
    work()
    gc.collect()
    assert sys.getallocatedblocks() - before[0] < 200, "less than one a round"
    assert abs(sys.getrefcount(box._box) - before[1]) < 5
    gone = weakref.ref(box)
    stream = box.squares()
    next(stream)
    del box, work, stream
    gc.collect()
    assert gone() is None


def test_the_arguments_of_a_stream_have_the_time_of_one_call(build_plugin):
    """Without it a file that names another function for their memory would take the time limit once for each argument."""
    source = build_plugin("""
        #include <stdlib.h>
        #include <vxplug.h>
        VX_EXPORT uint32_t slow(uint32_t c, uint32_t n) { for (volatile unsigned i = 0; i < 60000000; i++); return (uint32_t)malloc(n); }
        VX_EXPORT vx_stream all(vx_view a, vx_view b, vx_view c, vx_view d, vx_view e, vx_view f, vx_view g, vx_view h,
                                vx_view i, vx_view j, vx_view k, vx_view l, vx_view m, vx_view n, vx_view o, vx_view p) { return VX_END; }
    """).read_bytes()
    address = vxplug.open(source).exports["slow"].address
    forged, count = re.subn(rb'"alloc":\d+', b'"alloc":%d' % address, source)
    assert count == 1 and len(forged) == len(source)
    with vxplug.open(forged).sandbox(timeout=0.6) as box:
        with pytest.raises(vxplug.GuestTimeout):
            box.all(*[b"1"] * 16)
