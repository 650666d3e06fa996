"""Which masks are worth making, told from every fourth row and column of their logits.

Most masks that a decoder predicts to be good are unstable, or the same as another that is better. Both show long before
the mask is there in full, at a small part of its cost. Whatever is in doubt is made, and the filters of
:mod:`samgate.segevery.filters` have the last word on it; what is left out here they would have dropped, but for a few:

* masks whose stability is below the threshold by more than samples of it scatter: by 0.8 / √samples, which 2 of 437
  stable masks of six photographs were;
* masks of which a better one is known already, with the same box as NMS has it and nearly the same pixels. Greedy NMS
  would make an exception where that better one loses to a third which the mask itself hardly overlaps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from samgate.domain import BoolArray, Chosen, FloatArray, Frame
from samgate.segevery.coarse import coarse_of, outlines, samples_on
from samgate.segevery.filters import EDGE_TOLERANCE
from samgate.segevery.parameters import GridParameters

SAME_MASK = 0.8
"""IoU of two masks' samples above which one is taken for the other where their boxes agree."""
_SCATTER = 0.8


@dataclass(slots=True)
class _Known:
    """Masks by their samples: ``boxes`` float32 ``[n, 4]`` in samples, ``bits`` uint64 ``[n, w]``, ``areas`` int64
    ``[n]`` in samples, ``ious`` float32 ``[n]`` as predicted."""

    boxes: FloatArray = field(default_factory=lambda: np.empty((0, 4), np.float32))
    bits: NDArray[np.uint64] = field(default_factory=lambda: np.empty((0, 0), np.uint64))
    areas: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    ious: FloatArray = field(default_factory=lambda: np.empty(0, np.float32))

    def with_(self, other: _Known, at: NDArray[np.intp]) -> _Known:
        """And those of ``other`` that are ``at``."""
        bits = other.bits[at] if not len(self.bits) else np.concatenate([self.bits, other.bits[at]])
        return _Known(
            np.concatenate([self.boxes, other.boxes[at]]),
            bits,
            np.concatenate([self.areas, other.areas[at]]),
            np.concatenate([self.ious, other.ious[at]]),
        )


