"""Sandboxes: one private guest memory and CPU state of a plugin, with its exports as callables."""

from __future__ import annotations

import codecs
import errno
import io
import sys
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from . import _vx, pickling
from .errors import Error, MissingImportError
from .faults import from_trap
from .interface import described
from .plugin import Plugin

if TYPE_CHECKING:
    from . import aio, mapping
    from .policy import LinuxPolicy
    from .trace import Trace

__all__ = ["Sandbox"]

MIB = 1 << 20
PAGE = 4096
MEMORY_MAX = 4 << 30
STACK = 8 * MIB
STACK_MAX = 512 << 20  # VX_STACK_MAX of limits.h
_LIMITS = ("memory", "stack", "timeout", "init_timeout", "output")


def _limit(name: str, value: Any, low: float, high: float, kind: type[int] | type[float]) -> Any:
    number: Any = value
    if type(value) is kind and low <= number <= high:  # nearly all
        return value
    if isinstance(value, bool) or not isinstance(value, (int, kind)):
        raise TypeError(f"{name}: expected {kind.__name__}, got {type(value).__name__}")
    if not low <= number <= high:
        raise ValueError(f"{name}: {value} is not between {low} and {high}")
    return value


def _seconds(name: str, value: float | None) -> float:
    """Seconds for the binding, whose 0 means no limit."""
    return 0.0 if value is None else float(_limit(name, value, 1e-6, 1e9, float))


def _check_policy(linux: Any) -> None:
    from .policy import LinuxPolicy

    if not isinstance(linux, LinuxPolicy):
        raise TypeError(f"linux: expected LinuxPolicy, got {type(linux).__name__}")


def _check_receivers(on_fault: Any, imports: Any, stdout: Any, stderr: Any, linux: Any) -> None:
    if on_fault not in ("reset", "poison"):
        raise ValueError(f"on_fault: expected 'reset' or 'poison', got {on_fault!r}")
    if linux is not None:
        _check_policy(linux)
    if imports is not None and not isinstance(imports, Mapping):
        raise TypeError(f"imports: expected a mapping of names to callables, got {type(imports).__name__}")
    for name, target in (("stdout", stdout), ("stderr", stderr)):
        if target is not None and not callable(target) and not hasattr(target, "write"):
            raise TypeError(f"{name}: expected a callable or a file object, got {type(target).__name__}")


