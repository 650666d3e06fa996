"""Where prompts promise masks, told by an image's embedding alone: coarse prompts as AoP-SAM samples them.

AoP-SAM (arXiv 2505.11980) trains a network to draw its prompt confidence map, and there are no public weights of it.
What AoP-SAM does with the map is done here: Gaussian smoothing, local maxima above a threshold, a least spacing, most
confident first. The maps are ours. Of what an embedding offers without training (norms, contrasts of centre and
surround, distance from edges, principal components), two were found to complement each other: maxima of
:func:`homogeneity` lie inside of large objects, those of :func:`distinctiveness` on small objects and on parts. AoP-SAM
gives sigma and spacing in pixels and doesn't say of what; here, those of the first map are the embedding's cells, 64 a
side, those of the second a quarter of one, as in low-res masks.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from samgate.domain import FloatArray, Frame
from samgate.segevery.parameters import AopParameters

_MOST_DISTANCES = 2**18
FINE = 4
"""Pixels of the finer map along a cell of the embedding."""


def confident_positions(features: FloatArray, parameters: AopParameters) -> FloatArray:
    """Where to prompt: float32 ``[n, 2]`` (x, y) in cells of ``features`` (float32 ``[h, w, C]``); 0.5 is the middle of
    the first.

    Wholes come first, then parts, each by confidence; no two are nearer along both axes than ``spacing`` pixels of
    the finer map. Where all features are the same there is nothing to prompt, and n is 0.
    """
    wholes = peaks(homogeneity(features), parameters)
    parts = peaks(upsample(distinctiveness(features), FINE), parameters) / FINE
    apart = np.abs(parts[:, None] - wholes[None]).max(axis=2) >= parameters.spacing / FINE
    return np.concatenate([wholes, parts[apart.all(axis=1)]]).astype(np.float32)


def confident_points(embedding: FloatArray, frame: Frame, parameters: AopParameters) -> FloatArray:
    """:func:`confident_positions` of an ``embedding`` float32 ``[C, n, n]``, in pixels of the image in ``frame``."""
    positions = confident_positions(filled(embedding, frame), parameters)
    return to_image(positions, embedding.shape[-1], frame)


def drawn(points: FloatArray, confident: FloatArray) -> tuple[FloatArray, NDArray[np.intp]]:
    """``points`` float32 ``[m, 2]`` with those moved that are nearest to one of ``confident`` float32 ``[n, 2]``: to
    that, or the first of several. And the places of what was moved, in the order of ``confident``."""
    moved = points.copy()
    if not len(points) or not len(confident):
        return moved, np.empty(0, np.intp)
    # Not all distances at once: those are hundreds of megabytes where a caller asks for the densest grid.
    step = max(1, _MOST_DISTANCES // len(points))
    places = np.concatenate(
        [_nearest(points, confident[start : start + step]) for start in range(0, len(confident), step)]
    )
    _, first = np.unique(places, return_index=True)
    first = np.sort(first)
    moved[places[first]] = confident[first]
    return moved, places[first]


def _nearest(points: FloatArray, to: FloatArray) -> NDArray[np.intp]:
    x, y = (points[:, axis] - to[:, axis, None] for axis in range(2))
    return np.asarray((x * x + y * y).argmin(axis=1), dtype=np.intp)


def filled(embedding: FloatArray, frame: Frame) -> FloatArray:
    """``embedding`` float32 ``[C, n, n]`` over the padded square → ``[h, w, C]``: the cells that the image is on."""
    cells = embedding.shape[-1]
    height, width = (math.ceil(side * cells / frame.side) for side in frame.resized)
    return np.ascontiguousarray(embedding[:, :height, :width].transpose(1, 2, 0), dtype=np.float32)


def to_image(positions: FloatArray, cells: int, frame: Frame) -> FloatArray:
    """``positions`` float32 ``[n, 2]`` (x, y) in a padded square of ``cells`` a side → pixels of the image. Those
    beyond it, as half of its last cell may be, come to lie on its last pixel."""
    original, resized = (np.array(size[::-1], dtype=np.float32) for size in (frame.original, frame.resized))
    pixels = positions * (original / resized * (frame.side / cells))
    return np.asarray(np.minimum(pixels, original - 0.5), dtype=np.float32)


def homogeneity(features: FloatArray) -> FloatArray:
    """The mean cosine of each cell's features with those of the up to 8 around it: ``[h, w, C]`` → ``[h, w]``."""
    units = unit(features)
    around = _sum_3x3(units) - units
    count = _sum_3x3(np.ones(units.shape[:2], np.float32)) - 1
    return np.asarray(np.einsum("hwc,hwc->hw", units, around) / np.maximum(count, 1), dtype=np.float32)


