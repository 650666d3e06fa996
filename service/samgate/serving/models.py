"""A variant that is served: its engine, and how batches of work become calls of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from samgate.domain import Choose, FloatArray, Survivors, UInt8Array
from samgate.engines.base import Decoded, Engine, Images, Prompts
from samgate.scheduling.device import Batch
from samgate.serving.prompting import join, stack
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
    """Prompts (I = 1) of SegEvery on one embedding; only masks that ``choose`` wants come back."""

    embedding: FloatArray
    prompts: Prompts
    choose: Choose


@dataclass(frozen=True, slots=True)
class Model:
    """One operating point that is served."""

    spec: VariantSpec
    engine: Engine

    @property
    def name(self) -> str:
        """``variant:precision``: its operating point's."""
        return f"{self.spec.name}:{self.engine.precision}"

    async def run(self, batch: Batch, loads: list[Any], deadline: float) -> list[Any]:
        """The loads of ``batch`` in one call: an embedding for each :class:`EncodeWork`, Decoded (I = 1) for each
        :class:`DecodeWork`, Survivors for a :class:`SurviveWork`. Raises Unavailable."""
        if batch.stage == "encode":
            return await self._encode(cast("list[EncodeWork]", loads), deadline)
        if isinstance(loads[0], SurviveWork):
            return [await self._survivors(work, deadline) for work in loads]
        return await self._decode(cast("list[DecodeWork]", loads), deadline)

    async def _encode(self, works: list[EncodeWork], deadline: float) -> list[FloatArray]:
        pixels = np.stack([work.pixels for work in works]) if len(works) > 1 else works[0].pixels[None]
        valid = np.array([work.valid for work in works], np.int32)
        return await self.engine.encode(Images(pixels, valid), deadline)

    async def _survivors(self, work: SurviveWork, deadline: float) -> Survivors:
        return await self.engine.survivors(work.embedding, work.prompts, work.choose, deadline)

    async def _decode(self, works: list[DecodeWork], deadline: float) -> list[Decoded]:
        groups = [work.prompts for work in works]
        if self.engine.capacity.decode_images == 1:
            decoded = await self.engine.decode([works[0].embedding], join(groups), deadline)
            ends = np.cumsum([group.coords.shape[1] for group in groups])
            parts = [slice(end - group.coords.shape[1], end) for group, end in zip(groups, ends, strict=True)]
            return [Decoded(decoded.low_res_masks[:, part], decoded.iou_predictions[:, part]) for part in parts]
        decoded = await self.engine.decode([work.embedding for work in works], stack(groups), deadline)
        return [
            Decoded(decoded.low_res_masks[index : index + 1], decoded.iou_predictions[index : index + 1])
            for index in range(len(works))
        ]
