"""What a piece of work leaves behind in the process when it is done once more."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from typing import Any


def growth(work: Callable[[], None], objects: Sequence[Any]) -> tuple[int, int]:
    """By how much the references of any of the objects changed at most, and how many blocks of memory came to stay."""

    def look() -> tuple[list[int], int]:
        work()
        gc.collect()
        return [sys.getrefcount(o) for o in objects], sys.getallocatedblocks()

    (references, blocks), (later, more) = look(), look()
    return max(abs(a - b) for a, b in zip(references, later, strict=True)), more - blocks
