"""Deadline-ordered queue that forms batches. Pure: time comes in as an argument, nothing is awaited or run here."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

from samgate.errors import Overloaded

T = TypeVar("T")


class Priority(IntEnum):
    """Order between classes of work; within one, the earliest deadline goes first."""

    INTERACTIVE = 0
    BULK = 1


@dataclass(slots=True, eq=False)
class Work(Generic[T]):
    """A piece of work that waits.

    Pieces with equal ``key`` may share a call; ``size`` counts against the batch's limit; ``deadline`` is on the
    caller's clock, in seconds.
    """

    payload: T
    key: Hashable
    size: int
    deadline: float
    priority: Priority = Priority.INTERACTIVE
    waiting: bool = False
    sequence: int = 0

    def __lt__(self, other: Work[T]) -> bool:
        return self._rank < other._rank

    @property
    def _rank(self) -> tuple[int, float, int]:
        return (self.priority, self.deadline, self.sequence)


class BatchQueue(Generic[T]):
    """Bounded queue of :class:`Work`, O(log n) an operation.

    Every piece lies in two heaps, one of all and one of its key. What was taken through one, or cancelled, is a
    leftover (``waiting`` is False) in the other: it is dropped when it comes up, and all are when they are the most.
    """

    def __init__(self, max_batch: int, max_waiting: int) -> None:
        self.max_batch = max_batch
        self.max_waiting = max_waiting
        self._all: list[Work[T]] = []
        self._by_key: dict[Hashable, list[Work[T]]] = {}
        self._sequence = itertools.count()
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def push(self, work: Work[T]) -> None:
        """Let ``work`` wait. Raises :class:`Overloaded` when ``max_waiting`` pieces do already."""
        if self._waiting >= self.max_waiting:
            raise Overloaded(f"{self._waiting} pieces of work are waiting, which is the limit", retry_after_s=1.0)
        work.sequence = next(self._sequence)
        work.waiting = True
        self._waiting += 1
        heapq.heappush(self._all, work)
        heapq.heappush(self._by_key.setdefault(work.key, []), work)

    def cancel(self, work: Work[T]) -> bool:
        """Forget ``work``; False when it isn't waiting (any more)."""
        if not work.waiting:
            return False
        self._take(work)
        if len(self._all) > 2 * self._waiting + 64:
            self._rebuild()
        return True

    def pop(self, now: float) -> tuple[list[Work[T]], list[Work[T]]]:
        """The next batch, and the pieces whose deadline has passed, which must not be run.

        The batch holds the most urgent piece and, up to ``max_batch``, others of its key in order of urgency. A piece
        larger than ``max_batch`` goes alone.
        """
        batch: list[Work[T]] = []
        expired: list[Work[T]] = []
        while self._all and not batch:
            head = heapq.heappop(self._all)
            if head.waiting:
                self._take(head)
                (expired if head.deadline <= now else batch).append(head)
            # Whatever comes first of all comes first of its key too, so no leftover outlives its place in ``_all``.
            self._first_of(head.key)
        if batch:
            key, room = batch[0].key, self.max_batch - batch[0].size
            while room > 0 and (mate := self._first_of(key)) and mate.size <= room:
                self._take(mate)
                if mate.deadline <= now:
                    expired.append(mate)
                else:
                    batch.append(mate)
                    room -= mate.size
            self._first_of(key)
        return batch, expired

    def _first_of(self, key: Hashable) -> Work[T] | None:
        mates = self._by_key.get(key, [])
        while mates and not mates[0].waiting:
            heapq.heappop(mates)
        if not mates:
            self._by_key.pop(key, None)
            return None
        return mates[0]

    def _take(self, work: Work[T]) -> None:
        work.waiting = False
        self._waiting -= 1

    def _rebuild(self) -> None:
        self._all = sorted(work for work in self._all if work.waiting)
        self._by_key = {}
        for work in self._all:
            # Appended in order: a sorted list is a heap.
            self._by_key.setdefault(work.key, []).append(work)
