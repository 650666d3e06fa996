"""What is made of an image once, however many clients send it at a time, and used many times: embeddings, for one."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from samgate.domain import FloatArray, Frame


@dataclass(frozen=True, slots=True)
class Embedding:
    """An encoded image: ``values`` float32 ``[256, 64, 64]``, where the image lies in the encoder's input, and how
    many seconds each stage took (``imaging``, ``queue``, ``encode``)."""

    values: FloatArray
    frame: Frame
    stages_s: dict[str, float]

    @property
    def nbytes(self) -> int:
        """Of its values."""
        return self.values.nbytes


class Sized(Protocol):
    """What can be kept."""

    @property
    def nbytes(self) -> int: ...


V = TypeVar("V", bound=Sized)


@dataclass(slots=True)
class _Entry(Generic[V]):
    value: V
    used: float


@dataclass(slots=True)
class _Making(Generic[V]):
    task: asyncio.Task[V]
    waiters: int = 0


class SharedCache(Generic[V]):
    """Least-recently-used cache by key, bounded in bytes and in seconds without use, with single flight.

    For one event loop. ``clock`` is in seconds.
    """

    def __init__(self, max_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_bytes = max_bytes
        self.ttl_s = ttl_s
        self._clock = clock
        self._entries: OrderedDict[str, _Entry[V]] = OrderedDict()
        self._making: dict[str, _Making[V]] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> V | None:
        """The value called ``key``, which this use keeps alive; None when it isn't held."""
        self._expire()
        entry = self._entries.get(key)
        if entry is None:
            return None
        entry.used = self._clock()
        self._entries.move_to_end(key)
        return entry.value

    def held(self, key: str) -> bool:
        """Whether the value called ``key`` is held. Doesn't count as use."""
        self._expire()
        return key in self._entries

    async def get_or_make(self, key: str, make: Callable[[], Awaitable[V]]) -> tuple[V, bool]:
        """The value called ``key`` and whether it was there, or being made, already.

        ``make`` runs in a task of the cache: it goes on when the caller that began it is cancelled while others wait,
        and is cancelled with the last of them. Raises what ``make`` raises, to all who wait; errors aren't kept.
        """
        held = self.get(key)
        if held is not None:
            return held, True
        making = self._making.get(key)
        joined = making is not None
        if making is None:
            making = self._making[key] = _Making(asyncio.ensure_future(self._make(key, make)))
        making.waiters += 1
        try:
            return await asyncio.shield(making.task), joined
        finally:
            making.waiters -= 1
            if making.waiters == 0:
                # Out of the books before it is cancelled, so that a newcomer begins anew.
                if self._making.get(key) is making:
                    del self._making[key]
                if not making.task.done():
                    making.task.cancel()

    def clear(self) -> None:
        """Drop everything that is held."""
        self._entries.clear()
        self.bytes = 0

    async def _make(self, key: str, make: Callable[[], Awaitable[V]]) -> V:
        value = await make()
        self._put(key, value)
        return value

    def _put(self, key: str, value: V) -> None:
        self._drop(key)
        if value.nbytes <= self.max_bytes:
            self._entries[key] = _Entry(value, self._clock())
            self.bytes += value.nbytes
        while self.bytes > self.max_bytes:
            self._drop(next(iter(self._entries)))

    def _expire(self) -> None:
        oldest = self._clock() - self.ttl_s
        while self._entries and next(iter(self._entries.values())).used < oldest:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry.value.nbytes


EmbeddingCache = SharedCache[Embedding]
"""Of images that are encoded."""
