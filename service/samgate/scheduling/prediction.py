"""When a request would be done, and whether there is room for it: formulas over a device's state."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

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


def chunk_size(point: OperatingPoint, longest_s: float) -> int:
    """Prompts of SegEvery in one call, such that it holds the device for at most ``longest_s``; at least 1."""
    line = point.survivors
    fit = int((longest_s - line.fixed_s) / line.each_s) if line.each_s > 0 else point.max_prompts
    return max(1, min(point.max_prompts, fit))


class View:
    """A device at one moment, for one arrival: what several operating points ask of it is calculated once."""

    def __init__(self, device: Device, now: float) -> None:
        self.device, self.now = device, now
        self.pace = device.pace(now)
        self.instances = device.profile.instances
        self.shared = device.profile.shared
        self.timeline = timeline = device.timeline
        self.left = (device.left("encode", self.pace), device.left("decode", self.pace))
        self.held = (timeline.total(ENCODE), timeline.total(DECODE), timeline.total(BULK))
        self.work = (self.left[0] + self.held[0], self.left[1] + self.held[1])
        """Seconds of interactive encodes and decodes, those under way included."""
        self.waiting = (len(device.queues["encode"]), len(device.queues["decode"]))
        self.overhead_s = device.profile.overhead_s
        self.decoding = device.worked["decode"].rate(now) if self.shared else 0.0
        """The share of the device that decodes have lately: encodes will be slowed down by those that are to come."""
        self._room: dict[tuple[int, int], float] = {}
        self._slots: dict[float, int] = {}

    def slot(self, due: float) -> int:
        """The timeline's slot of ``due``."""
        known = self._slots.get(due)
        if known is None:
            known = self._slots[due] = self.timeline.slot(due)
        return known

    def room(self, row: int, slot: int) -> float:
        """Seconds of interactive work that may be added to ``row``, due by the time of ``slot``, without making
        anything late that is due then or later: the processor-demand test.

        A shared device runs both rows in the order of their deadlines: what is less urgent doesn't go beside what can't
        spare the time (:meth:`Device.holds`). Only an encode that runs already can't be put off: decodes beside it take
        twice their time.
        """
        known = self._room.get((row, slot))
        if known is None:
            due = self.timeline.due
            base = (self.timeline.edges[slot:] - self.now) * (self.instances / self.pace)
            x = due[row, slot:] + self.left[row]
            if self.shared:
                other = 1 - row
                together = x + due[other, slot:]
                # What runs counts from when it is due.
                together[max(0, self.slot(self.device.running_due(STAGES[other])) - slot) :] += self.left[other]
                if row == DECODE:
                    x += np.minimum(x, self.left[ENCODE])
                    np.maximum(x, together, out=x)
                else:
                    x = together
            known = self._room[row, slot] = float((base - x).min())
        return known

    def bulk_room(self, slot: int = 0) -> float:
        """Seconds of work that bulk work due by ``slot`` or later leaves to whatever goes before it."""
        due = self.timeline.due[BULK]
        slot = max(slot, int(due.searchsorted(NOISE_S, side="right")))
        if slot >= len(due):
            slot = len(due) - 1
        base = (self.timeline.edges[slot:] - self.now) * (self.instances / self.pace)
        return float((base - due[slot:]).min()) - self.work[0] - self.work[1]


@dataclass(slots=True)
class Plan:
    """A request at one operating point of one device. Times are absolute; ``encode_s`` and ``decode_s`` are the
    device's seconds, ``head_s`` and ``tail_s`` those before and after them, ``margin_s`` is ε."""

    view: View
    point: OperatingPoint
    accuracy: float
    joins: Encode | None
    encodes: int
    encode_s: float
    decode_s: float
    head_s: float
    tail_s: float
    margin_s: float
    encode_due: float
    decode_due: float

    @property
    def service_s(self) -> float:
        """Seconds from arrival to answer on an idle device that keeps to its profile."""
        return self.head_s + self.encode_s + self.decode_s + self.tail_s

    @property
    def encode_slot(self) -> int:
        """Where the encodes lie on the device's timeline."""
        return self.view.slot(self.encode_due)

    @property
    def decode_slot(self) -> int:
        """Where the prompts lie on the device's timeline."""
        return self.view.slot(self.decode_due)


