"""Which prompts finished masks already explain: AoP-SAM's prompt elimination map."""

from __future__ import annotations

from threading import Lock

import numpy as np

from samgate.domain import BoolArray, FloatArray
from samgate.segevery.confidence import centred, unit

_INSIDE = 0.5
"""The share of a cell that a mask has to cover."""


class Elimination:
    """What the masks of one image explain, collected in rounds, so that it can be told without those of later ones.

    AoP-SAM's (arXiv 2505.11980): the map is, over all masks, the highest cosine of a cell's features with the mean
    features inside of the mask, and prompts above an adaptive threshold of a factor go. Ours: the factor is that of the
    map's mean, which rises with what is found; features are without the image's mean, with which all cosines are high,
    and negative cosines count as 0; and only prompts that lie on one of the masks go. Otherwise what looks like a mask
    goes, too, such as further objects of a kind; with as many prompts, fewer masks were found.

    Args:
        features: float32 ``[h, w, C]``, of the embedding's cells that the image fills.
        cells: along one side of the embedding; masks have a multiple of it.
        factor: what the map's mean is multiplied with; with 0, of prompts on a mask
            only those stay that no mask resembles.
        mask_threshold: the variant's, in logits.
    """

    def __init__(self, features: FloatArray, cells: int, factor: float, mask_threshold: float) -> None:
        self._units = unit(centred(features))
        self._cells = cells
        self._factor = factor
        self._mask_threshold = mask_threshold
        self._rounds: dict[int, tuple[FloatArray, FloatArray]] = {}
        """The map and the share of each cell that is covered, both ``[h, w]``."""
        self._lock = Lock()

    def add(self, round_: int, masks: FloatArray) -> None:
        """Take masks of a round, float32 ``[S, L, L]`` low-res logits over the padded square. In what order and how
        many at once doesn't matter, and any thread may call."""
        height, width = self._units.shape[:2]
        cosines, shares = np.zeros((2, height, width), np.float32)
        for mask in masks:
            share = self._share(mask)
            # Not by a BLAS, whose threads would fight with the engine's.
            mean = unit(np.einsum("hw,hwc->c", share, self._units))
            np.maximum(cosines, np.einsum("hwc,c->hw", self._units, mean), out=cosines)
            np.maximum(shares, share, out=shares)
        with self._lock:
            if round_ in self._rounds:
                before = self._rounds[round_]
                cosines, shares = np.maximum(cosines, before[0]), np.maximum(shares, before[1])
            self._rounds[round_] = cosines, shares

    def explained(self, positions: FloatArray, rounds: int) -> BoolArray:
        """Which of ``positions``, float32 ``[n, 2]`` (x, y) in cells, the first ``rounds`` rounds explain: bool
        ``[n]``."""
        with self._lock:
            told = [self._rounds[number] for number in range(rounds) if number in self._rounds]
        if not told:
            return np.zeros(len(positions), dtype=np.bool_)
        cosines = np.max([one for one, _ in told], axis=0)
        shares = np.max([one for _, one in told], axis=0)
        drop = (cosines > self._factor * cosines.mean()) & (shares > _INSIDE)
        columns, rows = positions.astype(np.intp).T
        return np.asarray(drop[rows, columns], dtype=np.bool_)

    def _share(self, mask: FloatArray) -> FloatArray:
        height, width = self._units.shape[:2]
        step = len(mask) // self._cells
        blocks = (mask > self._mask_threshold).reshape(self._cells, step, self._cells, step)
        return np.asarray(blocks.mean(axis=(1, 3), dtype=np.float32)[:height, :width], dtype=np.float32)
