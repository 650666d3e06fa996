"""Photographs from files, for calibrating and for judging graphs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from samgate.domain import Frame
from samgate.engines.base import Images
from samgate.errors import InvalidArgument
from samgate.imaging.decode import decode
from samgate.imaging.preprocess import encoder_input
from samgate.variants.spec import VariantSpec

T = TypeVar("T")

_SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")
_MAX_PIXELS = 100_000_000


def photographs(folder: Path, field: str) -> list[Path]:
    """The image files in ``folder``, by name. Raises InvalidArgument for ``field`` when there are none."""
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in _SUFFIXES)
    if not found:
        raise InvalidArgument(field, f"{folder} holds no {', '.join(_SUFFIXES)} file")
    return found


def read_photograph(path: Path, spec: VariantSpec) -> tuple[Images, Frame]:
    """The image file ``path`` as a batch of one for the encoder of ``spec``, and where it lies in there.

    Raises InvalidArgument with the file's name when it can't be read or decoded.
    """
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise InvalidArgument(str(path), f"can't be read: {error.strerror}") from error
    square, frame = encoder_input(decode(encoded, _MAX_PIXELS, str(path)), spec)
    return Images(square[None], np.array([frame.valid], np.int32)), frame


def spread(items: Sequence[T], count: int) -> tuple[T, ...]:
    """At most ``count`` of ``items``, in their order and evenly spread over them: the same ones every time."""
    chosen = min(count, len(items))
    return tuple(items[index * len(items) // chosen] for index in range(chosen))
