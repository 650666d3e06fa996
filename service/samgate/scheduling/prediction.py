"""When a request would be done, and whether there is room for it: formulas over a device's state."""

from __future__ import annotations

import math
from dataclasses import dataclass

from samgate.scheduling.plans import Plan
from samgate.scheduling.queue import Priority
from samgate.scheduling.request import Request
from samgate.scheduling.view import BULK, DECODE, ENCODE


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


def timing(request: Request, plan: Plan, margin_s: float) -> Timing:
    """When the parts of ``plan`` are due."""
    view, point = plan.view, plan.point
    head_s = point.prepare(request.megapixels) if plan.encodes > 0 else 0.0
    tail_s = view.overhead_s + plan.finish_s
    service_s = head_s + view.best_encode_pace * plan.encode_s + view.best_pace * plan.decode_s + tail_s
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
    """The same for encodes, and for bulk work that was promised and can be kept; 0 where ``request`` is bulk work
    itself."""
    view = plan.view
    if request.priority is Priority.BULK:
        return 0.0
    missing = plan.cost_s - view.promised_room() if view.held[2] > 0 else 0.0
    if plan.encode_s > 0:
        missing = max(missing, plan.encode_s - view.room(ENCODE, timed.encode_slot, plan.encode_s))
    return max(0.0, missing)
