"""The prompts that stand for a labelled object."""

from __future__ import annotations

import cv2
import numpy as np

from samgate.domain import UInt8Array


def centre_point(mask: UInt8Array) -> tuple[float, float]:
    """The pixel (x, y) of ``mask`` (uint8 ``[H, W]``, not empty) that is farthest from its edge.

    What lies outside of the image counts as background, so that the point of an object that the image cuts off is
    not on the image's border. Of several farthest pixels the first in reading order is taken.
    """
    distance = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    return float(x), float(y)
