"""First-fit allocation of a fixed range of bytes. Pure."""

from __future__ import annotations

from bisect import bisect_left


class FreeList:
    """Which parts of ``size`` bytes are free, as (offset, length) in order; neighbours are always merged.

    Low offsets are taken first, so memory that was touched is used again. What was taken as one may come back in
    parts.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = [(0, size)] if size else []

    @property
    def free_bytes(self) -> int:
        """In all; the largest piece may be smaller."""
        return sum(length for _, length in self._free)

    def take(self, length: int) -> int | None:
        """The offset of ``length`` bytes in one piece, or None where there are none."""
        for index, (offset, free) in enumerate(self._free):
            if free >= length:
                rest = [(offset + length, free - length)] if free > length else []
                self._free[index : index + 1] = rest
                return offset
        return None

    def give_back(self, offset: int, length: int) -> None:
        """Free what was taken. Raises ValueError when part of it is free already, or outside."""
        index = bisect_left(self._free, (offset, 0))
        start, end = offset, offset + length
        before = self._free[index - 1] if index > 0 else None
        after = self._free[index] if index < len(self._free) else None
        if start < 0 or end > self.size or (before and sum(before) > start) or (after and after[0] < end):
            raise ValueError(f"bytes {start} to {end} are free already, or not among {self.size}")
        first, last = index, index
        if before and sum(before) == start:
            start, first = before[0], index - 1
        if after and after[0] == end:
            end, last = sum(after), index + 1
        self._free[first:last] = [(start, end - start)]
