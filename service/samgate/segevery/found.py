"""SegEvery of systems that find everything at once: the masks are in the embedding, and no prompt is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from samgate.domain import FloatArray, Frame, Survivors
from samgate.segevery.crops import Crop
from samgate.segevery.generator import GridSampler
from samgate.segevery.parameters import GridParameters
from samgate.segevery.sampler import Chunk
from samgate.variants.detections import Detections, detections_in
from samgate.variants.spec import VariantSpec


class FoundSampler(GridSampler):
    """A :class:`~samgate.segevery.sampler.Sampler` whose prompts stand for the detections in the embedding, by the
    centres of their boxes, the most confident first; predicted IoU is confidence.

    What is no detection, and what is another's duplicate, the network's own thresholds have said, as upstream: the
    grid's for predicted IoU, stability and duplicates within a crop are for masks of prompts, and don't apply. Crops
    are each looked at in full, and duplicates among them dropped.

    Args:
        parameters: crops, ``max_masks`` and ``min_mask_region_area``.
        size: (height, width) of the image in pixels.
        spec: the variant, for its sizes.
    """

    def __init__(self, parameters: GridParameters, size: tuple[int, int], spec: VariantSpec) -> None:
        super().__init__(
            replace(parameters, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1, points_per_side=1),
            size,
            spec,
        )
        self._mask_threshold = spec.mask_threshold
        self._prompt_size, self._low_res = spec.prompt_size, spec.low_res_size
        self._found: dict[Crop, Detections] = {}
        self._starts: dict[Chunk, int] = {}

    def open_crop(self, crop: Crop, frame: Frame, embedding: FloatArray) -> None:
        """See :meth:`Sampler.open_crop`: all that is found in ``crop`` is known then."""
        super().open_crop(crop, frame, embedding)
        found = self._found[crop] = detections_in(embedding)
        state = self._states[crop]
        centres = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2 * np.float32(self._prompt_size / self._low_res)
        state.points = np.clip(frame.from_prompt(centres.astype(np.float32)), 0, np.array(frame.original[::-1]) - 1)
        state.total = len(state.points)

    def next(self, crop: Crop, limit: int) -> Chunk | None:
        """The next detections of ``crop``."""
        start = self._states[crop].taken
        chunk = super().next(crop, limit)
        if chunk is not None:
            self._starts[chunk] = start
        return chunk

    def known(self, chunk: Chunk) -> Callable[[], Survivors] | None:
        """The masks of all of ``chunk`` that has any, out of the embedding."""
        found, start = self._found[chunk.crop], self._starts.pop(chunk)

        def make() -> Survivors:
            at = slice(start, start + len(chunk))
            masks = found.logits(at)
            # Of boxes that end where the image does nothing may be left. Upstream keeps these.
            some = np.flatnonzero((masks > self._mask_threshold).any(axis=(1, 2)))
            kept = np.stack([some, np.zeros_like(some)], axis=1).astype(np.int32)
            return Survivors(masks[some], kept, found.confidences[at, None])

        return make
