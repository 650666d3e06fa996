"""SegEvery in two stages: TinySAM's ``SamHierarchicalMaskGenerator`` (arXiv 2312.13789) without its model.

A coarse grid first; then, of the fine grid, only the neighbours that no confident mask of the first stage covers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from samgate.domain import BoolArray, FloatArray, Frame, Survivors
from samgate.segevery.coverage import Coverage
from samgate.segevery.crops import Crop
from samgate.segevery.generator import GridSampler
from samgate.segevery.parameters import HierarchicalParameters
from samgate.segevery.sampler import Chunk
from samgate.variants.spec import VariantSpec


@dataclass(slots=True)
class _Refinement:
    """Stage two of a crop: ``points`` float32 ``[n, 2]`` that may be decoded, and which are covered."""

    points: FloatArray
    coverage: Coverage


class HierarchicalSampler(GridSampler):
    """A :class:`~samgate.segevery.sampler.Sampler`; crops are worked on one by one, each in two stages.

    Differs from TinySAM's code where that fails: with nothing left for stage two, the masks of stage one are all; in
    images so small that neighbours are the point itself, these are left out.
    """

    def __init__(self, parameters: HierarchicalParameters, size: tuple[int, int], spec: VariantSpec) -> None:
        coarse = max(1, parameters.grid.points_per_side // parameters.coarse_factor)
        super().__init__(replace(parameters.grid, points_per_side=coarse), size, spec)
        self._parameters = parameters
        self._refinements: dict[Crop, _Refinement] = {}
        """Of crops whose stage two hasn't begun."""

    def open_crop(self, crop: Crop, frame: Frame, embedding: FloatArray) -> None:
        """See :meth:`Sampler.open_crop`."""
        super().open_crop(crop, frame, embedding)
        fine = self._parameters.grid.layer_points_per_side(crop.layer)
        points = neighbours(crop.points, crop.size, fine, self._parameters.coarse_factor)
        self._refinements[crop] = _Refinement(points, Coverage(points, frame, self._parameters.high_score_thresh))

    def next(self, crop: Crop, limit: int) -> Chunk | None:
        """The coarse grid; once all of it was added, what it leaves uncovered."""
        with self._lock:
            state = self._states[crop]
            refine = self._refinements.get(crop) if state.done == len(crop.points) else None
            if refine is not None:
                self._know(crop, refine.points[~refine.coverage.covered()])
                del self._refinements[crop]
        return super().next(crop, limit)

    def add(self, chunk: Chunk, survivors: Survivors) -> None:
        """See :meth:`Sampler.add`. Masks of stage two go before equally good ones of stage one, as TinySAM's do."""
        refine = self._refinements.get(chunk.crop)
        stable = self._harvest.add(chunk, self._frame(chunk.crop), survivors, rank=1 if refine is not None else 0)
        if refine is not None:
            refine.coverage.add(survivors.masks[stable])
        self._added(chunk)

    def finish_crop(self, crop: Crop) -> None:
        """As the grid's; stage two must have been asked for."""
        if crop in self._refinements:
            raise ValueError(f"crop {crop.box}: stage two was not asked for")
        super().finish_crop(crop)


def neighbours(coarse: FloatArray, size: tuple[int, int], fine: int, factor: int) -> FloatArray:
    """The points of stage two, before those that are covered are left out: float32 ``[n, 2]`` (x, y).

    Args:
        coarse: the points of stage one, float32 ``[m, 2]``.
        size: (height, width) of the crop; what lies outside is left out.
        fine: points along one side of the fine grid; side // fine pixels are one step.
        factor: as many steps lie between two coarse points.

    With a factor of 4, offsets are −1, 0, 1 and 2 steps along each axis: coarse point by coarse point, those of up to
    one step first, then two to the right, then two down, then both. Duplicates, and the coarse points, are left out.
    """
    height, width = size
    step = np.array([width // fine, height // fine], dtype=np.float32)
    reach = range(-((factor - 1) // 2), factor // 2 + 1)
    last = reach[-1]
    offsets = sorted(product(reach, reach), key=lambda offset: (offset[0] == last) + 2 * (offset[1] == last))
    points = (coarse[:, None] + np.array(offsets, dtype=np.float32) * step).reshape(-1, 2)
    points = points[_inside(points, size)]
    known = np.concatenate([coarse, points])
    _, first = np.unique(known, axis=0, return_index=True)
    return known[np.sort(first[first >= len(coarse)])]


def _inside(points: FloatArray, size: tuple[int, int]) -> BoolArray:
    return np.asarray(((points >= 0) & (points < size[::-1])).all(axis=1), dtype=np.bool_)