def _limits(memory: Any, stack: Any, timeout: Any, init_timeout: Any, output: Any) -> tuple[int, int, float, float, int]:
    """The limits as the binding takes them.  TypeError or ValueError where one is none."""
    _limit("memory", memory, PAGE, MEMORY_MAX, int)
    if stack is None:
        stack = min(STACK, max(PAGE, memory // 2))
    return (
        memory,
        _limit("stack", stack, PAGE, min(memory, STACK_MAX), int),
        _seconds("timeout", timeout),
        _seconds("init_timeout", init_timeout),
        0 if output is None else _limit("output", output, 1, 1 << 62, int),
    )


def check_options(given: dict[str, Any]) -> None:
    """What is kept for sandboxes to come: a mistake is found where it was made."""
    options: dict[str, Any] = dict(Sandbox.__init__.__kwdefaults__ or {})
    del options["module"]  # the import hook's own
    unknown = sorted(given.keys() - options.keys())
    if unknown:
        raise TypeError(f"no such limit of a sandbox: {', '.join(unknown)}; there are: {', '.join(options)}")
    options.update(given)
    _check_receivers(*(options[name] for name in ("on_fault", "imports", "stdout", "stderr", "linux")))
    _limits(*(options[name] for name in _LIMITS))


class _Output:
    """Guest bytes of one stream to whatever the application gave: callable, text or binary file."""

    def __init__(self, name: str, target: Any) -> None:
        self.name = name
        self.target = target
        self.decoder: codecs.IncrementalDecoder | None = None

    def __call__(self, data: bytes) -> None:
        target = self.target
        if target is None:
            target = getattr(sys, self.name)
            if target is None:
                return
        if not hasattr(target, "write"):
            target(data)
        elif _takes_text(target):
            target.write(_encodable(self._text(data, target), target))
        elif getattr(target, "isatty", bool)():
            _write_all(target, self._text(data, target).encode())
        else:
            _write_all(target, data)

    def forget(self) -> None:
        """A new life of the guest begins: half a character of the old one is not its beginning."""
        self.decoder = None

    def _text(self, data: bytes, target: Any) -> str:
        if self.decoder is None:
            self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = self.decoder.decode(data)
        if not getattr(target, "isatty", bool)():
            return text
        return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def _write_all(target: Any, data: bytes) -> None:
    """A raw file may take less than it is given, and says how much, or None when it would block (io.RawIOBase); others
    take all, and say so, or nothing."""
    while data:
        taken = target.write(data)
        if taken is None and isinstance(target, io.RawIOBase):
            raise BlockingIOError(errno.EAGAIN, f"the guest's output: its file takes no more now, {len(data)} bytes are lost")
        data = data[taken:] if isinstance(taken, int) and 0 < taken < len(data) else b""


def _takes_text(target: Any) -> bool:
    """Text files have an encoding (io.TextIOBase); the rest is asked in bytes."""
    return hasattr(target, "encoding")


# What a text file may do with characters that its encoding lacks (io.TextIOBase.errors), other than fail.
_FORGIVING = ("replace", "ignore", "backslashreplace", "namereplace", "xmlcharrefreplace")


def _encodable(text: str, target: Any) -> str:
    """As sys.stderr shows what its encoding lacks: guests must not choose an exception of the host's."""
    encoding = target.encoding
    if not isinstance(encoding, str) or getattr(target, "errors", None) in _FORGIVING:
        return text
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _imports(plugin: Plugin, given: dict[str, Any], trace: Trace | None, module: str | None) -> list[tuple[int, _vx.Function, Any]]:
    """What the binding wants of each import; all must be given, and nothing that the plugin does not know."""
    missing = [described(name, function.prototype) for name, function in plugin.imports.items() if name not in given]
    if missing:
        who = module or plugin.path or "the plugin"
        text = f"imports: {who} needs host functions that were not given: {'; '.join(missing)}"
        raise MissingImportError(text, name=module, path=plugin.path)
    unknown = sorted(map(str, given.keys() - plugin.imports.keys()))
    if unknown:
        has = ", ".join(plugin.imports) or "nothing"
        raise Error(f"imports: the plugin has no use for {', '.join(unknown)}; it imports {has}")
    for name, function in given.items():
        if not callable(function):
            raise TypeError(f"imports: {name}: expected a callable, got {type(function).__name__}")
    if trace is not None:
        given = {name: trace.watch(name, function) for name, function in given.items()}
    prototype = plugin._interface.classes.prototype
    return [(f.address, prototype(name, f.type), given[name]) for name, f in plugin.imports.items()]


def _nothing() -> None:
    """A weak reference of what is not made yet."""


def _personality(policy: LinuxPolicy, host: _Host, memory: int, stack: int) -> Any:
    """Who serves system calls; nobody when the policy allows none: they are PolicyErrors then."""
    if policy.denies_all:
        return None
    from .linux.personality import Personality
    from .linux.process import Streams

    return Personality(policy, Streams(None, host.output(1), host.output(2)), memory, stack)


def _traced(trace: Any, policy: LinuxPolicy | None, personality: Any) -> tuple[Trace, Any]:
    """The embedder's record of what is attempted, and the hook that fills it."""
    from .linux.trace import Tracer, traced

    watched = traced(trace)
    return watched, Tracer(watched, policy, personality)


class _Host:
    """Whom the binding calls.  It has no reference to its sandbox, whose memory so goes as soon as nobody has it."""

    __slots__ = ("options", "outputs", "personality", "plugin", "sandbox")

    def __init__(self, plugin: Plugin, options: dict[str, Any]) -> None:
        self.plugin = plugin
        self.options = options
        self.outputs: dict[int, _Output] = {}  # by descriptor, made when first asked for
        self.personality: Any = None  # who serves system calls
        self.sandbox: Callable[[], Sandbox | None] = _nothing  # a weak reference

    def sandbox_of(self, box: _vx.Box) -> Sandbox:
        """Again, where only its functions were left."""
        found = self.sandbox()
        if found is None:
            found = object.__new__(Sandbox)
            found._become(self, box)
        return found

    def output(self, fd: int) -> _Output:
        found = self.outputs.get(fd)
        if found is None:
            name = {1: "stdout", 2: "stderr"}[fd]
            found = self.outputs[fd] = _Output(name, self.options[name])
        return found

    def write(self, fd: int, data: bytes) -> None:
        self.output(fd)(data)

    def forget_output(self) -> None:
        for output in self.outputs.values():
            output.forget()

    def trap(self, info: dict[str, Any]) -> BaseException:
        self.forget_output()
        return from_trap(info, self.plugin, {name: self.options[name] for name in _LIMITS})


class Sandbox:
    """A plugin's private memory and CPU; exports are attributes, or items by name.

    Classes made for the plugin's enums and structs are attributes too, unless an export has their name.

    All limits are keywords: ``memory`` and ``stack`` (None: 8 MiB, or half of the memory) in bytes; ``timeout`` of a call and
    ``init_timeout`` in seconds, ``output`` in bytes a call may write (None: none); ``on_fault`` is
    ``"reset"`` (back to the state after initialisation) or ``"poison"`` (refuse further calls);
    ``stdout`` and ``stderr`` receive guest output (a callable taking bytes, or a text or binary file;
    None: Python's own); ``imports`` maps the names of the functions that the plugin imports to
    callables; ``trace`` is a :class:`vxplug.Trace` of what the guest attempts, or a callable that receives
    a line for each system call and import.

    Raises GuestFault, GuestTimeout, GuestExit or PolicyError when the plugin's initialisation ends
    so; GuestMemoryError when the limits do not hold the plugin; MissingImportError when it needs host functions
    that ``imports`` has not.
    """

    _host: _Host
    _box: _vx.Box
    _functions: dict[str, _vx.Function]

    def __init__(
        self,
        plugin: Plugin,
        *,
        memory: int = 256 * MIB,
        stack: int | None = None,
        timeout: float | None = 30.0,
        init_timeout: float | None = 5.0,
        output: int | None = 64 * MIB,
        on_fault: str = "reset",
        imports: Mapping[str, Callable[..., Any]] | None = None,
        stdout: Any = None,
        stderr: Any = None,
        linux: LinuxPolicy | None = None,
        trace: Trace | Callable[[str], object] | None = None,
        module: str | None = None,
    ) -> None:
        _check_receivers(on_fault, imports, stdout, stderr, linux)
        limits = _limits(memory, stack, timeout, init_timeout, output)
        options = {
            "memory": memory, "stack": limits[1], "timeout": timeout, "init_timeout": init_timeout, "output": output,
            "on_fault": on_fault, "imports": imports, "stdout": stdout, "stderr": stderr, "linux": linux, "module": module,
        }
        host = _Host(plugin, options)
        personality = host.personality = None if linux is None else _personality(linux, host, memory, limits[1])
        watched, tracer = (None, None) if trace is None else _traced(trace, linux, personality)
        given = _imports(plugin, dict(imports or {}), watched, module) if imports or plugin.imports else ()
        new_life = None if personality is None else personality.end_process
        # By position: fifteen keywords take longer than the box.
        box = _vx.Box(
            plugin._core, *limits, on_fault == "poison", plugin._interface.release, host.write, host.trap, personality, tracer,
            False, given, new_life,
        )
        self._become(host, box)

    def _become(self, host: _Host, box: _vx.Box) -> None:
        # Past __setattr__, which would take as long as all else of a sandbox in Python.
        self.__dict__.update(_host=host, _box=box, _functions={})  # the functions are made when first asked for
        host.sandbox = weakref.ref(self)

    @property
    def plugin(self) -> Plugin:
        return self._host.plugin

    @property
    def closed(self) -> bool:
        return self._box.closed

    @property
    def memory_used(self) -> int:
        """Bytes of guest memory mapped now, counted against the limit."""
        return self._box.memory_used

    def buffer(self, size: int) -> _vx.Buffer:
        """Memory that the sandbox and Python share: what lies in it, its functions take without a copy."""
        return self._box.buffer(size)

    def map(self, source: mapping.Source, *, offset: int = 0, size: int | None = None) -> _vx.Mapping:
        """A file (a path, a file object, a descriptor) or shared memory (an ``mmap``, a ``SharedMemory``) that the sandbox
        reads where it is: its functions take it without a copy.  ``size`` is all there is from ``offset`` on, a page.
        """
        from . import mapping

        return mapping.mapped(self._box, source, offset, size)

    def reset(self) -> None:
        """Back to the state right after initialisation.  RuntimeError inside a call."""
        self._box.reset()
        self._host.forget_output()

    def close(self) -> None:
        """Free the memory, which else goes with the last reference to the sandbox, its functions or what they gave; waits
        for a call in another thread.  Idempotent."""
        self._box.close()
        if self._host.personality is not None:
            self._host.personality.close()

    def interrupt(self) -> None:
        """End the running call, if any, with GuestFault of kind ``"interrupt"``.  Any thread may."""
        self._box.interrupt()

    @property
    def aio(self) -> aio.Calls:
        """The exports as coroutine functions: ``await box.aio.name(…)``; see :mod:`vxplug.aio`."""
        from . import aio

        return aio.Calls(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Plugin and limits: memory does not travel, a fresh sandbox comes out."""
        if self.closed:
            raise Error("a closed sandbox cannot be pickled")
        return pickling.load_sandbox, (self.plugin, self._host.options)

    def __getattr__(self, name: str) -> Any:
        if "_functions" not in self.__dict__:
            raise AttributeError(name)
        plugin = self._host.plugin
        if name in plugin.exports:
            found = self.__dict__[name] = self[name]  # the next look does not come here
            return found
        if name in plugin.types:
            return plugin.types[name]
        raise AttributeError(f"{self!r} has no export {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            raise AttributeError(f"{name}: a sandbox's limits are those it was made with, its functions the plugin's")
        super().__setattr__(name, value)

    def __getitem__(self, name: str) -> _vx.Function:
        found = self._functions.get(name)
        if found is None:
            plugin, module = self._host.plugin, self._host.options["module"]
            found = self._functions[name] = plugin._interface.classes.function(self._box, plugin.exports[name], module)
        return found

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.plugin.exports, *self.plugin.types})

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed " if "_box" in self.__dict__ and self.closed else ""
        return f"<{state}vxplug.Sandbox of {self.plugin.path or '(bytes)'}>" if "_host" in self.__dict__ else "<unfinished vxplug.Sandbox>"
