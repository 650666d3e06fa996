"""SegEvery in two stages: TinySAM's ``SamHierarchicalMaskGenerator`` (arXiv 2312.13789) without its model.

A coarse grid first; then, of the fine grid, only the neighbours that no confident mask covers by then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from samgate.domain import BoolArray, FloatArray, Frame, Survivors
from samgate.segevery.confidence import confident_points, drawn
from samgate.segevery.coverage import Coverage
from samgate.segevery.crops import Crop
from samgate.segevery.generator import GridSampler
from samgate.segevery.parameters import AopParameters, HierarchicalParameters
from samgate.segevery.sampler import Chunk
from samgate.variants.spec import VariantSpec


@dataclass(slots=True)
class _Refinement:
    """Stage two of a crop: ``points`` float32 ``[n, 2]`` that may be decoded, which are covered, and the places of
    those that are ``left``, None before stage two; ``taken`` were handed out."""

    points: FloatArray
    coverage: Coverage
    left: NDArray[np.intp] | None = None
    taken: int = 0


class HierarchicalSampler(GridSampler):
    """A :class:`~samgate.segevery.sampler.Sampler`; crops are worked on one by one, each in two stages.

    Differs from TinySAM's code where that fails: with nothing left for stage two, the masks of stage one are all; in
    images so small that neighbours are the point itself, these are left out. And, with two ``covering_stages``, points
    that a mask of stage two covers by then are left out, too; those nearest to where the embedding promises masks
    (:mod:`samgate.segevery.confidence`) are moved there and go first, then come those amid four coarse points. Stage
    two ends after ``neighbours_per_point`` for each coarse point: most masks are found by then.
    """

    def __init__(self, parameters: HierarchicalParameters, size: tuple[int, int], spec: VariantSpec) -> None:
        super().__init__(parameters.coarse_grid, size, spec)
        self._parameters = parameters
        self._refinements: dict[Crop, _Refinement] = {}
        """Of crops whose stage two hasn't begun."""

    def open_crop(self, crop: Crop, frame: Frame, embedding: FloatArray) -> None:
        """See :meth:`Sampler.open_crop`."""
        super().open_crop(crop, frame, embedding)
        fine = self._parameters.grid.layer_points_per_side(crop.layer)
        points = neighbours(crop.points, crop.size, fine, self._parameters.coarse_factor)
        if self._parameters.covering_stages > 1:
            points, first = drawn(points, confident_points(embedding, frame, AopParameters()))
            points = np.concatenate([points[first], np.delete(points, first, axis=0)])
        self._refinements[crop] = _Refinement(points, Coverage(points, frame, self._parameters.high_score_thresh))

    def next(self, crop: Crop, limit: int) -> Chunk | None:
        """The coarse grid; once all of it was added, what is uncovered by then."""
        chunk = super().next(crop, limit)
        if chunk is not None:
            return chunk
        with self._lock:
            state, fine = self._states[crop], self._refinements[crop]
            if fine.left is None:
                if state.done < len(crop.points):
                    return None
                fine.left = np.flatnonzero(~fine.coverage.covered())
            elif self._parameters.covering_stages > 1:
                fine.left = fine.left[~fine.coverage.covered()[fine.left]]
            per_point = self._parameters.neighbours_per_point
            if per_point:
                fine.left = fine.left[: per_point * len(crop.points) - fine.taken]
            taken, fine.left = fine.left[:limit], fine.left[limit:]
            fine.taken += len(taken)
            state.total = len(crop.points) + fine.taken + len(fine.left)
        return Chunk(crop, fine.points[taken]) if len(taken) else None

    def add(self, chunk: Chunk, survivors: Survivors) -> None:
        """See :meth:`Sampler.add`. Masks of stage two go before equally good ones of stage one, as TinySAM's do."""
        refine = self._refinements[chunk.crop]
        first = refine.left is None
        stable = self._harvest.add(chunk, self._frame(chunk.crop), survivors, rank=1 if first else 0)
        if first or self._parameters.covering_stages > 1:
            refine.coverage.add(survivors.masks[stable])
        self._added(chunk)

    def finish_crop(self, crop: Crop) -> None:
        """As the grid's; stage two must have been asked for."""
        if self._refinements[crop].left is None:
            raise ValueError(f"crop {crop.box}: stage two was not asked for")
        super().finish_crop(crop)


def neighbours(coarse: FloatArray, size: tuple[int, int], fine: int, factor: int) -> FloatArray:
    """The points of stage two, before those that are covered are left out: float32 ``[n, 2]`` (x, y).

    Args:
        coarse: the points of stage one, float32 ``[m, 2]``.
        size: (height, width) of the crop; what lies outside is left out.
        fine: points along one side of the fine grid; side // fine pixels are one step.
        factor: as many steps lie between two coarse points.

    With a factor of 4, offsets are −1, 0, 1 and 2 steps along each axis: first those that halve the grid's spacing, the
    ones amid four coarse points before the ones between two, then all others, which halve it again. Duplicates, and the
    coarse points, are left out.
    """
    height, width = size
    step = np.array([width // fine, height // fine], dtype=np.float32)
    reach = range(-((factor - 1) // 2), factor // 2 + 1)
    offsets = sorted(product(reach, reach), key=lambda offset: (-math.gcd(*offset), offset.count(0)))
    points = (np.array(offsets, dtype=np.float32)[:, None] * step + coarse).reshape(-1, 2)
    points = points[_inside(points, size)]
    known = np.concatenate([coarse, points])
    _, first = np.unique(known, axis=0, return_index=True)
    return known[np.sort(first[first >= len(coarse)])]


def _inside(points: FloatArray, size: tuple[int, int]) -> BoolArray:
    return np.asarray(((points >= 0) & (points < size[::-1])).all(axis=1), dtype=np.bool_)
