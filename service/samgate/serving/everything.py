"""SegmentEverything: a sampler's prompts through the decoder, chunk by chunk, and what passes its filters back."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import Executor
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from samgate import tracing
from samgate.domain import FloatArray, Format, Survivors, UInt8Array
from samgate.errors import DeadlineExceeded, Overloaded, Unavailable
from samgate.imaging.preprocess import encoder_input
from samgate.segevery.crops import Crop
from samgate.segevery.detections import DetectorParameters
from samgate.segevery.sampler import Chunk, Sampler
from samgate.segevery.strategies import (
    STRATEGIES,
    Boxes,
    Strategy,
    StrategyParameters,
    StrategySpec,
    crop_layers,
    least_prompts,
)
from samgate.serving.admission import Admitted, Demand
from samgate.serving.horizon import Horizon, OutOfTime
from samgate.serving.requests import Handle, Image, Trace, Wish
from samgate.serving.updates import EverythingFound, Updates, Worker
from samgate.sessions import Embedding

T = TypeVar("T")

NO_DETECTOR = (
    "strategy: OBJECT_AWARE needs an object detector, and none is served here; install one and start the server with "
    "it: `samgate serve --detector yolox-nano --pull`"
)
_AHEAD = 1
"""Chunks under way beside those that are decoded: one waits, so that no lane does while another is filtered."""
_TELL_EVERY_S = 0.1
"""Progress is told no oftener."""
_DETECT_SHARE = 0.5
"""Of the time left, the most that boxes are waited for where there could be an answer without."""


class Detect(Protocol):
    """Finds objects: ``pixels`` uint8 ``[H, W, 3]`` RGB → float32 ``[B, 4]`` (x0, y0, x1, y1) in its pixels, by
    descending confidence; B may be 0. Raises Unavailable when it can't run, Overloaded and DeadlineExceeded."""

    async def __call__(self, pixels: UInt8Array, parameters: DetectorParameters, deadline: float) -> FloatArray: ...


@dataclass(frozen=True, slots=True)
class EverythingCall:
    """All masks of one image. ``anytime`` streams them as they are found, and takes what is there at the deadline."""

    image: Image
    strategy: Strategy
    parameters: StrategyParameters
    anytime: bool
    format: Format
    wish: Wish

    @property
    def spec(self) -> StrategySpec:
        """Its strategy's."""
        return STRATEGIES[self.strategy]


@dataclass(frozen=True, slots=True)
class EverythingProgress:
    """Prompts decoded so far and in all, as far as is known, and masks that passed the filters so far."""

    prompts_done: int
    prompts_total: int
    candidates: int


@dataclass(frozen=True, slots=True)
class EverythingDone:
    """The end: how it went."""

    trace: Trace


EverythingEvent = EverythingProgress | EverythingFound | EverythingDone


def demand_of(call: EverythingCall, size: tuple[int, int]) -> Demand:
    """What to ask the scheduler for, for an image of ``size`` (width, height): the encodes, and all prompts that there
    may be, or, where the call takes what it can get, as many as are of use."""
    strategy, parameters, size = call.spec, call.parameters, size[::-1]
    prompts = least_prompts(strategy, parameters, size) if call.anytime else strategy.prompts(parameters, size)
    encodes = len(crop_layers(strategy, parameters, size))
    return Demand(strategy.kind, prompts, encodes, everything=True, open_ended=call.anytime)


async def run_everything(
    call: EverythingCall, admitted: Admitted, executor: Executor, detect: Detect | None
) -> AsyncGenerator[EverythingEvent, None]:
    """Progress as it is made, then the masks, then the end. Closing the iterator stops the work at once.

    Chunks are bulk work: prompts of Segment calls go between them. With ``call.anytime``, masks come as soon as there
    are some, and then at most every quarter of a second: after each event the client holds a set without duplicates, in
    the end exactly what it would have been told without. Near the deadline nothing more is begun, and the end says that
    the answer isn't complete; no DeadlineExceeded is raised.

    Raises InvalidArgument, NotFound, Overloaded, DeadlineExceeded and Unavailable.
    """
    trace, sampler, told = admitted.trace, None, -math.inf
    horizon = Horizon(call.wish.arrival, call.wish.deadline if call.anytime else math.inf)
    trace.strategy, trace.prompts, trace.complete = call.strategy.value, 0, False

    async def work(function: Callable[[], T], stage: str) -> T:
        return await _timed(asyncio.get_running_loop().run_in_executor(executor, function), trace, stage)

    updates = Updates(trace.size[::-1], call.format, work, horizon)
    async with AsyncExitStack() as stack:
        try:
            whole = await horizon.within(admitted.embed())
            pixels = await _pixels(call, admitted, stack, horizon, detect)
            boxes = await _boxes(call, admitted, pixels, detect, horizon)
            sampler = call.spec.sampler(call.parameters, whole.frame.original, admitted.model.spec, boxes)
            for crop in sampler.crops:
                embedding = whole
                if crop.layer > 0 and pixels is not None:
                    embedding = await horizon.within(_embed_crop(pixels, crop, admitted, work))
                features = embedding.values[: admitted.model.spec.features]
                opened = partial(sampler.open_crop, crop, embedding.frame, features)
                await horizon.within(work(opened, "masks"))
                async with aclosing(_decoded(sampler, crop, embedding, admitted, horizon, work)) as chunks:
                    async for chunk, survivors in chunks:
                        await horizon.within(work(partial(sampler.add, chunk, survivors), "masks"))
                        trace.prompts = sampler.prompts_done
                        if time.monotonic() >= told + _TELL_EVERY_S or trace.prompts == sampler.prompts_total:
                            told = time.monotonic()
                            yield EverythingProgress(trace.prompts, sampler.prompts_total, sampler.candidates)
                        if call.anytime and sampler.candidates and updates.due:
                            async for found in updates.show(sampler.present):
                                yield found
                await horizon.within(work(partial(sampler.finish_crop, crop), "masks"))
            trace.complete = True
        except OutOfTime:
            pass  # what was found so far is the answer
    if sampler is not None:
        results = sampler.finish if trace.complete else sampler.present
        async for found in updates.show(results):
            yield found
        trace.complete = trace.complete and not updates.cut
    trace.masks = updates.count
    yield EverythingDone(trace)


