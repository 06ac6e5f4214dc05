"""Python classes made for the types of a plugin: IntEnum, frozen dataclasses, unions, handles; and their layouts."""

from __future__ import annotations

import array
import enum
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import GenericAlias, MethodType
from typing import TYPE_CHECKING, Any, Optional

from . import _vx, pickling
from .errors import Error, PluginFormatError
from .types import (
    TEXT,
    ArrayType,
    EnumType,
    FunctionType,
    HandleType,
    NumbersType,
    OptionalType,
    PointerType,
    StreamType,
    StructType,
    Type,
    is_output,
)

if TYPE_CHECKING:
    from .plugin import Plugin

__all__ = ["Classes", "Handle", "Stream", "Union"]

MODULE = "vxplug.classes"  # until a module takes the classes in
SCALARS: dict[str, Any] = {
    "i8": int, "u8": int, "i16": int, "u16": int, "i32": int, "u32": int, "i64": int, "u64": int,
    "bool": bool, "f32": float, "f64": float,
}
Handle = _vx.Handle
PARAM_TYPES: dict[str, Any] = {**SCALARS, "str": str, "view": bytes, "mut": bytearray}


class Buffer:
    """In signatures: any object with a contiguous buffer of numbers, such as array.array or numpy.ndarray."""

    __module__ = "collections.abc"  # where Python 3.12 has it


class Union:
    """A C union: immutable bytes that each member reads in its own way.

    Made from one member, ``number(i=5)``; ``bytes()`` gives what C sees.  Equal when the bytes are.
    """

    __slots__ = ("__data__",)
    __layout__: Any = None
    __classes__: Classes
    __data__: bytes

    def __init__(self, /, **member: Any) -> None:  # which may be called self
        if len(member) != 1:
            raise TypeError(f"{type(self).__name__}() takes exactly one member by keyword")
        ((name, value),) = member.items()
        object.__setattr__(self, "__data__", self.__layout__.pack_member(name, value))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __bytes__(self) -> bytes:
        return self.__data__

    def __eq__(self, other: object) -> bool:
        return self.__data__ == other.__data__ if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.__data__)

    def __repr__(self) -> str:
        layout = type(self).__layout__
        shown = ", ".join(f"{name}={layout.unpack_member(name, self.__data__)!r}" for name in layout.members)
        return f"{type(self).__name__}({shown})"

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__classes__.reduced(self, self.__data__)


def _reduce_enum(self: enum.IntEnum, _: object) -> tuple[Any, ...]:
    return type(self).__classes__.reduced(self, int(self))  # type: ignore[attr-defined, no-any-return]


def _reduce_struct(self: Any) -> tuple[Any, ...]:
    values = tuple(self.__dict__[name] for name in type(self).__dataclass_fields__)
    return type(self).__classes__.reduced(self, values)  # type: ignore[no-any-return]


def _union_member(name: str, annotation: Any) -> property:
    def read(self: Any) -> Any:
        return type(self).__layout__.unpack_member(name, self.__data__)

    read.__annotations__["return"] = annotation
    return property(read)


class Stream(Handle):
    """The result of a plugin's function in pieces: an iterator of bytes, each made when it is asked for.

    ``close()`` ends it early: the function is told that nobody wants more, and runs to its end.
    """

    __read__: Any = None  # makes the function that gives the next piece, of a box

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> bytes:
        own = self.__dict__
        if own.get("__ended__"):
            raise StopIteration
        if "__next_piece__" not in own:
            own["__next_piece__"] = type(self).__read__(self.__box__)
        try:
            piece: bytes = own["__next_piece__"](self)
        except BaseException:
            own["__ended__"] = True
            self.close()
            raise
        if not piece:
            self.close()
            raise StopIteration
        return piece

    def close(self) -> None:
        """End the stream.  Idempotent."""
        if not self.closed:
            self.__dict__["__ended__"] = True
        self.__end__()

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Method:
    """An export as a method of the handle that is its first argument.

    A handle makes the functions of its own sandbox when it first needs them: the class belongs to all sandboxes.
    """

    def __init__(self, classes: Classes, name: str, export: Any) -> None:
        self._classes, self.export = classes, export
        self.__name__, self.__doc__ = name, export.doc

    @property
    def __signature__(self) -> Any:
        return self.export.signature

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        functions = instance.__dict__
        if self.export not in functions:
            functions[self.export] = self._classes.function(instance.__box__, self.export)
        return MethodType(functions[self.export], instance)

    def __call__(self, handle: Any, *args: Any, **kwargs: Any) -> Any:
        return self.__get__(handle)(*args, **kwargs)


