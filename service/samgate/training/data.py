"""Photographs as what student and teacher both see: squares of pixels, cropped at random and the same every time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from samgate.domain import UInt8Array
from samgate.errors import InvalidArgument
from samgate.imaging.decode import decode
from samgate.imaging.preprocess import encoder_input
from samgate.training.recipe import STRIDE, Recipe
from samgate.variants.spec import VariantSpec

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_MAX_PIXELS = 200_000_000
_RATIOS = math.log(3 / 4), math.log(4 / 3)
_TRIES = 10


class Item(NamedTuple):
    """One image, or a batch of them (lists and a first axis).

    ``pixels`` uint8 ``[S, S, 3]``; ``valid`` int32 ``[2]``, height and width of what isn't padding; ``window`` int64
    ``[2]``, top and left pixel of the student's part; ``name`` of the view (str, or a list of them), empty if there is
    another each time.
    """

    pixels: Tensor
    valid: Tensor
    window: Tensor
    name: Any


def find_images(folder: Path) -> list[Path]:
    """All images below ``folder``, in order. Raises InvalidArgument where there are none."""
    if not folder.is_dir():
        raise InvalidArgument("images", f"{folder} is not a folder")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise InvalidArgument("images", f"there is no image ({', '.join(SUFFIXES)}) in {folder}")
    return found


class Views(Dataset[Item]):
    """One view of each image an epoch. What it is follows from seed, epoch and image alone."""

    def __init__(self, paths: Sequence[Path], spec: VariantSpec, recipe: Recipe) -> None:
        self.paths, self.spec, self.recipe = tuple(paths), spec, recipe
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Item:
        """Raises InvalidArgument for a file that can't be decoded."""
        recipe, path = self.recipe, self.paths[index]
        try:
            encoded = path.read_bytes()
        except OSError as error:
            raise InvalidArgument("images", f"{path} can't be read: {error.strerror}") from error
        image = decode(encoded, _MAX_PIXELS, str(path))
        random = np.random.default_rng((recipe.seed, self.epoch, index))
        name, crop = "", random
        view = int(random.integers(recipe.views)) if recipe.views else None
        if view is not None:
            digest = hashlib.sha256(encoded)
            name = f"{digest.hexdigest()[:16]}-{view}"
            crop = np.random.default_rng((recipe.seed, view, int.from_bytes(digest.digest()[:8], "big")))
        if view == 0:
            pixels, frame = encoder_input(image, self.spec)
            valid = frame.valid
        else:
            side = self.spec.input_size
            pixels, valid = random_crop(image, side, recipe.scale, crop), (side, side)
        return Item(
            torch.tensor(pixels),
            torch.tensor(valid, dtype=torch.int32),
            torch.tensor(self._window(valid, random)),
            name,
        )

    def _window(self, valid: tuple[int, int], random: np.random.Generator) -> tuple[int, ...]:
        """Top and left of a window that has no more padding than it must."""
        side = self.recipe.window
        if side is None:
            return 0, 0
        return tuple(STRIDE * int(random.integers(max(0, -(-(size - side) // STRIDE)) + 1)) for size in valid)


def random_crop(image: UInt8Array, side: int, scale: float, random: np.random.Generator) -> UInt8Array:
    """A part of ``image`` uint8 ``[H, W, 3]`` as ``[side, side, 3]``: of a random share from ``scale`` to 1 of its
    area and a random shape from 3:4 to 4:3 (Szegedy et al., 2014, arXiv 1409.4842), antialiased bilinear."""
    height, width = image.shape[:2]
    for _ in range(_TRIES):
        area, ratio = height * width * random.uniform(scale, 1), math.exp(random.uniform(*_RATIOS))
        rows, columns = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < rows <= height and 0 < columns <= width:
            top, left = int(random.integers(height - rows + 1)), int(random.integers(width - columns + 1))
            break
    else:
        # The image is too long for most shapes: the largest part in its middle that isn't.
        columns, rows = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
        top, left = (height - rows) // 2, (width - columns) // 2
    box = (left, top, left + columns, top + rows)
    resized = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR, box=box)
    return np.array(resized)
