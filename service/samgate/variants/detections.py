"""How the embedding of a system that finds all objects of an image at once is laid out, and its masks.

Masks are sums of prototypes, one coefficient each for every detection, cut to the detection's box (YOLACT,
arXiv 1904.02689). The embedding ``[C, H, H]`` holds the prototypes in blocks, 4 × 4 of their pixels in channels, and
after these a table with a row for every detection: the box (x0, y0, x1, y1) in parts of the input's side, the
confidence, the coefficients. Rows are by descending confidence; those that are missing are 0, as is the rest of the
last channel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samgate.domain import FloatArray

PROTOTYPES = 32
BLOCK = 4
MOST = 300
"""Detections of an image: upstream's ``max_det``."""
ROW = 4 + 1 + PROTOTYPES
STEEPEST = 20.0
"""See :meth:`Detections.logits`."""
NOTHING = -10.0
"""The logit where there is no mask at all."""


def channels(side: int) -> int:
    """C of an embedding of ``side`` rows and columns."""
    return PROTOTYPES * BLOCK**2 + math.ceil(MOST * ROW / side**2)


@dataclass(frozen=True, slots=True)
class Detections:
    """``boxes`` float32 ``[n, 4]`` in low-res pixels, ``confidences`` ``[n]``, ``coefficients`` ``[n, 32]``; and the
    ``prototypes`` float32 ``[32, L, L]``, over the padded square."""

    boxes: FloatArray
    confidences: FloatArray
    coefficients: FloatArray
    prototypes: FloatArray

    def logits(self, at: slice | NDArray[np.intp]) -> FloatArray:
        """Low-res logits float32 ``[k, L, L]`` of the detections ``at``.

        Masks end with their box. Outside of it logits are turned around, those of the first pixel such that between it
        and its neighbour inside, which is about as high, 0 is where the box ends: −l · t / (1 − t) at the distance t.
        """
        count, side = PROTOTYPES, self.prototypes.shape[-1]
        found = (self.coefficients[at] @ self.prototypes.reshape(count, -1)).reshape(-1, side, side)
        places = np.arange(side, dtype=np.float32) + np.float32(0.5)
        low, high = self.boxes[at, :2, None], self.boxes[at, 2:, None]
        reach = np.maximum(low - places, places - high)
        beyond = np.maximum(reach[:, 0, None, :], reach[:, 1, :, None])
        turned = np.abs(found) * np.clip(beyond / np.maximum(1 - beyond, np.float32(1e-3)), 1e-3, STEEPEST)
        return np.where(beyond >= 0, np.minimum(found, -turned), found).astype(np.float32)


def detections_in(embedding: FloatArray) -> Detections:
    """What an ``embedding`` float32 ``[C, H, H]`` says."""
    rows, columns = embedding.shape[1:]
    blocks = embedding[: PROTOTYPES * BLOCK**2].reshape(PROTOTYPES, BLOCK, BLOCK, rows, columns)
    prototypes = blocks.transpose(0, 3, 1, 4, 2).reshape(PROTOTYPES, rows * BLOCK, columns * BLOCK)
    table = embedding[PROTOTYPES * BLOCK**2 :].reshape(-1)[: MOST * ROW].reshape(MOST, ROW)
    found = table[table[:, 4] > 0]
    side = np.float32(rows * BLOCK)
    return Detections(found[:, :4] * side, found[:, 4], found[:, 5:], np.ascontiguousarray(prototypes))
