"""Removal of small holes and islands (segment_anything's ``remove_small_regions``, ``postprocess_small_regions``)."""

from __future__ import annotations

import cv2
import numpy as np

from samgate.domain import UInt8Array
from samgate.imaging.rle import region_to_rle, rle_to_mask
from samgate.segevery.filters import Candidates
from samgate.segevery.nms import box_nms


def clean_candidates(found: Candidates, min_area: int, nms_thresh: float) -> Candidates:
    """``found`` without small regions and without the duplicates that this makes, unchanged masks first.

    One mask at a time is made at full size. Predicted IoU and stability stay as they were, as upstream has it.
    """
    rles, boxes, areas = list(found.rles), found.boxes.copy(), found.areas.copy()
    unchanged = np.ones(len(found), dtype=np.float32)
    for index, rle in enumerate(found.rles):
        mask, changed = remove_small_regions(rle_to_mask(rle), min_area)
        if changed:
            x, y, width, height = cv2.boundingRect(mask)
            region = mask[y : y + height, x : x + width]
            rles[index] = region_to_rle(region, x, y, rle.size)
            boxes[index] = (x, y, x + max(width - 1, 0), y + max(height - 1, 0))
            areas[index] = np.count_nonzero(region)
            unchanged[index] = 0
    cleaned = Candidates(
        tuple(rles),
        boxes,
        areas,
        found.predicted_ious,
        found.stability_scores,
        found.points,
        found.crop_boxes,
    )
    return cleaned.take(box_nms(boxes, unchanged, nms_thresh))


def remove_small_regions(mask: UInt8Array, min_area: int) -> tuple[UInt8Array, bool]:
    """``mask`` uint8 ``[H, W]`` without holes, then without islands, of fewer than ``min_area`` pixels; and whether
    that changed anything.

    Both are 8-connected. A mask of nothing but small islands keeps the largest (of equals, the first).
    """
    background, holes = _without_small(mask ^ np.uint8(1), min_area, keep_largest=False)
    cleaned, islands = _without_small(background ^ np.uint8(1), min_area, keep_largest=True)
    return cleaned, holes or islands


def _without_small(mask: UInt8Array, min_area: int, keep_largest: bool) -> tuple[UInt8Array, bool]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    keep = areas >= min_area
    keep[0] = False
    if count < 2 or keep[1:].all():
        return mask, False
    if keep_largest and not keep.any():
        keep[1 + int(np.argmax(areas[1:]))] = True
    return keep.astype(np.uint8)[labels], True
