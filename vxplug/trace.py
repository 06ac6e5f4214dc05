"""What guests attempted, and the policy that would allow it.

::

    trace = vxplug.Trace()
    with plugin.sandbox(trace=trace) as box:
        box.load("/etc/names")          # PolicyError
    print(trace)                        # … vxplug.LinuxPolicy(directories={'/etc': '/etc'})
"""

from __future__ import annotations

import os
import reprlib
from collections import Counter
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any

from .errors import escape
from .policy import Directory, LinuxPolicy

__all__ = ["Trace"]

# What is kept of the directories that guests ask for, and of the names of calls that nothing allows.
WANTED_MAX = 256
NO_ALLOWANCE = {"/dev": "devices cannot be opened", "/proc": "its files act on the host", "/sys": "its files act on the host"}

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


class Trace:
    """Records every system call and import that guests attempt: ``sandbox(trace=…)``, ``Program.run(trace=…)``.

    ``write`` receives a line for each, as strace prints it, guest text escaped.  ``calls`` and ``imports`` count
    them by name, all system calls of unknown numbers as ``"unknown"``; ``refused`` has the system calls that ended a
    guest's call; ``impossible`` says of calls and paths why no policy allows them.  ``policy()`` is what allows the
    rest, and ``str()`` shows it all.  One trace may be given to several guests.  Paths are chosen by the guest: look
    at each before you allow it.
    """

    def __init__(self, write: Callable[[str], object] | None = None) -> None:
        self.write = write
        self.calls: Counter[str] = Counter()
        self.imports: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.impossible: dict[str, str] = {}
        self.truncated = False
        self._given: LinuxPolicy = LinuxPolicy()
        self._directories: dict[str, Directory] = {}
        self._flags: set[str] = set()

    # --- what the tracers say

    def start(self, policy: LinuxPolicy | None) -> None:
        """A guest begins, under this policy."""
        self._given = policy or LinuxPolicy()

    def line(self, text: str) -> None:
        if self.write is not None:
            self.write(text)

    def watch(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The host function of an import, which is recorded from now on."""

        def call(*arguments: Any) -> Any:
            self.imports[name] += 1
            shown = f"import {name}({', '.join(map(_SHORT.repr, arguments))}) = "
            try:
                result = function(*arguments)
            except BaseException as error:
                self.line(f"{shown}raised {type(error).__name__}")
                raise
            self.line(shown + _SHORT.repr(result))
            return result

        return call

    def need(self, flag: str) -> None:
        """One of the names of LinuxPolicy's flags."""
        self._flags.add(flag)

    def cannot(self, what: str, why: str) -> None:
        if len(self.impossible) < WANTED_MAX:
            self.impossible.setdefault(what, why)
        else:
            self.truncated = True

    def need_path(self, path: str, writes: bool, whole: bool) -> None:
        """A guest path without links and dots; ``whole``: a directory that is wanted itself."""
        guest, host = self._given_for(path)
        if host is None:
            top = "/" + path.split("/")[1]
            if path == "/dev/null" or path == "/":
                return  # a guest finds both without a policy's help
            if top in NO_ALLOWANCE:
                return self.cannot(path, NO_ALLOWANCE[top])
            guest = path if whole or os.path.isdir(path) else os.path.dirname(path)
            if guest == "/":
                return self.cannot(path, "it lies in the root: only a directory of yours, mapped as /, can hold it")
            host = Directory(guest)
        self._add(guest, Directory(os.fspath(host.host), writes))

    def _given_for(self, path: str) -> tuple[str, Directory | None]:
        """The directory of the policy at hand that has the path."""
        found: tuple[str, Directory | None] = "", None
        for guest, host in self._given.directories.items():
            root = "/" + "/".join(part for part in guest.split("/") if part not in ("", "."))
            inside = path == root or path.startswith(root.rstrip("/") + "/")
            if inside and (found[1] is None or len(root) > len(found[0])):
                found = root, host if isinstance(host, Directory) else Directory(host)
        return found

    def _add(self, guest: str, directory: Directory) -> None:
        known = self._directories.get(guest)
        if known is None and len(self._directories) >= WANTED_MAX:
            self.truncated = True
            return
        writable = directory.writable or (known is not None and known.writable)
        self._directories[guest] = Directory(directory.host, writable)

    # --- what comes of it

    def policy(self) -> LinuxPolicy:
        """The least policy that allows what was attempted, where a policy can; limits are those it ran with."""
        given = self._given
        more = self._flags - {"basics"}  # which anything else brings
        flags = dict.fromkeys(more if more or self._directories else self._flags, True)
        return LinuxPolicy(
            directories={guest: host if host.writable else host.host for guest, host in _without_inner(self._directories).items()},
            cwd=given.cwd, env=dict(given.env), output=given.output,
            storage=given.storage, descriptors=given.descriptors, **flags,
        )

    def expression(self) -> str:
        """The policy as Python source."""
        policy = self.policy()
        parts = [f"{field.name}={_spell(getattr(policy, field.name))}" for field in fields(policy)
                 if getattr(policy, field.name) != _default(field)]
        return f"vxplug.LinuxPolicy({', '.join(parts)})"

    def options(self, command: str = "run") -> list[str]:
        """The policy as options of ``vxplug run``, or ``call``; what a command line cannot say is left out."""
        policy = self.policy()
        options = []
        for guest, given in policy.directories.items():
            host, right = (given.host, "rw") if isinstance(given, Directory) else (given, "ro")
            if _sayable(guest, os.fspath(host)):
                options.append(f"--dir={guest}={os.fspath(host)}:{right}")
        flags = {"terminal": "--tty"} if command == "run" else {"time": "--time", "random": "--random"}
        return options + [option for name, option in flags.items() if getattr(policy, name)]

    def __str__(self) -> str:
        lines = [f"{name}: {count}" + (f" ({self.refused[name]} refused)" if name in self.refused else "")
                 for name, count in self.calls.most_common()]
        lines += [f"import {name}: {count}" for name, count in self.imports.most_common()]
        lines += [f"no policy allows {escape(what)}: {why}" for what, why in self.impossible.items()]
        if self.truncated:
            lines.append(f"more than {WANTED_MAX} directories or refusals: the rest is not listed")
        policy = self.policy()
        if policy.denies_all:
            return "\n".join([*lines, "needs no policy"])
        missing = [guest for guest, host in policy.directories.items()
                   if not os.path.isdir(host.host if isinstance(host, Directory) else host)]
        lines.append(f"allowed by: {self.expression()}")
        lines += [f"not on this host: {escape(guest)}: say which directory it is to be" for guest in missing]
        return "\n".join(lines)


def _without_inner(directories: dict[str, Directory]) -> dict[str, Directory]:
    """Those that another one has already, under the same name in host and guest, with the same right."""
    kept: dict[str, Directory] = {}
    for guest, directory in sorted(directories.items()):
        covered = any(
            guest.startswith(outer + "/") and os.fspath(other.host) == outer and os.fspath(directory.host) == guest
            and other.writable >= directory.writable
            for outer, other in kept.items()
        )
        if not covered:
            kept[guest] = directory
    return kept


def _spell(value: Any) -> str:
    if isinstance(value, Directory):
        host = ascii(os.fspath(value.host))
        return f"vxplug.Directory({host}, writable=True)" if value.writable else host
    if isinstance(value, dict):
        return "{" + ", ".join(f"{ascii(key)}: {_spell(item)}" for key, item in value.items()) + "}"
    return ascii(value)


def _default(field: Any) -> Any:
    return field.default_factory() if field.default is MISSING else field.default


def _sayable(guest: str, host: str) -> bool:
    return "=" not in guest and (guest + host).isprintable() and escape(guest + host) == guest + host
