"""Images to embeddings: identified by content, decoded and resized off the event loop, encoded once."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from samgate import tracing
from samgate.config import Settings
from samgate.domain import Frame, UInt8Array
from samgate.errors import DeadlineExceeded, NotFound
from samgate.imaging.decode import decode, from_raw, probe
from samgate.imaging.preprocess import encoder_input
from samgate.scheduling.request import Ticket
from samgate.serving.budget import ByteBudget
from samgate.serving.dispatch import Dispatcher
from samgate.serving.models import EncodeWork, Model
from samgate.serving.requests import EncodedImage, Handle, Image, RawImage, Trace
from samgate.sessions import Embedding, EmbeddingCache

T = TypeVar("T")

_BYTES_PER_PIXEL = 12
"""Of an image while it is decoded, measured: Pillow's four a pixel, its RGB, and copies of them."""
_INLINE_BYTES = 512 * 1024
"""What is no larger is hashed on the event loop, in half a millisecond: a refusal must not wait for a free thread."""


@dataclass(frozen=True, slots=True)
class _Identity:
    """What an image is before it is decoded: a hash of its content, and its (width, height)."""

    digest: str
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Source:
    """An image of a request, looked at but not decoded: its (width, height), the ``digest`` of its content (None for a
    handle) and the names of the models of which an embedding is held."""

    image: Image
    size: tuple[int, int]
    digest: str | None
    cached: frozenset[str]

    @property
    def megapixels(self) -> float:
        """Width times height."""
        return self.size[0] * self.size[1] / 1e6


class Images:
    """Turns a request's image into an embedding for a model, through the cache."""

    def __init__(self, settings: Settings, cache: EmbeddingCache, executor: Executor, dispatcher: Dispatcher) -> None:
        self._max_pixels = settings.limits.max_pixels
        self._cache = cache
        self._executor = executor
        self._dispatcher = dispatcher
        self._pixels = ByteBudget(2 * _BYTES_PER_PIXEL * settings.limits.max_pixels)

    async def look_at(self, image: Image, models: Iterable[Model]) -> Source:
        """What is known of ``image`` without decoding it. Raises InvalidArgument for one that can't be used, NotFound
        for a handle that isn't held."""
        if isinstance(image, Handle):
            embedding = self._cache.get(image.value)
            if embedding is None:
                raise NotFound(f"image.handle: no embedding {image.value!r} is held here (any more): send the image")
            height, width = embedding.frame.original
            variant, precision, _ = image.value.rsplit(".", 2)
            return Source(image, (width, height), None, frozenset({f"{variant}:{precision}"}))
        identity = await self._identify(image)
        held = (model.name for model in models if self._cache.held(handle(model, identity.digest)))
        return Source(image, identity.size, identity.digest, frozenset(held))

    async def embed(self, source: Source, model: Model, ticket: Ticket, trace: Trace) -> Embedding:
        """The embedding of ``source`` by ``model``; fills ``trace`` with the handle and whether it was cached.

        Raises InvalidArgument for an unusable image, NotFound for a handle that isn't held any more, and what the
        dispatcher raises.
        """
        if isinstance(source.image, Handle):
            embedding = self._cache.get(source.image.value)
            if embedding is None:
                raise NotFound(f"image.handle: no embedding {source.image.value!r} is held here any more")
            trace.handle, trace.cached = source.image.value, True
            return embedding
        trace.handle = handle(model, source.digest or "")
        return await self._make_once(source.image, source, model, ticket, trace)

    async def _make_once(
        self, image: EncodedImage | RawImage, source: Source, model: Model, ticket: Ticket, trace: Trace
    ) -> Embedding:
        async def make() -> Embedding:
            async with self._pixels.hold(_bytes_of(source.size)):
                started = time.perf_counter()
                with tracing.stage("imaging"):
                    pixels, frame = await self._work(
                        lambda: encoder_input(_pixels(image, self._max_pixels), model.spec)
                    )
                imaging_s = time.perf_counter() - started
            return await self.encode(ticket, pixels, frame, imaging_s)

        while True:
            try:
                with tracing.stage("embedding") as span:
                    embedding, trace.cached = await self._cache.get_or_make(trace.handle, make)
                    span.set({"samgate.cached": trace.cached})
            except DeadlineExceeded:
                # The deadline may have been that of another request for the same image, which came first.
                if time.monotonic() >= ticket.encode_hard:
                    raise
                continue
            if not trace.cached:
                for stage, seconds in embedding.stages_s.items():
                    trace.add(stage, seconds)
            return embedding

    async def encode(self, ticket: Ticket, pixels: UInt8Array, frame: Frame, imaging_s: float = 0.0) -> Embedding:
        """Run the image encoder on ``pixels`` uint8 ``[S, S, 3]``. Raises what the dispatcher raises."""
        done = await self._dispatcher.run(ticket, "encode", 1, "image", EncodeWork(pixels, frame.valid))
        return Embedding(done.result, frame, {"imaging": imaging_s, "queue": done.queue_s, "encode": done.run_s})

    @asynccontextmanager
    async def decoded(self, image: EncodedImage | RawImage) -> AsyncIterator[UInt8Array]:
        """``image`` as uint8 ``[H, W, 3]`` inside the block, with memory for it held. Raises InvalidArgument."""
        identity = await self._identify(image)
        async with self._pixels.hold(_bytes_of(identity.size)):
            yield await self._work(lambda: _pixels(image, self._max_pixels))

    async def _identify(self, image: EncodedImage | RawImage) -> _Identity:
        if len(image.data if isinstance(image, EncodedImage) else image.rgb) <= _INLINE_BYTES:
            return _identify(image, self._max_pixels)
        return await self._work(lambda: _identify(image, self._max_pixels))

    async def _work(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)


def handle(model: Model, digest: str) -> str:
    """The name of the embedding that ``model`` makes of the content ``digest``."""
    return f"{model.spec.name}.{model.engine.precision}.{digest}"


def _identify(image: EncodedImage | RawImage, max_pixels: int) -> _Identity:
    if isinstance(image, EncodedImage):
        size = probe(image.data, max_pixels, "image.encoded")
        return _Identity(hashlib.sha256(image.data).hexdigest()[:32], size)
    from_raw(image.width, image.height, image.rgb, max_pixels, "image.raw")
    digest = hashlib.sha256(f"{image.width}x{image.height}:".encode())
    digest.update(image.rgb)
    return _Identity(digest.hexdigest()[:32], (image.width, image.height))


def _bytes_of(size: tuple[int, int]) -> int:
    return size[0] * size[1] * _BYTES_PER_PIXEL


def _pixels(image: EncodedImage | RawImage, max_pixels: int) -> UInt8Array:
    if isinstance(image, EncodedImage):
        return decode(image.data, max_pixels, "image.encoded")
    return from_raw(image.width, image.height, image.rgb, max_pixels, "image.raw")
