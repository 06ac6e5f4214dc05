"""Keeping guest faults ours when faulthandler is enabled later.

faulthandler replaces the fault handlers when it is enabled.  The core's watchdog notices within a
tick, but a guest may fault before; so enabling it takes the handlers again at once, chained to
faulthandler's: a fault of the host still gets its dump.
"""

from __future__ import annotations

import faulthandler
import functools
from typing import Any

from . import _vx


def watch_faulthandler() -> None:
    original = faulthandler.enable
    if getattr(original, "_vxplug", False):
        return

    @functools.wraps(original)
    def enable(*args: Any, **kwargs: Any) -> None:
        original(*args, **kwargs)
        _vx.reclaim_signals()

    enable._vxplug = True  # type: ignore[attr-defined]
    faulthandler.enable = enable
