"""Drawn pictures to measure with: as much work to decode, to segment and to encode as a photograph."""

from __future__ import annotations

import math

import cv2
import numpy as np

from samgate.domain import FloatArray, UInt8Array

_QUALITY = 90
_NOISE = 7.0
"""Standard deviation in grey levels: a JPEG comes to 2 to 3 bits a pixel, as cameras write them."""
_TILE = 256


def picture(megapixels: float) -> UInt8Array:
    """uint8 ``[H, W, 3]`` RGB, four to three: 24 things of all sizes in front of a gradient, with a camera's noise."""
    width = max(64, round(math.sqrt(megapixels * 1e6 * 4 / 3)))
    height = max(48, round(width * 3 / 4))
    random = np.random.default_rng(0)
    rows = np.linspace(40, 150, height, dtype=np.float32)[:, None, None]
    columns = np.linspace(0, 60, width, dtype=np.float32)[None, :, None]
    image = (rows + columns + np.zeros(3, np.float32)).astype(np.uint8)
    for _ in range(24):
        middle = int(random.integers(width)), int(random.integers(height))
        axes = int(width * random.uniform(0.02, 0.15)), int(width * random.uniform(0.02, 0.15))
        colour = [int(value) for value in random.integers(0, 255, 3)]
        cv2.ellipse(image, middle, axes, float(random.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
    tile = random.normal(0, _NOISE, (_TILE, _TILE, 3)).astype(np.int16)
    noise = np.tile(tile, (height // _TILE + 1, width // _TILE + 1, 1))[:height, :width]
    return np.asarray(np.clip(image + noise, 0, 255), dtype=np.uint8)


def jpeg(pixels: UInt8Array) -> bytes:
    """``pixels`` uint8 ``[H, W, 3]`` RGB as a JPEG file."""
    done, encoded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise ValueError(f"an image of shape {pixels.shape} can't be encoded as JPEG")
    return encoded.tobytes()


def grid(count: int, size: tuple[int, int]) -> FloatArray:
    """``count`` points (x, y) float32 ``[count, 2]`` spread evenly over an image of ``size`` (height, width)."""
    side = math.ceil(math.sqrt(count))
    at = (np.arange(side) + 0.5) / side
    points = np.stack(np.meshgrid(at * size[1], at * size[0]), axis=-1).reshape(-1, 2)
    return points[:: max(1, len(points) // count)][:count].astype(np.float32)
