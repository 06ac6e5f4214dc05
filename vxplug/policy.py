"""What a guest may ask of the host."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Directory", "LinuxPolicy"]


def _check_type(name: str, value: Any, *kinds: type) -> None:
    """What only looks like a value must not give a right: "no" is true."""
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise TypeError(f"{name}: expected {' or '.join(kind.__name__ for kind in kinds)}, got {type(value).__name__}")


@dataclass(frozen=True)
class Directory:
    """A host directory that a guest sees under a name of its own."""

    host: str | os.PathLike[str]
    writable: bool = False

    def __post_init__(self) -> None:
        _check_type("host", self.host, str, os.PathLike)
        _check_type("writable", self.writable, bool)


@dataclass(frozen=True)
class LinuxPolicy:
    """Linux system calls a guest may use beyond memory, output and exit.  The default denies all.

    ``directories`` maps absolute guest paths to host directories (a path alone is read-only); the guest
    reaches nothing outside them.  ``cwd`` and ``env`` are its working directory and environment.
    ``basics`` allows nothing but what every policy brings: pipes, signals to itself, who it is.
    ``time`` allows clocks, sleeping, timers, time limits and times of files, ``random`` random numbers, ``terminal``
    asking and setting the attributes of a terminal among its standard streams.  ``output`` bounds the bytes it may write to
    its streams, ``storage`` those it may add to files, each as long as its sandbox lives, resets or not; ``descriptors``
    what it may hold open.
    """

    directories: Mapping[str, Directory | str | os.PathLike[str]] = field(default_factory=dict)
    cwd: str = "/"
    env: Mapping[str, str] = field(default_factory=dict)
    time: bool = False
    random: bool = False
    terminal: bool = False
    basics: bool = False
    output: int = 1 << 30
    storage: int = 1 << 30
    descriptors: int = 256

    def __post_init__(self) -> None:
        for name in ("time", "random", "terminal", "basics"):
            _check_type(name, getattr(self, name), bool)
        for name in ("output", "storage", "descriptors"):
            _check_type(name, getattr(self, name), int)
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name)} is below 0")
        self._check_directories()
        self._check_environment()
        if not 3 <= self.descriptors <= 1024:
            raise ValueError(f"descriptors: {self.descriptors} is not between 3 and 1024")

    def _check_directories(self) -> None:
        _check_type("directories", self.directories, Mapping)
        _check_type("cwd", self.cwd, str)
        for guest, host in self.directories.items():
            _check_type("directories: a guest directory", guest, str)
            _check_type(f"directories: {guest}", host, Directory, str, os.PathLike)
        for guest in (*self.directories, self.cwd):
            if not guest.startswith("/") or "\0" in guest:
                raise ValueError(f"a guest directory is an absolute path, not {guest!r}")

    def _check_environment(self) -> None:
        _check_type("env", self.env, Mapping)
        for name, value in self.env.items():
            _check_type("env: a name", name, str)
            _check_type(f"env: {name}", value, str)
            if not name or "=" in name or "\0" in name + value:
                raise ValueError(f"not an environment variable: {name!r}")

    @property
    def denies_all(self) -> bool:
        return self == LinuxPolicy()
