"""How much work is due by when: the processor-demand test of earliest-deadline-first scheduling, in constant time.

A set of jobs that one processor runs in the order of their deadlines is on time if for every time t the work that is
due by t is at most t − now (Baruah, Rosier and Howell 1990). Deadlines are rounded down to slots, which are fine near
now and coarse far away, so a test costs a fixed number of array operations however much is queued.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TICK_S = 0.002
_SLOTS = 96
_LEVELS = 6
_GROWTH = 4
_WIDTHS: tuple[int, ...] = tuple(_GROWTH**level for level in range(_LEVELS))
_SIZE = _LEVELS * (_SLOTS + _GROWTH)
"""One slot count for good, whatever the rounding of level boundaries."""
_LAST = _SIZE - 1
_REACH = _SLOTS * sum(_WIDTHS[:-1]) + (_SLOTS - 1) * _WIDTHS[-1]
"""Ticks from the origin to where the last slot begins, or a few less: every layout has slots up to there."""
_ORIGIN = 32
"""A timeline begins at a multiple of so many ticks: there are few layouts then, and all are drawn once."""
_FOREVER_S = 1e12
NOISE_S = 1e-9
"""Sums of work that were added and taken away again are exact to this."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """``ticks`` of all slots, the ``end`` at which the last begins, and the tick and slot at which each level begins;
    ticks count from the origin."""

    ticks: NDArray[np.int64]
    end: int
    starts: tuple[int, ...]
    firsts: tuple[int, ...]


@cache
def _layout(phase: int) -> _Layout:
    """The slots of a timeline whose origin is ``phase`` ticks after a multiple of the widest slot."""
    starts, firsts = [], []
    ticks: list[NDArray[np.int64]] = []
    start = phase
    for level, width in enumerate(_WIDTHS):
        following = _WIDTHS[min(level + 1, _LEVELS - 1)]
        end = -(-(start + _SLOTS * width) // following) * following
        starts.append(start - phase)
        firsts.append(sum(map(len, ticks)))
        ticks.append(np.arange(start, end, width, dtype=np.int64))
        start = end
    flat = np.concatenate(ticks)
    # As time goes on the end never comes back: what counts as due at the end stays within the last slot, or leaves it
    # for the one that begins then.
    end = (phase + _REACH) // _WIDTHS[-1] * _WIDTHS[-1]
    flat = flat[flat < end]
    padding = np.full(_SIZE - len(flat), end, dtype=np.int64)
    return _Layout(np.concatenate([flat, padding]) - phase, end - phase, tuple(starts), tuple(firsts))


@dataclass(slots=True)
class Reservation:
    """``work`` seconds on ``row`` of a timeline, due at ``tick``."""

    row: int
    tick: int
    work: float


class Timeline:
    """Work by deadline, on ``rows`` rows.

    Slots are 2 ms wide for a fifth of a second, then 8, 32, 128, 512 and 2048 ms: a deadline is rounded down by at most
    a 24th of the time left. What is due in more than 257 seconds counts as due then.
    """

    def __init__(self, rows: int, now: float) -> None:
        self._origin = 0
        self._layout = _layout(0)
        self._ticks = self._layout.ticks
        self.edges: NDArray[np.float64] = np.zeros(_SIZE)
        """The time that each slot begins: what lies in it counts as due then. ``[slots]``, seconds."""
        self._lay_out(int(now / _TICK_S))
        self.due: NDArray[Any] = np.zeros((rows, _SIZE))
        """Work due by the slot's time, that of earlier slots included. ``[rows, slots]``, seconds."""
        self.rows = list(self.due)
        """Its rows, at hand."""
        self.total = [0.0] * rows
        """All work by row, in seconds."""
        self._held = [0] * rows

    def before(self, row: int, slot: int) -> float:
        """Work on ``row`` due by the time of ``slot``."""
        return self.rows[row].item(slot)  # type: ignore[no-any-return]

    def slot(self, deadline: float) -> int:
        """The slot that ``deadline`` falls into."""
        return self._index(int(deadline / _TICK_S)) if deadline < _FOREVER_S else _LAST

    def reserve(self, row: int, slot: int, work: float) -> Reservation:
        """Add ``work`` seconds due by the time of ``slot``."""
        later = self.rows[row][slot:]
        later += work  # not self.due[…] += work, which copies the sum onto itself
        self.total[row] += work
        self._held[row] += 1
        return Reservation(row, self._ticks.item(slot), work)

    def take(self, reservation: Reservation, work: float | None = None) -> None:
        """Remove ``work`` seconds of ``reservation``, all that is left of it by default."""
        work = reservation.work if work is None else min(work, reservation.work)
        if reservation.work <= 0:
            return
        row = reservation.row
        reservation.work -= work
        later = self.rows[row][self._index(reservation.tick) :]
        later -= work
        self.total[row] -= work
        if reservation.work <= 1e-12:
            reservation.work = 0.0
            self._held[row] -= 1
            if self._held[row] == 0:
                self.rows[row][:], self.total[row] = 0.0, 0.0  # no rounding errors to inherit

    def advance(self, now: float, patience: int = 1) -> None:
        """Move on to ``now`` once a tenth of a second, or ``patience`` times that, has passed: all slots move."""
        tick = int(now / _TICK_S)
        if tick - self._origin < patience * _SLOTS // 2:
            return
        before = self._ticks
        self._lay_out(tick)
        # What lay at a coarse slot's beginning lies at that very time in a finer one: it is found again by its tick.
        last = np.full(_SIZE, _LAST)
        last[:-1] = before.searchsorted(self._ticks[1:]) - 1
        self.due = self.due[:, last]
        self.rows = list(self.due)

    def _lay_out(self, tick: int) -> None:
        self._origin = tick - tick % _ORIGIN
        self._layout = _layout(self._origin % _WIDTHS[-1])
        self._ticks = self._layout.ticks + self._origin
        self.edges = (self._ticks * _TICK_S).astype(np.float64, copy=False)

    def _index(self, tick: int) -> int:
        layout, tick = self._layout, tick - self._origin
        if tick <= 0:
            return 0
        if tick >= layout.end:
            return _LAST
        level = bisect_right(layout.starts, tick) - 1
        return layout.firsts[level] + (tick - layout.starts[level]) // _WIDTHS[level]
