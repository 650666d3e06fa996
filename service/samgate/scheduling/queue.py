"""Deadline-ordered queue that forms batches. Pure: time comes in as an argument, nothing is awaited or run here."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Hashable
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
    caller's clock, in seconds, as is ``submitted``.
    """

    payload: T
    key: Hashable
    size: int
    deadline: float
    priority: Priority = Priority.INTERACTIVE
    submitted: float = 0.0
    waiting: bool = False
    sequence: int = 0


_Entry = tuple[int, float, int, Work[T]]


class BatchQueue(Generic[T]):
    """Bounded queue of :class:`Work`, O(log n) an operation.

    Every piece lies in two heaps, one of all and one of its key. What was taken through one, or cancelled, is a
    leftover in the other: it is dropped when it comes up, and all are when they are the most. What was cancelled may be
    pushed again.
    """

    def __init__(self, max_waiting: int) -> None:
        self.max_waiting = max_waiting
        # Tuples of priority, deadline, sequence and work compare without calling Python code.
        self._all: list[_Entry[T]] = []
        self._by_key: dict[Hashable, list[_Entry[T]]] = {}
        self._sequence = itertools.count()
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def push(self, work: Work[T]) -> None:
        """Let ``work`` wait. Raises :class:`Overloaded` when ``max_waiting`` pieces do already."""
        if self._waiting >= self.max_waiting:
            waiting = f"{self._waiting} pieces of work are waiting, which is the limit"
            raise Overloaded(waiting, retry_after_s=1.0, reason="busy")
        work.sequence = next(self._sequence)
        work.waiting = True
        self._waiting += 1
        entry = (int(work.priority), work.deadline, work.sequence, work)
        heapq.heappush(self._all, entry)
        heapq.heappush(self._by_key.setdefault(work.key, []), entry)

    def cancel(self, work: Work[T]) -> bool:
        """Forget ``work``; False when it isn't waiting (any more)."""
        if not work.waiting:
            return False
        self._take(work)
        if len(self._all) > 2 * self._waiting + 64:
            self._rebuild()
        return True

    def head(self) -> Work[T] | None:
        """The most urgent piece."""
        while self._all and not _live(self._all[0]):
            # Whatever comes first of all comes first of its key too, so no leftover outlives its place in ``_all``.
            self._first_of(heapq.heappop(self._all)[-1].key)
        return self._all[0][-1] if self._all else None

    def form(
        self,
        limit: int,
        fits: Callable[[int], bool] = lambda size: True,
        hopeless: Callable[[Work[T]], bool] = lambda work: False,
    ) -> tuple[list[Work[T]], list[Work[T]]]:
        """Takes a batch: the most urgent piece and, while ``fits`` says so of the batch's size, others of its key in
        order of urgency up to a size of ``limit``. A piece larger than that goes alone. The second list are pieces that
        are ``hopeless``, which are taken out on the way."""
        dropped: list[Work[T]] = []
        while (head := self.head()) is not None and hopeless(head):
            self._take(head)
            dropped.append(head)
        if head is None:
            return [], dropped
        self._take(head)
        self.head()  # drops its entry
        batch, size = [head], head.size
        while mate := self._first_of(head.key):
            if hopeless(mate):
                self._take(mate)
                dropped.append(mate)
            elif size + mate.size <= limit and fits(size + mate.size):
                self._take(mate)
                batch.append(mate)
                size += mate.size
            else:
                break
        return batch, dropped

    def size_of(self, key: Hashable, limit: int) -> int:
        """What :meth:`form` could put into a batch of ``key``, as far as ``limit``: a bound from above, O(limit)."""
        return sum(work.size for *_, work in filter(_live, self._by_key.get(key, [])[:limit]))

    def _first_of(self, key: Hashable) -> Work[T] | None:
        mates = self._by_key.get(key, [])
        while mates and not _live(mates[0]):
            heapq.heappop(mates)
        if not mates:
            self._by_key.pop(key, None)
            return None
        return mates[0][-1]

    def _take(self, work: Work[T]) -> None:
        work.waiting = False
        self._waiting -= 1

    def _rebuild(self) -> None:
        self._all = sorted(filter(_live, self._all))
        self._by_key = {}
        for entry in self._all:
            # Appended in order: a sorted list is a heap.
            self._by_key.setdefault(entry[-1].key, []).append(entry)


def _live(entry: _Entry[T]) -> bool:
    """Whether the entry's work waits, and hasn't been pushed again since with another deadline."""
    _, _, sequence, work = entry
    return work.waiting and work.sequence == sequence
