"""Signals on Python's side.

Guest faults stay ours when faulthandler is enabled later. faulthandler replaces the fault handlers when
it is enabled. The core's watchdog notices within a tick, but a guest may fault before; so enabling it
takes the handlers again at once, chained to faulthandler's: a fault of the host still gets its dump.

A callback of the host that waits is ended when the guest's time is over.  The core's ticks (SIGURG) interrupt
the wait, and Python then runs its handler of that signal: this one, which raises.
"""

from __future__ import annotations

import contextlib
import functools
import signal
from typing import Any

from . import _vx
from .errors import GuestFault, GuestTimeout


def watch_faulthandler() -> None:
    try:
        import faulthandler
    except ImportError:  # an isolated subinterpreter has none, and cannot enable it
        return
    original = faulthandler.enable
    if getattr(original, "_vxplug", False):
        return

    @functools.wraps(original)
    def enable(*args: Any, **kwargs: Any) -> None:
        original(*args, **kwargs)
        _vx.reclaim_signals()

    enable._vxplug = True  # type: ignore[attr-defined]
    faulthandler.enable = enable


def _end_overdue_callback(number: int, frame: Any) -> None:
    """Raises, in the callback that runs on the main thread, why its call is over; every tick again."""
    found = _vx.overdue()
    if found is None:
        return
    kind, limit = found
    if kind == "interrupt":
        raise GuestFault("interrupt: interrupted by the host, in a callback of the host", kind)
    raise GuestTimeout(f"time limit of {limit:g} s reached in a callback of the host")


def watch_callbacks() -> None:
    """Where the application uses the signal itself, it is left alone; where Python does not let us handle
    signals (in other threads and interpreters), a callback ends its call when it returns."""
    if signal.getsignal(signal.SIGURG) != signal.SIG_DFL:
        return
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGURG, _end_overdue_callback)
        _vx.end_callbacks()