def plan(
    request: Request, view: View, point: OperatingPoint, joins: Encode | None, chunk: int, margin_s: float
) -> Plan:
    """What ``request`` takes at ``point``. ``chunk`` bounds prompts of one call, ``margin_s`` is ε."""
    encode_s = decode_s = head_s = 0.0
    encodes = request.encodes - (joins is not None or point.name in request.cached)
    if encodes > 0:
        encode_s = marginal(point.encode, encodes, point.max_images, view.waiting[ENCODE])
        head_s = point.prepare(request.megapixels)
    tail_s = view.overhead_s
    if request.prompts:
        bulk = request.priority is Priority.BULK
        line = point.survivors if request.everything else point.decode
        decode_s = marginal(line, request.prompts, chunk, 0 if bulk else view.waiting[DECODE])
        # Masks of one call are made while the next is decoded.
        tail_s += point.finish(min(request.prompts, chunk))
    decode_due = request.deadline - tail_s - margin_s
    encode_due = decode_due - decode_s * view.pace
    accuracy = point.accuracy[request.kind]
    return Plan(
        view, point, accuracy, joins, encodes, encode_s, decode_s, head_s, tail_s, margin_s, encode_due, decode_due
    )


def finish(request: Request, plan: Plan) -> float:
    """The predicted time of the answer, ε included.

    Two kinds of calls on a shared device slow each other down: work with x seconds ahead of it in its own queue, its
    own included, and y in the other's is done after x + min(x, y).
    """
    view, pace, timeline = plan.view, plan.view.pace, plan.view.timeline
    if request.priority is Priority.BULK:
        ahead = view.work[0] + view.work[1] + timeline.before(BULK, plan.decode_slot)
        seconds = plan.head_s + pace * (ahead / view.instances + plan.encode_s + plan.decode_s)
        return view.now + seconds + plan.tail_s + plan.margin_s
    encodes, decodes = view.work[0] / view.instances, view.work[1] / view.instances
    encoded = behind = 0.0
    if plan.joins is not None:
        encoded = max(plan.joins.finish - view.now, 0.0)
    elif plan.encode_s > 0:
        own, beside = plan.encode_s, decodes if view.shared else 0.0
        ahead = (view.left[0] + timeline.before(ENCODE, plan.encode_slot)) / view.instances
        behind = encodes - ahead
        x, coming = ahead + own, view.decoding
        alone = own + min(own, beside + coming * own)
        encoded = max(plan.head_s + pace * alone, pace * (x + min(x, beside + coming * x)))
    decoded = encoded
    if plan.decode_s > 0:
        own, beside = plan.decode_s, encodes + plan.encode_s if view.shared else 0.0
        x = (view.left[1] + timeline.before(DECODE, plan.decode_slot)) / view.instances + own
        after = (behind if plan.encode_s > 0 else encodes) if view.shared else 0.0
        decoded = max(encoded + pace * (own + min(own, max(after, 0.0))), pace * (x + min(x, beside)))
    return view.now + decoded + plan.tail_s + plan.margin_s


def shortage(request: Request, plan: Plan) -> float:
    """Seconds of the device that are missing for everything admitted, ``request`` included, to be on time; 0 when
    there is room."""
    view = plan.view
    wanted = plan.encode_s + plan.decode_s
    if request.priority is Priority.BULK:
        return max(0.0, wanted - view.bulk_room(plan.decode_slot))
    missing = wanted - view.bulk_room() if view.held[2] > 0 else 0.0
    for row, seconds, slot in (ENCODE, plan.encode_s, plan.encode_slot), (DECODE, plan.decode_s, plan.decode_slot):
        if seconds <= 0:
            continue
        # Decodes that are yet to come will be as many as lately, and some of them more urgent.
        coming = view.decoding * seconds if row == ENCODE else 0.0
        missing = max(missing, seconds + coming - view.room(row, slot))
    return max(0.0, missing)
