"""Greedy non-maximum suppression on boxes, with torchvision's semantics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samgate.domain import FloatArray, IntArray


def box_nms(boxes: IntArray | FloatArray, scores: FloatArray, threshold: float) -> NDArray[np.intp]:
    """Indices of the kept ones of ``boxes`` ``[N, 4]`` (x0, y0, x1, y1), in descending order of ``scores`` ``[N]``.

    Equal scores keep their order. A box is dropped when its IoU with a kept one is above ``threshold``; boxes
    without area overlap nothing. Takes memory by N, and time by N × the number kept.
    """
    order = np.argsort(-scores, kind="stable")
    x0, y0, x1, y1 = np.ascontiguousarray(boxes[order].T, dtype=np.float32)
    area = (x1 - x0) * (y1 - y0)
    # torchvision compares its float32 IoU with a double.
    limit = np.float64(threshold)
    kept: list[np.intp] = []
    while order.size:
        kept.append(order[0])
        width = np.minimum(x1[0], x1[1:]) - np.maximum(x0[0], x0[1:])
        height = np.minimum(y1[0], y1[1:]) - np.maximum(y0[0], y0[1:])
        inner = np.maximum(width, 0) * np.maximum(height, 0)
        union = area[0] + area[1:] - inner
        iou = np.divide(inner, union, out=np.zeros_like(inner), where=union > 0)
        stay = np.flatnonzero(iou <= limit) + 1
        order, x0, y0, x1, y1, area = (values[stay] for values in (order, x0, y0, x1, y1, area))
    return np.array(kept, dtype=np.intp)