class Choice:
    """Of one crop. Methods may be called from any thread.

    Args:
        frame: the crop's; samples of the padding don't count.
        parameters: thresholds.
        mask_threshold: the variant's, in logits.
        cut: bool ``[4]``, which of the crop's sides (x0, y0, x1, y1) aren't the image's, too: masks near these are
            dropped in the end, so they take no other one's place.
    """

    def __init__(
        self, frame: Frame, parameters: GridParameters, mask_threshold: float, cut: BoolArray | None = None
    ) -> None:
        self._frame = frame
        self._parameters = parameters
        self._threshold = mask_threshold
        self._cut = np.zeros(4, np.bool_) if cut is None else cut
        self._known = _Known()
        self._lock = Lock()

    def choose(self, points: FloatArray, ious: FloatArray, coarse: FloatArray, min_ious: FloatArray) -> Chosen:
        """The masks to make, and which parts of them.

        Args:
            points: the prompts, float32 ``[P, 2]`` (x, y) in the crop's pixels.
            ious: predicted, float32 ``[P, M]``.
            coarse: logits of all masks, float32 ``[P, M, 64, 64]``.
            min_ious: float32 ``[M]``; what isn't predicted to be better is not made.
        """
        good = np.argwhere(ious > min_ious)
        if not len(good):
            return Chosen(good.astype(np.int32), np.empty((0, *coarse.shape[2:]), np.bool_))
        samples = self._samples(coarse[good[:, 0], good[:, 1]])
        stability, scatter = self._stability(samples)
        least = self._parameters.stability_score_thresh
        possible = np.flatnonzero(stability + scatter >= least) if least > 0 else np.arange(len(good))
        surely = (stability - scatter >= least) | (least <= 0)
        here = _measured(samples > self._threshold, ious[good[:, 0], good[:, 1]])
        surely &= ~self._may_be_cut(here.boxes, coarse.shape[-1])
        with self._lock:
            known = self._known
        taken: list[int] = []
        for index in possible[np.argsort(-here.ious[possible], kind="stable")].tolist():
            if not self._is_in(here, index, known):
                taken.append(index)
                if surely[index]:
                    known = known.with_(here, np.array([index]))
        kept = np.asarray(good[sorted(taken)], dtype=np.int32)
        samples, offset = coarse[kept[:, 0], kept[:, 1]], self._parameters.stability_score_offset
        return Chosen(kept, outlines(samples, points[kept[:, 0]], self._frame, self._threshold, offset))

    def made(self, masks: FloatArray, ious: FloatArray) -> None:
        """``masks`` float32 ``[n, 256, 256]``, predicted ``ious`` float32 ``[n]``, have passed all filters."""
        if len(masks):
            more = _measured(self._samples(coarse_of(masks)) > self._threshold, ious)
            with self._lock:
                self._known = self._known.with_(more, np.arange(len(masks)))

    def _samples(self, coarse: FloatArray) -> FloatArray:
        """Those that lie on the image: ``[n, h, w]``."""
        height, width = samples_on(self._frame, coarse.shape[-1])
        return coarse[:, :height, :width]

    def _stability(self, samples: FloatArray) -> tuple[FloatArray, FloatArray]:
        """float32 ``[n]``, and by how much it may be off."""
        offset = self._parameters.stability_score_offset
        inner, outer = (np.count_nonzero(samples > self._threshold + shift, axis=(1, 2)) for shift in (offset, -offset))
        found = (inner / np.maximum(outer, 1)).astype(np.float32)
        return found, np.where(outer > 0, _SCATTER / np.sqrt(np.maximum(outer, 1)), 1.0).astype(np.float32)

    def _may_be_cut(self, boxes: FloatArray, side: int) -> BoolArray:
        """Which ``boxes`` ``[n, 4]``, of ``side`` samples along the padded square, may be too near to a side that cuts:
        between the outermost sample of a mask and the next one it may go on."""
        frame = self._frame
        pixels = np.array(frame.original) / np.array(frame.resized) * (frame.side / side)
        height, width = frame.original
        low, high = (boxes[:, :2] - 1) * pixels[::-1], (boxes[:, 2:] + 1) * pixels[::-1]
        left = np.concatenate([low, (width, height) - high], axis=1)
        return np.asarray(((left <= EDGE_TOLERANCE) & self._cut).any(axis=1), dtype=np.bool_)

    def _is_in(self, masks: _Known, index: int, known: _Known) -> bool:
        """Whether a better one that is ``known`` is the same."""
        area = int(masks.areas[index])
        if not area or not len(known.ious):
            return False
        better = np.flatnonzero(known.ious >= masks.ious[index])
        alike = better[_box_ious(masks.boxes[index], known.boxes[better]) > self._parameters.box_nms_thresh]
        if not len(alike):
            return False
        shared = np.bitwise_count(known.bits[alike] & masks.bits[index]).sum(axis=1, dtype=np.int64)
        return bool((shared > SAME_MASK * (known.areas[alike] + area - shared)).any())


def _measured(masks: BoolArray, ious: FloatArray) -> _Known:
    """``masks`` bool ``[n, h, w]``."""
    count, height, width = masks.shape
    spans = []
    for axis, size in ((1, width), (2, height)):
        hot: BoolArray = np.any(masks, axis=axis)
        spans.append((hot.argmax(axis=1), size - hot[:, ::-1].argmax(axis=1)))
    boxes = np.stack([spans[0][0], spans[1][0], spans[0][1], spans[1][1]], axis=1).astype(np.float32)
    packed = np.packbits(masks.reshape(count, -1), axis=1)
    packed = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8)))
    return _Known(boxes, packed.view(np.uint64), np.count_nonzero(masks, axis=(1, 2)), ious)


def _box_ious(box: FloatArray, boxes: FloatArray) -> FloatArray:
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    inner = np.maximum(high - low, 0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return np.asarray(inner / (areas + (box[2:] - box[:2]).prod() - inner), dtype=np.float32)
