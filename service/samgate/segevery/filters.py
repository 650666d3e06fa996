"""Which masks of a chunk of prompts are kept: segment_anything's ``SamAutomaticMaskGenerator._process_batch``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from samgate.domain import BoolArray, FloatArray, Frame, IntArray, Rle, Survivors
from samgate.imaging.masks import RegionMask, finish_region
from samgate.imaging.rle import region_to_rle
from samgate.segevery.crops import CropBox
from samgate.segevery.parameters import GridParameters

EDGE_TOLERANCE = 20
"""Pixels; a mask this near to its crop's edge goes on beyond it, and another crop has the whole of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """N masks that passed the filters, in the order of their prompts. Coordinates are pixels of the image.

    ``boxes`` int32 ``[N, 4]`` as upstream has them for NMS: x1 and y1 are the last column and row, and an empty mask
    has no extent. ``crop_boxes`` int32 ``[N, 4]`` are exclusive; ``points`` float32 ``[N, 2]``; ``predicted_ious``
    and ``stability_scores`` float32 ``[N]``; ``areas`` int64 ``[N]`` in pixels.
    """

    rles: tuple[Rle, ...]
    boxes: IntArray
    areas: np.ndarray[tuple[int], np.dtype[np.int64]]
    predicted_ious: FloatArray
    stability_scores: FloatArray
    points: FloatArray
    crop_boxes: IntArray

    def __len__(self) -> int:
        return len(self.rles)

    def take(self, indices: Sequence[int] | np.ndarray[tuple[int], np.dtype[np.intp]]) -> Candidates:
        """Those at ``indices``, in that order."""
        at = np.asarray(indices, dtype=np.intp)
        return Candidates(
            tuple(self.rles[index] for index in at.tolist()),
            self.boxes[at],
            self.areas[at],
            self.predicted_ious[at],
            self.stability_scores[at],
            self.points[at],
            self.crop_boxes[at],
        )


def concatenate(parts: Sequence[Candidates]) -> Candidates:
    """All of ``parts``, one after the other."""
    if not parts:
        return _candidates([])
    return Candidates(
        tuple(rle for part in parts for rle in part.rles),
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.areas for part in parts]),
        np.concatenate([part.predicted_ious for part in parts]),
        np.concatenate([part.stability_scores for part in parts]),
        np.concatenate([part.points for part in parts]),
        np.concatenate([part.crop_boxes for part in parts]),
    )


class Filtered(NamedTuple):
    """The masks ``found``, and the places among the survivors of these (``kept``) and of all that are ``stable``, which
    includes what the crop's edge cuts: int ``[n]``."""

    found: Candidates
    kept: NDArray[np.intp]
    stable: NDArray[np.intp]


def filter_chunk(
    survivors: Survivors,
    points: FloatArray,
    frame: Frame,
    crop_box: CropBox,
    image_size: tuple[int, int],
    parameters: GridParameters,
    mask_threshold: float,
) -> Filtered:
    """The masks worth keeping of those that were made.

    Args:
        survivors: the masks of P prompts that were chosen, of those whose predicted IoU is high enough.
        points: the prompts, float32 ``[P, 2]`` (x, y) in the crop's pixels.
        frame: of the crop, whose size is ``frame.original``.
        crop_box: where the crop lies in the image.
        image_size: (height, width).
        parameters: thresholds.
        mask_threshold: the variant's, in logits.

    The order is upstream's: predicted IoU (strictly above; done by then), stability on logits at the crop's size (at
    least), then edges. One mask at a time is made at full size.
    """
    found: list[_Found] = []
    kept: list[int] = []
    stable: list[int] = []
    for index, (low_res, (prompt, candidate)) in enumerate(zip(survivors.masks, survivors.kept.tolist(), strict=True)):
        region = finish_region(low_res, frame, mask_threshold, parameters.stability_score_offset)
        threshold = np.float32(parameters.stability_score_thresh)
        if threshold > 0 and np.float32(region.stability_score) < threshold:
            continue
        stable.append(index)
        box = _inclusive_box(region, crop_box)
        if near_crop_edge(np.array([box]), crop_box, image_size)[0]:
            continue
        kept.append(index)
        rle = region_to_rle(region.mask, crop_box[0] + region.x, crop_box[1] + region.y, image_size)
        x, y = points[prompt].tolist()
        point = (crop_box[0] + x, crop_box[1] + y)
        iou = float(survivors.ious[prompt, candidate])
        found.append(_Found(rle, box, region.area, iou, region.stability_score, point, crop_box))
    return Filtered(_candidates(found), np.array(kept, dtype=np.intp), np.array(stable, dtype=np.intp))


def near_crop_edge(boxes: IntArray, crop_box: CropBox, image_size: tuple[int, int]) -> BoolArray:
    """Which of ``boxes`` ``[N, 4]`` (inclusive, in the image's pixels) have a side near one of the crop's that isn't
    near one of the image's."""
    height, width = image_size
    near_crop = np.abs(boxes - np.array(crop_box)) <= EDGE_TOLERANCE
    near_image = np.abs(boxes - np.array([0, 0, width, height])) <= EDGE_TOLERANCE
    return np.asarray((near_crop & ~near_image).any(axis=1), dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class _Found:
    rle: Rle
    box: tuple[int, int, int, int]
    area: int
    predicted_iou: float
    stability_score: float
    point: tuple[float, float]
    crop_box: CropBox


def _candidates(found: Sequence[_Found]) -> Candidates:
    return Candidates(
        tuple(one.rle for one in found),
        np.array([one.box for one in found], dtype=np.int32).reshape(-1, 4),
        np.array([one.area for one in found], dtype=np.int64),
        np.array([one.predicted_iou for one in found], dtype=np.float32),
        np.array([one.stability_score for one in found], dtype=np.float32),
        np.array([one.point for one in found], dtype=np.float32).reshape(-1, 2),
        np.array([one.crop_box for one in found], dtype=np.int32).reshape(-1, 4),
    )


def _inclusive_box(region: RegionMask, crop_box: CropBox) -> tuple[int, int, int, int]:
    x, y = crop_box[:2]
    if region.box is None:
        return x, y, x, y
    x0, y0, x1, y1 = region.box
    return x + x0, y + y0, x + x1 - 1, y + y1 - 1
