"""What a SegEvery strategy is: prompts out, masks back, next prompts; at the end, the masks of the image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from samgate.domain import FloatArray, Frame, Rle, Survivors
from samgate.segevery.crops import Crop, CropBox


@dataclass(frozen=True, slots=True)
class EverythingResult:
    """One mask of an image, in its pixels. ``box`` (x0, y0, x1, y1) has x1 and y1 exclusive and is None when the mask
    is empty; ``point`` (x, y) is the prompt that found it, in ``crop_box``."""

    rle: Rle
    box: CropBox | None
    area: int
    predicted_iou: float
    stability_score: float
    point: tuple[float, float]
    crop_box: CropBox


class Sampler(Protocol):
    """One strategy at work on one image.

    For each of ``crops``: encode it; decode all that :meth:`chunks` hands out and :meth:`add` what the decoder says,
    and so on until it hands out nothing; then :meth:`finish_crop`. Crops may be worked on in any order or at once. In
    the end, :meth:`finish`.
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
        """By mask token, float32 ``[M]``: masks of a predicted IoU that isn't above needn't come back."""

    @property
    def candidates(self) -> int:
        """Masks that passed the filters so far, duplicates among them."""

    def chunks(self, crop: Crop, limit: int) -> Iterator[FloatArray]:
        """The prompts of ``crop`` that are known and weren't handed out before, at most ``limit`` in a chunk: single
        foreground points, float32 ``[P, 2]`` (x, y) in the crop's pixels."""

    def add(self, crop: Crop, frame: Frame, points: FloatArray, survivors: Survivors) -> None:
        """Take what the decoder says to a chunk ``points``; ``frame`` is the crop's. Filters on the calling thread;
        several may call at once, and in any order."""

    def finish_crop(self, crop: Crop) -> None:
        """Drop the duplicates among the masks of ``crop``, all of whose prompts were added."""

    def finish(self) -> list[EverythingResult]:
        """The masks of all finished crops, best predicted first. The same however the work was split and ordered."""
