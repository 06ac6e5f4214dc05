"""The C binding.  Private: the public API is in the package; this is what it stands on."""

from collections.abc import Callable, Sequence
from typing import Any

from typing_extensions import Buffer as BytesLike
from typing_extensions import Self

def overdue() -> tuple[str, float] | None:
    """Why the outermost call of this thread that has to end must, and its time limit; None for none."""

def end_callbacks() -> None:
    """From now on Python's main thread gets SIGURG while a callback keeps a call that has to end, on any thread."""

def end_errands(timeout: type[BaseException], interrupt: type[BaseException], /) -> None:
    """Raise one of the two in each other thread whose call has to end and runs a callback, when it runs Python next."""

class Plugin:
    """Checked segments in a form that sandboxes share (vx_plugin)."""

    def __init__(
        self,
        # vaddr, memsz, prot (1 r, 2 w, 4 x), zeros before the data, data
        segments: Sequence[tuple[int, int, int, int, bytes | memoryview]],
        entry: int,
        phdr: int = 0,
        phent: int = 0,
        phnum: int = 0,
        exec_stack: bool = False,
    ) -> None:
        """Raise ValueError when the core does not accept the image, MemoryError, OSError (host unsupported)."""
    def stats(self) -> dict[str, int]: ...
    def places(self) -> list[tuple[int, int, int]]:
        """Blocks of the shared code cache: (guest address, host address, size)."""

class Box:
    """One guest address space and its CPU (vx_sandbox), with the lock that admits one call at a time.

    ``write(fd, data)`` receives guest output (fd 1 or 2); an exception from it ends the guest
    call and comes out of the call unchanged.  ``trap(info)`` turns the end of guest code into
    the exception to raise; ``info`` is a dict:

    ``kind`` (trap.def), ``text``, ``function`` (str or None during initialisation), ``address``
    (int or None), ``eip``, ``registers`` (dict eax … edi, eip, eflags), ``bytes``, ``code`` (exit
    status or call number), ``stack`` and ``stack_at`` (a copy of the guest's stack from esp up, and its
    address), ``stderr`` (the last bytes that the call wrote there).

    ``free`` is the guest address of ``void vx_release_(void *)``, or 0.
    """

    def __init__(
        self,
        plugin: Plugin,
        memory: int,
        stack: int,
        timeout: float,  # seconds, 0 for none
        init_timeout: float,
        output: int,  # bytes a call may write, 0 for no limit
        poison: bool,  # after a trap: refuse further calls instead of resetting
        free: int,
        write: Callable[[int, bytes], Any],
        trap: Callable[[dict[str, Any]], BaseException],
        linux: Callable[[Box, int, int, tuple[int, ...]], int] | None,  # (box, life, number, six words): eax
        trace: Callable[[Box, int, tuple[int, ...], int | None], Any] | None,  # after every call; None: it ended the guest's
        raw: bool,  # no initialisation: the guest starts in run()
        imports: Sequence[tuple[int, Function, Callable[..., Any]]],  # address of the stub, prototype
        new_life: Callable[[], Any] | None,  # after each reset, with the box locked
    ) -> None: ...
    trap: Callable[[dict[str, Any]], BaseException]
    def reset(self) -> None: ...
    def close(self) -> None:
        """Waits for a call in another thread; RuntimeError from inside a call of this box.  Idempotent."""
    def run(self, eip: int, esp: int, /) -> None:
        """Run a raw box until it traps; raises what ``trap`` makes of it."""
    def read(self, address: int, size: int, /) -> bytes | None:
        """Guest memory, or None if not all of it is readable."""
    def write(self, address: int, data: BytesLike, /) -> bool: ...
    def text(self, address: int, limit: int, /) -> bytes | None:
        """Bytes up to a NUL, or None if none follows within the limit."""
    def stopping(self) -> bool:
        """In ``linux``: whether to wait no longer, because the call has to end or a signal waits."""
    def output_room(self, size: int, /) -> int:
        """In ``linux``: how many of so many bytes the running call may write; if not all, it ends afterwards."""
    def buffer(self, size: int, /) -> Buffer: ...
    def map(self, source: int | BytesLike, offset: int, size: int, /) -> Mapping: ...
    def interrupt(self) -> None: ...
    def profile(self, sample: Callable[[dict[str, Any]], Any] | None) -> None:
        """``sample`` is called at every tick of a call, with ``registers``, ``stack`` and ``stack_at``."""
    def translation(self, address: int) -> tuple[int, bytes, int, list[tuple[int, int]]] | None:
        """(guest size, host code, host address, marks) of the block at an address; None where no code is.  RuntimeError inside a call."""
    @property
    def closed(self) -> bool: ...
    @property
    def memory_used(self) -> int: ...

