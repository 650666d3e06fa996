"""Which of an image's points lie on masks that are sure of it, as TinySAM's hierarchical strategy asks."""

from __future__ import annotations

from threading import Lock

import numpy as np

from samgate.domain import BoolArray, FloatArray, Frame
from samgate.imaging.sampling import Positions, logits_at


class Coverage:
    """Of some points in one crop, which are covered by the masks so far. Methods may be called from any thread.

    Args:
        points: float32 ``[n, 2]`` (x, y) in the crop's pixels, inside of it. What counts is the pixel that each is in.
        frame: the crop's.
        threshold: a mask covers where its logits are above.
    """

    def __init__(self, points: FloatArray, frame: Frame, threshold: float) -> None:
        self._frame = frame
        self._threshold = np.float32(threshold)
        pixels = points.astype(np.intp)
        self._columns, self._column_of = _distinct(pixels[:, 0])
        self._rows, self._row_of = _distinct(pixels[:, 1])
        self._covered = np.zeros((len(self._rows), len(self._columns)), dtype=np.bool_)
        self._lock = Lock()

    def add(self, masks: FloatArray) -> None:
        """``masks`` float32 ``[S, 256, 256]``, low-res logits."""
        if not len(masks):
            return
        found = (logits_at(masks, self._frame, self._rows, self._columns) > self._threshold).any(axis=0)
        with self._lock:
            self._covered |= found

    def covered(self) -> BoolArray:
        """bool ``[n]``, for each point."""
        with self._lock:
            return np.asarray(self._covered[self._row_of, self._column_of], dtype=np.bool_)


def _distinct(values: Positions) -> tuple[Positions, Positions]:
    """The sorted distinct ``values``, and the place of each among them."""
    distinct, places = np.unique(values, return_inverse=True)
    return distinct, places.reshape(-1)
