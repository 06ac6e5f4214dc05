"""What a guest may ask of the host."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Directory", "LinuxPolicy"]


@dataclass(frozen=True)
class Directory:
    """A host directory that a guest sees under a name of its own."""

    host: str | os.PathLike[str]
    writable: bool = False


@dataclass(frozen=True)
class LinuxPolicy:
    """Linux system calls a guest may use beyond memory, output and exit.  The default denies all.

    ``directories`` maps absolute guest paths to host directories (a path alone is read-only); the guest
    reaches nothing outside them.  ``cwd`` and ``env`` are its working directory and environment.
    ``basics`` allows nothing but what every policy brings: pipes, signals to itself, who it is.
    ``time`` allows clocks, sleeping, timers, time limits and times of files, ``random`` random numbers, ``terminal``
    asking and setting the attributes of a terminal among its standard streams.  ``output`` bounds the bytes it may write to
    its streams, ``storage`` those it may add to files, ``descriptors`` what it may hold open.
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
        for guest in (*self.directories, self.cwd):
            if not guest.startswith("/") or "\0" in guest:
                raise ValueError(f"a guest directory is an absolute path, not {guest!r}")
        for name, value in self.env.items():
            if not name or "=" in name or "\0" in name + value:
                raise ValueError(f"not an environment variable: {name!r}")
        if not 3 <= self.descriptors <= 1024:
            raise ValueError(f"descriptors: {self.descriptors} is not between 3 and 1024")

    @property
    def denies_all(self) -> bool:
        return self == LinuxPolicy()
