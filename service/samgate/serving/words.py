"""Prompts in words: the objects of an image through a text model, compared once with all texts that come for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from samgate import tracing
from samgate.domain import FloatArray, IntArray, Prompt, UInt8Array
from samgate.engines.base import TextModel
from samgate.errors import DeadlineExceeded, Infeasible, NotFound
from samgate.serving.admission import Admitted
from samgate.serving.requests import Handle
from samgate.sessions import Embedding, SharedCache
from samgate.text.choice import Objects, meant, objects_in, probabilities
from samgate.text.crops import Box, crops_of
from samgate.text.tokens import tokens_of
from samgate.variants.clip import MOST_CROPS, MOST_TEXTS
from samgate.variants.detections import Detections, detections_in

T = TypeVar("T")

NO_TEXT_MODEL = (
    "prompts in words need a variant that finds everything at once and a text model, and no text model is served here; "
    "install one and start the server with it: `samgate serve --variants fastsam-s --text-model clip-vit-b-32`"
)
MOST_BYTES = 40 * 2**20
"""Of what is remembered: some 64 images, at 512 numbers an object and 300 objects at most."""
_BOOKS = 1024
"""Bytes that an image takes that has no objects."""

Meaning = Callable[[], tuple[FloatArray, FloatArray]]
"""Makes what a decoder answers to a prompt: low-res logits float32 ``[M, 256, 256]``, and what they are worth, ``[M]``.
Many texts are understood at once; their masks are made one after the other."""


@dataclass(frozen=True, slots=True)
class _Described:
    """Objects of an image, by their places among its detections: ``features`` float32 ``[k, W]``."""

    at: NDArray[np.intp]
    features: FloatArray

    @property
    def nbytes(self) -> int:
        """Of both, and about of what leads to them."""
        return self.at.nbytes + self.features.nbytes + _BOOKS


class Words:
    """Asks ``model`` which object is meant. What it saw of an image is kept for ``ttl_s`` seconds without use. For one
    event loop; :meth:`close` ends it."""

    def __init__(self, model: TextModel, executor: Executor, ttl_s: float) -> None:
        self.model = model
        self._executor = executor
        self._described = SharedCache[_Described](MOST_BYTES, ttl_s)
        self._each_s = 0.0
        """The least that an object has taken so far."""

    async def tokens(self, prompts: Sequence[Prompt]) -> IntArray:
        """Of those of a request's ``prompts`` that are in words. Raises InvalidArgument for what can't be one."""
        texts = [(f"prompts[{index}].text", prompt.text) for index, prompt in enumerate(prompts) if prompt.text]
        return await self._work(partial(tokens_of, texts, self.model.spec.context))

    async def meanings(
        self, admitted: Admitted, embedding: Embedding, tokens: IntArray, deadline: float
    ) -> list[Meaning]:
        """Of each text in the image, which has ``embedding``; adds to the trace.

        Raises NotFound for a handle of an image whose objects aren't known here (any more), InvalidArgument for an
        image that can't be read, Infeasible where it has more objects than could be looked at in time, and what the
        text model raises.
        """
        started = time.perf_counter()
        with tracing.stage("text"):
            found = await self._work(lambda: detections_in(embedding.values))
            known = await self._describe(admitted, found, embedding, deadline)
            parts = [
                await self.model.text_features(tokens[start : start + MOST_TEXTS], deadline)
                for start in range(0, len(tokens), MOST_TEXTS)
            ]
            likely = probabilities(known.features, np.concatenate(parts))
        admitted.trace.add("text", time.perf_counter() - started)
        masks = admitted.model.spec.mask_tokens
        return [partial(meant, found, known.at, one, masks) for one in likely]

    async def close(self) -> None:
        """Free the model, and all that is remembered."""
        self._described.clear()
        await self.model.close()

    async def _describe(
        self, admitted: Admitted, found: Detections, embedding: Embedding, deadline: float
    ) -> _Described:
        handle, image = admitted.trace.handle, admitted.source.image
        known = self._described.get(handle)
        if known is not None:
            return known
        if isinstance(image, Handle):
            raise NotFound("image.handle: its objects weren't looked at for words here, or long ago: send the image")
        objects = await self._work(partial(objects_in, found, embedding.frame, admitted.model.spec))
        self._require_time(admitted, objects, deadline)

        async def look() -> _Described:
            async with admitted.images.decoded(image) as pixels:
                return _Described(objects.at, await self._features(objects, partial(crops_of, pixels), deadline))

        while True:
            try:
                return (await self._described.get_or_make(handle, look))[0]
            except DeadlineExceeded:
                # The deadline may have been that of another request for the same image, which came first.
                if time.monotonic() >= deadline:
                    raise

    async def _features(
        self, objects: Objects, crops: Callable[[list[Box], int], UInt8Array], deadline: float
    ) -> FloatArray:
        """Of all ``objects``, float32 ``[k, W]``. While the model looks at some, the next are cut out."""
        spec, started = self.model.spec, time.monotonic()
        parts = [np.zeros((0, spec.width), np.float32)]
        looking: asyncio.Task[FloatArray] | None = None
        try:
            for start in range(0, len(objects.boxes), MOST_CROPS):
                cut = await self._work(partial(crops, objects.boxes[start : start + MOST_CROPS], spec.input_size))
                if looking is not None:
                    parts.append(await looking)
                looking = asyncio.create_task(self.model.image_features(cut, deadline))
            if looking is not None:
                parts.append(await looking)
        finally:
            if looking is not None:
                looking.cancel()
                # Its error as well, of which asyncio would complain if nobody heard it.
                await asyncio.gather(looking, return_exceptions=True)
        if objects.boxes:
            each_s = (time.monotonic() - started) / len(objects.boxes)
            self._each_s = min(self._each_s or each_s, each_s)
        return np.concatenate(parts)

    def _require_time(self, admitted: Admitted, objects: Objects, deadline: float) -> None:
        """Raises Infeasible where even at the best pace so far there isn't enough: how many objects an image has is
        known only now, not when the scheduler let it in."""
        count, now = len(objects.boxes), time.monotonic()
        ends = now + self._each_s * count
        if ends > deadline:
            smallest_s = ends - admitted.ticket.request.arrival
            raise Infeasible(
                f"deadline: the image has {count} objects, and to look at one for words takes {self._each_s:.2g} s; "
                f"the smallest that would do is {smallest_s:.3g} s",
                smallest_deadline_s=smallest_s,
                reason="deadline",
            )

    async def _work(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)
