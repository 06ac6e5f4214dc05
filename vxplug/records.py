"""Immutable values, equal by class and fields: what frozen dataclasses are, and as they are declared.

Each of those takes half a millisecond to make, and their module five to import: most of `import vxplug` once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Any:
        return lambda cls: cls


__all__ = ["Record"]


@dataclass_transform(frozen_default=True)
class Record:
    """Fields are the class's annotations, in order; what is assigned there is a default.  Those ``aside`` are neither
    compared nor shown."""

    _fields: ClassVar[tuple[str, ...]]
    _compared: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls, aside: tuple[str, ...] = ()) -> None:
        cls._fields = tuple(cls.__annotations__)
        cls._compared = tuple(name for name in cls._fields if name not in aside)

    def __init__(self, *values: Any, **named: Any) -> None:
        fields, own = self._fields, self.__dict__
        own.update(zip(fields, values))
        if named or len(values) != len(fields):
            self._check(values, named)
            own.update(named)

    def _check(self, values: tuple[Any, ...], named: dict[str, Any]) -> None:
        left = self._fields[len(values) :]
        missing = [name for name in left if name not in named and not hasattr(type(self), name)]
        if len(values) > len(self._fields) or missing or not named.keys() <= set(left):
            raise TypeError(f"{type(self).__name__} takes {', '.join(self._fields)}")

    def _key(self) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in self._compared])

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        """Kept: the same record may be part of others in more ways than can be counted.  With a word first, whose hash
        nobody knows before the process runs: whoever chooses the numbers of records cannot give many one hash."""
        own = self.__dict__
        if "_hash" not in own:
            own["_hash"] = hash((type(self).__name__, self._key()))
        return own["_hash"]  # type: ignore[no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        """Without the hash, which is another in the next process."""
        return {name: value for name, value in self.__dict__.items() if name != "_hash"}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self._compared)})"

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")
