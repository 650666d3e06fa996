"""An image in the middle of a square, as detectors want it, and boxes back."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from samgate.domain import FloatArray, UInt8Array
from samgate.variants.detectors import DetectorSpec, Letterbox


@dataclass(frozen=True, slots=True)
class Letterboxed:
    """Where an image lies in a square of ``side`` pixels: (height, width) of the ``original`` and of the ``resized``
    image, and the (y, x) of the latter's top left corner, its ``offset``."""

    original: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]
    side: int

    @property
    def edges(self) -> FloatArray:
        """(x0, y0, x1, y1) of the image in the square, float32 ``[4]``."""
        (height, width), (top, left) = self.resized, self.offset
        return np.array([left, top, left + width, top + height], dtype=np.float32)

    def to_square(self, boxes: FloatArray) -> FloatArray:
        """``boxes`` ``[N, 4]`` (x0, y0, x1, y1) in pixels of the image → pixels of the square."""
        return np.asarray(boxes * self._scale() + self._offset(), dtype=np.float32)

    def to_image(self, boxes: FloatArray) -> FloatArray:
        """The inverse of :meth:`to_square`: by what the image really fills, so both of its edges come back exactly,
        whichever way its short side was rounded."""
        return np.asarray((boxes - self._offset()) / self._scale(), dtype=np.float32)

    def _scale(self) -> NDArray[np.float64]:
        return np.divide(self.resized[::-1] * 2, self.original[::-1] * 2, dtype=np.float64)

    def _offset(self) -> NDArray[np.float64]:
        return np.array(self.offset[::-1] * 2, dtype=np.float64)


def letterbox_of(height: int, width: int, spec: DetectorSpec) -> Letterboxed:
    """Where an image of ``height`` × ``width`` pixels lies in the input of ``spec``, whose size is known."""
    return place_in(height, width, spec.input_size, spec.letterbox)


def detector_input(image: UInt8Array, spec: DetectorSpec) -> tuple[UInt8Array, Letterboxed]:
    """``image`` uint8 ``[H, W, 3]`` RGB → uint8 ``[S, S, 3]`` RGB, and where it lies in there."""
    return letterboxed(image, spec.input_size, spec.letterbox)


def place_in(height: int, width: int, side: int, rule: Letterbox) -> Letterboxed:
    """Where an image of ``height`` × ``width`` pixels lies in a square of ``side`` pixels.

    Sizes are those of ultralytics' ``LetterBox`` and of YOLOX's ``preproc``, but for sides that would get no pixel at
    all: they get one.
    """
    scale = min(side / height, side / width)
    sizes = [round(length * scale) if rule.rounded else int(length * scale) for length in (height, width)]
    # Cutting may lose a pixel of the long side to the last digit of the scale.
    resized = min(side, max(1, sizes[0])), min(side, max(1, sizes[1]))
    # Of an odd rest, ultralytics puts the smaller half above and to the left.
    offset = ((side - resized[0]) // 2, (side - resized[1]) // 2) if rule.centred else (0, 0)
    return Letterboxed((height, width), resized, offset, side)


def letterboxed(image: UInt8Array, side: int, rule: Letterbox) -> tuple[UInt8Array, Letterboxed]:
    """``image`` uint8 ``[H, W, 3]`` in a square of ``side`` pixels, and where it lies in there.

    OpenCV's bilinear resize, as upstream's; like there, an image that is made smaller isn't smoothed first.
    """
    place = place_in(image.shape[0], image.shape[1], side, rule)
    (height, width), (top, left) = place.resized, place.offset
    square = np.full((side, side, 3), rule.grey, dtype=np.uint8)
    square[top : top + height, left : left + width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return square, place
