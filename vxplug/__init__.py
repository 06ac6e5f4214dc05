"""vxplug: import native C plugins that nobody has to trust."""

from __future__ import annotations

from . import aio
from ._signals import watch_callbacks, watch_faulthandler
from ._vx import Buffer, Mapping
from .errors import (
    Error,
    GuestEnd,
    GuestExit,
    GuestFault,
    GuestMemoryError,
    GuestTimeout,
    PluginFormatError,
    PolicyError,
)
from .importer import install, uninstall
from .interface import Export
from .plugin import Plugin, open
from .policy import Directory, LinuxPolicy
from .program import Program, ProgramExit, run_program
from .sandbox import Sandbox
from .trace import Trace

__all__ = [
    "Buffer",
    "Directory",
    "Error",
    "Export",
    "GuestEnd",
    "GuestExit",
    "GuestFault",
    "GuestMemoryError",
    "GuestTimeout",
    "LinuxPolicy",
    "Mapping",
    "Plugin",
    "PluginFormatError",
    "PolicyError",
    "Program",
    "ProgramExit",
    "Sandbox",
    "Trace",
    "aio",
    "install",
    "open",
    "run_program",
    "uninstall",
]

__version__ = "0.1.0"

watch_faulthandler()
watch_callbacks()
