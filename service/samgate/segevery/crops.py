"""Where SegEvery looks: crops of the image, and a grid of points in each (segment_anything's ``utils/amg.py``)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np

from samgate.domain import FloatArray
from samgate.segevery.parameters import GridParameters

CropBox = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels of the image; x1 and y1 exclusive."""


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """A part of the image that is encoded by itself. ``layer`` 0 is the whole image.

    ``points`` is float32 ``[n, 2]`` (x, y) in the crop's own pixels, x fastest.
    """

    box: CropBox
    layer: int
    points: FloatArray

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        x0, y0, x1, y1 = self.box
        return y1 - y0, x1 - x0


def make_crops(size: tuple[int, int], parameters: GridParameters) -> tuple[Crop, ...]:
    """All crops of an image of ``size`` (height, width): the whole of it first, then layer by layer."""
    boxes = crop_boxes(size, parameters.crop_n_layers, parameters.crop_overlap_ratio)
    grids = [point_grid(parameters.layer_points_per_side(layer)) for layer in range(parameters.crop_n_layers + 1)]
    return tuple(
        Crop(box, layer, (grids[layer] * (box[2] - box[0], box[3] - box[1])).astype(np.float32)) for box, layer in boxes
    )


def crop_boxes(size: tuple[int, int], layers: int, overlap_ratio: float) -> list[tuple[CropBox, int]]:
    """(box, layer) of each crop; layer n has 2^n a side, column by column.

    An image with fewer pixels a side than crops has no room for all of them: those that would lie outside are left
    out (upstream makes them, with a negative size, and fails).
    """
    height, width = size
    boxes: list[tuple[CropBox, int]] = [((0, 0, width, height), 0)]
    for layer in range(1, layers + 1):
        count = 2**layer
        overlap = int(overlap_ratio * min(height, width) * (2 / count))
        crop_width, crop_height = (math.ceil((overlap * (count - 1) + side) / count) for side in (width, height))
        for column, row in product(range(count), repeat=2):
            x0, y0 = column * (crop_width - overlap), row * (crop_height - overlap)
            if x0 < width and y0 < height:
                boxes.append(((x0, y0, min(x0 + crop_width, width), min(y0 + crop_height, height)), layer))
    return boxes


def point_grid(per_side: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """``per_side``² points evenly spaced in the unit square: float64 ``[n, 2]`` (x, y), x fastest."""
    offset = 1 / (2 * per_side)
    x, y = np.meshgrid(*[np.linspace(offset, 1 - offset, per_side)] * 2)
    return np.stack([x.ravel(), y.ravel()], axis=-1)
