"""SegmentEverything: a sampler's prompts through the decoder, chunk by chunk, and what passes its filters back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from concurrent.futures import Executor
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from samgate.domain import FloatArray, Format, Rle, Survivors, UInt8Array
from samgate.imaging.formats import encode as encode_mask
from samgate.imaging.formats import rle_to_mask
from samgate.imaging.preprocess import encoder_input
from samgate.segevery.crops import Crop
from samgate.segevery.generator import EverythingResult, GridSampler
from samgate.segevery.parameters import GridParameters
from samgate.serving.admission import Admitted
from samgate.serving.answers import encoded_bytes
from samgate.serving.requests import EncodedMask, Handle, Image, Trace, Wish
from samgate.sessions import Embedding

T = TypeVar("T")


class Worker(Protocol):
    """Runs a function on the imaging threads and counts its time for a stage."""

    async def __call__(self, function: Callable[[], T], stage: str) -> T: ...


_MESSAGE_BYTES = 512 * 1024
"""Masks are sent in groups of about this size."""


@dataclass(frozen=True, slots=True)
class EverythingCall:
    """All masks of one image."""

    image: Image
    parameters: GridParameters
    format: Format
    wish: Wish


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
    call: EverythingCall, admitted: Admitted, executor: Executor
) -> AsyncGenerator[EverythingEvent, None]:
    """Progress after every chunk, then the masks, then the end. Closing the iterator stops the work at once.

    Chunks are bulk work: prompts of Segment calls go between them. One chunk is decoded while the one before it is
    filtered. Raises InvalidArgument, NotFound, Overloaded, DeadlineExceeded and Unavailable.
    """
    model, trace = admitted.model, admitted.trace

    async def work(function: Callable[[], T], stage: str) -> T:
        started = time.perf_counter()
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, function)
        finally:
            trace.add(stage, time.perf_counter() - started)

    async def decode(embedding: Embedding, points: FloatArray) -> Survivors:
        return await admitted.survivors(embedding, points, sampler.min_ious)

    whole = await admitted.embed()
    sampler = GridSampler(call.parameters, whole.frame.original, model.spec)
    async with AsyncExitStack() as stack:
        pixels: UInt8Array | None = None
        if len(sampler.crops) > 1 and not isinstance(call.image, Handle):
            pixels = await stack.enter_async_context(admitted.images.decoded(call.image))
        for crop in sampler.crops:
            embedding = whole
            if crop.layer > 0 and pixels is not None:
                embedding = await _embed_crop(pixels, crop, admitted, work)
            points_of_crop = sampler.chunks(crop, admitted.chunk)
            async with aclosing(_decode_ahead(points_of_crop, partial(decode, embedding))) as chunks:
                async for points, survivors in chunks:
                    await work(partial(sampler.add, crop, embedding.frame, points, survivors), "masks")
                    yield EverythingProgress(sampler.prompts_done, sampler.prompts_total, sampler.candidates)
            await work(partial(sampler.finish_crop, crop), "masks")
    results = await work(sampler.finish, "masks")
    trace.masks = len(results)
    async for group in _encoded(results, call.format, work):
        yield EverythingFound(group)
    yield EverythingDone(trace)


async def _embed_crop(pixels: UInt8Array, crop: Crop, admitted: Admitted, work: Worker) -> Embedding:
    x0, y0, x1, y1 = crop.box
    square, frame = await work(lambda: encoder_input(pixels[y0:y1, x0:x1], admitted.model.spec), "imaging")
    return await admitted.encode(square, frame)


async def _decode_ahead(
    chunks: Iterable[FloatArray], decode: Callable[[FloatArray], Coroutine[Any, Any, Survivors]]
) -> AsyncGenerator[tuple[FloatArray, Survivors], None]:
    """Each chunk of points with what survives of it; the next chunk is under way while the caller looks at one."""

    async def decoded(points: FloatArray) -> tuple[FloatArray, Survivors]:
        return points, await decode(points)

    under_way: asyncio.Task[tuple[FloatArray, Survivors]] | None = None
    try:
        for points in chunks:
            begun, under_way = under_way, asyncio.create_task(decoded(points))
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
