"""Images to embeddings: identified by content, decoded and resized off the event loop, encoded once."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from samgate.config import Settings
from samgate.domain import Frame, UInt8Array
from samgate.errors import DeadlineExceeded, NotFound
from samgate.imaging.decode import decode, from_raw, probe
from samgate.imaging.preprocess import encoder_input
from samgate.scheduling.queue import Priority
from samgate.serving.budget import ByteBudget
from samgate.serving.models import EncodeWork, Model
from samgate.serving.requests import EncodedImage, Handle, Image, RawImage, Trace
from samgate.sessions import Embedding, EmbeddingCache

T = TypeVar("T")

_BYTES_PER_PIXEL = 12
"""Of an image while it is decoded, measured: Pillow's four a pixel, its RGB, and copies of them."""


@dataclass(frozen=True, slots=True)
class _Identity:
    """What an image is before it is decoded: a hash of its content, and its (width, height)."""

    digest: str
    size: tuple[int, int]


class Images:
    """Turns a request's image into an embedding for a model, through the cache."""

    def __init__(self, settings: Settings, cache: EmbeddingCache, executor: Executor) -> None:
        self._max_pixels = settings.limits.max_pixels
        self._cache = cache
        self._executor = executor
        self._pixels = ByteBudget(2 * _BYTES_PER_PIXEL * settings.limits.max_pixels)

    async def embed(
        self,
        image: Image,
        model: Model,
        deadline: float,
        trace: Trace,
        check: Callable[[tuple[int, int]], None] = lambda size: None,
    ) -> Embedding:
        """The embedding of ``image``; fills ``trace`` with the handle, the size and whether it was cached.

        ``check`` gets the image's (width, height) before anything is decoded or encoded, and may raise.
        Raises InvalidArgument for an unusable image, NotFound for a handle that isn't held, and what the engine's
        lane raises.
        """
        if isinstance(image, Handle):
            embedding = self._cache.get(image.value)
            if embedding is None:
                raise NotFound(f"image.handle: no embedding {image.value!r} is held here (any more): send the image")
            height, width = embedding.frame.original
            trace.handle, trace.cached, trace.size = image.value, True, (width, height)
            check(trace.size)
        else:
            started = time.perf_counter()
            identity = await self._work(lambda: _identify(image, self._max_pixels))
            trace.add("imaging", time.perf_counter() - started)
            trace.size = identity.size
            check(trace.size)
            trace.handle = f"{model.spec.name}.{model.engine.precision}.{identity.digest}"
            embedding = await self._make_once(image, identity, model, deadline, trace)
        return embedding

    async def _make_once(
        self, image: EncodedImage | RawImage, identity: _Identity, model: Model, deadline: float, trace: Trace
    ) -> Embedding:
        async def make() -> Embedding:
            async with self._pixels.hold(_bytes_of(identity)):
                started = time.perf_counter()
                pixels, frame = await self._work(lambda: encoder_input(_pixels(image, self._max_pixels), model.spec))
                imaging_s = time.perf_counter() - started
            return await encode(model, pixels, frame, deadline, Priority.INTERACTIVE, imaging_s)

        while True:
            try:
                embedding, trace.cached = await self._cache.get_or_make(trace.handle, make)
            except DeadlineExceeded:
                # The deadline may have been that of another request for the same image, which came first.
                if time.monotonic() >= deadline:
                    raise
                continue
            if not trace.cached:
                for stage, seconds in embedding.stages_s.items():
                    trace.add(stage, seconds)
            return embedding

    @asynccontextmanager
    async def decoded(self, image: EncodedImage | RawImage) -> AsyncIterator[UInt8Array]:
        """``image`` as uint8 ``[H, W, 3]`` inside the block, with memory for it held. Raises InvalidArgument."""
        identity = await self._work(lambda: _identify(image, self._max_pixels))
        async with self._pixels.hold(_bytes_of(identity)):
            yield await self._work(lambda: _pixels(image, self._max_pixels))

    async def _work(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)


async def encode(
    model: Model, pixels: UInt8Array, frame: Frame, deadline: float, priority: Priority, imaging_s: float = 0.0
) -> Embedding:
    """Run the image encoder on ``pixels`` uint8 ``[S, S, 3]``."""
    done = await model.encoding.submit(
        EncodeWork(pixels, frame.resized), key="image", size=1, deadline=deadline, priority=priority
    )
    return Embedding(done.result, frame, {"imaging": imaging_s, "queue": done.queue_s, "encode": done.run_s})


def _identify(image: EncodedImage | RawImage, max_pixels: int) -> _Identity:
    if isinstance(image, EncodedImage):
        size = probe(image.data, max_pixels, "image.encoded")
        return _Identity(hashlib.sha256(image.data).hexdigest()[:32], size)
    from_raw(image.width, image.height, image.rgb, max_pixels, "image.raw")
    digest = hashlib.sha256(f"{image.width}x{image.height}:".encode())
    digest.update(image.rgb)
    return _Identity(digest.hexdigest()[:32], (image.width, image.height))


def _bytes_of(identity: _Identity) -> int:
    width, height = identity.size
    return width * height * _BYTES_PER_PIXEL


def _pixels(image: EncodedImage | RawImage, max_pixels: int) -> UInt8Array:
    if isinstance(image, EncodedImage):
        return decode(image.data, max_pixels, "image.encoded")
    return from_raw(image.width, image.height, image.rgb, max_pixels, "image.raw")
