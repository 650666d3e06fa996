"""COCO's compressed run-length encoding, through pycocotools' own codec."""

from __future__ import annotations

import cv2
import numpy as np
from pycocotools import mask as coco

from samgate.domain import Rle, UInt8Array


def region_to_rle(region: UInt8Array, x: int, y: int, size: tuple[int, int]) -> Rle:
    """The RLE of an image of ``size`` (height, width) that is 0 but for ``region`` uint8 ``[h, w]`` at (x, y).

    Costs time by the region's size, not the image's.
    """
    height, width = size
    # Columns, each between zeros: every run starts and ends within its column.
    padded = np.zeros((region.shape[1], region.shape[0] + 2), dtype=np.uint8)
    if region.size:
        padded[:, 1:-1] = cv2.transpose(region)
    flat = padded.ravel()
    column, row = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), padded.shape[1])
    edges = (column + x) * height + row + y
    # A run that goes on at the top of the next column was cut in two: drop the end and the start, which are equal.
    cut = np.flatnonzero(edges[1:] == edges[:-1])
    edges = np.delete(edges, np.concatenate([cut, cut + 1]))
    counts = np.diff(edges, prepend=0, append=height * width)
    if counts[-1] == 0 and len(counts) > 1:
        counts = counts[:-1]
    encoded = coco.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return Rle((height, width), encoded["counts"])


def mask_to_rle(mask: UInt8Array) -> Rle:
    """The RLE of ``mask`` uint8 ``[H, W]`` of 0 and 1."""
    x, y, width, height = cv2.boundingRect(mask)
    size = (mask.shape[0], mask.shape[1])
    return region_to_rle(mask[y : y + height, x : x + width], x, y, size)


def rle_to_mask(rle: Rle) -> UInt8Array:
    """uint8 ``[H, W]`` of 0 and 1."""
    decoded = coco.decode({"size": list(rle.size), "counts": rle.counts})
    # pycocotools gives columns one after the other.
    return np.asarray(cv2.transpose(decoded.T), dtype=np.uint8)


def rle_area(rle: Rle) -> int:
    """Pixels of the mask."""
    return int(coco.area({"size": list(rle.size), "counts": rle.counts}))