class Buffer:
    """Memory that a sandbox and Python share: made by ``Sandbox.buffer``, a writable bytes-like object.

    The sandbox's functions take it, and what lies in it (slices of memoryviews, arrays), without a copy.
    """

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...
    def release(self) -> None:
        """BufferError while a view or a call uses it.  Idempotent."""
    @property
    def released(self) -> bool: ...

class Mapping:
    """A file, or shared memory, that a sandbox reads where it is: made by ``Sandbox.map``.

    The sandbox's functions take it without a copy; to all others it is a bytes-like object that is copied each time.
    """

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...
    def close(self) -> None:
        """BufferError while a call has it.  Idempotent."""
    @property
    def closed(self) -> bool: ...

class Handle:
    """Base of the classes made for handles: a guest object, held by its sandbox, with its destructor."""

    __box__: Box
    @property
    def closed(self) -> bool: ...
    def close(self) -> None: ...
    def __end__(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...

class Layout:
    """A C type in guest memory: a scalar, enum, struct, union, array, chars, bytes; a pointer to one; numbers; a function; a handle; a stream.

    ``code`` of a scalar or enum; ``cls`` of enum, struct and union; ``size`` and ``members`` (name, layout, bit
    offset, bits) of struct and union; ``target`` and ``count`` of arrays; ``target`` and ``mode`` of a
    pointer; ``code`` and ``mode`` of numbers.  ValueError when the parts do not fit.
    """

    def __init__(
        self,
        kind: str,
        *,
        code: str = ...,
        size: int = ...,
        count: int = ...,
        target: Layout = ...,
        cls: type = ...,
        members: Sequence[tuple[str, Layout, int, int]] = ...,
        mode: str = ...,
        prototype: Function = ...,
        destroy: int = ...,
        open: int = ...,
        alloc: int = ...,
    ) -> None: ...
    @property
    def members(self) -> tuple[str, ...]: ...
    def pack_member(self, name: str, value: Any, /) -> bytes: ...
    def unpack_member(self, name: str, data: BytesLike, /) -> Any: ...
    def unpack(self, data: BytesLike, /) -> Any: ...

class Function:
    """An exported guest function as a Python callable (vectorcall).

    ``params`` is a sequence of (name, type, whether None is allowed), ``result`` a type: a code or a Layout.  Parameter codes:
    i8 u8 i16 u16 i32 u32 i64 u64 bool f32 f64 str view mut.  Result codes: none, the scalars, str, bytes.
    Every parameter may be given by position or keyword; all are required, but those that the
    function only writes, which are results.
    """

    box: Box
    __name__: str
    __qualname__: str
    __module__: str | None  # type: ignore[assignment]  # object says str, and means it less
    __doc__: str | None
    __signature__: Any
    __text_signature__: str | None

    def __init__(
        self,
        box: Box | None,  # None: unbound, or a prototype, the type of a host function
        name: str,
        address: int,
        params: Sequence[tuple[str, str | Layout] | tuple[str, str | Layout, bool]],
        result: str | Layout,
        *,
        doc: str | None = None,
        module: str | None = None,
        signature: Callable[[], Any] | None = None,  # what makes __signature__, at each look
        unbound: bool = False,  # an export without a box, for bind()
    ) -> None: ...
    def bind(self, box: Box, module: str | None, /) -> Function:
        """An unbound function as the callable of one box.  TypeError of any other."""
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

def reclaim_signals() -> None:
    """Take the fault signals again after another handler was installed."""

def linux_rows() -> list[tuple[int, str, str, str]]:
    """Every Linux system call: number, name, server, kinds of arguments (csrc/core/linuxcalls.def)."""

def open_beneath(folder: int, path: bytes, flags: int, /) -> int:
    """openat2 that cannot leave the folder, nor follow any link, nor cross a mount."""

def file_system(fd: int, /) -> int:
    """The type of the file system a descriptor is on (statfs)."""

def directory_entries(fd: int, offset: int, size: int, /) -> bytes:
    """What getdents64 gives of a directory from an offset on, in at most so many bytes."""
