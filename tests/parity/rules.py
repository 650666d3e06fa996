"""What upstreams do to an image, to coordinates and to logits around their networks: drawn inputs, and files of some of
the numbers that they answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parity.recording import GOLDEN
from parity.weights import FloatArray, draw, draw_pixels

SIZES = ((427, 640), (640, 427), (333, 500), (512, 512), (683, 1000), (37, 53), (97, 1001))
"""Of images, height and width: both orientations, sides that are rounded, none that are; small, and long."""
_VALUES = 200

Size = tuple[int, int]


def image_of(size: Size) -> NDArray[np.uint8]:
    """``[H, W, 3]`` RGB."""
    return draw_pixels(f"rules/{size}/image", (*size, 3))


def coords_of(size: Size) -> FloatArray:
    """``[5, 2]`` (x, y) inside of the image, its first and last corner among them."""
    inside = np.abs(draw(f"rules/{size}/coords", (5, 2))) / np.float32(np.sqrt(3))
    inside[0], inside[-1] = 0, 1
    return np.asarray(inside * np.array(size[::-1]), np.float32)


def logits_of(size: Size) -> FloatArray:
    """``[256, 256]``."""
    return draw(f"rules/{size}/logits", (256, 256)) * np.float32(8)


def sample(values: NDArray[Any]) -> NDArray[Any]:
    """Some of ``values``, from all rows and columns: the stride is odd."""
    return np.asarray(values).ravel()[:: max(1, values.size // _VALUES) | 1]


def write(family: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Keeps what an upstream answered."""
    path = GOLDEN / f"rules_{family}.npz"
    np.savez_compressed(path, allow_pickle=False, **arrays)
    print(f"{path}: {path.stat().st_size:,} bytes")
