"""Logits of masks at chosen pixels of the image, without making the masks (see :mod:`samgate.imaging.masks`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samgate.domain import FloatArray, Frame, MaskSampling

Positions = NDArray[np.intp]


def logits_at(low_res: FloatArray, frame: Frame, rows: Positions, columns: Positions) -> FloatArray:
    """The logits of S masks where ``rows`` ``[R]`` and ``columns`` ``[C]`` of the image meet.

    ``low_res`` is float32 ``[S, 256, 256]`` over the padded square, the result float32 ``[S, R, C]``: that of
    :func:`~samgate.imaging.masks.full_logits` there, but for the rounding of float32. Both of its bilinear steps are
    linear along each axis, so together they are a sum of four low-res rows, then of four columns. (Where masks are
    made by bicubic interpolation, this is bilinear all the same.)
    """
    size = low_res.shape[-1]
    at_rows, down = _taps(size, frame, 0, rows)
    at_columns, across = _taps(size, frame, 1, columns)
    strips = np.einsum("srkw,rk->srw", low_res[:, at_rows], down)
    logits: FloatArray = np.einsum("srck,ck->src", strips[:, :, at_columns], across)
    return logits


def _taps(size: int, frame: Frame, axis: int, at: Positions) -> tuple[Positions, FloatArray]:
    """Four low-res lines of ``size`` along ``axis`` and their weights, both ``[n, 4]``, for the image's ``at``."""
    if frame.sampling is not MaskSampling.VIA_INPUT:
        cut = frame.cut(size)[axis]
        near, far, share = _neighbours(cut.stop - cut.start, frame.original[axis], at)
        near, far = near + cut.start, far + cut.start
        nothing = np.zeros_like(share)
        return np.stack((near, far, near, far), axis=1), np.stack((1 - share, share, nothing, nothing), axis=1)
    near, far, share = _neighbours(frame.resized[axis], frame.original[axis], at)
    lines: list[Positions] = []
    weights: list[FloatArray] = []
    for line, weight in ((near, 1 - share), (far, share)):
        before, behind, part = _neighbours(size, frame.side, line)
        lines += [before, behind]
        weights += [weight * (1 - part), weight * part]
    return np.stack(lines, axis=1), np.stack(weights, axis=1)


def _neighbours(source: int, target: int, at: Positions) -> tuple[Positions, Positions, FloatArray]:
    """Both lines of ``source`` that each line ``at`` of ``target`` lies between, and how far from the first, when
    ``source`` lines are resized to ``target`` by bilinear interpolation."""
    position = (at.astype(np.float32) + np.float32(0.5)) * np.float32(source / target) - np.float32(0.5)
    position = np.clip(position, 0, source - 1)
    before = position.astype(np.intp)
    return before, np.minimum(before + 1, source - 1), position - before.astype(np.float32)
