"""SegEvery by a grid of points: segment_anything's ``SamAutomaticMaskGenerator`` without its model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from samgate.domain import Chosen, FloatArray, Frame, Survivors, least_ious
from samgate.segevery.crops import Crop, make_crops
from samgate.segevery.harvest import Harvest
from samgate.segevery.parameters import GridParameters
from samgate.segevery.sampler import Chunk, EverythingResult, Sampler
from samgate.variants.spec import VariantSpec

__all__ = ["EverythingResult", "GridSampler", "Sampler"]


@dataclass(slots=True)
class CropState:
    """How far a crop is: its ``points`` float32 ``[n, 2]`` as far as they are known, and how many of them were handed
    out (``taken``); of all of its prompts, how many there are (``total``) and were added (``done``); ``frame`` once it
    is open."""

    points: FloatArray
    total: int
    frame: Frame | None = None
    taken: int = 0
    done: int = 0


class GridSampler:
    """A :class:`~samgate.segevery.sampler.Sampler` whose prompts are known in advance; those that learn theirs from
    the masks build on it.

    Args:
        parameters: grid, crops and thresholds.
        size: (height, width) of the image in pixels.
        spec: the variant, for its mask threshold and tokens.
    """

    def __init__(self, parameters: GridParameters, size: tuple[int, int], spec: VariantSpec) -> None:
        self._states = {crop: CropState(crop.points, len(crop.points)) for crop in make_crops(size, parameters)}
        self._harvest = Harvest(self._states, parameters, size, spec.mask_threshold)
        self._lock = Lock()
        threshold = parameters.pred_iou_thresh
        self._min_ious = least_ious(spec.mask_tokens, spec.multimask_tokens, threshold if threshold > 0 else -math.inf)

    @property
    def crops(self) -> tuple[Crop, ...]:
        """The whole image, then crops layer by layer."""
        return tuple(self._states)

    @property
    def prompts_total(self) -> int:
        """Prompts of all crops that are known."""
        return sum(state.total for state in self._states.values())

    @property
    def prompts_done(self) -> int:
        """Prompts added so far, of all crops."""
        return sum(state.done for state in self._states.values())

    @property
    def min_ious(self) -> FloatArray:
        """See :class:`Sampler`."""
        return self._min_ious

    @property
    def candidates(self) -> int:
        """Masks that passed the filters so far, duplicates among them."""
        return self._harvest.candidates

    def open_crop(self, crop: Crop, frame: Frame, embedding: FloatArray) -> None:  # noqa: ARG002
        """See :meth:`Sampler.open_crop`."""
        self._states[crop].frame = frame
        self._harvest.open_crop(crop, frame)

    def next(self, crop: Crop, limit: int) -> Chunk | None:
        """The next points of ``crop`` in their order."""
        with self._lock:
            state = self._states[crop]
            points = state.points[state.taken : state.taken + limit]
            state.taken += len(points)
        return Chunk(crop, points) if len(points) else None

    def known(self, chunk: Chunk) -> Callable[[], Survivors] | None:  # noqa: ARG002
        """Nothing is."""
        return None

    def choose(self, chunk: Chunk, ious: FloatArray, coarse: FloatArray) -> Chosen:
        """See :meth:`Sampler.choose`."""
        return self._harvest.choose(chunk, ious, coarse, self._min_ious)

    def add(self, chunk: Chunk, survivors: Survivors) -> None:
        """See :meth:`Sampler.add`."""
        self._harvest.add(chunk, self._frame(chunk.crop), survivors)
        self._added(chunk)

    def finish_crop(self, crop: Crop) -> None:
        """NMS among ``crop``'s masks by predicted IoU. Raises ValueError while points of it are not added."""
        state = self._states[crop]
        if state.done != state.total:
            raise ValueError(f"crop {crop.box}: {state.done} of {state.total} prompts were added")
        self._harvest.finish_crop(crop)

    def present(self) -> list[EverythingResult]:
        """See :meth:`Sampler.present`."""
        return self._harvest.present()

    def finish(self) -> list[EverythingResult]:
        """See :meth:`Harvest.finish`."""
        return self._harvest.finish()

    def _frame(self, crop: Crop) -> Frame:
        frame = self._states[crop].frame
        if frame is None:
            raise ValueError(f"crop {crop.box} was not opened")
        return frame

    def _added(self, chunk: Chunk) -> None:
        with self._lock:
            self._states[chunk.crop].done += len(chunk)
