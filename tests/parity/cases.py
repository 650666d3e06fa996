"""The inputs that parity is checked on, for the sizes of a spec. One image is landscape, so that padding matters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parity.weights import FloatArray, draw, draw_pixels
from samgate.variants.spec import PaddingPoint, ResizeRule, VariantSpec


@dataclass(frozen=True)
class Case:
    """One decoder call. ``points`` and ``box`` are what the user gives: upstream orders and pads them itself."""

    name: str
    spec: VariantSpec
    images: int
    prompts: int
    points: int = 0
    box: bool = False
    mask: bool = False

    @property
    def embedding(self) -> FloatArray:
        """``[I, C, H, W]`` of ``embedding_shape``."""
        return draw(f"{self.name}/embedding", (self.images, *self.spec.embedding_shape))

    @property
    def coords(self) -> FloatArray:
        """``[I, P, points, 2]`` in the prompt frame's pixels."""
        unit = draw(f"{self.name}/coords", (self.images, self.prompts, self.points, 2))
        return np.abs(unit) * np.float32(self.spec.prompt_size / 2)

    @property
    def labels(self) -> NDArray[np.int32]:
        """``[I, P, points]``: foreground and background in turn, where the system knows background points."""
        one = (1 + np.arange(self.points, dtype=np.int32)) % 2 | (not self.spec.prompts.background)
        return np.broadcast_to(one.astype(np.int32), (self.images, self.prompts, self.points)).copy()

    @property
    def boxes(self) -> FloatArray:
        """``[I, P, 4]`` as x0, y0, x1, y1."""
        quarter = np.float32(250 * self.spec.prompt_size / 1024)
        corner = np.abs(draw(f"{self.name}/corner", (self.images, self.prompts, 2))) * quarter
        extent = np.abs(draw(f"{self.name}/extent", (self.images, self.prompts, 2))) * quarter
        return np.concatenate((corner, corner + extent), -1)

    @property
    def masks(self) -> FloatArray:
        """``[I, P, 1, 4H, 4W]`` logits."""
        low = self.spec.low_res_size
        return draw(f"{self.name}/masks", (self.images, self.prompts, 1, low, low)) * np.float32(8)

    def tokens(self) -> tuple[FloatArray, NDArray[np.int32]]:
        """Coordinates and labels as the decoder graph takes them: box corners after points, then padding points."""
        coords, labels = [self.coords], [self.labels]
        shape = (self.images, self.prompts)
        if self.box:
            coords.append(self.boxes.reshape(*shape, 2, 2))
            labels.append(np.broadcast_to(np.array([2, 3], np.int32), (*shape, 2)))
        given = self.points + 2 * self.box
        most = self.spec.prompts.most_points or given
        missing = {
            PaddingPoint.WITHOUT_BOX: int(not self.box),
            PaddingPoint.ALWAYS: 1,
            PaddingPoint.NEVER: 0,
            PaddingPoint.TO_MOST: most - given,
        }[self.spec.padding_point]
        coords.append(np.full((*shape, missing, 2), self.spec.padding_coordinate, np.float32))
        labels.append(np.full((*shape, missing), -1, np.int32))
        return np.concatenate(coords, 2), np.concatenate(labels, 2)


def cases_of(spec: VariantSpec) -> Iterator[Case]:
    """All kinds of prompts that ``spec`` supports."""
    yield Case("point", spec, images=1, prompts=1, points=1)
    yield Case("box", spec, images=1, prompts=2, box=True)
    yield Case("point and box", spec, images=2, prompts=1, points=1, box=True)
    yield Case("points", spec, images=2, prompts=3, points=4)
    if spec.prompts.mask:
        yield Case("box and mask", spec, images=2, prompts=2, box=True, mask=True)


def image(spec: VariantSpec) -> NDArray[np.uint8]:
    """``[1, S, S, 3]``, noise in the padding too."""
    return draw_pixels("image", (1, spec.input_size, spec.input_size, 3))


def valid(spec: VariantSpec) -> tuple[int, int]:
    """(height, width) of the test image within the encoder's input."""
    size = spec.input_size
    padded = spec.resize not in (ResizeRule.SQUASH, ResizeRule.SQUASH_ROUGH)
    return (int(size * 683 / 1024), size) if padded else (size, size)
