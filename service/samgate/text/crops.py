"""What CLIP is shown of an object: the image in which all around the object's box is white, as small as CLIP takes it.

FastSAM's upstream pastes each box into a white image of the whole's size, of which CLIP's preprocessing takes the
middle: an object at the end of a long image may not be seen at all. Here only what a box changes is resized, to the
same pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from samgate.domain import UInt8Array

WHITE = 255
_REACH = 2.0
"""Of Pillow's bicubic filter, in pixels of the smaller image."""

Box = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in pixels, x1 and y1 exclusive."""


def crops_of(pixels: UInt8Array, boxes: Sequence[Box], side: int) -> UInt8Array:
    """uint8 ``[B, side, side, 3]`` of ``boxes`` in ``pixels`` uint8 ``[H, W, 3]`` RGB.

    The short side becomes ``side`` pixels (bicubic, antialiased, Pillow's), the long one is cut on both sides: CLIP's
    ``Resize`` and ``CenterCrop``.
    """
    height, width = pixels.shape[:2]
    across, down = (_Axis.of(length, min(height, width), side) for length in (width, height))
    crops = np.full((len(boxes), side, side, 3), WHITE, np.uint8)
    for crop, (x0, y0, x1, y1) in zip(crops, boxes, strict=True):
        columns, rows = across.span(x0, x1), down.span(y0, y1)
        if columns is None or rows is None:
            continue
        part = np.full((rows.read.stop - rows.read.start, columns.read.stop - columns.read.start, 3), WHITE, np.uint8)
        part[rows.within, columns.within] = pixels[rows.filled, columns.filled]
        crop[rows.made, columns.made] = _resized(part, columns, rows)
    return crops


@dataclass(frozen=True, slots=True)
class _Span:
    """What a box changes of a crop along one axis: the pixels ``made`` of the crop, of the image's ``read``, in which
    they lie at ``place``; the box's are ``filled`` of the image, and ``within`` what is read."""

    made: slice
    read: slice
    place: tuple[float, float]
    filled: slice
    within: slice


def _resized(part: UInt8Array, columns: _Span, rows: _Span) -> UInt8Array:
    """In two steps, across first: newer versions of Pillow begin with what is less work, and what is rounded between
    the steps isn't the same then."""
    width, height = columns.made.stop - columns.made.start, rows.made.stop - rows.made.start
    image, bicubic = Image.fromarray(part), Image.Resampling.BICUBIC
    across = image.resize((width, image.height), bicubic, box=(columns.place[0], 0, columns.place[1], image.height))
    return np.asarray(across.resize((width, height), bicubic, box=(0, rows.place[0], width, rows.place[1])))


@dataclass(frozen=True, slots=True)
class _Axis:
    """Of an image: its ``length`` becomes ``resized`` pixels, of which a crop has ``side`` from ``start`` on."""

    length: int
    resized: int
    start: int
    side: int

    @classmethod
    def of(cls, length: int, short: int, side: int) -> _Axis:
        resized = side if length == short else int(side * length / short)
        return cls(length, resized, round((resized - side) / 2), side)

    def span(self, first: int, last: int) -> _Span | None:
        """Of a box from ``first`` to ``last``; None where that isn't in the crop."""
        scale = self.length / self.resized
        reach = _REACH * max(scale, 1.0)
        low = max(self.start, math.floor((first - reach) / scale - 0.5))
        high = min(self.start + self.side, math.ceil((last + reach) / scale + 0.5))
        if low >= high:
            return None
        read = slice(max(0, math.floor(low * scale - reach) - 1), min(self.length, math.ceil(high * scale + reach) + 1))
        filled = slice(max(first, read.start), max(first, read.start, min(last, read.stop)))
        return _Span(
            made=slice(low - self.start, high - self.start),
            read=read,
            place=(low * scale - read.start, min(high * scale, self.length) - read.start),
            filled=filled,
            within=slice(filled.start - read.start, filled.stop - read.start),
        )
