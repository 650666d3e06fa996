"""The inputs that parity is checked on. One image is landscape, so that padding matters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parity.weights import FloatArray, draw, draw_pixels

IMAGE_SIZE = 1024
VALID = (683, 1024)
"""(height, width) of the test image within the encoder's input."""

EMBEDDING_STRIDE = 97
MASK_STRIDE = 211
"""Golden files keep every n-th value."""


@dataclass(frozen=True)
class Case:
    """One decoder call. ``points`` and ``box`` are what the user gives: upstream orders and pads them itself."""

    name: str
    images: int
    prompts: int
    points: int = 0
    box: bool = False
    mask: bool = False

    @property
    def embedding(self) -> FloatArray:
        return draw(f"{self.name}/embedding", (self.images, 256, 64, 64))

    @property
    def coords(self) -> FloatArray:
        """``[I, P, points, 2]`` in encoder-input pixels."""
        unit = draw(f"{self.name}/coords", (self.images, self.prompts, self.points, 2))
        return np.abs(unit) * np.float32(IMAGE_SIZE / 2)

    @property
    def labels(self) -> NDArray[np.int32]:
        """``[I, P, points]``: foreground and background in turn."""
        one = (1 + np.arange(self.points, dtype=np.int32)) % 2
        return np.broadcast_to(one, (self.images, self.prompts, self.points)).copy()

    @property
    def boxes(self) -> FloatArray:
        """``[I, P, 4]`` as x0, y0, x1, y1."""
        corner = np.abs(draw(f"{self.name}/corner", (self.images, self.prompts, 2))) * np.float32(250)
        extent = np.abs(draw(f"{self.name}/extent", (self.images, self.prompts, 2))) * np.float32(250)
        return np.concatenate((corner, corner + extent), -1)

    @property
    def masks(self) -> FloatArray:
        """``[I, P, 1, 256, 256]`` logits."""
        return draw(f"{self.name}/masks", (self.images, self.prompts, 1, 256, 256)) * np.float32(8)

    def tokens(self) -> tuple[FloatArray, NDArray[np.int32]]:
        """Coordinates and labels as the decoder graph takes them: box corners last, or a padding point."""
        if self.box:
            last, kinds = self.boxes.reshape(self.images, self.prompts, 2, 2), [2, 3]
        else:
            last, kinds = np.zeros((self.images, self.prompts, 1, 2), np.float32), [-1]
        labels = np.broadcast_to(np.array(kinds, np.int32), (self.images, self.prompts, len(kinds)))
        return np.concatenate((self.coords, last), 2), np.concatenate((self.labels, labels), 2)


CASES = (
    Case("point", images=1, prompts=1, points=1),
    Case("box", images=1, prompts=2, box=True),
    Case("point and box", images=2, prompts=1, points=1, box=True),
    Case("points", images=2, prompts=3, points=4),
    Case("box and mask", images=2, prompts=2, box=True, mask=True),
)


def image() -> NDArray[np.uint8]:
    """``[1, S, S, 3]``, noise in the padding too."""
    return draw_pixels("image", (1, IMAGE_SIZE, IMAGE_SIZE, 3))
