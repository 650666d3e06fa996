"""SegEvery in an order that makes every prefix useful: what the strategy ``auto`` decodes until its time is up."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from samgate.domain import Chosen, FloatArray, Frame, Survivors, least_ious
from samgate.segevery.confidence import confident_points, drawn
from samgate.segevery.coverage import Coverage
from samgate.segevery.crops import Crop
from samgate.segevery.generator import GridSampler
from samgate.segevery.parameters import AopParameters, GridParameters
from samgate.segevery.sampler import Chunk
from samgate.variants.spec import VariantSpec

COVERED = 8.5
"""Logits above which a mask is sure of a point: TinySAM's ``high_score_thresh``."""
_COARSE_SIDE = 4
"""Points along one side of the coarsest grid, at least."""


class ProgressiveSampler(GridSampler):
    """A :class:`~samgate.segevery.sampler.Sampler` for the prompts of the grid, from coarse to fine.

    ``boxes`` go first, then the points of the grid that are nearest to where the embedding promises masks, moved there
    (:mod:`samgate.segevery.confidence`, as the strategy ``aop`` has it: small objects lie between points), then a grid
    of 4 × 4 to 8 × 8 of the points, then what lies between, at twice the density each time; points that a mask covers
    already with high logits, which would most probably find that mask again, go last. All filters are the grid's, for
    the masks of boxes as well, and nothing is left out in the end.

    Args:
        parameters: grid, crops and thresholds.
        size: (height, width) of the image in pixels.
        spec: the variant, for its mask threshold and tokens.
        boxes: float32 ``[B, 4]`` (x0, y0, x1, y1) in the image's pixels, of a detector; None is none.
    """

    def __init__(
        self,
        parameters: GridParameters,
        size: tuple[int, int],
        spec: VariantSpec,
        boxes: FloatArray | None = None,
    ) -> None:
        super().__init__(parameters, size, spec)
        self._boxes = {crop: np.empty((0, 4), np.float32) for crop in self._states}
        whole = next(iter(self._states))
        if boxes is not None:
            self._boxes[whole] = boxes
            self._states[whole].total += len(boxes)
        self._left = {crop: coarse_to_fine(round(math.sqrt(len(crop.points)))) for crop in self._states}
        """Places of the points that weren't handed out, in order."""
        self._coverages: dict[Crop, Coverage] = {}
        threshold = parameters.pred_iou_thresh if parameters.pred_iou_thresh > 0 else -math.inf
        self._of_points, self._of_boxes = (
            least_ious(spec.mask_tokens, tokens, threshold) for tokens in (spec.multimask_tokens, spec.single_tokens)
        )

    def open_crop(self, crop: Crop, frame: Frame, embedding: FloatArray) -> None:
        """See :meth:`Sampler.open_crop`."""
        super().open_crop(crop, frame, embedding)
        points, first = drawn(crop.points, confident_points(embedding, frame, AopParameters()))
        self._states[crop].points, self._coverages[crop] = points, Coverage(points, frame, COVERED)
        left = self._left[crop]
        self._left[crop] = np.concatenate([first, left[~np.isin(left, first)]])

    def next(self, crop: Crop, limit: int) -> Chunk | None:
        """Boxes, then points that aren't covered, confident ones first, then coarse to fine; then those that are."""
        with self._lock:
            boxes = self._boxes[crop]
            if len(boxes):
                self._boxes[crop] = boxes[limit:]
                self._min_ious = self._of_boxes
                return Chunk(crop, boxes[:limit])
            self._min_ious = self._of_points
            left = self._left[crop]
            if not len(left):
                return None
            order = np.argsort(self._coverages[crop].covered()[left], kind="stable")
            taken = order[:limit]
            self._left[crop] = np.delete(left, taken)
            return Chunk(crop, self._states[crop].points[left[taken]])

    def choose(self, chunk: Chunk, ious: FloatArray, coarse: FloatArray) -> Chosen:
        """See :meth:`Sampler.choose`."""
        least = self._of_boxes if chunk.coords.shape[1] == 4 else self._of_points
        return self._harvest.choose(chunk, ious, coarse, least)

    def add(self, chunk: Chunk, survivors: Survivors) -> None:
        """See :meth:`Sampler.add`. Masks of points go before equally good ones of boxes."""
        boxes = chunk.coords.shape[1] == 4
        stable = self._harvest.add(chunk, self._frame(chunk.crop), survivors, rank=1 if boxes else 0)
        self._coverages[chunk.crop].add(survivors.masks[stable])
        self._added(chunk)


def coarse_to_fine(side: int) -> NDArray[np.intp]:
    """All places of a grid of ``side`` × ``side`` points, x fastest: those of the coarsest grid first."""
    return np.argsort(_levels(side), kind="stable")


def coarse_count(side: int) -> int:
    """Points of the coarsest of the grids that :func:`coarse_to_fine` orders: all, where there are fewer than 8²."""
    return int(np.count_nonzero(_levels(side) == 0))


def _levels(side: int) -> NDArray[np.intp]:
    """Of each point, how fine the grid is that it belongs to: int ``[side²]``, 0 for the coarsest. Of those that a grid
    adds to one of half its density, the ones in the middle of its squares come before those on their sides."""
    step = 1
    while side // (2 * step) >= _COARSE_SIDE:
        step *= 2
    levels = np.zeros((side, side), dtype=np.intp)
    level, middle, place = 0, (step - 1) // 2, np.arange(side)
    inner = place % step == middle
    while step > 1:
        step //= 2
        outer = place % step == middle % step
        between = outer & ~inner
        levels[np.ix_(between, between)] = level + 1
        levels[np.ix_(between, inner)] = levels[np.ix_(inner, between)] = level + 2
        level, inner = level + 2, outer
    return levels.ravel()
