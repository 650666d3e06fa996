"""When a request would be done, and whether there is room for it: formulas over a device's state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from samgate.scheduling.device import STAGES, Device
from samgate.scheduling.profile import Line, OperatingPoint
from samgate.scheduling.queue import Priority
from samgate.scheduling.request import Encode, Request
from samgate.scheduling.timeline import NOISE_S

ENCODE, DECODE, BULK = 0, 1, 2
"""Rows of a device's timeline."""


def marginal(line: Line, count: int, limit: int, waiting: int) -> float:
    """Device seconds that ``count`` items more take, of which a call holds ``limit``: behind ``waiting`` others they
    fill up calls that run anyway, on an idle device they pay for calls of their own."""
    calls = count / limit if waiting else math.ceil(count / limit)
    return line.fixed_s * calls + line.each_s * count


def decode_limit(point: OperatingPoint, size: int, chunk: int) -> int:
    """The most prompts of an interactive decoder call that begins with a piece of ``size`` prompts, where a piece has
    at most ``chunk``: its mates are on images of their own, or all on the same where a call takes one image alone."""
    return chunk if point.decode_images == 1 else min(chunk, size * point.decode_images)


def chunk_size(point: OperatingPoint, longest_s: float) -> int:
    """Prompts of SegEvery in one call, such that it holds the device for at most ``longest_s``; at least 1."""
    line = point.survivors
    fit = int((longest_s - line.fixed_s) / line.each_s) if line.each_s > 0 else point.max_prompts
    fit = max(1, min(point.max_prompts, fit))
    # As many for each thread: one prompt more takes as long as one more for each would.
    return fit - fit % point.decode_images if fit > point.decode_images else fit


def _most(over: NDArray[np.float64], slot: int) -> float:
    """The largest of ``over`` from ``slot`` on. A maximum of its own for each of the few slots that are asked for: all
    of them at once, accumulated, take as long as four."""
    return float(np.maximum.reduce(over[slot:]))


