"""Plugins, sandboxes and exported functions in pickles, for pools of processes and clusters.

A plugin is named by the SHA-256 of its bytes and, as a hint, its path; a portable one (``Plugin.portable``)
carries the bytes.  A sandbox is its plugin and its limits: memory does not travel, so what comes out of a
pickle is a fresh sandbox.  A function is its sandbox and its name.

As with every pickle, who can write it can run any code in who reads it: a pickle is for one's own processes.
Nothing that a guest wrote is ever unpickled.
"""

from __future__ import annotations

import copyreg
import os
import stat
import threading
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from . import _vx
from .errors import Error

if TYPE_CHECKING:
    from .plugin import Plugin
    from .sandbox import Sandbox

# Plugins that came out of pickles and are kept for the next ones: a worker gets a function a task, and
# would otherwise parse, initialise and translate its plugin for each.
KEPT = 16

_known: weakref.WeakValueDictionary[str, Plugin] = weakref.WeakValueDictionary()
_kept: OrderedDict[str, Plugin] = OrderedDict()
# Opened since a pickle was last read, in that order.  An import need not pay for a hash that few ever ask for.
_unhashed: dict[weakref.ref[Plugin], None] = {}
_lock = threading.RLock()  # a finaliser may open or unpickle a plugin at any moment, also while we hold it


def _new_lock() -> None:
    """In a forked child the lock may be held by a thread it never had."""
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_new_lock)


class Missing:
    """What a pickle gives when its plugin is not here: every use raises the reason.

    Unpickling itself does not fail.  Pools unpickle where nobody listens: a worker of the standard
    library dies without a word, one of Dask waits for ever.  In a pickle it is what it was, so a scheduler
    may hand on what it cannot use.
    """

    def __init__(self, problem: str, origin: tuple[Any, ...]) -> None:
        self._problem = problem
        self._origin = origin

    def __reduce__(self) -> tuple[Any, ...]:
        return self._origin

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise Error(self._problem)

    def __getitem__(self, name: str) -> Any:
        raise Error(self._problem)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name) if name.startswith("__") else Error(self._problem)

    def __repr__(self) -> str:
        return f"<missing: {self._problem}>"


# ---- plugins ----


def remember_plugin(plugin: Plugin) -> None:
    """Makes the plugin known to pickles that name it."""
    with _lock:
        _unhashed[weakref.ref(plugin, _forget)] = None


def _forget(dead: weakref.ref[Plugin], unhashed: dict[weakref.ref[Plugin], None] = _unhashed) -> None:
    unhashed.pop(dead, None)


def _keep(plugin: Plugin) -> Plugin:
    with _lock:
        _kept[plugin.digest] = plugin
        _kept.move_to_end(plugin.digest)
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return plugin


def _find(digest: str) -> Plugin | None:
    with _lock:
        for reference in list(_unhashed):
            plugin = reference()
            _unhashed.pop(reference, None)
            if plugin is not None:
                _known[plugin.digest] = plugin
        return _known.get(digest)


def _read(path: str | None, digest: str) -> Plugin | None:
    """The file where the plugin came from, if it is here and still the same."""
    from .plugin import Plugin, read_file

    if path is None:
        return None
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        data = read_file(path)
    except OSError:
        return None
    plugin = Plugin(data, path)
    return plugin if plugin.digest == digest else None


def load_plugin(digest: str, path: str | None, data: bytes | None) -> Plugin | Missing:
    """What a pickled plugin calls."""
    from .plugin import Plugin

    plugin = _find(digest)
    if plugin is None and data is not None:
        plugin = Plugin(data, path)
        if plugin.digest != digest:
            raise Error(f"the pickle's plugin is not the one it names: SHA-256 {plugin.digest}, not {digest}")
    plugin = plugin or _read(path, digest)
    if plugin is None:
        problem = (
            f"the plugin {path or '(bytes)'} with SHA-256 {digest} is not here: "
            "open it first, or pickle what was made from plugin.portable()"
        )
        return Missing(problem, (load_plugin, (digest, path, None)))
    return _keep(plugin if data is None else plugin.portable())


def load_value(plugin: Plugin | Missing, name: str, state: Any) -> Any:
    """What a pickled enum, struct or union calls."""
    if isinstance(plugin, Missing):
        return Missing(plugin._problem, (load_value, (plugin, name, state)))
    return plugin._interface.classes.made(name, state)


# ---- sandboxes and functions ----


def load_sandbox(plugin: Plugin | Missing, options: dict[str, Any]) -> Sandbox | Missing:
    """What a pickled sandbox calls."""
    if isinstance(plugin, Missing):
        return Missing(plugin._problem, (load_sandbox, (plugin, options)))
    return plugin.sandbox(**options)


def sandbox_of(function: _vx.Function) -> Sandbox:
    """The sandbox of an exported function, made anew around its box if nobody has it any more."""
    return function.box.trap.__self__.sandbox_of(function.box)  # type: ignore[attr-defined, no-any-return]


def load_function(sandbox: Sandbox | Missing, name: str) -> _vx.Function | Missing:
    """What a pickled function calls."""
    if isinstance(sandbox, Missing):
        return Missing(sandbox._problem, (load_function, (sandbox, name)))
    return sandbox[name]


def _reduce_function(function: _vx.Function) -> tuple[Any, ...]:
    sandbox = sandbox_of(function)
    if function.__name__ not in sandbox.plugin.exports:
        raise Error(f"{function.__name__} lives in its sandbox only and cannot be pickled")
    return load_function, (sandbox, function.__name__)


copyreg.pickle(_vx.Function, _reduce_function)
