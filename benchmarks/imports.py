"""What an import costs, first call included, each in a process of its own."""

from __future__ import annotations

from . import builds
from .children import figure
from .timing import Row

SIZE = 200_000
KINDS = ("C extension", "vxplug", "wasmtime")


def rows() -> list[Row]:
    """The extension needs no library before; so the last row has the others' own alone."""
    builds.import_pair(SIZE)
    builds.wasm_library()
    return [
        Row("import, first call", {kind: figure(1, "importing", kind) for kind in KINDS}),
        Row("import and call again", {kind: figure(2, "importing", kind) for kind in KINDS}),
        Row("the library itself", {kind: figure(0, "importing", kind) for kind in KINDS[1:]}),
    ]
