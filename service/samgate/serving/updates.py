"""Masks on their way to the client: encoded on the imaging threads, in messages of moderate size, best first."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from samgate.domain import Format, Rle
from samgate.imaging.formats import encode as encode_mask
from samgate.imaging.formats import rle_to_mask
from samgate.segevery.sampler import EverythingResult
from samgate.segevery.shown import Shown
from samgate.serving.answers import encoded_bytes
from samgate.serving.horizon import Horizon
from samgate.serving.requests import EncodedMask

T = TypeVar("T")

_MESSAGE_BYTES = 512 * 1024
"""Masks are sent in groups of about this size."""
_EVERY_S = 0.25
_SHARE = 4.0
"""Times what the last update took, until the next: masks are found rather than shown."""


class Worker(Protocol):
    """Runs a function on the imaging threads and counts its time for a stage."""

    async def __call__(self, function: Callable[[], T], stage: str) -> T: ...


@dataclass(frozen=True, slots=True)
class EverythingFound:
    """Masks of an image of ``size`` (height, width), each with its id and its encoded form, and the ids of those that
    no longer count."""

    masks: list[tuple[int, EverythingResult, EncodedMask]]
    retracted: tuple[int, ...]
    size: tuple[int, int]


class Updates:
    """Keeps the client's set of masks up with the sampler's."""

    def __init__(self, size: tuple[int, int], mask_format: Format, work: Worker, horizon: Horizon) -> None:
        self._size, self._format, self._work, self._horizon = size, mask_format, work, horizon
        self._shown = Shown()
        self._due = 0.0
        self.cut = False
        """Whether the last update was too long for the time left."""

    @property
    def count(self) -> int:
        """Masks that the client holds."""
        return self._shown.count

    @property
    def due(self) -> bool:
        """Whether it is time for another update."""
        return time.monotonic() >= self._due

    async def show(self, present: Callable[[], Sequence[EverythingResult]]) -> AsyncIterator[EverythingFound]:
        """What turns the client's set into ``present()``, or as much of it as can be sent in time.

        Whatever was retracted goes with the first message, so that there are no duplicates after any.
        """
        started, self.cut = time.monotonic(), False
        change = self._shown.change(await self._work(present, "masks"))
        group: list[tuple[int, EverythingResult, EncodedMask]] = []
        retracted, size = change.retracted, 0
        for number, result in change.new:
            if self._horizon.over:
                self.cut = True
                break
            data: EncodedMask = result.rle
            if self._format is not Format.RLE:
                data = await self._work(partial(_reencode, result.rle, self._format), "masks")
            self._shown.sent(number, result)
            group.append((number, result, data))
            size += encoded_bytes(data)
            if size > _MESSAGE_BYTES:
                yield EverythingFound(group, retracted, self._size)
                group, retracted, size = [], (), 0
        if group or retracted:
            yield EverythingFound(group, retracted, self._size)
        took = time.monotonic() - started
        self._horizon.updated(took)
        self._due = time.monotonic() + max(_EVERY_S, _SHARE * took)


def _reencode(rle: Rle, mask_format: Format) -> EncodedMask:
    return encode_mask(rle_to_mask(rle), mask_format)
