"""What tests of SegEvery's strategies share: a made-up decoder, and a sampler's way through it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samgate.domain import Chosen, FloatArray, Survivors
from samgate.imaging.preprocess import frame_of
from samgate.segevery.crops import Crop
from samgate.segevery.sampler import Chunk, EverythingResult, Sampler
from samgate.variants import get_variant

SPEC = get_variant("mobilesam")
NO_EMBEDDING = np.zeros((256, 64, 64), np.float32)
Disc = tuple[float, float, float]
"""An object: x, y, radius."""


def in_full(kept: NDArray[Any], coarse: FloatArray) -> Chosen:
    """All of the masks ``kept`` ``[S, 2]``, to a decoder that says what they are coarsely."""
    return Chosen(kept.astype(np.int32), np.ones((len(kept), *coarse.shape[2:]), np.bool_))


class Scene:
    """An image of ``size`` (height, width) with ``discs``, and what a perfect decoder says to prompts on it.

    Token 1 has the disc that a point is on (of several, the last), token 2 a mask of too low a predicted IoU, token 3
    an unstable one; token 0, for boxes, the disc that a box's centre is on. ``slope`` is that of the logits at an edge,
    a pixel. ``discs`` differ in predicted IoU, ``tie`` makes them all alike.
    """

    def __init__(self, size: tuple[int, int], discs: Sequence[Disc], slope: float = 3.0, tie: bool = False) -> None:
        self.size, self._discs, self._slope, self._tie = size, discs, slope, tie

    def decode(self, chunk: Chunk, min_ious: FloatArray) -> Survivors:
        """What survives of ``chunk``."""
        crop, points = chunk.crop, chunk.points
        x0, y0, _, _ = crop.box
        x, y = self._pixels(crop)
        low_res = np.full((len(points), 4, 256, 256), -20, dtype=np.float32)
        ious = np.tile(np.array([0.1, 0.1, 0.5, 0.99], dtype=np.float32), (len(points), 1))
        for index, (px, py) in enumerate((points + np.array([x0, y0])).tolist()):
            for number, (cx, cy, radius) in enumerate(self._discs):
                if np.hypot(px - cx, py - cy) < radius:
                    low_res[index, :2] = (radius - np.hypot(x - cx, y - cy)) * self._slope
                    ious[index, :2] = 0.95 if self._tie else 0.9 + number / 1000
        low_res[:, 3] += 19.5
        kept = np.argwhere(ious > min_ious)
        return Survivors(low_res[kept[:, 0], kept[:, 1]], kept.astype(np.int32), ious)

    def _pixels(self, crop: Crop) -> tuple[FloatArray, FloatArray]:
        frame = frame_of(*crop.size, SPEC)
        y, x = np.mgrid[:256, :256].astype(np.float32) * 4 + 2
        x0, y0, _, _ = crop.box
        x = x * crop.size[1] / frame.resized[1] + x0
        y = y * crop.size[0] / frame.resized[0] + y0
        return np.asarray(x, np.float32), np.asarray(y, np.float32)


def run(sampler: Sampler, scene: Scene, limit: int = 16) -> tuple[list[EverythingResult], list[Chunk]]:
    """``sampler``'s masks, and the chunks that it handed out, each decoded before the next is asked for."""
    chunks: list[Chunk] = []
    for crop in sampler.crops:
        sampler.open_crop(crop, frame_of(*crop.size, SPEC), NO_EMBEDDING)
        while chunk := sampler.next(crop, limit):
            chunks.append(chunk)
            sampler.add(chunk, scene.decode(chunk, sampler.min_ious))
        sampler.finish_crop(crop)
    assert sampler.prompts_done == sampler.prompts_total == sum(map(len, chunks))
    return sampler.finish(), chunks
