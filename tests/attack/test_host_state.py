"""The processor's state is the host's again after every kind of entry and exit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_nothing_is_left_in_the_processor(build_plugin):
    """Threat 19: without it what an entry did not save, because its code could not change it, could change."""
    command = [sys.executable, "-m", "tests.attack.host_state", str(build_plugin(HERE / "host_state.c"))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parents[1], timeout=60)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr[-2000:]
