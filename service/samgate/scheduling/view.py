"""A device at one moment, and the room that it has: the processor-demand test with what runs already."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from samgate.scheduling.device import STAGES, Device
from samgate.scheduling.timeline import NOISE_S

ENCODE, DECODE, BULK = 0, 1, 2
"""Rows of a device's timeline."""
_LATE_S = 1e-6
"""What is late by less is so by rounding alone."""


class View:
    """A device at one moment, for one arrival: what several operating points ask of it is calculated once.

    Work is counted in seconds of decoder calls by the profile, of which each takes ``pace`` in reality. Encoder calls
    have a pace of their own: a second of theirs counts ``skew``.
    """

    __slots__ = ("_begins", "_beside", "_over", "_slots", "_speed", "best_encode_pace", "best_pace", "device", "held",
                 "instances", "left", "now", "overhead_s", "pace", "queued_s", "shared", "shortages", "skew",
                 "timeline", "waiting", "work")  # fmt: skip

    def __init__(self, device: Device, now: float) -> None:
        self.device, self.now = device, now
        self.pace, self.skew = pace, skew = device.paces(now)
        encode_pace = pace * skew
        self.best_pace = min(1.0, pace)
        """A profile may have been measured while others had the processors: what has been seen to be faster is."""
        self.best_encode_pace = min(1.0, encode_pace) / skew
        """The same for encodes, of what they count."""
        self.instances = device.profile.instances
        self.shared = device.profile.shared
        self.timeline = timeline = device.timeline
        self.left = (device.left("encode", encode_pace) * skew, device.left("decode", pace))
        self.held = timeline.total
        self.work = (self.left[0] + self.held[0], self.left[1] + self.held[1])
        """Seconds of interactive encodes and decodes, those under way included."""
        self.queued_s = (self.work[0] + self.work[1]) * pace / self.instances
        """Until all of it is done, at the pace that is seen."""
        self.waiting = (len(device.queues["encode"]), len(device.queues["decode"]))
        self.overhead_s = device.profile.overhead_s
        self.shortages: dict[tuple[float, int], float] = {}
        """Of decodes that were asked for, by their seconds and slot."""
        self._speed = self.instances / pace
        self._slots: dict[float, int] = {}
        self._begins: list[int | None] = [None, None]
        self._over: dict[int, NDArray[np.float64]] = {}
        self._beside: NDArray[np.float64] | None = None

    def slot(self, due: float) -> int:
        """The timeline's slot of ``due``."""
        known = self._slots.get(due)
        if known is None:
            known = self._slots[due] = self.timeline.slot(due)
        return known

    def room(self, row: int, slot: int, wanted: float) -> float:
        """Seconds of interactive work that may be added to ``row``, due by the time of ``slot``, without making
        anything late that is due then or later: the processor-demand test. Exact where that is less than ``wanted``.

        A shared device runs both rows in the order of their deadlines: what is less urgent doesn't go beside what can't
        spare the time (:meth:`Device.holds`). Only an encode that runs already can't be put off: decodes beside it take
        twice their time.
        """
        left, due = self.left, self.timeline.rows
        if not self.shared:
            over = self._over.get(row)
            if over is None:
                over = self._over[row] = self._exceeding(due[row])
            return -_most(over, slot) - left[row] - self.now * self._speed
        over = self._over.get(ENCODE)  # of both rows, for both
        if over is None:
            over = self._over[ENCODE] = self._exceeding(due[ENCODE] + due[DECODE])
        top = most = _most(over, slot)
        spare = -self.now * self._speed - wanted
        # Whatever the place of what runs, and though all that is left of it should count twice.
        if top + left[0] + left[1] <= spare:
            return wanted
        other = 1 - row
        if left[other] > 0:
            # What runs counts from when it is due.
            begins = self._begins[other]
            if begins is None:
                begins = self._begins[other] = self.slot(self.device.running_due(STAGES[other]))
            if begins > slot:
                most = max(most, _most(over, begins) + left[other])
            else:
                most += left[other]
        most += left[row]
        # Twice their time is no more than theirs and all that is left of the encode.
        if row == DECODE and left[ENCODE] > 0:
            if self._beside is None:
                slowed = due[row] + left[row]
                slowed += np.minimum(slowed, left[ENCODE])
                self._beside = self._exceeding(slowed)
            most = max(most, _most(self._beside, slot))
        return -most - self.now * self._speed

    def _exceeding(self, work: NDArray[np.float64]) -> NDArray[np.float64]:
        """For each slot by how much ``work`` due by then exceeds what the device does until then, from time 0 on:
        ``now`` is the same for all slots, and taken off at the end."""
        return work - self.device.capacity(self.pace)

    def bulk_room(self, slot: int, share: float) -> float:
        """Seconds of work that bulk work due by ``slot`` or later leaves to whatever goes before it, where bulk and
        interactive work have ``share`` of the device."""
        slot = min(max(slot, self._first_bulk()), len(self.timeline.edges) - 1)
        return float(self._beyond_bulk(slot, share).min())

    def promised_room(self) -> float:
        """Seconds of work that can go before bulk work without making any of it late. What is late anyway, since the
        device has become slower than it was when that was promised, keeps nobody waiting."""
        first = self._first_bulk()
        rooms = self._beyond_bulk(first, 1.0)
        ends = np.diff(self.timeline.rows[BULK][first:], prepend=0.0) > NOISE_S
        kept = rooms[ends & (rooms > -_LATE_S)]
        return float(kept.min()) if len(kept) else math.inf

    def _first_bulk(self) -> int:
        return int(self.timeline.rows[BULK].searchsorted(NOISE_S, side="right"))

    def _beyond_bulk(self, slot: int, share: float) -> NDArray[np.float64]:
        base = (self.timeline.edges[slot:] - self.now) * (share * self.instances / self.pace)
        rooms: NDArray[np.float64] = base - self.timeline.rows[BULK][slot:] - (self.work[0] + self.work[1])
        return rooms


def _most(over: NDArray[np.float64], slot: int) -> float:
    """The largest of ``over`` from ``slot`` on. A maximum of its own for each of the few slots that are asked for: all
    of them at once, accumulated, take as long as four. By its place: numpy finds that in a third of the time."""
    later = over[slot:]
    return later.item(later.argmax())