class View:
    """A device at one moment, for one arrival: what several operating points ask of it is calculated once."""

    __slots__ = ("_begins", "_beside", "_over", "_slots", "_speed", "best_pace", "device", "held", "instances", "left",
                 "now", "overhead_s", "pace", "shared", "shortages", "timeline", "waiting", "work")  # fmt: skip

    def __init__(self, device: Device, now: float) -> None:
        self.device, self.now = device, now
        self.pace = device.pace(now)
        self.best_pace = min(1.0, self.pace)
        """A profile may have been measured while others had the processors: what has been seen to be faster is."""
        self.instances = device.profile.instances
        self.shared = device.profile.shared
        self.timeline = timeline = device.timeline
        self.left = (device.left("encode", self.pace), device.left("decode", self.pace))
        self.held = timeline.total
        self.work = (self.left[0] + self.held[0], self.left[1] + self.held[1])
        """Seconds of interactive encodes and decodes, those under way included."""
        self.waiting = (len(device.queues["encode"]), len(device.queues["decode"]))
        self.overhead_s = device.profile.overhead_s
        self.shortages: dict[tuple[float, int], float] = {}
        """Of decodes that were asked for, by their seconds and slot."""
        self._speed = self.instances / self.pace
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
        anything late that is due then or later: the processor-demand test. Where that is ``wanted`` or more, it may be
        too much: more is not looked for.

        A shared device runs both rows in the order of their deadlines: what is less urgent doesn't go beside what can't
        spare the time (:meth:`Device.holds`). Only an encode that runs already can't be put off: decodes beside it take
        twice their time.
        """
        left, due = self.left, self.timeline.due
        if not self.shared:
            over = self._over.get(row)
            if over is None:
                over = self._over[row] = self._exceeding(due[row])
            return -_most(over, slot) - left[row] - self.now * self._speed
        over = self._over.get(ENCODE)  # of both rows, for both
        if over is None:
            over = self._over[ENCODE] = self._exceeding(due[ENCODE] + due[DECODE])
        top = most = _most(over, slot)
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
        if row == DECODE and left[ENCODE] > 0 and top + left[0] + left[1] > -self.now * self._speed - wanted:
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

    def bulk_room(self, slot: int = 0, share: float = 1.0) -> float:
        """Seconds of work that bulk work due by ``slot`` or later leaves to whatever goes before it, where bulk and
        interactive work have ``share`` of the device."""
        due = self.timeline.due[BULK]
        slot = min(max(slot, int(due.searchsorted(NOISE_S, side="right"))), len(due) - 1)
        base = (self.timeline.edges[slot:] - self.now) * (share * self.instances / self.pace)
        return float((base - due[slot:]).min()) - self.work[0] - self.work[1]


class Plan(NamedTuple):
    """A request at one operating point of one device, as far as it is needed to compare plans: ``encode_s`` and
    ``decode_s`` are the device's seconds, ``cost_s`` both together, ``chunk`` is the most prompts of one call,
    ``value`` accuracy less its price.
    """

    view: View
    point: OperatingPoint
    accuracy: float
    joins: Encode | None
    encodes: int
    chunk: int
    encode_s: float
    decode_s: float
    cost_s: float
    value: float


@dataclass(slots=True)
class Timing:
    """When the parts of a plan are due and done.

    ``head_s`` and ``tail_s`` are the seconds before and after the engine's calls, ``margin_s`` is ε, ``service_s`` all
    of it from arrival to answer on an idle device that keeps to its profile, or does better; ``encode_slot`` and
    ``decode_slot`` are where the work lies on the timeline.
    """

    head_s: float
    tail_s: float
    margin_s: float
    service_s: float
    encode_due: float
    decode_due: float
    encode_slot: int
    decode_slot: int
    finish: float = math.inf
    """The predicted time of the answer, ε included, once it was asked for."""


def plan(request: Request, view: View, point: OperatingPoint, joins: Encode | None, chunk: int, price: float) -> Plan:
    """What ``request`` takes at ``point``; ``price`` is μ."""
    encode_s = decode_s = 0.0
    encodes = request.encodes - (joins is not None or point.name in request.cached)
    if encodes > 0:
        encode_s = marginal(point.encode, encodes, point.max_images, view.waiting[ENCODE])
    if request.prompts:
        line = point.survivors if request.everything else point.decode
        if request.priority is Priority.BULK or point.decode_images == 1:
            decode_s = marginal(line, request.prompts, chunk, 0)
        else:  # others' prompts share a call
            limit = decode_limit(point, request.prompts, chunk)
            decode_s = marginal(line, request.prompts, limit, view.waiting[DECODE])
    accuracy = point.accuracy[request.kind]
    cost_s = encode_s + decode_s
    return Plan(view, point, accuracy, joins, encodes, chunk, encode_s, decode_s, cost_s, accuracy - price * cost_s)


def timing(request: Request, plan: Plan, margin_s: float) -> Timing:
    """When the parts of ``plan`` are due."""
    view, point = plan.view, plan.point
    head_s = point.prepare(request.megapixels) if plan.encodes > 0 else 0.0
    # Masks of one call are made while the next is decoded.
    tail_s = view.overhead_s + (point.finish(min(request.prompts, plan.chunk)) if request.prompts else 0.0)
    service_s = head_s + view.best_pace * plan.cost_s + tail_s
    # An outage is no reason to refuse what could be done in time without one.
    margin_s = min(margin_s, service_s)
    decode_due = request.deadline - tail_s - margin_s
    encode_due = decode_due - plan.decode_s * view.pace
    return Timing(
        head_s,
        tail_s,
        margin_s,
        service_s,
        encode_due,
        decode_due,
        view.slot(encode_due) if plan.encode_s > 0 else 0,
        view.slot(decode_due),
    )


def finish(request: Request, plan: Plan, timed: Timing) -> float:
    """The predicted time of the answer, ε included; noted in ``timed``.

    Two kinds of calls on a shared device slow each other down: work with x seconds ahead of it in its own queue, its
    own included, and y in the other's is done after x + min(x, y).
    """
    view, pace, timeline = plan.view, plan.view.pace, plan.view.timeline
    if request.priority is Priority.BULK:
        ahead = view.work[0] + view.work[1] + timeline.before(BULK, timed.decode_slot)
        # Interactive work will go on taking what it takes now.
        share = 1.0 - view.device.interactive_share(view.now)
        seconds = timed.head_s + pace * (ahead / view.instances + plan.encode_s + plan.decode_s) / share
        timed.finish = view.now + seconds + timed.tail_s + timed.margin_s
        return timed.finish
    encodes = view.work[0] / view.instances
    encoded = behind = 0.0
    if plan.joins is not None:
        encoded = max(plan.joins.finish - view.now, 0.0)
    elif plan.encode_s > 0:
        own, beside = plan.encode_s, 0.0
        if view.shared:
            # Less urgent decodes don't go beside it where it can't spare the time.
            beside = (view.left[1] + timeline.before(DECODE, timed.encode_slot)) / view.instances
        ahead = (view.left[0] + timeline.before(ENCODE, timed.encode_slot)) / view.instances
        behind = encodes - ahead
        x = ahead + own
        encoded = max(timed.head_s + pace * (own + min(own, beside)), pace * (x + min(x, beside)))
    decoded = encoded
    if plan.decode_s > 0:
        own, beside = plan.decode_s, encodes + plan.encode_s if view.shared else 0.0
        x = (view.left[1] + timeline.before(DECODE, timed.decode_slot)) / view.instances + own
        after = (behind if plan.encode_s > 0 else encodes) if view.shared else 0.0
        decoded = max(encoded + pace * (own + min(own, max(after, 0.0))), pace * (x + min(x, beside)))
    timed.finish = view.now + decoded + timed.tail_s + timed.margin_s
    return timed.finish


def decode_shortage(request: Request, plan: Plan, timed: Timing) -> float:
    """Seconds of the device that are missing for all decodes that were admitted, and those of ``request``, to be on
    time, or for all of it where it is bulk work; 0 when there is room."""
    view = plan.view
    if request.priority is Priority.BULK:
        # What bulk work is promised must leave room for the interactive work to come.
        share = 1.0 - view.device.interactive_share(view.now)
        return max(0.0, plan.cost_s - view.bulk_room(timed.decode_slot, share))
    if plan.decode_s <= 0:
        return 0.0
    # Points of the same decoder ask for the same.
    wanted = (plan.decode_s, timed.decode_slot)
    missing = view.shortages.get(wanted)
    if missing is None:
        missing = view.shortages[wanted] = max(0.0, plan.decode_s - view.room(DECODE, timed.decode_slot, plan.decode_s))
    return missing


def encode_shortage(request: Request, plan: Plan, timed: Timing) -> float:
    """The same for encodes, and for bulk work that was promised; 0 where ``request`` is bulk work itself."""
    view = plan.view
    if request.priority is Priority.BULK:
        return 0.0
    missing = plan.cost_s - view.bulk_room() if view.held[2] > 0 else 0.0
    if plan.encode_s > 0:
        missing = max(missing, plan.encode_s - view.room(ENCODE, timed.encode_slot, plan.encode_s))
    return max(0.0, missing)
