"""Guest calls from asyncio: run in threads, cancelled by interrupting the guest.

``await asyncio.to_thread(box.name, …)`` works too; but a thread cannot be cancelled, so the guest would
run on to its time limit.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any

from . import _vx
from .classes import Stream

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    from .sandbox import Sandbox

# asyncio and concurrent.futures are imported where they are used: they are large, and most programs import
# plugins without them.

__all__ = ["call", "iterate"]

# How often a guest that is to stop is told so: an interrupt that comes before the call has begun is lost.
RETRY = 0.01

_executor: ThreadPoolExecutor | None = None
# Calls of one sandbox take turns here, not at its own lock: only so is it known whose call an interrupt ends.
_turns: weakref.WeakKeyDictionary[_vx.Box, threading.Lock] = weakref.WeakKeyDictionary()
_start = threading.RLock()  # guards the two above, for moments; in a finaliser's call once more


def _get_executor() -> ThreadPoolExecutor:
    """One for all loops.  It has the standard number of threads; more calls than that wait."""
    from concurrent.futures import ThreadPoolExecutor

    global _executor
    with _start:
        if _executor is None:
            _executor = ThreadPoolExecutor(thread_name_prefix="vxplug")
        return _executor


def _turn_of(box: _vx.Box) -> threading.Lock:
    with _start:
        return _turns.setdefault(box, threading.Lock())


def _start_anew() -> None:
    """A forked child has none of the threads, and may have their locks."""
    global _executor, _start
    _executor, _start = None, threading.RLock()
    _turns.clear()


os.register_at_fork(after_in_child=_start_anew)


class _Turn:
    """One call in its thread."""

    def __init__(self, box: _vx.Box, work: Callable[[], Any]) -> None:
        self._box = box
        self._turn = _turn_of(box)
        self._work = work
        self._state = threading.Lock()  # guards the two below, for moments
        self._running = self._cancelled = False

    def run(self) -> Any:
        with self._turn:
            with self._state:
                if self._cancelled:
                    return None
                self._running = True
            try:
                return self._work()
            finally:
                with self._state:
                    self._running = False

    def interrupt(self) -> None:
        with self._state:
            self._cancelled = True
            if self._running:
                self._box.interrupt()


async def _stop(turn: _Turn, future: asyncio.Future[Any]) -> None:
    """Until the thread is out of the guest, however often we are cancelled meanwhile."""
    import asyncio

    while not future.done():
        turn.interrupt()
        try:
            await asyncio.wait([future], timeout=RETRY)
        except asyncio.CancelledError:
            continue
    if not future.cancelled():
        future.exception()  # that of the interrupt: it has been dealt with


async def _run(box: _vx.Box, work: Callable[[], Any]) -> Any:
    """The result of ``work``, which calls the box, from a thread; cancelled with the task that waits for it."""
    import asyncio

    turn = _Turn(box, work)
    future = asyncio.get_running_loop().run_in_executor(_get_executor(), turn.run)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await _stop(turn, future)
        raise


async def call(function: _vx.Function | MethodType, /, *args: Any, **kwargs: Any) -> Any:
    """Call an exported function, or a method of a handle, without blocking the event loop.

    Cancelling the task interrupts the guest; the task ends when the guest has, and the sandbox is then
    back in its initial state, as after any fault (``on_fault``).
    """
    exported: Any = function
    if isinstance(function, MethodType) and isinstance(function.__self__, _vx.Handle):
        exported = function.__func__
    if not isinstance(exported, _vx.Function):
        raise TypeError(f"expected an exported function, got {type(exported).__name__}")
    return await _run(exported.box, partial(function, *args, **kwargs))


def iterate(stream: Stream, /) -> AsyncGenerator[bytes, None]:
    """The pieces of a stream, ``async for piece in iterate(stream)``, without blocking the event loop.

    Cancelling the task that waits for a piece interrupts the guest, as in :func:`call`.  A loop that is left early
    closes the stream: at once if the generator is closed (``contextlib.aclosing``), else when Python forgets it.
    """
    if not isinstance(stream, Stream):
        raise TypeError(f"expected a stream, got {type(stream).__name__}")
    return _pieces(stream, stream.__box__)


async def _pieces(stream: Stream, box: _vx.Box) -> AsyncGenerator[bytes, None]:
    try:
        while (piece := await _run(box, partial(next, stream, None))) is not None:
            yield piece
    finally:
        if not stream.closed:
            await _run(box, stream.close)  # the plugin's function goes on to its end


class Calls:
    """``box.aio``: the sandbox's exports as coroutine functions."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def __getitem__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        return partial(call, self._sandbox[name])

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{self._sandbox!r} has no export {name!r}") from None

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._sandbox.plugin.exports})
