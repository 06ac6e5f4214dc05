"""vxplug: import native C plugins that nobody has to trust."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._signals import watch_callbacks, watch_faulthandler
from ._vx import Buffer, Mapping
from .errors import (
    Error,
    GuestEnd,
    GuestExit,
    GuestFault,
    GuestMemoryError,
    GuestTimeout,
    MissingImportError,
    PluginFormatError,
    PolicyError,
)
from .importer import install, uninstall
from .interface import Export
from .plugin import Plugin, open
from .sandbox import Sandbox

if TYPE_CHECKING:
    from . import aio
    from .abandon import abandonable
    from .policy import Directory, LinuxPolicy
    from .program import Program, ProgramExit, run_program
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
    "MissingImportError",
    "Plugin",
    "PluginFormatError",
    "PolicyError",
    "Program",
    "ProgramExit",
    "Sandbox",
    "Trace",
    "abandonable",
    "aio",
    "install",
    "open",
    "run_program",
    "uninstall",
]

__version__ = "0.1.0"

# What few programs use is imported when it is first named: by its module, the name in it.
_LATER = {
    "aio": ("aio", None),
    "Directory": ("policy", "Directory"),
    "LinuxPolicy": ("policy", "LinuxPolicy"),
    "Program": ("program", "Program"),
    "ProgramExit": ("program", "ProgramExit"),
    "Trace": ("trace", "Trace"),
    "abandonable": ("abandon", "abandonable"),
    "run_program": ("program", "run_program"),
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module, attribute = _LATER[name]
    found = importlib.import_module(f".{module}", __name__)
    value = globals()[name] = found if attribute is None else getattr(found, attribute)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


watch_faulthandler()
watch_callbacks()
