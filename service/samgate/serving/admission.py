"""Requests at the scheduler's door, and what those that got in may do."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from samgate.domain import Choose, Frame, Prompt, Survivors, UInt8Array
from samgate.engines.base import Decoded
from samgate.errors import InvalidArgument, NotFound, NotInstalled
from samgate.scheduling.profile import PromptKind
from samgate.scheduling.queue import Priority
from samgate.scheduling.request import Request, Ticket
from samgate.segevery.sampler import Chunk
from samgate.serving.dispatch import Dispatcher
from samgate.serving.images import Images, Source
from samgate.serving.models import DecodeWork, Model, SurviveWork
from samgate.serving.prompting import PromptGroup, box_group, point_group
from samgate.serving.requests import Trace, Wish
from samgate.sessions import Embedding
from samgate.variants import get_variant
from samgate.variants.spec import VariantSpec

Refuse = Callable[[VariantSpec], InvalidArgument | None]


@dataclass(frozen=True, slots=True)
class Demand:
    """What a request takes: ``prompts`` to decode, ``encodes`` images (crops included). ``open_ended``: it goes on with
    further prompts for as long as there is time."""

    kind: PromptKind
    prompts: int
    encodes: int = 1
    everything: bool = False
    open_ended: bool = False


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that was admitted: the model that answers it, and its way to the engine.

    ``chunk`` is the most prompts in one piece of decoder work. Methods raise Overloaded, DeadlineExceeded, Unavailable.
    """

    ticket: Ticket
    source: Source
    model: Model
    chunk: int
    trace: Trace
    images: Images
    dispatcher: Dispatcher

    @property
    def lanes(self) -> int:
        """Of SegEvery's calls, how many run at once."""
        return self.ticket.point.lanes

    async def embed(self) -> Embedding:
        """The image's embedding; fills the trace. Raises InvalidArgument and NotFound as well."""
        return await self.images.embed(self.source, self.model, self.ticket, self.trace)

    async def encode(self, pixels: UInt8Array, frame: Frame) -> Embedding:
        """Of a crop: ``pixels`` uint8 ``[S, S, 3]``."""
        embedding = await self.images.encode(self.ticket, pixels, frame)
        for stage, seconds in embedding.stages_s.items():
            self.trace.add(stage, seconds)
        return embedding

    async def decode(self, embedding: Embedding, group: PromptGroup) -> Decoded:
        """Masks for ``group`` (I = 1)."""
        work = DecodeWork(embedding.values, group.prompts)
        # Where a call takes one image, requests for the same image can share it; elsewhere those of equal shape can.
        alone = self.model.engine.capacity.decode_images == 1
        key = (self.trace.handle, *group.key[1:]) if alone else group.key
        result: Decoded = await self._run(len(group.indices), key, work)
        return result

    async def survivors(self, embedding: Embedding, chunk: Chunk, choose: Choose) -> Survivors:
        """The masks that ``choose`` wants of the prompts of ``chunk``, whose crop has ``embedding``."""
        group = point_group if chunk.coords.shape[1] == 2 else box_group
        prompts = group(chunk.coords, embedding.frame, self.model.spec)
        work = SurviveWork(embedding.values, prompts, choose)
        # A key of its own: which masks survive is for each image to say, so no two chunks share a call.
        result: Survivors = await self._run(len(chunk), work, work)
        return result

    def decode_s(self, prompts: int) -> float:
        """Seconds that so many prompts of SegEvery take by the profile, at the device's present pace, with nothing else
        to do."""
        line = self.ticket.point.lane
        pace = self.ticket.device.pace("decode", time.monotonic())
        return pace * (math.ceil(prompts / self.chunk) * line.fixed_s + prompts * line.each_s)

    async def _run(self, size: int, key: object, work: DecodeWork | SurviveWork) -> Any:
        done = await self.dispatcher.run(self.ticket, "decode", size, key, work)
        self.trace.add("queue", done.queue_s)
        self.trace.add("decode", done.run_s)
        return done.result