async def _timed(work: Awaitable[T], trace: Trace, stage: str) -> T:
    started = time.perf_counter()
    try:
        with tracing.stage(stage):
            return await work
    finally:
        trace.add(stage, time.perf_counter() - started)


async def _pixels(
    call: EverythingCall, admitted: Admitted, stack: AsyncExitStack, horizon: Horizon, detect: Detect | None
) -> UInt8Array | None:
    """The image as uint8 ``[H, W, 3]`` until ``stack`` is left, where more than its embedding is needed."""
    cropped = call.spec.crops and call.parameters.grid.crop_n_layers > 0
    detected = detect is not None and call.spec.boxes is not Boxes.NONE
    if isinstance(call.image, Handle) or not (cropped or detected):
        return None
    return await horizon.within(stack.enter_async_context(admitted.images.decoded(call.image)))


async def _boxes(
    call: EverythingCall, admitted: Admitted, pixels: UInt8Array | None, detect: Detect | None, horizon: Horizon
) -> FloatArray | None:
    """What ``detect`` finds, if the strategy wants it; None where there is no time for it and masks can do without."""
    strategy = call.spec
    if detect is None or pixels is None or strategy.boxes is Boxes.NONE or admitted.model.spec.finds_everything:
        return None
    prompts = strategy.prompts(call.parameters, (admitted.trace.size[1], admitted.trace.size[0]))
    left_s = horizon.ends - time.monotonic()
    needed = strategy.boxes is Boxes.NEEDED
    if not needed and admitted.decode_s(prompts) < left_s:
        return None  # everything can be decoded: boxes would find nothing new
    found = _timed(detect(pixels, call.parameters.object_aware, call.wish.deadline), admitted.trace, "detect")
    if needed:
        return await horizon.within(found)
    try:
        async with asyncio.timeout(_DETECT_SHARE * left_s):
            return await found
    except (TimeoutError, DeadlineExceeded, Overloaded, Unavailable):
        return None


async def _embed_crop(pixels: UInt8Array, crop: Crop, admitted: Admitted, work: Worker) -> Embedding:
    x0, y0, x1, y1 = crop.box
    square, frame = await work(lambda: encoder_input(pixels[y0:y1, x0:x1], admitted.model.spec), "imaging")
    return await admitted.encode(square, frame)


async def _decoded(
    sampler: Sampler, crop: Crop, embedding: Embedding, admitted: Admitted, horizon: Horizon, work: Worker
) -> AsyncGenerator[tuple[Chunk, Survivors], None]:
    """Each chunk of ``crop`` with what survives of it; the next is under way while the caller looks at one.

    Raises OutOfTime when there are more than there is time for.
    """

    async def decode(chunk: Chunk) -> tuple[Chunk, Survivors]:
        started, making = time.monotonic(), sampler.known(chunk)
        if making is not None:
            survivors = await work(making, "masks")
        else:
            survivors = await admitted.survivors(embedding, chunk, partial(sampler.choose, chunk))
        horizon.decoded(time.monotonic() - started)
        return chunk, survivors

    under_way: deque[asyncio.Task[tuple[Chunk, Survivors]]] = deque()
    stopped, most = False, admitted.lanes + _AHEAD
    try:
        while True:
            while len(under_way) < most and not stopped and (chunk := sampler.next(crop, admitted.chunk)):
                if stopped := not horizon.allows_chunk():
                    break
                under_way.append(asyncio.create_task(decode(chunk)))
            if not under_way:
                break
            yield await horizon.within(under_way.popleft())
    finally:
        for task in under_way:
            task.cancel()
            task.add_done_callback(_heard)
    if stopped:
        raise OutOfTime


def _heard(task: asyncio.Task[tuple[Chunk, Survivors]]) -> None:
    """Nobody else asks for the error of a task that failed before it was cancelled, of which asyncio would complain."""
    if not task.cancelled():
        task.exception()
