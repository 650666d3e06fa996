"""How much work is due by when: the processor-demand test of earliest-deadline-first scheduling, in constant time.

A set of jobs that one processor runs in the order of their deadlines is on time if for every time t the work that is
due by t is at most t − now (Baruah, Rosier and Howell 1990). Deadlines are rounded down to slots, which are fine near
now and coarse far away, so a test costs a fixed number of array operations however much is queued.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TICK_S = 0.002
_SLOTS = 96
_LEVELS = 6
_GROWTH = 4
_FOREVER_S = 1e12
NOISE_S = 1e-9
"""Sums of work that were added and taken away again are exact to this."""


@dataclass(slots=True)
class Reservation:
    """``work`` seconds on ``row`` of a timeline, due at ``tick``."""

    row: int
    tick: int
    work: float


class Timeline:
    """Work by deadline, on ``rows`` rows.

    Slots are 2 ms wide for a fifth of a second, then 8, 32, 128, 512 and 2048 ms: a deadline is rounded down by at most
    a 24th of the time left. What is due in more than four minutes counts as due then.
    """

    def __init__(self, rows: int, now: float) -> None:
        self._widths = [_GROWTH**level for level in range(_LEVELS)]
        self._origin = 0
        self._starts: list[int] = []
        self._firsts: list[int] = []
        self.edges: NDArray[np.float64] = np.zeros(0)
        """The time that each slot begins: what lies in it counts as due then. ``[slots]``, seconds."""
        self._ticks: NDArray[np.int64] = np.zeros(0, np.int64)
        self._last = 0
        self._lay_out(int(now / _TICK_S))
        self.due: NDArray[Any] = np.zeros((rows, len(self.edges)))
        """Work due by the slot's time, that of earlier slots included. ``[rows, slots]``, seconds."""
        self.total = [0.0] * rows
        """All work by row, in seconds."""
        self._held = [0] * rows

    def before(self, row: int, slot: int) -> float:
        """Work on ``row`` due by the time of ``slot``."""
        return float(self.due[row, slot])

    def slot(self, deadline: float) -> int:
        """The slot that ``deadline`` falls into."""
        return self._index(int(deadline / _TICK_S)) if deadline < _FOREVER_S else self._last

    def reserve(self, row: int, deadline: float, work: float) -> Reservation:
        """Add ``work`` seconds due at ``deadline``."""
        slot = self.slot(deadline)
        self.due[row, slot:] += work
        self.total[row] += work
        self._held[row] += 1
        return Reservation(row, int(self._ticks[slot]), work)

    def take(self, reservation: Reservation, work: float | None = None) -> None:
        """Remove ``work`` seconds of ``reservation``, all that is left of it by default."""
        work = reservation.work if work is None else min(work, reservation.work)
        if reservation.work <= 0:
            return
        row = reservation.row
        reservation.work -= work
        self.due[row, self._index(reservation.tick) :] -= work
        self.total[row] -= work
        if reservation.work <= 1e-12:
            reservation.work = 0.0
            self._held[row] -= 1
            if self._held[row] == 0:
                self.due[row], self.total[row] = 0.0, 0.0  # no rounding errors to inherit

    def advance(self, now: float, patience: int = 1) -> None:
        """Move on to ``now`` once a tenth of a second, or ``patience`` times that, has passed: all slots move."""
        tick = int(now / _TICK_S)
        if tick - self._origin < patience * _SLOTS // 2:
            return
        ticks, work = self._ticks, np.diff(self.due, axis=1, prepend=0.0)
        self._lay_out(tick)
        # What lay at a coarse slot's beginning lies at that very time in a finer one: it is found again by its tick.
        places = np.maximum(np.searchsorted(self._ticks, ticks, side="right") - 1, 0)
        moved = [np.bincount(places, row, minlength=len(self.edges)) for row in work]
        self.due = np.cumsum(moved, axis=1)

    def _lay_out(self, origin: int) -> None:
        self._origin = origin
        self._starts, self._firsts = [], []
        ticks: list[NDArray[np.int64]] = []
        start = origin
        for level, width in enumerate(self._widths):
            following = self._widths[min(level + 1, _LEVELS - 1)]
            end = -(-(start + _SLOTS * width) // following) * following
            self._starts.append(start)
            self._firsts.append(sum(map(len, ticks)))
            ticks.append(np.arange(start, end, width, dtype=np.int64))
            start = end
        # One slot count for good, whatever the rounding of level boundaries.
        size = _LEVELS * (_SLOTS + _GROWTH)
        flat = np.concatenate(ticks)
        padding = flat[-1] + self._widths[-1] * np.arange(1, size - len(flat) + 1, dtype=np.int64)
        self._ticks = np.concatenate([flat, padding])
        self._last = size - 1
        self.edges = (self._ticks * _TICK_S).astype(np.float64)

    def _index(self, tick: int) -> int:
        if tick <= self._origin:
            return 0
        level = bisect_right(self._starts, tick) - 1
        index = self._firsts[level] + (tick - self._starts[level]) // self._widths[level]
        return int(min(index, self._last))
