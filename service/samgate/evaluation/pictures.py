"""Masks drawn over their image, and several such pictures side by side. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from samgate.domain import UInt8Array
from samgate.evaluation.recall import Proposals
from samgate.imaging import overlay
from samgate.imaging.rle import rle_to_mask

MAX_SIDE = 1024
"""Pixels along the longer side of a picture; a thousand masks of a larger one would take gigabytes."""
CELL_SIDE = 480
"""The same, of a picture in a contact sheet."""
_GAP = 8
_CAPTION = 30
_FONT_SIZE = 17
_PAPER = 255
_INK = (17, 24, 39)


def fit(image: UInt8Array, side: int = MAX_SIDE) -> UInt8Array:
    """``image`` uint8 ``[H, W, 3]`` made smaller, if need be, until its longer side is ``side`` pixels."""
    return _resized(image, _size(image.shape[0], image.shape[1], side))


def draw_proposals(image: UInt8Array, proposals: Proposals) -> UInt8Array:
    """:func:`fit` of ``image`` with all masks in colours on it: uint8 ``[H, W, 3]`` RGB."""
    small = fit(image)
    masks = [_resized(rle_to_mask(rle), (small.shape[0], small.shape[1])) for rle in proposals.rles]
    return overlay.draw(small, masks)


def contact_sheet(rows: Sequence[Sequence[tuple[str, UInt8Array]]]) -> UInt8Array:
    """Pictures in rows, each with its caption above: uint8 ``[H, W, 3]`` RGB.

    Each picture is :func:`fit` into a square of :data:`CELL_SIDE` pixels; a row is as high as its highest.
    """
    lines = [[(caption, fit(picture, CELL_SIDE)) for caption, picture in row] for row in rows]
    widths = [_GAP + sum(picture.shape[1] + _GAP for _, picture in line) for line in lines]
    heights = [_CAPTION + max(picture.shape[0] for _, picture in line) + _GAP for line in lines]
    sheet = Image.new("RGB", (max(widths), sum(heights)), (_PAPER,) * 3)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_SIZE)
    top = 0
    for line, height in zip(lines, heights, strict=True):
        left = _GAP
        for caption, picture in line:
            pen.text((left, top + _CAPTION // 2), caption, fill=_INK, font=font, anchor="lm")
            sheet.paste(Image.fromarray(picture), (left, top + _CAPTION))
            left += picture.shape[1] + _GAP
        top += height
    return np.asarray(sheet)


def _size(height: int, width: int, side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _resized(pixels: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """To ``size`` (height, width); of 0 and 1, what covers half of a pixel or more is 1."""
    if (pixels.shape[0], pixels.shape[1]) == size:
        return pixels
    return np.asarray(cv2.resize(pixels, (size[1], size[0]), interpolation=cv2.INTER_AREA), dtype=np.uint8)
