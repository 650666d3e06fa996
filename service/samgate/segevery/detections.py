"""What a detector says of an image → the boxes worth prompting with: MobileSAMv2's object-aware prompts.

Facts: ``MobileSAMv2/promt_mobilesamv2/predict.py`` and ``utils.py`` of MobileSAM, whose detector runs with these
defaults (``Inference.py``; ``max_det`` of ultralytics' ``default.yaml``). Two things differ: one NMS for all classes,
as its detector has but one; and boxes snap to the border of the image, not of its padded square, which in upstream's
rectangles are the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from samgate.domain import FloatArray
from samgate.imaging.letterbox import Letterboxed
from samgate.segevery.nms import box_nms
from samgate.segevery.parameters import check_limits

SNAP_PIXELS = 20
"""Of the detector's input: a side of a box that is nearer to the border than this is meant to be on it."""
MAX_CANDIDATES = 2048
"""Boxes that NMS looks at, the best scored: more clear the threshold only where scores mean nothing."""

_LIMITS: dict[str, tuple[float, float]] = {"conf": (0, 1), "iou": (0, 1), "max_detections": (1, MAX_CANDIDATES)}


@dataclass(frozen=True, slots=True)
class DetectorParameters:
    """Names and defaults are MobileSAMv2's, which calls the last ``max_det``.

    Raises :class:`InvalidArgument` that names the field (``object_aware.<name>``), its value and its limits.
    """

    conf: float = 0.4
    """Boxes must be scored better than this."""
    iou: float = 0.9
    """Of two boxes with a higher IoU the worse scored one is dropped."""
    max_detections: int = 300
    """Most boxes that are kept, best first."""

    def __post_init__(self) -> None:
        check_limits("object_aware", self, _LIMITS)


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """``boxes`` float32 ``[D, 4]`` (x0, y0, x1, y1) in pixels of the image, none without area, and their ``scores``
    float32 ``[D]``, best first."""

    boxes: FloatArray
    scores: FloatArray

    def __len__(self) -> int:
        return len(self.scores)


def detections(boxes: FloatArray, scores: FloatArray, place: Letterboxed, parameters: DetectorParameters) -> Detections:
    """The boxes to prompt with.

    Args:
        boxes: float32 ``[N, 4]`` (x0, y0, x1, y1) in pixels of the detector's input.
        scores: float32 ``[N]``, 0 to 1.
        place: where the image lies in there.
        parameters: thresholds.

    The order is upstream's: scores, NMS, the limit, snapping, then the image's own pixels. Boxes that aren't finite are
    no boxes.
    """
    likely = np.flatnonzero((scores > np.float32(parameters.conf)) & np.isfinite(boxes).all(axis=1))
    best = likely[np.argsort(-scores[likely], kind="stable")[:MAX_CANDIDATES]]
    kept = best[box_nms(boxes[best], scores[best], parameters.iou)][: parameters.max_detections]
    found = place.to_image(snapped(boxes[kept], place))
    height, width = place.original
    clipped = np.clip(found, 0, np.array([width, height, width, height], dtype=np.float32))
    solid = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    return Detections(clipped[solid], scores[kept][solid])


def snapped(boxes: FloatArray, place: Letterboxed) -> FloatArray:
    """``boxes`` ``[N, 4]`` with each side that is beyond the border of the image, or within :data:`SNAP_PIXELS` of it,
    on it."""
    edges = place.edges
    towards = np.array([1, 1, -1, -1], dtype=np.float32)
    return np.where((boxes - edges) * towards < SNAP_PIXELS, edges, boxes)
