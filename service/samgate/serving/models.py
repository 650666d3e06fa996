"""A variant that is served: its engine, and the lanes that batch calls to it across requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from samgate.config import Settings
from samgate.domain import FloatArray, UInt8Array
from samgate.engines.base import Decoded, Engine, Images, Prompts
from samgate.scheduling.lane import Lane
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
        self.decoding: Lane[DecodeWork, Decoded] = Lane(
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

    async def _encode(self, batch: list[EncodeWork]) -> list[FloatArray]:
        pixels = np.stack([work.pixels for work in batch])
        valid = np.array([work.valid for work in batch], np.int32)
        embeddings = await self.engine.encode(Images(pixels, valid))
        # One array each: a slice would keep the whole batch in memory for as long as one of its images is cached.
        return [embeddings[index].copy() for index in range(len(batch))] if len(batch) > 1 else [embeddings[0]]

    async def _decode(self, batch: list[DecodeWork]) -> list[Decoded]:
        embeddings = np.stack([work.embedding for work in batch]) if len(batch) > 1 else batch[0].embedding[None]
        decoded = await self.engine.decode(embeddings, stack([work.prompts for work in batch]))
        return [
            Decoded(decoded.low_res_masks[index : index + 1], decoded.iou_predictions[index : index + 1])
            for index in range(len(batch))
        ]
