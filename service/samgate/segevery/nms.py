"""Greedy non-maximum suppression on boxes, with torchvision's semantics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samgate.domain import FloatArray, IntArray

_LEAST = 1e-3
"""Below this threshold boxes of any width may matter."""


def box_nms(boxes: IntArray | FloatArray, scores: FloatArray, threshold: float) -> NDArray[np.intp]:
    """Indices of the kept ones of ``boxes`` ``[N, 4]`` (x0, y0, x1, y1), in descending order of ``scores`` ``[N]``.

    Equal scores keep their order. A box is dropped when its IoU with a kept one is above ``threshold``; boxes
    without area overlap nothing. Takes memory by N, and time by the number kept × those that begin where a box that
    overlaps so much would: with a threshold of t, at most (1 − t) / t of its width to the left and 1 − t to the right.
    """
    order = np.argsort(-scores, kind="stable")
    if threshold >= 1:
        return order
    across = np.argsort(boxes[:, 0], kind="stable")
    x0, y0, x1, y1 = np.ascontiguousarray(boxes[across].T, dtype=np.float32)
    area = (x1 - x0) * (y1 - y0)
    # The IoU of two boxes is at most that of their sides. A pixel more, so that rounding is no matter.
    reach = (1 - threshold) * (x1 - x0) + 1
    first = np.searchsorted(x0, x0 - (reach / threshold if threshold > _LEAST else np.inf)).tolist()
    last = np.searchsorted(x0, x0 + reach, side="right").tolist()
    # torchvision compares its float32 IoU with a double.
    limit = np.float64(threshold)
    left = np.ones(len(order), dtype=np.bool_)
    place = np.empty(len(order), dtype=np.intp)
    place[across] = np.arange(len(order))
    kept: list[int] = []
    for index, at in zip(order.tolist(), place[order].tolist(), strict=True):
        if not left[at]:
            continue
        kept.append(index)
        near = slice(first[at], last[at])
        width = np.minimum(x1[at], x1[near]) - np.maximum(x0[at], x0[near])
        height = np.minimum(y1[at], y1[near]) - np.maximum(y0[at], y0[near])
        inner = np.maximum(width, 0) * np.maximum(height, 0)
        union = area[at] + area[near] - inner
        iou = np.divide(inner, union, out=np.zeros_like(inner), where=union > 0)
        left[near] &= iou <= limit
    return np.array(kept, dtype=np.intp)
