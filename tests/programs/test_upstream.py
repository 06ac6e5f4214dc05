"""Upstream projects, built by ``vxplug-cc`` from unchanged sources: their own tests pass in the sandbox."""

from __future__ import annotations

import random
import re
import shutil
import struct
import zlib

import pytest

import vxplug
from vxplug import sdk

from .sources import missing, source
from .upstream import SUITES, SuiteError, Workshop

# What the projects' own makefiles call.
TOOLS = {"sqlite3": ("make", "tclsh"), "lua": ("make",)}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("upstream"))


def _need(*names: str) -> None:
    for name in names:
        if source(name) is None:
            pytest.skip(missing(name))
        for tool in TOOLS.get(name, ("make",)):
            if shutil.which(tool) is None:
                pytest.skip(f"{name} is built with {tool}, which is not installed")


@pytest.mark.parametrize("name", [name for name in SUITES if name != "sqlite3"])
def test_the_suite_passes_in_the_sandbox(name, workshop):
    """The judge is upstream's: its makefile's checks, its comparisons with stored results, its assertions."""
    _need(name, *SUITES[name].needs)
    workshop.build(name)
    workshop.sandbox(name)
    workshop.test(name)


PNG_PLUGIN = """
#include <stdlib.h>
#include <png.h>
#include <vxplug.h>

VX_EXPORT const char *version(void) { return png_get_libpng_ver(NULL); }

VX_EXPORT vx_bytes decode(vx_view data) {
    png_image image = {.version = PNG_IMAGE_VERSION};
    if (!png_image_begin_read_from_memory(&image, data.ptr, data.len)) return vx_raise(VX_ValueError, "%s", image.message);
    image.format = PNG_FORMAT_RGBA;
    char *pixels = malloc(PNG_IMAGE_SIZE(image));
    if (pixels == NULL || !png_image_finish_read(&image, NULL, pixels, 0, NULL)) {
        png_image_free(&image);
        free(pixels);
        return vx_raise(VX_ValueError, "%s", image.message);
    }
    return vx_take(pixels, PNG_IMAGE_SIZE(image));
}
"""


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, pixels: bytes) -> bytes:
    """RGBA of eight bits, unfiltered, by Python's own zlib."""
    rows = [b"\0" + pixels[at : at + 4 * width] for at in range(0, len(pixels), 4 * width)]
    header = struct.pack(">IIBBBBB", width, len(rows), 8, 6, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def test_a_plugin_of_a_library_built_by_its_configure(workshop, tmp_path):
    """libpng's configure (autoconf, automake, libtool) is told CC, AR and RANLIB, and nothing else of the sandbox."""
    _need("libpng1.6", "zlib")
    png, deflate = workshop.build("libpng1.6"), workshop.build("zlib")
    (tmp_path / "png.c").write_text(PNG_PLUGIN)
    archives = [png / ".libs" / "libpng16.a", deflate / "libz.a"]
    plugin = sdk.build([tmp_path / "png.c", *archives], tmp_path / "png.vxm", include=[png, deflate])
    pixels = random.Random(1).randbytes(4 * 31 * 17)
    with vxplug.open(plugin).sandbox() as box:
        assert f"PACKAGE_VERSION='{box.version()}'" in (png / "configure").read_text()
        assert box.decode(_png(31, pixels)) == pixels
        with pytest.raises(ValueError, match="Not a PNG file"):
            box.decode(b"GIF89a" + bytes(20))


def _hash(output: str) -> str:
    found = re.search(r"Verification Hash: (.*)", output)
    assert found, output[-2000:]
    return found.group(1)


def test_sqlite_computes_what_it_computes_natively(workshop):
    """speedtest1 --verify hashes every row of every result; the same program gives the same on the processor."""
    _need("sqlite3")
    folder = workshop.build("sqlite3")
    expected = _hash(workshop.test("sqlite3"))
    (folder / "speed.db").unlink()
    workshop.sandbox("sqlite3")
    assert _hash(workshop.test("sqlite3")) == expected


def test_a_suite_that_fails_is_noticed(workshop):
    """Without it a wrong answer of a sandboxed program could pass for upstream's verdict."""
    _need("bzip2")
    folder = workshop.build("bzip2")
    (folder / "sample1.bz2").write_bytes((folder / "sample2.bz2").read_bytes())
    with pytest.raises(SuiteError, match="sample1"):
        workshop.test("bzip2")
