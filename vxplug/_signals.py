"""Signals on Python's side.

Guest faults stay ours when faulthandler is enabled later. faulthandler replaces the fault handlers when
it is enabled. The core's watchdog notices within a tick, but a guest may fault before; so enabling it
takes the handlers again at once, chained to faulthandler's: a fault of the host still gets its dump.

A callback of the host that waits is ended when the guest's time is over.  The core's ticks (SIGURG) interrupt
the wait, and Python then runs its handler of that signal: this one, which raises.  Not in the middle of what
vxplug itself does to serve a guest: there a descriptor may just have been made that only the next step would know
of, and a guest that uses up its time again and again could have the host lose one each time.

Python runs that handler on its main thread only, and no other thread's wait comes back to Python for a signal.  So
for callbacks of other threads the ticks wake the main thread, whose handler has CPython raise an exception there
when they next run Python code.
"""

from __future__ import annotations

import contextlib
import functools
import signal
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, TypeVar

from . import _vx
from .errors import GuestFault, GuestTimeout


Function = TypeVar("Function", bound=Callable[..., Any])
_whole: set[CodeType] = set()
_waiting: set[CodeType] = set()


def whole(function: Function) -> Function:
    """Marks what is not ended in the middle, whatever it calls.  It looks itself whether it has to end."""
    _whole.add(function.__code__)
    return function


def waiting(function: Function) -> Function:
    """Marks what waits for others, or calls the application, in the middle of that: it may end at any point."""
    _waiting.add(function.__code__)
    return function


def _is_whole(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code not in _waiting:
        if frame.f_code in _whole:
            return True
        frame = frame.f_back
    return False


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


_CALLBACK = "in a callback of the host"


class _Timeout(GuestTimeout):
    """What CPython is told to raise: it calls the class, in the thread that is to end, and gets what is raised there.

    Before 3.12 it may call it again, with what it got, to see whether that is an instance.
    """

    def __new__(cls, made: GuestTimeout | None = None) -> GuestTimeout:  # type: ignore[misc]
        found = _vx.overdue()
        return made or GuestTimeout(_timeout_text(found[1] if found is not None else None, _CALLBACK))


class _Interrupt(GuestFault):
    """The same where the host interrupted the call."""

    def __new__(cls, made: GuestFault | None = None) -> GuestFault:  # type: ignore[misc]
        return made or GuestFault(_interrupt_text(_CALLBACK), "interrupt")


def _timeout_text(limit: float | None, where: str) -> str:
    return f"time limit {'' if limit is None else f'of {limit:g} s '}reached {where}"


def _interrupt_text(where: str) -> str:
    return f"interrupt: interrupted by the host, {where}"


def _end_overdue_callback(number: int, frame: FrameType | None) -> None:
    """Raises, in the callback that runs on the main thread, why its call is over; every tick again."""
    _vx.end_errands(_Timeout, _Interrupt)
    if not _is_whole(frame):
        end_overdue(_CALLBACK)


def end_overdue(where: str) -> None:
    """Raises why a call of this thread has to end, if one has to.  The binding asks while it waits for a sandbox."""
    found = _vx.overdue()
    if found is None:
        return
    kind, limit = found
    if kind == "interrupt":
        raise GuestFault(_interrupt_text(where), kind)
    raise GuestTimeout(_timeout_text(limit, where))


def watch_callbacks() -> None:
    """Where the application uses the signal itself, it is left alone; where Python does not let us handle
    signals (in other threads and interpreters), a callback ends its call when it returns."""
    if signal.getsignal(signal.SIGURG) != signal.SIG_DFL:
        return
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGURG, _end_overdue_callback)
        _vx.end_callbacks()
