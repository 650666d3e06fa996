"""The mask decoder's logits → masks at the image's size (segment_anything's ``Sam.postprocess_masks``).

Upstream resizes 256 → 1024 → crop → image, bilinear both times and without antialiasing. Here 1024 is the side of the
encoder's input, since the crop has to be where the image ended in that: cropped in another frame, the rounding of
``Frame.resized`` would move masks by up to a pixel of it. Interpolated values lie
between their neighbours, so a mask can only be where low-res logits pass the threshold: nothing else is computed,
which makes a small mask many times cheaper than a large one. A BLAS could do this as two products of banded matrices,
but its threads fight with the engine's, and with each other when called from a pool. OpenCV's do too: servers call
``cv2.setNumThreads(1)``, so that one mask is one thread's work.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from samgate.domain import BoolArray, FinishedMask, FloatArray, Frame, MaskSampling, UInt8Array

_WHOLE_SHARE = 0.3
"""Above this share of the image, OpenCV resizes the whole of it faster than NumPy does the part."""

Window = tuple[int, int, int, int]
"""Pixels x0, y0, x1, y1 of the image; x1 and y1 exclusive."""


@dataclass(frozen=True, slots=True)
class RegionMask:
    """A mask cut out: ``mask`` uint8 ``[h, w]`` of 0 and 1 has its top left pixel at (``x``, ``y``) of the image.

    All else is as in :class:`~samgate.domain.FinishedMask`. An empty mask is ``[0, 0]``.
    """

    mask: UInt8Array
    x: int
    y: int
    area: int
    stability_score: float

    @property
    def box(self) -> Window | None:
        """The tight box (which ``mask`` fills), or None when the mask is empty."""
        height, width = self.mask.shape
        return (self.x, self.y, self.x + width, self.y + height) if self.area else None


def full_logits(low_res: FloatArray, frame: Frame) -> FloatArray:
    """``low_res`` float32 ``[256, 256]`` over the padded square → float32 ``[H, W]`` over the image."""
    height, width = frame.original
    return _logits(low_res, frame, (0, 0, width, height))


def finish(low_res: FloatArray, frame: Frame, threshold: float, offset: float = 1.0) -> FinishedMask:
    """The mask of ``low_res`` (float32 ``[256, 256]``, finite) above ``threshold``; see :func:`finish_region`."""
    region = finish_region(low_res, frame, threshold, offset)
    mask = np.zeros(frame.original, dtype=np.uint8)
    if region.box is not None:
        x0, y0, x1, y1 = region.box
        mask[y0:y1, x0:x1] = region.mask
    return FinishedMask(mask, region.box, region.area, region.stability_score)


def finish_region(low_res: FloatArray, frame: Frame, threshold: float, offset: float = 1.0) -> RegionMask:
    """As :func:`finish`, without the image around the mask.

    The stability score is upstream's: the IoU of the masks above ``threshold + offset`` and above
    ``threshold − offset``, at the image's size. Where both are empty upstream has 0/0; that is 0 here, so that an
    empty mask counts as unstable and no NaN reaches an answer. ``offset`` must not be negative.
    """
    window = _window(low_res > threshold - offset, frame)
    if window is None:
        return RegionMask(np.zeros((0, 0), dtype=np.uint8), 0, 0, 0, 0.0)
    logits = _logits(low_res, frame, window)
    inner = int(np.count_nonzero(logits > threshold + offset))
    outer = int(np.count_nonzero(logits > threshold - offset))
    mask = (logits > threshold).view(np.uint8)
    x, y, width, height = cv2.boundingRect(mask)
    tight = mask[y : y + height, x : x + width]
    stability = float(np.float32(inner) / np.float32(outer)) if outer else 0.0
    return RegionMask(tight, window[0] + x, window[1] + y, int(np.count_nonzero(tight)), stability)


def _window(hot: BoolArray, frame: Frame) -> Window | None:
    """What part of the image interpolation can reach from ``hot`` ``[256, 256]``: never too little."""
    if frame.sampling is MaskSampling.DIRECT_CUBIC:
        # Where logits are far apart, a cubic goes beyond them: nothing tells where from the logits alone.
        return 0, 0, frame.original[1], frame.original[0]
    spans: list[tuple[int, int]] = []
    for axis, low in ((1, hot.shape[0]), (0, hot.shape[1])):
        lines = np.flatnonzero(hot.any(axis=axis))
        if not lines.size:
            return None
        resized, original = frame.resized[1 - axis], frame.original[1 - axis]
        step, scale, start = frame.side / low, original / resized, 0
        if frame.sampling is MaskSampling.DIRECT:
            cut = frame.cut(low)[1 - axis]
            start = cut.start
            scale = original / ((cut.stop - start) * step)
        first = int(((lines[0] - start - 1) * step - 1) * scale) - 1
        last = int(((lines[-1] - start + 2) * step + 1) * scale) + 2
        spans.append((min(max(first, 0), original), min(last, original)))
    (y0, y1), (x0, x1) = spans
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _logits(low_res: FloatArray, frame: Frame, window: Window) -> FloatArray:
    """``window`` of the image: ``low_res`` resized to the encoder's input, cut and resized to the image's size."""
    x0, y0, x1, y1 = window
    height, width = frame.original
    if frame.sampling is not MaskSampling.VIA_INPUT:
        return _direct_logits(low_res, frame, window)
    if frame.resized == frame.original:
        return _input_logits(low_res, frame.side, window)
    if (y1 - y0) * (x1 - x0) > _WHOLE_SHARE * height * width:
        source = _input_logits(low_res, frame.side, (0, 0, frame.resized[1], frame.resized[0]))
        whole = cv2.resize(source, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(whole[y0:y1, x0:x1], dtype=np.float32)
    columns, right, across = _taps(frame.resized[1], width, x0, x1)
    rows, below, down = _taps(frame.resized[0], height, y0, y1)
    left, top = int(columns[0]), int(rows[0])
    source = _input_logits(low_res, frame.side, (left, top, int(right[-1]) + 1, int(below[-1]) + 1))
    # Columns first: NumPy gathers whole rows faster, and there are fewest of them before they are interpolated.
    strip = _between(np.take(source, columns - left, axis=1), np.take(source, right - left, axis=1), across)
    return _between(np.take(strip, rows - top, axis=0), np.take(strip, below - top, axis=0), down[:, None])


def _direct_logits(low_res: FloatArray, frame: Frame, window: Window) -> FloatArray:
    """The same without the encoder's input between."""
    x0, y0, x1, y1 = window
    height, width = frame.original
    cubic = frame.sampling is MaskSampling.DIRECT_CUBIC
    whole = cv2.resize(
        low_res[frame.cut(low_res.shape[0])],
        (width, height),
        interpolation=cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR,
    )
    return np.asarray(whole[y0:y1, x0:x1], dtype=np.float32)


