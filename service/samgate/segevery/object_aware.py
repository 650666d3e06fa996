"""SegEvery by the boxes of a detector: MobileSAMv2 (arXiv 2312.09579) without its model."""

from __future__ import annotations

import math
from collections.abc import Callable
from threading import Lock

import numpy as np

from samgate.domain import Chosen, FloatArray, Frame, Survivors, least_ious
from samgate.segevery.coarse import outlines
from samgate.segevery.crops import Crop
from samgate.segevery.filters import Candidates, concatenate, filter_chunk
from samgate.segevery.harvest import best_first
from samgate.segevery.parameters import GridParameters
from samgate.segevery.sampler import Chunk, EverythingResult
from samgate.variants.spec import VariantSpec

_NO_FILTERS = GridParameters(pred_iou_thresh=0, stability_score_thresh=0)


class ObjectAwareSampler:
    """A :class:`~samgate.segevery.sampler.Sampler` with one mask for each of ``boxes``, that of the token trained for
    unambiguous prompts, or the best predicted where there is none: as in MobileSAMv2 no filter drops any, and there is
    no NMS after the detector's.

    Args:
        boxes: float32 ``[B, 4]`` (x0, y0, x1, y1) in the image's pixels; B may be 0.
        size: (height, width) of the image in pixels.
        spec: the variant, for its mask threshold and tokens.
    """

    def __init__(self, boxes: FloatArray, size: tuple[int, int], spec: VariantSpec) -> None:
        height, width = size
        self._boxes = boxes
        self._size = size
        self._mask_threshold = spec.mask_threshold
        self._crop = Crop((0, 0, width, height), 0, np.empty((0, 2), np.float32))
        self._min_ious = least_ious(spec.mask_tokens, spec.single_tokens, -math.inf)
        self._frame: Frame | None = None
        self._starts: dict[Chunk, int] = {}
        self._found: dict[int, Candidates] = {}
        """By the place of the chunk's first box."""
        self._taken = self._done = 0
        self._lock = Lock()

    @property
    def crops(self) -> tuple[Crop, ...]:
        """The whole image."""
        return (self._crop,)

    @property
    def prompts_total(self) -> int:
        """Boxes."""
        return len(self._boxes)

    @property
    def prompts_done(self) -> int:
        """Boxes added so far."""
        return self._done

    @property
    def min_ious(self) -> FloatArray:
        """Whatever the one mask is worth."""
        return self._min_ious

    @property
    def candidates(self) -> int:
        """Masks so far: all stay."""
        return sum(len(found) for found in list(self._found.values()))

    def open_crop(self, crop: Crop, frame: Frame, embedding: FloatArray) -> None:  # noqa: ARG002
        """See :meth:`Sampler.open_crop`."""
        self._frame = frame

    def next(self, crop: Crop, limit: int) -> Chunk | None:
        """The next boxes in their order."""
        with self._lock:
            boxes = self._boxes[self._taken : self._taken + limit]
            if not len(boxes):
                return None
            chunk = Chunk(crop, boxes)
            self._starts[chunk] = self._taken
            self._taken += len(boxes)
        return chunk

    def known(self, chunk: Chunk) -> Callable[[], Survivors] | None:  # noqa: ARG002
        """Nothing is."""
        return None

    def choose(self, chunk: Chunk, ious: FloatArray, coarse: FloatArray) -> Chosen:
        """The one mask of every box."""
        best = np.where(ious > self._min_ious, ious, -np.inf).argmax(axis=1)
        kept = np.stack([np.arange(len(ious)), best], axis=1).astype(np.int32)
        samples, points = coarse[kept[:, 0], kept[:, 1]], chunk.points[kept[:, 0]]
        offset = _NO_FILTERS.stability_score_offset
        return Chosen(kept, outlines(samples, points, self._frame_of(chunk), self._mask_threshold, offset))

    def add(self, chunk: Chunk, survivors: Survivors) -> None:
        """See :meth:`Sampler.add`."""
        filtered = filter_chunk(
            survivors,
            chunk.points,
            self._frame_of(chunk),
            chunk.crop.box,
            self._size,
            _NO_FILTERS,
            self._mask_threshold,
        )
        with self._lock:
            self._found[self._starts.pop(chunk)] = filtered.found
            self._done += len(chunk)

    def finish_crop(self, crop: Crop) -> None:
        """Raises ValueError while boxes are not added."""
        if self._done != len(self._boxes):
            raise ValueError(f"crop {crop.box}: {self._done} of {len(self._boxes)} prompts were added")

    def present(self) -> list[EverythingResult]:
        """See :meth:`Sampler.present`."""
        with self._lock:
            parts = [self._found[start] for start in sorted(self._found)]
        return best_first(concatenate(parts))

    def finish(self) -> list[EverythingResult]:
        """The mask of each box, best predicted first, equal ones in the boxes' order."""
        return self.present()

    def _frame_of(self, chunk: Chunk) -> Frame:
        if self._frame is None:
            raise ValueError(f"crop {chunk.crop.box} was not opened")
        return self._frame
