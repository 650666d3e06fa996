"""What a strategy has found so far, and what is left of it without duplicates: the second half of segment_anything's
``SamAutomaticMaskGenerator``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from samgate.domain import Chosen, FloatArray, Frame, Survivors
from samgate.segevery.choice import Choice
from samgate.segevery.crops import Crop
from samgate.segevery.filters import Candidates, concatenate, filter_chunk
from samgate.segevery.nms import box_nms
from samgate.segevery.parameters import GridParameters
from samgate.segevery.regions import clean_candidates
from samgate.segevery.sampler import Chunk, EverythingResult


@dataclass(slots=True)
class _Finds:
    ranks: list[int] = field(default_factory=list)
    parts: list[Candidates] = field(default_factory=list)
    kept: Candidates | None = None
    """What is left after the crop's own NMS."""


class Harvest:
    """Masks of one image by crop. Methods are safe to call from several threads.

    Args:
        crops: of the image.
        parameters: thresholds; the grid's own are of no interest here.
        size: (height, width) of the image in pixels.
        mask_threshold: the variant's, in logits.
    """

    def __init__(
        self, crops: Iterable[Crop], parameters: GridParameters, size: tuple[int, int], mask_threshold: float
    ) -> None:
        self._parameters = parameters
        self._size = size
        self._mask_threshold = mask_threshold
        self._finds = {crop: _Finds() for crop in crops}
        self._choices: dict[Crop, Choice] = {}
        self._lock = Lock()
        self.candidates = 0
        """Masks that passed the filters, duplicates among them."""

    def open_crop(self, crop: Crop, frame: Frame) -> None:
        """Before the first masks of ``crop``."""
        height, width = self._size
        cut = np.array(crop.box) != (0, 0, width, height)
        self._choices[crop] = Choice(frame, self._parameters, self._mask_threshold, cut)

    def choose(self, chunk: Chunk, ious: FloatArray, coarse: FloatArray, min_ious: FloatArray) -> Chosen:
        """See :meth:`Choice.choose`."""
        return self._choices[chunk.crop].choose(chunk.points, ious, coarse, min_ious)

    def add(self, chunk: Chunk, frame: Frame, survivors: Survivors, rank: int = 0) -> NDArray[np.intp]:
        """Filter what the decoder says to ``chunk``, whose crop has ``frame``.

        Of masks that are predicted equally good, those of lower ``rank`` go first, then those further up, then further
        left: the grid's order. Returns the indices of ``survivors.masks`` that are stable, at the crop's edge or not.
        """
        found, kept, stable = filter_chunk(
            survivors, chunk.points, frame, chunk.crop.box, self._size, self._parameters, self._mask_threshold
        )
        self._choices[chunk.crop].made(survivors.masks[kept], found.predicted_ious)
        with self._lock:
            finds = self._finds[chunk.crop]
            finds.parts.append(found)
            finds.ranks.append(rank)
            self.candidates += len(found)
        return stable

    def finish_crop(self, crop: Crop) -> None:
        """NMS among ``crop``'s masks by predicted IoU; more can't be added."""
        finds = self._finds[crop]
        kept = self._distinct(finds)
        with self._lock:
            finds.kept = kept
            finds.parts.clear()
            finds.ranks.clear()

    def present(self) -> list[EverythingResult]:
        """As :meth:`finish`, with the masks so far of crops that aren't finished."""
        return self._results([self._distinct(finds) for finds in self._finds.values()])

    def finish(self) -> list[EverythingResult]:
        """NMS across crops (the smaller crop wins), small regions removed, then by predicted IoU, best first.

        Equal predictions stay in the order upstream answers them in. Crops that weren't finished are left out.
        """
        return self._results([finds.kept for finds in self._finds.values() if finds.kept is not None])

    def _distinct(self, finds: _Finds) -> Candidates:
        with self._lock:
            if finds.kept is not None:
                return finds.kept
            parts, ranks = list(finds.parts), list(finds.ranks)
        found = concatenate(parts)
        # The grid's order, whatever that of arrival was: it ranks equal scores.
        rank = np.repeat(np.array(ranks, dtype=np.intp), [len(part) for part in parts])
        found = found.take(np.lexsort((found.points[:, 0], found.points[:, 1], rank)))
        return found.take(box_nms(found.boxes, found.predicted_ious, self._parameters.box_nms_thresh))

    def _results(self, kept: list[Candidates]) -> list[EverythingResult]:
        parameters, found = self._parameters, concatenate(kept)
        if len(self._finds) > 1:
            sides = found.crop_boxes[:, 2:].astype(np.float32) - found.crop_boxes[:, :2].astype(np.float32)
            found = found.take(box_nms(found.boxes, 1 / sides.prod(axis=1), parameters.crop_nms_thresh))
        if parameters.min_mask_region_area > 0:
            nms_thresh = max(parameters.box_nms_thresh, parameters.crop_nms_thresh)
            found = clean_candidates(found, parameters.min_mask_region_area, nms_thresh)
        return best_first(found, parameters.max_masks)


def best_first(found: Candidates, most: int = 0) -> list[EverythingResult]:
    """``found`` by predicted IoU, equal ones in the order given; the first ``most`` of them, 0 is all."""
    best = np.argsort(-found.predicted_ious, kind="stable")
    return _results(found.take(best[: most or None]))


def _results(found: Candidates) -> list[EverythingResult]:
    results: list[EverythingResult] = []
    for index, rle in enumerate(found.rles):
        x0, y0, x1, y1 = found.boxes[index].tolist()
        crop_x0, crop_y0, crop_x1, crop_y1 = found.crop_boxes[index].tolist()
        area = int(found.areas[index])
        x, y = found.points[index].tolist()
        results.append(
            EverythingResult(
                rle=rle,
                box=(x0, y0, x1 + 1, y1 + 1) if area else None,
                area=area,
                predicted_iou=float(found.predicted_ious[index]),
                stability_score=float(found.stability_scores[index]),
                point=(x, y),
                crop_box=(crop_x0, crop_y0, crop_x1, crop_y1),
            )
        )
    return results