class Classes:
    """The classes and layouts of one plugin, each made once."""

    def __init__(self, types: Iterable[Type]) -> None:
        self.named: dict[str, type] = {}
        self._layouts: dict[Type, _vx.Layout] = {}
        self._functions: dict[str, _vx.Function] = {}  # of each export, bound to no box
        self.plugins: list[weakref.ref[Plugin]] = []  # whose types they are, the one that pickles name last
        for type in types:
            self.spec(type)

    def adopt(self, module: str) -> None:
        """Make ``module`` the home of the classes."""
        for cls in self.named.values():
            cls.__module__ = module

    def reduced(self, value: Any, state: Any) -> tuple[Any, ...]:
        """What a pickled value is: its plugin, its type's name there, and what it is made of."""
        plugin = next((found for found in (ref() for ref in reversed(self.plugins)) if found is not None), None)
        if plugin is None:
            raise Error(f"a {_class_of(value).__name__} cannot be pickled: its plugin is gone")
        return pickling.load_value, (plugin, _class_of(value).__name__, state)

    def made(self, name: str, state: Any) -> Any:
        """The value again."""
        cls: Any = self.named[name]
        if issubclass(cls, Union):
            return cls.__layout__.unpack(state)
        return cls(state) if issubclass(cls, enum.IntEnum) else cls(*state)

    def spec(self, type: Type) -> Any:
        """What _vx.Function takes: a code, or the layout of anything else."""
        if isinstance(type, OptionalType):
            return self.spec(type.item)
        return type if isinstance(type, str) else self.layout(type)

    def parameter(self, name: str, type: Type) -> tuple[str, Any, bool]:
        """What _vx.Function takes for a parameter: name, spec, whether it may be None."""
        return name, self.spec(type), isinstance(type, OptionalType)

    def function(self, box: _vx.Box, export: Any, module: str | None = None) -> _vx.Function:
        """An export as the callable of one sandbox."""
        unbound = self._functions.get(export.name)
        if unbound is None:
            params = [self.parameter(name, type) for name, type in export.params]
            unbound = self._functions[export.name] = _vx.Function(
                None, export.name, export.address, params, self.spec(export.result), doc=export.doc,
                signature=lambda: export.signature, unbound=True,
            )
        return unbound.bind(box, module)

    def add_methods(self, handle: HandleType, exports: Mapping[str, Any]) -> None:
        for name, export in handle.methods:
            setattr(self.named[handle.name], name, _Method(self, name, exports[export]))

    def prototype(self, name: str, type: FunctionType) -> _vx.Function:
        """A host function as the binding calls it."""
        params = [self.parameter(f"arg{number}", param) for number, param in enumerate(type.params)]
        return _vx.Function(None, name, 0, params, self.spec(type.result))

    def layout(self, type: Type) -> _vx.Layout:
        if type not in self._layouts:
            self._layouts[type] = self._make(type)
        return self._layouts[type]

    def _make(self, type: Type) -> _vx.Layout:
        if isinstance(type, str):
            return _vx.Layout("text") if type == TEXT else _vx.Layout("scalar", code=type)
        if isinstance(type, EnumType):
            return _vx.Layout("enum", code=type.base, cls=self._enum(type))
        if isinstance(type, StructType):
            return self._struct(type)
        if isinstance(type, ArrayType):
            kind = "chars" if type.text else "bytes" if type.item == "u8" else "array"
            return _vx.Layout(kind, target=self.layout(type.item), count=type.count)
        if isinstance(type, NumbersType):
            return _vx.Layout("numbers", code=type.item, mode=type.mode)
        if isinstance(type, HandleType):
            cls = self.named[type.name] = _new_class(type.name, (Handle,), {"__module__": MODULE})
            return _vx.Layout("handle", cls=cls, destroy=type.destroy)
        if isinstance(type, StreamType):
            return self._stream(type)
        if isinstance(type, FunctionType):
            return _vx.Layout("function", prototype=self.prototype("callback", type))
        assert isinstance(type, PointerType)
        return _vx.Layout("pointer", target=self.layout(type.target), mode=type.mode)

    def _stream(self, type: StreamType) -> _vx.Layout:
        def read(box: _vx.Box) -> _vx.Function:
            return _vx.Function(box, "next", type.next, [("stream", handle)], "bytes")

        cls = _new_class("Stream", (Stream,), {"__module__": MODULE, "__read__": staticmethod(read)})
        handle = _vx.Layout("handle", cls=cls, destroy=type.close)
        return _vx.Layout("stream", target=handle, open=type.open, alloc=type.alloc)

    def _enum(self, type: EnumType) -> Any:
        try:
            cls = enum.IntEnum(type.name, list(type.members), module=MODULE)  # type: ignore[misc]
        except (TypeError, ValueError) as error:
            raise PluginFormatError(f"interface note: enum {type.name}: {error}") from None
        cls.__classes__ = self  # type: ignore[attr-defined]
        cls.__reduce_ex__ = _reduce_enum  # type: ignore[assignment, method-assign]
        self.named[type.name] = cls
        return cls

    def _struct(self, type: StructType) -> _vx.Layout:
        members = [(m.name, self.layout(m.type), m.bit, m.bits) for m in type.members]
        cls = self._union(type) if type.union else self._dataclass(type)
        cls.__module__ = MODULE
        cls.__classes__ = self
        layout = _vx.Layout("union" if type.union else "struct", size=type.size, cls=cls, members=members)
        if type.union:
            cls.__layout__ = layout
        self.named[type.name] = cls
        return layout

    def _dataclass(self, type: StructType) -> Any:
        import dataclasses

        fields = [(m.name, self.in_memory(m.type)) for m in type.members]
        return dataclasses.make_dataclass(type.name, fields, frozen=True, namespace={"__reduce__": _reduce_struct})

    def _union(self, type: StructType) -> Any:
        members = {m.name: _union_member(m.name, self.in_memory(m.type)) for m in type.members}
        return _new_class(type.name, (Union,), {"__slots__": (), **members})

    def annotation(self, type: Type) -> Any:
        """What stands for the type in a signature."""
        if isinstance(type, str):
            return PARAM_TYPES[type]
        if isinstance(type, (EnumType, StructType, HandleType)):
            self.layout(type)
            return self.named[type.name]
        if isinstance(type, ArrayType):
            return bytes if type.text or type.item == "u8" else _TUPLE[self.in_memory(type.item), ...]
        if isinstance(type, NumbersType):
            return GenericAlias(array.array, (SCALARS[type.item],)) if type.mode == "out" else Buffer
        if isinstance(type, FunctionType):
            return self.function_annotation(type)
        if isinstance(type, StreamType):
            return Iterator[bytes]
        if isinstance(type, OptionalType):
            return Optional[self.annotation(type.item)]
        assert isinstance(type, PointerType)
        return self.in_memory(type.target)

    def in_memory(self, type: Type) -> Any:
        """The same for what stands in memory: text is a pointer there, which may be NULL."""
        return Optional[str] if type == TEXT else self.annotation(type)

    def function_annotation(self, type: FunctionType) -> Any:
        """The same for a callback: of what its pointers lead to, None leaves what is there."""
        given = [] if type.result == "none" else [self.call_annotation(type.result)]
        given += [self.result(param) for param in type.params if is_output(param)]
        result = _TUPLE[tuple(given)] if len(given) > 1 else given[0] if given else None
        return _CALLABLE[[self.call_annotation(self._lent(param)) for param in type.params], result]

    @staticmethod
    def _lent(type: Type) -> Type:
        """Numbers that C passes are as those that it gives: an array."""
        return NumbersType(type.item, "out") if isinstance(type, NumbersType) else type

    def call_annotation(self, type: Type) -> Any:
        """The same for what a callback takes and gives: pointers and text may be NULL."""
        if isinstance(type, str):
            return {**PARAM_TYPES, "none": None, "str": Optional[str]}[type]
        return self.result(type)

    def result(self, type: Type) -> Any:
        """The same for a result, whose pointers may be NULL."""
        inner = self.annotation(type)
        return Optional[inner] if isinstance(type, (PointerType, HandleType, FunctionType)) else inner


# Names that parameters do not hide, and subscripts that checkers take for no types of theirs.
_new_class = _class_of = type
_TUPLE: Any = tuple
_CALLABLE: Any = Callable