def distinctiveness(features: FloatArray) -> FloatArray:
    """How far each cell's features are from the image's mean: ``[h, w, C]`` → ``[h, w]``."""
    return _lengths(centred(features))


def centred(features: FloatArray) -> FloatArray:
    """``features`` ``[h, w, C]`` without their mean over the image."""
    return np.asarray(features - features.mean(axis=(0, 1)), dtype=np.float32)


def unit(features: FloatArray) -> FloatArray:
    """``features`` ``[…, C]`` at length 1; zeros stay zeros."""
    length = _lengths(features)[..., None]
    return np.asarray(features / np.where(length > 0, length, 1), dtype=np.float32)


def _lengths(features: FloatArray) -> FloatArray:
    """``[…, C]`` → ``[…]``; numpy's ``norm`` takes four times as long."""
    return np.asarray(np.sqrt(np.einsum("...c,...c->...", features, features)), dtype=np.float32)


def upsample(values: FloatArray, factor: int) -> FloatArray:
    """``[h, w]`` → ``[factor·h, factor·w]``, bilinear."""
    height, width = values.shape
    size = (factor * width, factor * height)
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def peaks(confidence: FloatArray, parameters: AopParameters) -> FloatArray:
    """AoP-SAM's coarse sampling of ``confidence`` float32 ``[h, w]``: float32 ``[n, 2]`` (x, y), most confident first;
    0.5 is the middle of the first pixel.

    The map is smoothed and brought to 0 … 1. Of its local maxima above ``confidence_thresh``, those are left out that
    are less than ``spacing`` pixels along both axes from a more confident one (of equals: one further up, then left).
    """
    smooth, sigma = confidence, parameters.smoothing_sigma
    if sigma > 0:
        blurred = cv2.GaussianBlur(confidence, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
        smooth = np.asarray(blurred, dtype=np.float32)
    low, high = float(smooth.min()), float(smooth.max())
    if not high > low:
        return np.empty((0, 2), np.float32)
    smooth = (smooth - low) / (high - low)
    highest = cv2.dilate(smooth, np.ones((3, 3), np.uint8))
    places = np.argwhere((smooth == highest) & (smooth > parameters.confidence_thresh))
    order = np.argsort(-smooth[places[:, 0], places[:, 1]], kind="stable")
    free = np.ones(smooth.shape, dtype=np.bool_)
    reach = parameters.spacing - 1
    found: list[tuple[float, float]] = []
    for row, column in places[order].tolist():
        if free[row, column]:
            found.append((column + 0.5, row + 0.5))
            free[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1] = False
    return np.array(found, dtype=np.float32).reshape(-1, 2)


def _sum_3x3(values: FloatArray) -> FloatArray:
    """Sums over 3 × 3 cells of ``[h, w, …]``; OpenCV's filters don't take as many channels."""
    summed = values.copy()
    summed[1:] += values[:-1]
    summed[:-1] += values[1:]
    result = summed.copy()
    result[:, 1:] += summed[:, :-1]
    result[:, :-1] += summed[:, 1:]
    return result
