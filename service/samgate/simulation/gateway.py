"""One gateway: takes requests through the real scheduler the way the serving code does, with simulated devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any, TypeAlias

from samgate.errors import Overloaded
from samgate.scheduling.core import Options, Scheduler
from samgate.scheduling.device import Batch, Stage
from samgate.scheduling.profile import DeviceProfile, Line
from samgate.scheduling.queue import Priority, Work
from samgate.scheduling.request import Refusal, Request, Step
from samgate.simulation.cache import EmbeddingCache
from samgate.simulation.flow import Encoding, Flow
from samgate.simulation.imaging import ImagingThreads
from samgate.simulation.loop import Loop
from samgate.simulation.outcome import End, Outcome
from samgate.simulation.processor import Processor, Task, draw_seconds

Watch: TypeAlias = Callable[[Scheduler, Step, float], None]
"""Sees every step after the scheduler took it: for tests."""

_AHEAD = 2
"""Pieces of a SegEvery request that may be with the scheduler at once."""


class Gateway:
    """See :mod:`samgate.simulation.simulator`. ``done`` gets every request's outcome, once."""

    def __init__(
        self,
        loop: Loop,
        devices: Sequence[DeviceProfile],
        options: Options,
        done: Callable[[Flow, Outcome], None],
        random: Random,
        *,
        embeddings: int,
        threads: int,
        weight: float,
        request_s: tuple[float, float] = (0.0, 0.0),
        crowding: float = 1.0,
        watch: Watch | None = None,
    ) -> None:
        named = {f"device{place}": profile for place, profile in enumerate(devices)}
        self.loop = loop
        self.scheduler = Scheduler(named, loop.now, options)
        self.processors = {
            name: Processor(loop, shared=profile.shared, weight=weight, crowding=crowding if weight > 0 else 1.0)
            for name, profile in named.items()
        }
        host = self.processors["device0"] if weight > 0 else Processor(loop, shared=False)
        self._host = host
        self._imaging = ImagingThreads(host, threads)
        self._answer_s, self._refusal_s = request_s
        self._cache = EmbeddingCache(embeddings)
        self._random, self._done, self._watch = random, done, watch
        self._encodings: dict[tuple[str, int], Encoding] = {}
        self._running: dict[int, Task] = {}
        self._open: dict[int, Flow] = {}
        self._wake: float | None = None

    def arrive(self, flow: Flow) -> Refusal | None:
        """Admit ``flow`` and begin its work, or the refusal, of which ``done`` is not told."""
        now, arrival = self.loop.now, flow.arrival
        cached = self._cache.points(arrival.image)
        request = Request(
            arrival=now,
            deadline=flow.deadline,
            kind=arrival.kind,
            prompts=arrival.prompts,
            megapixels=arrival.megapixels,
            image=str(arrival.image),
            cached=cached,
            points=None if arrival.points is None else frozenset(arrival.points),
            min_accuracy=arrival.min_accuracy,
            priority=Priority.BULK if arrival.everything else Priority.INTERACTIVE,
            client=arrival.client,
        )
        ticket = self.scheduler.admit(request, now)
        self._handle(self._refusal_s if isinstance(ticket, Refusal) else self._answer_s)
        if isinstance(ticket, Refusal):
            return ticket
        point = ticket.point.name
        flow.begin(ticket, self.scheduler.chunk(ticket.point, request.priority), cached=point in cached)
        self._open[id(flow)] = flow
        if flow.cached:
            self._cache.use(arrival.image, point)
            self._decode(flow)
            self._step()
        elif ticket.joined:
            flow.encoding = self._encodings[point, arrival.image]
            flow.encoding.waiting.append(flow)
        else:
            encoding = flow.encoding = Encoding((point, arrival.image), ticket, [flow])
            self._encodings[encoding.key] = encoding
            seconds = draw_seconds(ticket.point.prepare, arrival.megapixels, self._random)
            self._imaging.run(seconds, self._prepared, encoding, lambda: bool(encoding.waiting))
        return None

    def _handle(self, seconds: float) -> None:
        """Messages, the event loop and the like keep a core busy, beside everything else."""
        if seconds > 0:
            self._host.start("imaging", seconds, lambda _: None, None)

    def fail(self, name: str) -> list[Flow]:
        """The device is down and what runs on it lost. The requests that were its, to be admitted anew or not."""
        now, device = self.loop.now, self.scheduler.devices[name]
        device.available = False
        for batches in device.running.values():
            for batch in list(batches):
                self.processors[name].stop(self._running.pop(batch.number))
                self.scheduler.finish(batch, now, failed=True)
        lost = [
            flow
            for flow in self._open.values()
            if flow.ticket.device is device or (flow.encoding and flow.encoding.ticket.device is device)
        ]
        for flow in lost:
            self._leave(flow, answered=False)
        self._step()
        return lost

    def recover(self, name: str) -> None:
        """The device is up again."""
        self.scheduler.devices[name].available = True
        self._step()

    def _prepared(self, encoding: Encoding) -> None:
        if encoding.waiting:
            encoding.work = self._submit(encoding.waiting[0], "encode", 1, "image", encoding)
            self._step()

    def _submit(self, flow: Flow, stage: Stage, size: int, key: object, load: object) -> Work[Any] | None:
        """A piece of work for the scheduler; None when its queue is full, which ends ``flow``."""
        ticket = load.ticket if isinstance(load, Encoding) else flow.ticket
        try:
            return self.scheduler.submit(ticket, stage, size, (key,), load, self.loop.now)
        except Overloaded:
            for waiting in list(load.waiting) if isinstance(load, Encoding) else [flow]:
                self._end(waiting, End.DROPPED, "queue full")
            return None

    def _decode(self, flow: Flow) -> None:
        """Submit what of ``flow``'s prompts may be submitted."""
        bulk = flow.arrival.everything
        while flow.open and flow.left > 0 and not (bulk and len(flow.works) >= _AHEAD):
            size = min(flow.left, flow.chunk)
            flow.left -= size
            # As in the gateway: where a call takes several images, those with equally many prompts share one; elsewhere
            # prompts for the same image do.
            mates = flow.arrival.image if flow.ticket.point.decode_images == 1 else size
            work = self._submit(flow, "decode", size, ("survivors", flow.number) if bulk else ("decoder", mates), flow)
            if work is not None:
                flow.works.add(work)

    def _step(self, _: object = None) -> None:
        now = self.loop.now
        if self._wake is not None and self._wake <= now:
            self._wake = None
        while True:
            step = self.scheduler.step(now)
            if self._watch is not None:
                self._watch(self.scheduler, step, now)
            for batch in step.start:
                seconds = draw_seconds(batch.line, batch.size, self._random)
                ended = partial(self._ended, batch)
                self._running[batch.number] = self.processors[batch.device].start(batch.stage, seconds, ended, None)
            for work in step.dropped:
                self._dropped(work)
            if not step.dropped:
                break
        if step.wake is not None and (self._wake is None or step.wake < self._wake):
            self._wake = step.wake
            self.loop.at(step.wake, self._step, None)

    def _dropped(self, work: Work[Any]) -> None:
        load = work.payload.load
        for flow in list(load.waiting) if isinstance(load, Encoding) else [load]:
            if flow.open:
                self._end(flow, End.DROPPED, f"no time to {work.payload.stage}")

    def _ended(self, batch: Batch, _: object) -> None:
        now = self.loop.now
        del self._running[batch.number]
        self.scheduler.finish(batch, now)
        for work in batch.works:
            load = work.payload.load
            if isinstance(load, Encoding):
                self._encoded(load)
            elif work in load.works:
                load.works.discard(work)
                load.decode_s += now - batch.started
                self._decode(load)
                line: Line = load.ticket.point.finish
                seconds = draw_seconds(line, work.size, self._random)
                load.finishing += 1
                self._imaging.run(seconds, self._finished, (load, load.life), partial(load.alive, load.life))
        self._step()

    def _encoded(self, encoding: Encoding) -> None:
        point, image = encoding.key
        self._forget(encoding)
        if encoding.waiting:
            self._cache.put(image, point)
        for flow in encoding.waiting:
            flow.encoding = None
            self._decode(flow)

    def _finished(self, whose: tuple[Flow, int]) -> None:
        flow, life = whose
        if not flow.alive(life):
            return
        flow.finishing -= 1
        if flow.left == 0 and not flow.works and flow.finishing == 0:
            # The rest of the way has no line of its own in a profile: it varies as much as making masks does.
            rest = Line(flow.ticket.device.profile.overhead_s, 0.0, 0.0, flow.ticket.point.finish.median_ratio)
            self.loop.at(self.loop.now + draw_seconds(rest, 0, self._random), self._answered, whose)

    def _answered(self, whose: tuple[Flow, int]) -> None:
        flow, life = whose
        if flow.alive(life):
            self._end(flow, End.ON_TIME if self.loop.now <= flow.deadline else End.LATE, "")

    def _end(self, flow: Flow, end: End, reason: str) -> None:
        self._leave(flow, answered=end in (End.ON_TIME, End.LATE))
        self._done(flow, flow.outcome(end, self.loop.now, reason))

    def _leave(self, flow: Flow, *, answered: bool) -> None:
        """``flow`` is over here: nothing of it waits any more."""
        del self._open[id(flow)]
        self.scheduler.close(flow.ticket, self.loop.now, answered=answered)
        for work in flow.works:
            self.scheduler.withdraw(work)
        encoding = flow.encoding
        if encoding is not None:
            encoding.waiting.remove(flow)
            if not encoding.waiting:
                self._forget(encoding)
                if encoding.work is not None:
                    self.scheduler.withdraw(encoding.work)
        flow.over()

    def _forget(self, encoding: Encoding) -> None:
        if self._encodings.get(encoding.key) is encoding:
            del self._encodings[encoding.key]
