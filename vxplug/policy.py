"""What a guest may ask of the host."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LinuxPolicy"]


@dataclass(frozen=True)
class LinuxPolicy:
    """Linux system calls a guest may use beyond memory, output and exit.  This version denies all."""
