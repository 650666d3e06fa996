"""SegEvery by a grid of points: segment_anything's ``SamAutomaticMaskGenerator`` without its model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Lock

import numpy as np

from samgate.domain import FloatArray, Frame, Survivors, least_ious
from samgate.segevery.crops import Crop, make_crops
from samgate.segevery.filters import Candidates, concatenate, filter_chunk
from samgate.segevery.nms import box_nms
from samgate.segevery.parameters import GridParameters
from samgate.segevery.regions import clean_candidates
from samgate.segevery.sampler import EverythingResult, Sampler
from samgate.variants.spec import VariantSpec

__all__ = ["EverythingResult", "GridSampler", "Sampler"]


@dataclass(slots=True)
class _CropState:
    taken: int = 0
    """Points handed out."""
    done: int = 0
    """Points added."""
    found: list[Candidates] = field(default_factory=list)
    kept: Candidates | None = None
    """What is left after the crop's own NMS."""


class GridSampler:
    """A :class:`~samgate.segevery.sampler.Sampler` whose prompts are known in advance.

    Args:
        parameters: grid, crops and thresholds.
        size: (height, width) of the image in pixels.
        spec: the variant, for its mask threshold.
    """

    def __init__(self, parameters: GridParameters, size: tuple[int, int], spec: VariantSpec) -> None:
        self._parameters = parameters
        self._size = size
        self._mask_threshold = spec.mask_threshold
        self._states = {crop: _CropState() for crop in make_crops(size, parameters)}
        self._lock = Lock()
        self._candidates = 0
        threshold = parameters.pred_iou_thresh
        self._min_ious = least_ious(spec.mask_tokens, spec.multimask_tokens, threshold if threshold > 0 else -math.inf)

    @property
    def crops(self) -> tuple[Crop, ...]:
        """The whole image, then crops layer by layer."""
        return tuple(self._states)

    @property
    def prompts_total(self) -> int:
        """Points of all crops."""
        return sum(len(crop.points) for crop in self._states)

    @property
    def prompts_done(self) -> int:
        """Points added so far, of all crops."""
        return sum(state.done for state in self._states.values())

    @property
    def min_ious(self) -> FloatArray:
        """See :class:`Sampler`."""
        return self._min_ious

    @property
    def candidates(self) -> int:
        """Masks that passed the filters so far, duplicates among them."""
        return self._candidates

    def chunks(self, crop: Crop, limit: int) -> Iterator[FloatArray]:
        """The points of ``crop``'s grid that weren't handed out before, at most ``limit`` at a time."""
        state = self._states[crop]
        while state.taken < len(crop.points):
            points = crop.points[state.taken : state.taken + limit]
            state.taken += len(points)
            yield points

    def add(self, crop: Crop, frame: Frame, points: FloatArray, survivors: Survivors) -> None:
        """Filter what the decoder says to ``points``: see :meth:`Sampler.add`."""
        found = filter_chunk(survivors, points, frame, crop.box, self._size, self._parameters, self._mask_threshold)
        with self._lock:
            state = self._states[crop]
            state.found.append(found)
            state.done += len(points)
            self._candidates += len(found)

    def finish_crop(self, crop: Crop) -> None:
        """NMS among ``crop``'s masks by predicted IoU. Raises ValueError while points of it are not added."""
        state = self._states[crop]
        if state.done != len(crop.points):
            raise ValueError(f"crop {crop.box}: {state.done} of {len(crop.points)} points were added")
        found = concatenate(state.found)
        # The grid's order, whatever that of arrival was: it ranks equal scores.
        found = found.take(np.lexsort((found.points[:, 0], found.points[:, 1])))
        state.found.clear()
        state.kept = found.take(box_nms(found.boxes, found.predicted_ious, self._parameters.box_nms_thresh))

    def finish(self) -> list[EverythingResult]:
        """NMS across crops (the smaller crop wins), small regions removed, then by predicted IoU, best first.

        Equal predictions stay in the order upstream answers them in. Crops that weren't finished are left out.
        """
        parameters = self._parameters
        found = concatenate([state.kept for state in self._states.values() if state.kept is not None])
        if len(self._states) > 1:
            sides = found.crop_boxes[:, 2:].astype(np.float32) - found.crop_boxes[:, :2].astype(np.float32)
            found = found.take(box_nms(found.boxes, 1 / sides.prod(axis=1), parameters.crop_nms_thresh))
        if parameters.min_mask_region_area > 0:
            nms_thresh = max(parameters.box_nms_thresh, parameters.crop_nms_thresh)
            found = clean_candidates(found, parameters.min_mask_region_area, nms_thresh)
        best = np.argsort(-found.predicted_ious, kind="stable")
        return _results(found.take(best[: parameters.max_masks or None]))


def _results(found: Candidates) -> list[EverythingResult]:
    results: list[EverythingResult] = []
    for index, rle in enumerate(found.rles):
        x0, y0, x1, y1 = found.boxes[index].tolist()
        crop_x0, crop_y0, crop_x1, crop_y1 = found.crop_boxes[index].tolist()
        area = int(found.areas[index])
        x, y = found.points[index].tolist()
        results.append(
            EverythingResult(
                rle=rle,
                box=(x0, y0, x1 + 1, y1 + 1) if area else None,
                area=area,
                predicted_iou=float(found.predicted_ious[index]),
                stability_score=float(found.stability_scores[index]),
                point=(x, y),
                crop_box=(crop_x0, crop_y0, crop_x1, crop_y1),
            )
        )
    return results
