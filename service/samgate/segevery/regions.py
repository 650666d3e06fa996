"""Removal of small holes and islands (segment_anything's ``remove_small_regions``)."""

from __future__ import annotations

import cv2
import numpy as np

from samgate.domain import UInt8Array


def remove_small_regions(mask: UInt8Array, min_area: int) -> tuple[UInt8Array, bool]:
    """``mask`` uint8 ``[H, W]`` without holes, then without islands, of fewer than ``min_area`` pixels; and whether
    that changed anything.

    Both are 8-connected. A mask of nothing but small islands keeps the largest (of equals, the first).
    """
    filled, holes = _without_small(mask ^ np.uint8(1), min_area, keep_largest=False)
    cleaned, islands = _without_small(filled ^ np.uint8(1), min_area, keep_largest=True)
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
