"""Which of an image's detections a text means, by CLIP: FastSAM's rule (upstream's ``text_prompt``)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from samgate.domain import FloatArray, Frame
from samgate.imaging.masks import finish_region
from samgate.text.crops import Box
from samgate.variants.detections import NOTHING, Detections
from samgate.variants.spec import VariantSpec

SMALLEST = 100
"""Pixels of the image: a detection has to have more to be meant."""
SHARPNESS = 100.0
"""What cosines are multiplied with before they become probabilities."""
_MOST_SIDE = 1024
"""Boxes of masks are looked for in as many pixels: the network saw no more of the image."""


@dataclass(frozen=True, slots=True)
class Objects:
    """Detections of an image that words can mean: their places ``at`` intp ``[k]`` among all of the image, and the
    ``boxes`` of their masks in it."""

    at: NDArray[np.intp]
    boxes: list[Box]


def objects_in(found: Detections, frame: Frame, spec: VariantSpec) -> Objects:
    """Those detections ``found`` in an image, which lies in ``frame``, whose masks have more than :data:`SMALLEST`
    pixels."""
    height, width = frame.original
    scale = max(1.0, max(frame.original) / _MOST_SIDE)
    size = max(1, round(height / scale)), max(1, round(width / scale))
    seen = replace(frame, original=size)
    down, across = height / size[0], width / size[1]
    at, boxes = [], []
    for index in range(len(found.confidences)):
        mask = finish_region(found.logits(slice(index, index + 1))[0], seen, spec.mask_threshold)
        if mask.box is None or mask.area * down * across <= SMALLEST:
            continue
        x0, y0, x1, y1 = mask.box
        boxes.append((round(x0 * across), round(y0 * down), round(x1 * across), round(y1 * down)))
        at.append(index)
    return Objects(np.array(at, np.intp), boxes)


def probabilities(image_features: FloatArray, text_features: FloatArray) -> FloatArray:
    """How probable it is that each of T texts means each of k objects, float32 ``[T, k]``: features float32 ``[k, W]``
    and ``[T, W]`` of the length 1."""
    logits = SHARPNESS * (text_features @ image_features.T)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)


def meant(found: Detections, at: NDArray[np.intp], likely: FloatArray, masks: int) -> tuple[FloatArray, FloatArray]:
    """Low-res logits float32 ``[masks, L, L]`` that answer a text, and what they are worth, ``[masks]``: mask 0 and
    mask 1 are that of the detections ``at`` intp ``[k]`` which is most ``likely`` ``[k]`` meant, the others those that
    follow; nothing where there are no more."""
    side = found.prototypes.shape[-1]
    logits = np.full((masks, side, side), NOTHING, np.float32)
    worth = np.zeros(masks, np.float32)
    best = np.argsort(-likely, kind="stable")[: masks - 1]
    logits[1 : 1 + len(best)], worth[1 : 1 + len(best)] = found.logits(at[best]), likely[best]
    logits[0], worth[0] = logits[1], worth[1]
    return logits, worth
