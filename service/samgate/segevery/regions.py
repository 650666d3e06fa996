"""Removal of small holes and islands (segment_anything's ``remove_small_regions``, ``postprocess_small_regions``)."""

from __future__ import annotations

import cv2
import numpy as np

from samgate.domain import IntArray, UInt8Array
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

    Both are 8-connected. Background at the image's edges counts as a hole if it is small, as upstream has it. A mask
    of nothing but small islands keeps the largest (of equals, the first).
    """
    window, outside = _window(mask, min_area)
    background, holes = _without_small(mask[window] ^ np.uint8(1), min_area, outside)
    cleaned, islands = _without_small(background ^ np.uint8(1), min_area, keep_largest=True)
    if not (holes or islands):
        return mask, False
    result = mask.copy()
    result[window] = cleaned
    return result, True


def _window(mask: UInt8Array, min_area: int) -> tuple[tuple[slice, slice], int]:
    """The part of ``mask`` to look at, and how many pixels of background there are around it.

    That is the mask's box and the pixels next to it: they join background within the box just as all of the outside
    would. Not so when the box spans the image and so cuts the outside in two, nor when the outside is itself small:
    then, all of the image.
    """
    height, width = mask.shape
    x, y, box_width, box_height = cv2.boundingRect(mask)
    # From even rows and columns: OpenCV numbers regions by blocks of 2 × 2, and the number decides between equals.
    rows = slice(max(y - 1, 0) // 2 * 2, min(y + box_height + 1, height))
    columns = slice(max(x - 1, 0) // 2 * 2, min(x + box_width + 1, width))
    outside = height * width - (rows.stop - rows.start) * (columns.stop - columns.start)
    if box_width in (0, width) or box_height in (0, height) or outside < min_area:
        return (slice(0, height), slice(0, width)), 0
    return (rows, columns), outside


def _without_small(
    mask: UInt8Array, min_area: int, outside: int = 0, keep_largest: bool = False
) -> tuple[UInt8Array, bool]:
    """``outside`` pixels are added to the region that a window's edge belongs to."""
    count, found = cv2.connectedComponents(mask, connectivity=8)
    labels: IntArray = np.asarray(found, dtype=np.int32)
    # OpenCV's own statistics hold centroids as well, for which they take several times as long.
    areas = np.bincount(labels.ravel(), minlength=count)
    if outside:
        areas[_edge_label(labels)] += outside
    keep = areas >= min_area
    keep[0] = False
    if count < 2 or keep[1:].all():
        return mask, False
    if keep_largest and not keep.any():
        keep[1 + int(np.argmax(areas[1:]))] = True
    return np.take(keep.view(np.uint8), labels), True


def _edge_label(labels: IntArray) -> int:
    """The label on a side of a window that the mask doesn't touch: that side is all background."""
    sides = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
    return int(max(side.min() for side in sides))
