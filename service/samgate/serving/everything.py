"""SegmentEverything: a sampler's prompts through the decoder, chunk by chunk, and what passes its filters back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from concurrent.futures import Executor
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from samgate.domain import FloatArray, Format, Rle, Survivors, UInt8Array
from samgate.imaging.formats import encode as encode_mask
from samgate.imaging.formats import rle_to_mask
from samgate.imaging.preprocess import encoder_input
from samgate.scheduling.queue import Priority
from samgate.segevery.crops import Crop
from samgate.segevery.generator import EverythingResult, GridSampler
from samgate.segevery.parameters import GridParameters
from samgate.serving.answers import encoded_bytes
from samgate.serving.images import Images, encode
from samgate.serving.models import Model, SurviveWork
from samgate.serving.prompting import point_group
from samgate.serving.requests import EncodedMask, Handle, Image, Trace
from samgate.sessions import Embedding

T = TypeVar("T")


class Worker(Protocol):
    """Runs a function on the imaging threads and counts its time for a stage."""

    async def __call__(self, function: Callable[[], T], stage: str) -> T: ...


_MESSAGE_BYTES = 512 * 1024
"""Masks are sent in groups of about this size."""


@dataclass(frozen=True, slots=True)
class EverythingCall:
    """All masks of one image. ``deadline`` is on :func:`time.monotonic`'s clock."""

    image: Image
    parameters: GridParameters
    format: Format
    variant: str
    deadline: float


@dataclass(frozen=True, slots=True)
class EverythingProgress:
    """Point prompts decoded so far and in all, and masks that passed the filters so far."""

    prompts_done: int
    prompts_total: int
    candidates: int


@dataclass(frozen=True, slots=True)
class EverythingFound:
    """Final masks, each with its encoded form."""

    masks: list[tuple[EverythingResult, EncodedMask]]


@dataclass(frozen=True, slots=True)
class EverythingDone:
    """The end: how it went."""

    trace: Trace


EverythingEvent = EverythingProgress | EverythingFound | EverythingDone


async def run_everything(
    call: EverythingCall, model: Model, images: Images, executor: Executor, trace: Trace
) -> AsyncGenerator[EverythingEvent, None]:
    """Progress after every chunk, then the masks, then the end. Closing the iterator stops the work at once.

    Chunks are bulk work: prompts of Segment calls go between them. One chunk is decoded while the one before it is
    filtered. Raises InvalidArgument, NotFound, Overloaded, DeadlineExceeded and Unavailable.
    """

    async def work(function: Callable[[], T], stage: str) -> T:
        started = time.perf_counter()
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, function)
        finally:
            trace.add(stage, time.perf_counter() - started)

    whole = await images.embed(call.image, model, call.deadline, trace)
    sampler = GridSampler(call.parameters, whole.frame.original, model.spec)
    trace.prompts = sampler.prompts_total
    async with AsyncExitStack() as stack:
        pixels: UInt8Array | None = None
        if len(sampler.crops) > 1 and not isinstance(call.image, Handle):
            pixels = await stack.enter_async_context(images.decoded(call.image))
        for crop in sampler.crops:
            embedding = whole
            if crop.layer > 0 and pixels is not None:
                embedding = await _embed_crop(pixels, crop, model, call.deadline, work, trace)
            async with aclosing(_decode_ahead(sampler, crop, embedding, model, call.deadline, trace)) as chunks:
                async for points, survivors in chunks:
                    await work(partial(sampler.add, crop, embedding.frame, points, survivors), "masks")
                    yield EverythingProgress(sampler.prompts_done, sampler.prompts_total, sampler.candidates)
            await work(partial(sampler.finish_crop, crop), "masks")
    results = await work(sampler.finish, "masks")
    trace.masks = len(results)
    async for group in _encoded(results, call.format, work):
        yield EverythingFound(group)
    yield EverythingDone(trace)


async def _embed_crop(
    pixels: UInt8Array, crop: Crop, model: Model, deadline: float, work: Worker, trace: Trace
) -> Embedding:
    x0, y0, x1, y1 = crop.box
    square, frame = await work(lambda: encoder_input(pixels[y0:y1, x0:x1], model.spec), "imaging")
    embedding = await encode(model, square, frame, deadline, Priority.BULK)
    for stage, seconds in embedding.stages_s.items():
        trace.add(stage, seconds)
    return embedding


async def _decode_ahead(
    sampler: GridSampler, crop: Crop, embedding: Embedding, model: Model, deadline: float, trace: Trace
) -> AsyncGenerator[tuple[FloatArray, Survivors], None]:
    """Each chunk of points with what survives of it; the next chunk is under way while the caller looks at one."""

    async def decode(points: FloatArray) -> tuple[FloatArray, Survivors]:
        prompts = point_group(points, embedding.frame, model.spec)
        done = await model.survivors(SurviveWork(embedding.values, prompts, sampler.min_iou), deadline)
        trace.add("queue", done.queue_s)
        trace.add("decode", done.run_s)
        return points, done.result

    under_way: asyncio.Task[tuple[FloatArray, Survivors]] | None = None
    try:
        for points in sampler.chunks(crop, model.engine.capacity.max_prompts):
            begun, under_way = under_way, asyncio.create_task(decode(points))
            if begun is not None:
                yield await begun
        if under_way is not None:
            yield await under_way
    finally:
        if under_way is not None:
            under_way.cancel()


async def _encoded(
    results: Iterable[EverythingResult], mask_format: Format, work: Worker
) -> AsyncIterator[list[tuple[EverythingResult, EncodedMask]]]:
    group: list[tuple[EverythingResult, EncodedMask]] = []
    size = 0
    for result in results:
        data: EncodedMask = result.rle
        if mask_format is not Format.RLE:
            data = await work(partial(_reencode, result.rle, mask_format), "masks")
        group.append((result, data))
        size += encoded_bytes(data)
        if size > _MESSAGE_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _reencode(rle: Rle, mask_format: Format) -> EncodedMask:
    return encode_mask(rle_to_mask(rle), mask_format)