def _input_logits(low_res: FloatArray, side: int, window: Window) -> FloatArray:
    """``window`` of ``low_res`` resized to ``side`` × ``side``."""
    x0, y0, x1, y1 = window
    low = low_res.shape[0]
    if side % low:
        square = cv2.resize(low_res, (side, side), interpolation=cv2.INTER_LINEAR)
        return np.asarray(square[y0:y1, x0:x1], dtype=np.float32)
    # By a whole number, pixels of the part lie as those of the whole do. One more low-res pixel on each side keeps
    # the part's own edges out of it.
    step = side // low
    left, top = max(x0 // step - 1, 0), max(y0 // step - 1, 0)
    part = low_res[top : (y1 - 1) // step + 2, left : (x1 - 1) // step + 2]
    size = (part.shape[1] * step, part.shape[0] * step)
    square = cv2.resize(part, size, interpolation=cv2.INTER_LINEAR)
    rows, columns = slice(y0 - top * step, y1 - top * step), slice(x0 - left * step, x1 - left * step)
    return np.asarray(square[rows, columns], dtype=np.float32)


def _taps(source: int, target: int, start: int, stop: int) -> tuple[NDArray[np.intp], NDArray[np.intp], FloatArray]:
    """Both neighbours, and how far between them, of output pixels [start, stop) along one axis.

    In float32, as torch's ``upsample_bilinear2d`` has it.
    """
    at = (np.arange(start, stop, dtype=np.float32) + np.float32(0.5)) * np.float32(source / target) - np.float32(0.5)
    np.clip(at, 0, source - 1, out=at)
    before = at.astype(np.intp)
    return before, np.minimum(before + 1, source - 1), at - before.astype(np.float32)


def _between(first: FloatArray, second: FloatArray, share: FloatArray) -> FloatArray:
    """``first + share · (second − first)``, in ``second``'s memory."""
    second -= first
    second *= share
    second += first
    return second
