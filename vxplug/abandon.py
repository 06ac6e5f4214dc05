"""Host functions whose waiting ends with their call, on every thread.

Python ends a wait for a signal on its main thread only; on any other a lock, a sleep or a read goes on until it is over.
So what waits there does it in a thread of its own, which can be left behind.
"""

from __future__ import annotations

import contextvars
import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from ._signals import end_overdue

__all__ = ["abandonable"]

Result = TypeVar("Result")

# How often a call that waits looks whether it is over, in seconds.
TICK = 0.02
# How many calls of one function may be left waiting: a guest that is ended in it again and again costs no more threads.
MOST = 16


class _Run:
    """One call in its thread."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._running = threading.Lock()  # until it has ended
        self._running.acquire()
        self.has_ended = False
        self._value: Any = None
        self._error: BaseException | None = None

    def _run(self) -> None:
        try:
            self._value = self._work()
        except BaseException as error:
            self._error = error
        self.has_ended = True
        self._running.release()

    def start(self, name: str) -> None:
        try:
            threading.Thread(target=self._run, name=name, daemon=True).start()
        except RuntimeError:  # the system has no more threads
            self.has_ended = True
            raise

    def wait(self) -> None:
        while not self._running.acquire(timeout=TICK):
            end_overdue("in a callback of the host")

    def outcome(self) -> Any:
        if self._error is None:
            return self._value
        try:
            raise self._error
        finally:
            self._error = None  # its traceback has this frame


def abandonable(function: Callable[..., Result]) -> Callable[..., Result]:
    """A host function that may wait for long, so that the guest's call that waits for it ends in time, on any thread.

    ``imports={"fetch": vxplug.abandonable(fetch)}``, and so for callbacks and output.  ``function`` runs in a thread of
    its own, some 0.1 ms more a call, in a copy of the caller's context.  When a time limit, ``interrupt()`` or a
    cancelled task ends the call, ``function`` is not stopped: it is left running, and what it returns or raises is
    dropped.  While 16 calls of it run that were left so, it is not called, and RuntimeError raised.  It must not call
    the sandbox whose call waits for it.
    """
    name = getattr(function, "__qualname__", type(function).__name__)
    left: list[_Run] = []
    lock = threading.Lock()  # guards the list, for moments

    @functools.wraps(function)
    def call(*args: Any) -> Result:
        with lock:
            left[:] = [run for run in left if not run.has_ended]
            if len(left) >= MOST:
                raise RuntimeError(f"{name}() is not called: {MOST} calls of it that were ended before still run")
        run = _Run(functools.partial(contextvars.copy_context().run, function, *args))
        try:
            run.start(f"vxplug {name}")
            run.wait()
        except BaseException:
            with lock:
                left.append(run)
            raise
        result: Result = run.outcome()
        return result

    return call
