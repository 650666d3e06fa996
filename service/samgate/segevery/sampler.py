"""What a SegEvery strategy is: prompts out, masks back, next prompts; at the end, the masks of the image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from samgate.domain import Chosen, FloatArray, Frame, Rle, Survivors
from samgate.segevery.crops import Crop, CropBox


@dataclass(frozen=True, slots=True)
class EverythingResult:
    """One mask of an image, in its pixels. ``box`` (x0, y0, x1, y1) has x1 and y1 exclusive and is None when the mask
    is empty; ``point`` (x, y) is the prompt that found it, a box's centre if that was one, in ``crop_box``."""

    rle: Rle
    box: CropBox | None
    area: int
    predicted_iou: float
    stability_score: float
    point: tuple[float, float]
    crop_box: CropBox


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Prompts of one kind to decode together: ``coords`` float32 ``[P, 2]`` foreground points (x, y) or ``[P, 4]``
    boxes (x0, y0, x1, y1), in ``crop``'s pixels."""

    crop: Crop
    coords: FloatArray

    def __len__(self) -> int:
        return len(self.coords)

    @property
    def points(self) -> FloatArray:
        """The points, or the centres of the boxes: float32 ``[P, 2]``."""
        if self.coords.shape[1] == 2:
            return self.coords
        return np.asarray((self.coords[:, :2] + self.coords[:, 2:]) / 2, dtype=np.float32)


class Sampler(Protocol):
    """One strategy at work on one image.

    For each of ``crops``: encode it and :meth:`open_crop`; decode what :meth:`next` hands out and :meth:`add` what the
    decoder says, until nothing is handed out and nothing is under way; then :meth:`finish_crop`. Crops may be worked on
    in any order or at once. In the end, :meth:`finish`; at any time before, :meth:`present`.
    """

    @property
    def crops(self) -> tuple[Crop, ...]:
        """The parts of the image to encode; the whole image is the first."""

    @property
    def prompts_total(self) -> int:
        """Prompts of all crops, as far as is known by now."""

    @property
    def prompts_done(self) -> int:
        """Prompts that were added."""

    @property
    def min_ious(self) -> FloatArray:
        """float32 ``[M]``, by mask token, for the chunk that :meth:`next` gave last: masks that aren't predicted a
        higher IoU are never chosen."""

    @property
    def candidates(self) -> int:
        """Masks that passed the filters so far, duplicates among them."""

    def open_crop(self, crop: Crop, frame: Frame, embedding: FloatArray) -> None:
        """Before the first prompts of ``crop``: its ``frame``, and its ``embedding`` float32 ``[256, 64, 64]``."""

    def next(self, crop: Crop, limit: int) -> Chunk | None:
        """At most ``limit`` prompts that are known and weren't handed out before; None when there are none, which
        further masks may change. Raises KeyError for a crop that isn't open."""

    def known(self, chunk: Chunk) -> Callable[[], Survivors] | None:
        """What makes the masks of ``chunk`` without a decoder, on any thread; None where the decoder has to."""

    def choose(self, chunk: Chunk, ious: FloatArray, coarse: FloatArray) -> Chosen:
        """Which masks of ``chunk`` to make: see :data:`~samgate.domain.Choose`. Any thread may ask."""

    def add(self, chunk: Chunk, survivors: Survivors) -> None:
        """Take what the decoder says to ``chunk``. Filters on the calling thread; several may call at once, and in any
        order."""

    def finish_crop(self, crop: Crop) -> None:
        """Drop the duplicates among the masks of ``crop``, all of whose prompts were added. Raises ValueError if some
        weren't."""

    def present(self) -> list[EverythingResult]:
        """What :meth:`finish` would give if no further masks came: the masks so far without duplicates. Any thread may
        ask; no mask that is being added meanwhile counts half."""

    def finish(self) -> list[EverythingResult]:
        """The masks of all finished crops, best predicted first. The same however the masks were split and
        ordered; which ones were made depends on those before (:meth:`choose`)."""
