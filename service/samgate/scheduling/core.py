"""The scheduler: admits, routes, orders and batches. Pure state: no I/O, no clock, no randomness; time comes in."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from samgate.scheduling.batching import Batcher
from samgate.scheduling.choice import LEAST_RETRY_S, choose, choose_as, price_scale, reason_for
from samgate.scheduling.device import Batch, Device, Stage
from samgate.scheduling.fairness import ConcurrencyLimit, FairShares
from samgate.scheduling.learning import EncodeBudget, Lateness, LoadPrice
from samgate.scheduling.plans import Costs, Plan, plans_for
from samgate.scheduling.policy import POLICIES, Policy
from samgate.scheduling.prediction import Timing
from samgate.scheduling.profile import DeviceProfile, OperatingPoint
from samgate.scheduling.queue import Priority, Work
from samgate.scheduling.request import Encode, Job, Reason, Refusal, Refused, Request, Step, Ticket
from samgate.scheduling.view import BULK, DECODE, ENCODE, View

_VALUE, _COST = attrgetter("value"), attrgetter("cost_s")
_CUT = 0.99
"""Of a request's time: clients' clocks run out a little earlier than it arrives here."""
_MORE = 0.1
"""Of a request's own time: how much later than when it was given up it would have been done, at least."""
_CROWDED = 0.2
"""Of the time until the deadline, filled by the queue: with less, the device would soon have nothing to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """How the scheduler decides.

    ``yield_s``: the longest that a chunk of SegEvery may hold a device before interactive work gets its turn.
    ``least_price``: see :class:`~samgate.scheduling.learning.LoadPrice`.
    ``overloaded``: the load above which the policy ``infaas`` avoids a device.
    ``weight``: a client's share in multiples of the others'; may change at any time.
    """

    policy: Policy = POLICIES["samgate"]
    max_requests: int = 1024
    max_waiting: int = 65536
    yield_s: float = 0.04
    least_price: float = 0.05
    overloaded: float = 0.8
    weight: Callable[[str], float] = lambda client: 1.0


class Scheduler:
    """Decides for requests on ``devices``; the caller tells what happens and does what it is told.

    :meth:`admit` a request, :meth:`submit` its work as it becomes ready, :meth:`step` for what to run, :meth:`finish`
    when a call has ended, :meth:`close` when the request is over. Every method takes the time; it must not run
    backwards.
    """

    def __init__(self, devices: Mapping[str, DeviceProfile], now: float, options: Options | None = None) -> None:
        self.options = options or Options()
        self.devices = {name: Device(name, profile, self.options.max_waiting, now) for name, profile in devices.items()}
        points = [point for device in self.devices.values() for point in device.points.values()]
        self.price = LoadPrice(now, price_scale(points), self.options.least_price)
        self.budget = EncodeBudget(now)
        self.shares = FairShares(now, self.options.weight)
        self.limit = ConcurrencyLimit(self.options.max_requests)
        self.open = 0
        self._instances = sum(device.profile.instances for device in self.devices.values())
        self._encodes: dict[str, dict[str, Encode]] = {}
        """Under way or promised, by image and point."""
        self._lateness = Lateness(point.name for point in points)
        self._batcher = Batcher(points, self.options.yield_s)
        self._costs = {
            name: Costs(device.points.values(), self._batcher.chunks) for name, device in self.devices.items()
        }

    def resize(self, device: str, instances: int) -> None:
        """``device`` runs so many calls of each stage at once from now on: servers have come or gone."""
        if self.devices[device].profile.instances != instances:
            self.devices[device].resize(instances)
            self._instances = sum(one.profile.instances for one in self.devices.values())

    def chunk(self, point: OperatingPoint, priority: Priority) -> int:
        """The most prompts of one request in one piece of decoder work."""
        return self._batcher.chunk(point, priority)

    def margin(self, point: str, encodes: bool, now: float) -> float:
        """ε of the operating point ``point``, in seconds: of requests whose image is new, or held."""
        return self._lateness.margin(point, encodes, False, now)

    def admit(self, request: Request, now: float) -> Ticket | Refusal:
        """Who answers ``request``, or why nobody does. Costs the same however much is queued."""
        self._update_price(now)
        plans, best_accuracy = self._plans(request, now)
        if best_accuracy is None:
            return Refusal(Refused.DOWN, retry_after_s=1.0)
        if not plans:
            return Refusal(Refused.ACCURACY, best_accuracy=best_accuracy)
        plans.sort(key=_VALUE, reverse=True)
        options, lateness = self.options, self._lateness

        def margin(plan: Plan) -> float:
            return lateness.margin(plan.point.name, plan.encode_s > 0, plan.view.queued_s > 0, now)

        found: tuple[Plan, Timing] | Refusal
        if options.policy.admits:
            found = choose(request, plans, margin)
        else:
            found = choose_as(options.policy, request, plans, margin, options.overloaded, now)
        cheapest = min(plans, key=_COST) if isinstance(found, Refusal) else found[0]
        # Shares are of the time that passes, on a device that may be slower than its profile.
        share_s = cheapest.cost_s * cheapest.view.pace / self._instances
        self.shares.ask(request.client, share_s, now)
        if cheapest.encode_s == 0:
            self.budget.ask(share_s, now)
        if options.policy.admits and not isinstance(found, Refusal):
            found = self._beyond_bounds(request, found[0], share_s, now) or found
        if isinstance(found, Refusal):
            if found.reason is Refused.BUSY:
                self.price.refuse(share_s, now)
            return found
        chosen, timed = found
        return self._ticket(request, chosen, timed, reason_for(request, chosen, plans, best_accuracy), share_s, now)

    def _beyond_bounds(self, request: Request, chosen: Plan, share_s: float, now: float) -> Refusal | None:
        """The refusal, if the client has had its share, too many images are encoded, or too many requests are open."""
        if self.open >= self.limit.limit:
            return Refusal(Refused.LIMIT, retry_after_s=max(chosen.cost_s, LEAST_RETRY_S))
        view = chosen.view
        time_s = max(request.deadline - now, 0.0)
        if not self.shares.allows(request.client, share_s, time_s, now):
            return Refusal(Refused.SHARE, retry_after_s=max(share_s, LEAST_RETRY_S))
        if chosen.encode_s > 0 and self.price.overloaded and view.queued_s > _CROWDED * time_s:
            encode_s = chosen.encode_s * view.pace / self._instances
            # Those who ask for little don't stand back for an image's rank.
            image = None if self.shares.modest(request.client, now) else request.image
            if not self.budget.allows(image, encode_s, now):
                return Refusal(Refused.BUSY, retry_after_s=max(encode_s, LEAST_RETRY_S))
        return None

    def _update_price(self, now: float) -> None:
        if self.price.due(now):
            busy = sum(device.busy(now) for device in self.devices.values()) / len(self.devices)
            self.price.update(busy, now)

    def submit(self, ticket: Ticket, stage: Stage, size: int, key: Hashable, load: Any, now: float) -> Work[Job]:
        """Queue a piece of ``ticket``'s work that could run now; pieces of equal ``key`` can share a call.

        Raises Overloaded when the queue is full.
        """
        request, device = ticket.request, ticket.device
        encoding = ticket.encoding if stage == "encode" else None
        if stage == "encode":
            due, hard = (encoding.due, encoding.hard) if encoding else (ticket.encode_due, ticket.encode_hard)
            reserved_s = ticket.encode_each_s * size
        else:
            due, hard = ticket.decode_due, ticket.decode_hard
            reserved_s = ticket.decode_each_s * size
        if request.priority is Priority.BULK:
            due = ticket.decode_due
        if stage == "decode":
            if request.open_ended and ticket.submitted >= request.prompts:
                # Behind all that was promised: nobody's room was reckoned with it.
                due, reserved_s = math.inf, 0.0
            ticket.submitted += size
        # Bulk work would make a call longer that somebody waits for.
        whole_key = (ticket.point.name, stage, request.priority, key)
        work = Work(Job(ticket, stage, load, reserved_s, hard), whole_key, size, due, request.priority, now)
        device.queues[stage].push(work)
        if encoding is not None:
            encoding.work = work
        if ticket.point.max_images > 1 or stage == "decode":
            self._batcher.arrived(whole_key, now)
        return work

    def withdraw(self, work: Work[Job]) -> bool:
        """Nobody waits for ``work`` any more; False when it is not queued (any more)."""
        job = work.payload
        return job.ticket.device.queues[job.stage].cancel(work)

    def step(self, now: float) -> Step:
        """What to run and what to give up, now."""
        step = Step()
        for device in self.devices.values():
            device.advance(now)
            device.timeline.advance(now)
            if device.available:
                self._batcher.dispatch(device, now, step)
        return step

    def finish(self, batch: Batch, now: float, *, failed: bool = False) -> None:
        """``batch`` has ended."""
        device = self.devices[batch.device]
        device.finish(batch, now, failed=failed)
        # So that the next request needn't.
        self._update_price(now)
        for work in batch.works:
            ticket = work.payload.ticket
            # What the device did for others meanwhile: those in the same call, and the other stage's.
            own_s = batch.attained * (batch.line(work.size) / batch.seconds if batch.seconds > 0 else 1.0)
            ticket.shared_s += now - batch.started - own_s
            if batch.stage == "encode" and ticket.encoding is not None:
                self._forget(ticket.encoding)

    def close(self, ticket: Ticket, now: float, *, answered: bool) -> None:
        """``ticket``'s request is over; whether it was ``answered`` completely. Its queued work is the caller's to
        withdraw."""
        if not ticket.open:
            return
        ticket.open = False
        self.open -= 1
        request, timeline = ticket.request, ticket.device.timeline
        self.shares.admit(request.client, -ticket.work_s)
        if ticket.decode is not None:
            timeline.take(ticket.decode)
        if ticket.encode is not None:
            timeline.take(ticket.encode)
        if ticket.encoding is not None:
            ticket.encoding.users -= 1
            if ticket.encoding.users == 0:
                ticket.encoding.timeline.take(ticket.encoding.reservation)
                self._forget(ticket.encoding)
        actual_s = now - ticket.admitted
        on_time = now <= request.deadline
        if (answered or not on_time) and not request.open_ended:
            self.limit.observe(ticket.finish - ticket.admitted, actual_s, on_time=on_time)
        simple = request.prompts <= ticket.point.max_prompts and not ticket.joined
        if not simple or request.priority is not Priority.INTERACTIVE:
            return
        # Work is done as late as may be while much is queued: what is late then tells how wrong it is to rely on that.
        late_s = now - (request.deadline - ticket.margin_s)
        if answered:
            error_s = actual_s - ticket.queued_s - ticket.shared_s - ticket.service_s
            self._lateness.answered(ticket.point.name, ticket.encodes, error_s, late_s, now)
        elif actual_s > _CUT * (request.deadline - ticket.admitted):
            # The client waited no longer: nobody knows how late it would have been.
            self._lateness.cut_off(ticket.encodes, late_s + _MORE * ticket.service_s, now)

    def _plans(self, request: Request, now: float) -> tuple[list[Plan], float | None]:
        """Every way to answer ``request``, and the best accuracy that any has."""
        found: list[Plan] = []
        best: float | None = None
        coming = self._encodes.get(request.image) if request.image is not None and request.encodes == 1 else None
        for device in self.devices.values():
            if not device.available:
                continue
            device.advance(now)
            # Usually done by then: a decision on a request shouldn't pay for it.
            device.timeline.advance(now, patience=4)
            view = View(device, now)
            price = 0.0
            if self.options.policy.priced:
                price = self.price.at(view.queued_s / max(request.deadline - now, 1e-3))
            costs = self._costs[device.name].of(request, view.waiting)
            some, accuracy = plans_for(request, view, costs, coming or {}, price)
            found += some
            if accuracy is not None and (best is None or accuracy > best):
                best = accuracy
        return found, best

    def _ticket(
        self, request: Request, chosen: Plan, timed: Timing, reason: Reason, share_s: float, now: float
    ) -> Ticket:
        device, point = chosen.view.device, chosen.point
        # Work is given up when even the usual time, without any margin, is too long.
        decode_hard = request.deadline - timed.tail_s * point.finish.median_ratio
        encode_hard = decode_hard - chosen.decode_s * point.decode.median_ratio * chosen.view.best_pace
        # By place: fifteen names would take a microsecond more.
        ticket = Ticket(
            request,
            device,
            point,
            chosen.accuracy,
            reason,
            self.price.value,
            now,  # admitted
            timed.finish,
            timed.margin_s,
            timed.head_s + chosen.cost_s * chosen.view.pace + timed.tail_s,  # service_s
            timed.encode_due,
            timed.decode_due,
            encode_hard,
            decode_hard,
            share_s,  # work_s
        )
        timeline = device.timeline
        bulk = request.priority is Priority.BULK
        if chosen.joins is not None:
            self._join(ticket, chosen.joins)
        elif chosen.encode_s > 0:
            due = timed.decode_due if bulk else timed.encode_due
            ticket.encode_each_s = chosen.encode_s / chosen.encodes
            slot = timed.decode_slot if bulk else timed.encode_slot
            reservation = timeline.reserve(BULK if bulk else ENCODE, slot, chosen.encode_s)
            if request.image is not None and request.encodes == 1:
                key = (point.name, request.image)
                ends = ticket.finish - timed.tail_s - chosen.decode_s
                ticket.encoding = Encode(key, ends, due, encode_hard, timeline, reservation)
                self._encodes.setdefault(request.image, {})[point.name] = ticket.encoding
            else:
                ticket.encode = reservation
        if chosen.decode_s > 0:
            ticket.decode_each_s = chosen.decode_s / request.prompts
            ticket.decode = timeline.reserve(BULK if bulk else DECODE, timed.decode_slot, chosen.decode_s)
        self.shares.admit(request.client, share_s)
        self.open += 1
        return ticket

    def _join(self, ticket: Ticket, encoding: Encode) -> None:
        """``ticket`` waits for an encode that is under way, which inherits its urgency."""
        ticket.encoding, ticket.joined = encoding, True
        encoding.users += 1
        encoding.hard = max(encoding.hard, ticket.encode_hard)
        encoding.due = min(encoding.due, ticket.encode_due)
        work = encoding.work
        if work is None:
            return
        work.payload.hard = encoding.hard
        queue = work.payload.ticket.device.queues["encode"]
        if encoding.due < work.deadline and queue.cancel(work):
            work.deadline = encoding.due
            work.priority = min(work.priority, ticket.request.priority)
            queue.push(work)

    def _forget(self, encoding: Encode) -> None:
        encoding.work = None  # which refers to it by its ticket: nothing may be left for the garbage collector
        point, image = encoding.key
        coming = self._encodes.get(image, {})
        if coming.get(point) is encoding:
            del coming[point]
            if not coming:
                del self._encodes[image]
