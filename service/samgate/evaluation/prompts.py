"""The prompts that stand for a labelled object."""

from __future__ import annotations

import cv2
import numpy as np

from samgate.domain import UInt8Array
from samgate.evaluation.dataset import Instance

Box = tuple[float, float, float, float]


def box_prompt(instance: Instance) -> Box:
    """The labelled box (x0, y0, x1, y1), cut off at the image's edge: labels are rounded past it now and then."""
    height, width = instance.rle.size
    x0, y0, x1, y1 = instance.box
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))


def centre_point(mask: UInt8Array) -> tuple[float, float]:
    """The pixel (x, y) of ``mask`` (uint8 ``[H, W]``, not empty) that is farthest from its edge.

    What lies outside of the image counts as background, so that the point of an object that the image cuts off is
    not on the image's border. Of several farthest pixels the first in reading order is taken.
    """
    distance = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, cv2.DIST_MASK_5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    return float(x), float(y)
