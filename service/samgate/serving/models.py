"""A variant that is served: its engine, and the lanes that batch calls to it across requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import cast

import numpy as np

from samgate.config import Settings
from samgate.domain import FloatArray, Survivors, UInt8Array
from samgate.engines.base import Decoded, Engine, Images, Prompts
from samgate.scheduling.lane import Done, Lane
from samgate.scheduling.queue import Priority
from samgate.serving.prompting import stack
from samgate.variants.spec import VariantSpec


@dataclass(frozen=True, slots=True)
class EncodeWork:
    """One image: ``pixels`` uint8 ``[S, S, 3]``, ``valid`` its (height, width) without the padding."""

    pixels: UInt8Array
    valid: tuple[int, int]


@dataclass(frozen=True, slots=True)
class DecodeWork:
    """Prompts (I = 1) on one embedding float32 ``[256, 64, 64]``."""

    embedding: FloatArray
    prompts: Prompts


@dataclass(frozen=True, slots=True, eq=False)
class SurviveWork:
    """Prompts (I = 1) of SegEvery on one embedding; only masks predicted an IoU above ``min_iou`` come back."""

    embedding: FloatArray
    prompts: Prompts
    min_iou: float


class Model:
    """One served variant. Create within the event loop that uses it."""

    def __init__(
        self, spec: VariantSpec, engine: Engine, settings: Settings, observe_batch: Callable[[str, int], None]
    ):
        self.spec = spec
        self.engine = engine
        capacity = engine.capacity
        self.encoding: Lane[EncodeWork, FloatArray] = Lane(
            self._encode,
            max_batch=capacity.max_images,
            max_waiting=settings.limits.max_queued,
            parallel=capacity.parallel_calls,
            on_batch=lambda size: observe_batch("encode", size),
        )
        self.decoding: Lane[DecodeWork | SurviveWork, Decoded | Survivors] = Lane(
            self._decode,
            max_batch=capacity.max_prompts,
            max_waiting=settings.limits.max_queued,
            parallel=capacity.parallel_calls,
            on_batch=lambda size: observe_batch("decode", size),
        )

    async def close(self) -> None:
        """Finish what runs, fail what waits, free the engine."""
        await asyncio.gather(self.encoding.close(), self.decoding.close())
        await self.engine.close()

    async def decode(self, work: DecodeWork, key: Hashable, deadline: float) -> Done[Decoded]:
        """Prompts of a Segment call. Raises as :meth:`~samgate.scheduling.lane.Lane.submit` does."""
        prompts = work.prompts.coords.shape[1]
        done = await self.decoding.submit(work, key=key, size=prompts, deadline=deadline)
        return cast("Done[Decoded]", done)

    async def survivors(self, work: SurviveWork, deadline: float) -> Done[Survivors]:
        """A chunk of SegEvery, which goes when no Segment call waits. Raises as :meth:`decode` does."""
        prompts = work.prompts.coords.shape[1]
        # A key of its own: which masks survive is for each image to say, so no two chunks share a call.
        done = await self.decoding.submit(work, key=work, size=prompts, deadline=deadline, priority=Priority.BULK)
        return cast("Done[Survivors]", done)

    async def _encode(self, batch: list[EncodeWork], deadline: float) -> list[FloatArray]:
        pixels = np.stack([work.pixels for work in batch]) if len(batch) > 1 else batch[0].pixels[None]
        valid = np.array([work.valid for work in batch], np.int32)
        return await self.engine.encode(Images(pixels, valid), deadline)

    async def _decode(self, batch: list[DecodeWork | SurviveWork], deadline: float) -> list[Decoded | Survivors]:
        first = batch[0]
        if isinstance(first, SurviveWork):
            return [await self.engine.survivors(first.embedding, first.prompts, first.min_iou, deadline)]
        prompts = stack([work.prompts for work in batch])
        decoded = await self.engine.decode([work.embedding for work in batch], prompts, deadline)
        return [
            Decoded(decoded.low_res_masks[index : index + 1], decoded.iou_predictions[index : index + 1])
            for index in range(len(batch))
        ]
