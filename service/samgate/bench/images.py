"""JPEG files that no cache has seen."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import cv2
import numpy as np

from samgate.bench.errors import BenchmarkError
from samgate.domain import UInt8Array

_QUALITY = 95
_MARK = 16
_ENDINGS = {".jpg", ".jpeg", ".png"}


def unique_jpegs(folder: Path | None, count: int, seed: int) -> list[bytes]:
    """``count`` JPEGs whose pixels all differ, from this call and from calls with another ``seed``.

    They are made from the images in ``folder``, in turn, each with a block of noise of its own in one corner; without
    a folder from drawn 640 × 480 images.

    Raises:
        BenchmarkError: ``folder`` has no images.
    """
    sources = (_decode(path.read_bytes()) for path in cycle(photographs(folder))) if folder is not None else _drawn()
    return [_marked(next(sources), np.random.default_rng([seed, index])) for index in range(count)]


def photographs(folder: Path) -> list[Path]:
    """The JPEG and PNG files below ``folder``, sorted. Raises BenchmarkError if there are none."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS) if folder.is_dir() else []
    if not paths:
        raise BenchmarkError(f"{folder} has no JPEG or PNG images")
    return paths


def centre(jpeg: bytes) -> tuple[float, float]:
    """The pixel (x, y) in the middle of an image."""
    height, width = _decode(jpeg).shape[:2]
    return float(width // 2), float(height // 2)


def size(jpeg: bytes) -> tuple[int, int]:
    """(height, width) of an image."""
    height, width = _decode(jpeg).shape[:2]
    return height, width


def _drawn() -> Iterator[UInt8Array]:
    """Ellipses in random colours on a gradient, with a camera's noise: as much work to decode as a photograph."""
    random = np.random.default_rng(0)
    while True:
        rows, columns = np.mgrid[0:480, 0:640]
        image = np.stack([rows / 4, columns / 5, (rows + columns) / 7], axis=-1).astype(np.uint8)
        for _ in range(12):
            middle = int(random.integers(640)), int(random.integers(480))
            axes = int(random.integers(15, 120)), int(random.integers(15, 120))
            colour = [int(value) for value in random.integers(0, 255, 3)]
            cv2.ellipse(image, middle, axes, float(random.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
        noisy = image.astype(np.float32) + random.normal(0, 6, image.shape)
        yield noisy.clip(0, 255).astype(np.uint8)


def _marked(image: UInt8Array, random: np.random.Generator) -> bytes:
    image = image.copy()
    corner = image[:_MARK, :_MARK]
    corner[:] = random.integers(0, 255, corner.shape, dtype=np.uint8)
    done, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise BenchmarkError(f"an image of shape {image.shape} can't be encoded as JPEG")
    return jpeg.tobytes()


def _decode(data: bytes) -> UInt8Array:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise BenchmarkError("a file that should be an image can't be decoded")
    return np.asarray(image, dtype=np.uint8)
