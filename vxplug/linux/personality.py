"""A guest's system calls, from the core's hook to the function that serves each."""

from __future__ import annotations

import errno
from typing import Any

from .. import _signals, _vx
from ..policy import LinuxPolicy
from . import attributes, clocks, files, listing, names, opening, status, system, waiting  # noqa: F401  (each registers what it serves)
from .calls import ROWS, served
from .descriptors import HostError
from .paths import Mounts
from .process import Budget, Process, Streams

__all__ = ["Personality"]

_TABLE = {row.number: served(row.name) for row in ROWS.values() if row.server in ("both", "policy", "either")}


class Personality:
    """Serves one box, life after life: a reset of the sandbox begins a new process."""

    def __init__(self, policy: LinuxPolicy, streams: Streams, memory: int, stack: int) -> None:
        self._process: Process | None = None
        self.mounts = Mounts({})
        self.policy = policy
        self.budget = Budget(policy)
        self.memory, self.stack = memory, stack
        self.streams = streams
        self.mounts = Mounts(policy.directories)
        self._life = 0

    @property
    def current(self) -> Process | None:
        """The process of the guest's life, once it has made a call that is served here."""
        return self._process

    def process(self, life: int) -> Process:
        if self._process is None or life != self._life:
            self.end_process()
            self._process = Process(self.policy, self.budget, self.mounts, self.streams, self.memory, self.stack)
            self._life = life
        return self._process

    @_signals.whole
    def __call__(self, box: _vx.Box, life: int, number: int, arguments: tuple[int, ...]) -> int:
        process = self.process(life)
        process.box = box
        entry = _TABLE[number]
        assert entry is not None  # a test holds the list to the functions
        function, count = entry
        try:
            return function(process, *arguments[:count]) or 0
        except HostError as error:
            raise error.original from None
        except OSError as error:
            return -(error.errno or errno.EIO)

    @_signals.whole
    def end_process(self) -> None:
        """Closes what the last life had open, as soon as the box begins a new one."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def close(self) -> None:
        self.end_process()
        self.mounts.close()

    def __del__(self) -> None:
        """The box holds its personality, so nobody asks it any more."""
        self.close()

    def __enter__(self) -> Personality:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()
