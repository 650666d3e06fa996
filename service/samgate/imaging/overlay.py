"""Masks and prompts drawn over their image, for people to look at."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from samgate.domain import BoolArray, FloatArray, IntArray, UInt8Array

Colour = tuple[int, int, int]
"""RGB, 0 to 255."""

_GOLDEN = (math.sqrt(5) - 1) / 2
_FIRST_HUE = 0.69
"""A blue: photographs hold little of it, so a lone mask stands out."""
_SHIFT = 4
"""Bits of subpixel position in OpenCV's drawing."""
_LAB_TO_LMS = np.array([
    [1, 0.3963377774, 0.2158037573],
    [1, -0.1055613458, -0.0638541728],
    [1, -0.0894841775, -1.2914855480],
])  # fmt: skip
_LMS_TO_RGB = np.array([
    [4.0767416621, -3.3077115913, 0.2309699292],
    [-1.2684380046, 2.6097574011, -0.3413193965],
    [-0.0041960863, -0.7034186147, 1.7076147010],
])  # fmt: skip
_WHITE: Colour = (255, 255, 255)
_FOREGROUND: Colour = (34, 197, 94)
_BACKGROUND: Colour = (239, 68, 68)
_BOX: Colour = (34, 197, 94)


def draw(
    image: UInt8Array,
    masks: Sequence[BoolArray | UInt8Array] = (),
    *,
    boxes: FloatArray | None = None,
    points: FloatArray | None = None,
    labels: IntArray | None = None,
    opacity: float = 0.5,
) -> UInt8Array:
    """A copy of ``image`` with everything on it.

    Args:
        image: uint8 ``[H, W, 3]`` RGB.
        masks: each bool or uint8 ``[H, W]``; the n-th always gets the n-th colour. Small ones lie on top.
        boxes: float32 ``[B, 4]`` (x0, y0, x1, y1).
        points: float32 ``[K, 2]`` (x, y): green, with a white ring.
        labels: int32 ``[K]``; points with label 0 (background) are red.
        opacity: of the masks' fill, 0 to 1.
    """
    canvas = image.copy()
    unit = max(1.0, math.sqrt(image.shape[0] * image.shape[1]) / 640)
    areas = [int(np.count_nonzero(mask)) for mask in masks]
    for index in sorted(range(len(masks)), key=lambda index: -areas[index]):
        if areas[index]:
            _draw_mask(canvas, image, (masks[index] != 0).view(np.uint8), index, opacity, unit)
    for x0, y0, x1, y1 in np.asarray(boxes if boxes is not None else ()).reshape(-1, 4).tolist():
        for colour, width in ((_WHITE, 4.0), (_BOX, 2.0)):
            cv2.rectangle(
                canvas, _fixed(x0, y0), _fixed(x1, y1), colour, max(1, round(width * unit)), cv2.LINE_AA, _SHIFT
            )
    places = np.asarray(points if points is not None else ()).reshape(-1, 2).tolist()
    kinds = labels.tolist() if labels is not None else [1] * len(places)
    for (x, y), label in zip(places, kinds, strict=True):
        for colour, radius in ((_WHITE, 8.0), (_FOREGROUND if label else _BACKGROUND, 5.75)):
            cv2.circle(canvas, _fixed(x, y), round(radius * unit * 2**_SHIFT), colour, cv2.FILLED, cv2.LINE_AA, _SHIFT)
    return canvas


def mask_colour(index: int, lightness: float = 0.7) -> Colour:
    """The colour of the n-th mask. Hues go round by the golden ratio: any first few are far apart."""
    return _oklch(lightness, 0.17, (_FIRST_HUE + index * _GOLDEN) % 1)


def _draw_mask(
    canvas: UInt8Array, image: UInt8Array, mask: UInt8Array, index: int, opacity: float, unit: float
) -> None:
    x, y, width, height = cv2.boundingRect(mask)
    part = (slice(y, y + height), slice(x, x + width))
    # Blended with the image, not with the canvas: where masks overlap, the colour of the upper one stays pure.
    levels = np.arange(256)[:, None, None] * (1 - opacity) + np.array(mask_colour(index)) * opacity
    fill = cv2.LUT(image[part], np.rint(levels).astype(np.uint8))
    np.copyto(canvas[part], fill, where=mask[part].astype(np.bool_)[..., None])
    contours, _ = cv2.findContours(mask[part], cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(x, y))
    outline = mask_colour(index, lightness=0.88)
    cv2.drawContours(canvas, contours, -1, outline, max(1, round(1.2 * unit)), cv2.LINE_AA)


def _fixed(x: float, y: float) -> tuple[int, int]:
    """OpenCV has pixel centres at whole numbers; here they are at a half."""
    return round((x - 0.5) * 2**_SHIFT), round((y - 0.5) * 2**_SHIFT)


def _oklch(lightness: float, chroma: float, hue: float) -> Colour:
    """Björn Ottosson's OKLab (2020), in polar form, to sRGB; ``hue`` 0 to 1. Colours out of gamut are clipped."""
    lab = (lightness, chroma * math.cos(hue * math.tau), chroma * math.sin(hue * math.tau))
    linear = np.clip(_LMS_TO_RGB @ (_LAB_TO_LMS @ lab) ** 3, 0, 1)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = np.rint(encoded * 255).astype(int).tolist()
    return red, green, blue
