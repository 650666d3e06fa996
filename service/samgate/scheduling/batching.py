"""Which calls run: what is queued becomes batches, the most urgent first. Pure state."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable

from samgate.scheduling.device import STAGES, Batch, Device, Stage
from samgate.scheduling.learning import Decaying
from samgate.scheduling.plans import chunk_size, decode_limit
from samgate.scheduling.profile import Line, OperatingPoint
from samgate.scheduling.queue import Priority, Work
from samgate.scheduling.request import Job, Step

_ARRIVAL_MEMORY_S = 0.5
_MOST_KEYS = 256
"""Whose rates of arrival are known: clients choose how many images they prompt."""


class Batcher:
    """Forms the calls of all devices, of ``points``.

    ``yield_s``: the longest that a chunk of SegEvery may hold a device before interactive work gets its turn.
    """

    def __init__(self, points: Iterable[OperatingPoint], yield_s: float) -> None:
        self.chunks: dict[str, int] = {}
        """The most prompts of a call of bulk work, by point. Devices may differ in speed: what none takes too long
        for."""
        for point in points:
            fit = chunk_size(point, yield_s)
            self.chunks[point.name] = min(fit, self.chunks.get(point.name, fit))
        self._arrivals: dict[Hashable, Decaying] = {}

    def chunk(self, point: OperatingPoint, priority: Priority) -> int:
        """The most prompts of one request in one piece of decoder work."""
        return self.chunks[point.name] if priority is Priority.BULK else point.max_prompts

    def arrived(self, key: Hashable, now: float) -> None:
        """A piece of work of ``key`` was queued: company for others of it."""
        rate = self._arrivals.get(key)
        if rate is None:
            if len(self._arrivals) >= _MOST_KEYS:
                self._arrivals.clear()
            rate = self._arrivals[key] = Decaying(_ARRIVAL_MEMORY_S, now)
        rate.add(1.0, now)

    def dispatch(self, device: Device, now: float, step: Step) -> None:
        """Add to ``step`` what ``device`` is to run, and what it is to give up, now."""
        for stage in STAGES:
            self._dispatch(device, stage, now, step)

    def _dispatch(self, device: Device, stage: Stage, now: float, step: Step) -> None:
        queue = device.queues[stage]
        pace = device.pace(stage, now)
        best_pace = min(1.0, pace)

        def hopeless(work: Work[Job]) -> bool:
            line = _line(work.payload, stage)
            seconds = line(work.size) * _lanes(work.payload, stage)
            return now + seconds * line.median_ratio * best_pace > work.payload.hard

        while (head := queue.head()) is not None:
            job: Job = head.payload
            point, lanes = job.ticket.point, _lanes(job, stage)
            if not device.takes(stage, point.name, lanes):
                return
            line = _line(job, stage)
            if hopeless(head):
                queue.cancel(head)
                step.dropped.append(head)
                continue
            if head.priority is Priority.BULK and device.profile.shared and device.interactive():
                return
            if device.holds(stage, head, line(head.size) * lanes, now):
                return
            limit = point.max_images if stage == "encode" else self._most(point, head)
            if (wake := self._linger(head, line, limit, device, stage, now)) is not None:
                step.wake = wake if step.wake is None else min(step.wake, wake)
                return
            works, dropped = queue.form(limit, _in_time(line, pace, now, head.deadline), hopeless)
            step.dropped += dropped
            size = sum(work.size for work in works)
            batch = Batch(device.name, stage, point.name, works, line, now, line(size), lanes)
            for work in works:
                _started(work, now)
            device.start(batch)
            step.start.append(batch)

    def _most(self, point: OperatingPoint, head: Work[Job]) -> int:
        """The most prompts of a call that begins with ``head``."""
        chunk = self.chunk(point, head.priority)
        return chunk if head.priority is Priority.BULK else decode_limit(point, head.size, chunk)

    def _linger(
        self, head: Work[Job], line: Line, limit: int, device: Device, stage: Stage, now: float
    ) -> float | None:
        """Until when to wait for company, None to go now.

        A batch closes when it is full, or when waiting would cost its head the deadline. Nor does it wait for longer
        than the call's fixed cost, the most that company can save, or at all when none is expected within that time.
        """
        if limit <= head.size or line.fixed_s <= 0:
            return None
        rate = self._arrivals.get(head.key)
        if rate is None or rate.rate(now) * line.fixed_s < 1.0:
            return None
        until = min(head.submitted + line.fixed_s, head.deadline - line(limit) * device.pace(stage, now))
        if until <= now or device.queues[stage].size_of(head.key, limit) >= limit:
            return None
        return until


def _started(work: Work[Job], now: float) -> None:
    job = work.payload
    ticket = job.ticket
    ticket.queued_s += now - work.submitted
    if job.stage == "encode" and ticket.encoding is not None:
        ticket.encoding.timeline.take(ticket.encoding.reservation)
        return
    reservation = ticket.encode if job.stage == "encode" else ticket.decode
    if reservation is not None:
        ticket.device.timeline.take(reservation, job.reserved_s)


def _in_time(line: Line, pace: float, now: float, due: float) -> Callable[[int], bool]:
    """Whether a call of a size that begins now is done by ``due``."""
    return lambda size: now + line(size) * pace <= due


def _line(job: Job, stage: Stage) -> Line:
    point = job.ticket.point
    if stage == "encode":
        return point.encode
    return point.lane if job.ticket.request.everything else point.decode


def _lanes(job: Job, stage: Stage) -> int:
    """How many calls like ``job``'s share the device."""
    return job.ticket.point.lanes if stage == "decode" and job.ticket.request.everything else 1
