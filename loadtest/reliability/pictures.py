"""Images of which the right mask is known: a bright disc, each somewhere else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

import cv2
import numpy as np

from samgate.client import Mask
from samgate.domain import BoolArray

_WIDTH, _HEIGHT = 640, 480
_ALIKE = 0.7
"""IoU with the disc from which on a mask is the disc's: MobileSAM's are above 0.95, those of its smaller inputs above
0.75, and another picture's below 0.5."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A JPEG, the ``disc`` in it as bool ``[H, W]``, its (x, y) ``centre`` and its ``box`` (x0, y0, x1, y1)."""

    jpeg: bytes
    disc: BoolArray
    centre: tuple[float, float]
    box: tuple[float, float, float, float]

    def unseen(self, salt: bytes) -> bytes:
        """The same picture in other bytes, which decoders don't read: to a server it is another image."""
        return self.jpeg + salt

    def shows(self, mask: Mask) -> bool:
        """Whether ``mask`` is the disc's."""
        if not 0.5 < mask.area / self.disc.sum() < 2:
            return False
        found = mask.to_numpy()
        return bool((found & self.disc).sum() >= _ALIKE * (found | self.disc).sum())

    def shown_in(self, masks: Iterable[Mask]) -> bool:
        """Whether one of ``masks`` is the disc's."""
        return any(self.shows(mask) for mask in masks)


def pictures(number: int, seed: int) -> list[Picture]:
    """``number`` different ones."""
    random = Random(f"{seed} pictures")
    return [_picture(random, index) for index in range(number)]


def _picture(random: Random, index: int) -> Picture:
    x, y, radius = random.randrange(120, 520), random.randrange(120, 360), random.randrange(50, 90)
    rows, columns = np.mgrid[:_HEIGHT, :_WIDTH]
    image = np.stack([rows / 5 + 40, columns / 6 + 30, np.full(rows.shape, 90 + index % 40)], -1).astype(np.uint8)
    disc: BoolArray = (columns - x) ** 2 + (rows - y) ** 2 < radius**2
    image[disc] = (60, 200, 230)
    noise = np.random.default_rng([index, random.randrange(2**32)]).normal(0, 5, image.shape)
    done, jpeg = cv2.imencode(".jpg", (image + noise).clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert done
    return Picture(jpeg.tobytes(), disc, (x, y), (x - radius, y - radius, x + radius, y + radius))
