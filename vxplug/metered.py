"""A file in memory that may be read so many times: bounds what a hostile ELF file makes its parser do."""

from __future__ import annotations

import io

__all__ = ["Metered"]


class Metered(io.BytesIO):
    """All streams that share a ``meter`` share the reads that are left in it; then read raises ValueError."""

    def __init__(self, data: bytes, meter: list[int]) -> None:
        super().__init__(data)
        self._meter = meter

    def read(self, size: int | None = -1) -> bytes:
        self._meter[0] -= 1
        if self._meter[0] < 0:
            raise ValueError("takes too long to read")
        return super().read(size)
