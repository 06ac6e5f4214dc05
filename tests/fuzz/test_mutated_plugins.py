"""20,000 mutants of a real plugin: each loads or raises PluginFormatError, and what loads runs
under limits without harming the host.  VXPLUG_MUTANTS changes the number."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUEST = """
#include <vxplug.h>
#include <stdlib.h>
VX_MODULE_DOC("A plugin to be mutated.");
VX_EXPORT int32_t add(int32_t a, int32_t b) { return a + b; }
VX_EXPORT vx_bytes twice(vx_view d) {
    char *p = malloc(2 * d.len + 1);
    for (size_t i = 0; i < d.len; i++) p[i] = p[d.len + i] = ((const char *)d.ptr)[i];
    return vx_take(p, 2 * d.len);
}
VX_EXPORT const char *name(void) { return "name"; }
"""


def test_mutated_plugins(build_plugin):
    """Without it one malformed header could crash the host or escape as another exception."""
    plugin = build_plugin(GUEST)
    count = int(os.environ.get("VXPLUG_MUTANTS", "20000"))
    command = [sys.executable, "-m", "tests.fuzz.mutate", str(plugin)]
    half = count // 2
    workers = [
        subprocess.Popen([*command, str(first), str(half)], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for first in (0, half)
    ]
    for worker in workers:
        out, err = worker.communicate(timeout=1500)
        last = out.strip().splitlines()[-1:] or ["nothing"]
        assert worker.returncode == 0, f"died at {last[0]}: {err[-3000:]}"
        assert last[0].startswith("done "), last[0]
        words = dict(pair.split("=") for pair in last[0].split()[1:])
        assert int(words["refused"]) > half // 20 and int(words["ran"]) > half // 20, last[0]