class Door:
    """Asks the scheduler to let requests in.

    Args:
        models: by operating point, in order of preference.
    """

    def __init__(self, models: Mapping[str, Model], images: Images, dispatcher: Dispatcher) -> None:
        self._models = models
        self._images = images
        self._dispatcher = dispatcher
        self._names: dict[str, frozenset[str]] = {name: frozenset({name}) for name in models}
        for name, model in models.items():
            others = self._names.get(model.spec.name, frozenset())
            self._names[model.spec.name] = others | {name}

    @asynccontextmanager
    async def admitted(
        self, source: Source, wish: Wish, demand: Demand, refuse: Refuse = lambda spec: None
    ) -> AsyncIterator[Admitted]:
        """The request inside the block, whose normal end is that of the answer; ``refuse`` says what is the matter with
        it for a system that can't answer it.

        Raises NotFound for an unknown variant, NotInstalled for one that isn't served here, InvalidArgument for one
        that didn't make the handle or is refused, and what :meth:`Dispatcher.admitted` raises.
        """
        points = self.points(wish.variant)
        if source.digest is None:
            made_by = next(iter(source.cached))
            if points is not None and made_by not in points:
                raise InvalidArgument("variant", f"is {wish.variant!r}, but image.handle was made by {made_by!r}")
            if made_by not in self._models:
                raise NotFound(f"image.handle: its maker {made_by!r} is not served here: send the image")
            points = frozenset({made_by})
        points = self._able(points, refuse)
        request = Request(
            arrival=wish.arrival,
            deadline=wish.deadline,
            kind=demand.kind,
            prompts=demand.prompts,
            megapixels=source.megapixels,
            image=source.digest,
            encodes=demand.encodes,
            cached=source.cached,
            points=points,
            everything=demand.everything,
            open_ended=demand.open_ended,
            min_accuracy=wish.min_accuracy,
            priority=wish.priority,
            client=wish.client,
        )
        async with self._dispatcher.admitted(request) as ticket:
            model = self._models[ticket.point.name]
            trace = Trace(
                variant=model.spec.name,
                precision=model.engine.precision,
                engine=model.engine.name,
                size=source.size,
                prompts=demand.prompts,
                accuracy=ticket.accuracy,
                reason=ticket.reason,
                predicted_s=ticket.finish - request.arrival,
                price=ticket.price,
            )
            chunk = self._dispatcher.scheduler.chunk(ticket.point, request.priority)
            yield Admitted(ticket, source, model, chunk, trace, self._images, self._dispatcher)

    def points(self, variant: str) -> frozenset[str] | None:
        """The operating points that ``variant``, a variant's name or a point's, stands for; None when it is empty.

        Raises NotFound for an unknown variant, NotInstalled for one that isn't served here.
        """
        if not variant:
            return None
        if variant not in self._names:
            name, _, precision = variant.partition(":")
            raise NotInstalled(not_served(get_variant(name), precision))
        return self._names[variant]

    def _able(self, points: frozenset[str] | None, refuse: Refuse) -> frozenset[str] | None:
        """Those of ``points`` that aren't refused. Raises InvalidArgument, in the words of the one that is preferred,
        when none does."""
        problems = {
            name: refuse(model.spec) for name, model in self._models.items() if points is None or name in points
        }
        found = [problem for problem in problems.values() if problem is not None]
        if not found:
            return points
        if len(found) == len(problems):
            raise found[0]
        return frozenset(name for name, problem in problems.items() if problem is None)


def prompt_kind(prompts: Sequence[Prompt]) -> PromptKind:
    """The kind whose accuracy counts: a point's, which is lower, unless all prompts have a box."""
    return "box" if prompts and all(prompt.box is not None for prompt in prompts) else "point"


def not_served(spec: VariantSpec, precision: str = "") -> str:
    """Says that ``spec`` isn't served, and what to do about it."""
    name = f"{spec.name}:{precision}" if precision else spec.name
    return (
        f"variant {name!r} is not served here; install it with `samgate pull {spec.name}` "
        f"and start the server with `samgate serve --variants {name}`"
    )


def bulk(wish: Wish) -> Wish:
    """``wish`` in the class that lets interactive requests go first."""
    return replace(wish, priority=Priority.BULK)
