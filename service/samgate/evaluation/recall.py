"""Class-agnostic average recall of mask proposals, as COCO's evaluator scores them (``COCOeval``, ``useCats = 0``).

Of an image the best masks by predicted IoU are taken. For each IoU threshold, masks in that order each take the free
object that they cover best, and recall is the share of objects taken; average recall is the mean over thresholds from
0.50 to 0.95. Crowds, and objects outside of a size class, have no say in it: in COCO's evaluator a mask is matched to
one only when it matches nothing else. They keep masks from counting as wrong, which recall doesn't look at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from samgate.domain import Rle
from samgate.evaluation.dataset import Instance, coco_rle
from samgate.evaluation.metrics import resampled_means

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""COCO's, to the last bit."""
_SMALL, _LARGE = 32.0**2, 96.0**2


@dataclass(frozen=True, slots=True)
class Measure:
    """Recall with the best ``masks`` of each image, of objects whose labelled area in pixels is within ``areas``.

    Both bounds are inclusive, as COCO has them.
    """

    masks: int
    areas: tuple[float, float] = (0.0, np.inf)


MEASURES: Mapping[str, Measure] = {
    "AR@10": Measure(10),
    "AR@100": Measure(100),
    "AR@1000": Measure(1000),
    "small": Measure(1000, (0.0, _SMALL)),
    "medium": Measure(1000, (_SMALL, _LARGE)),
    "large": Measure(1000, (_LARGE, np.inf)),
}
"""What is reported, by name; ``small``, ``medium`` and ``large`` are AR@1000 by size."""


@dataclass(frozen=True, slots=True)
class Proposals:
    """Masks that were found in one image, with the IoU predicted for each; in any order, but equal ones rank by it."""

    rles: tuple[Rle, ...]
    predicted_ious: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """One image's part in recall: objects ``found``, in the mean over thresholds, of ``objects``, by measure."""

    found: Mapping[str, float]
    objects: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Recall:
    """Average recall over ``n`` objects with its 95% confidence interval; 0 to 1, and 0 where ``n`` is."""

    ar: float
    ci95: tuple[float, float]
    n: int


@dataclass(frozen=True, slots=True)
class Difference:
    """How much more average recall one has than another on the same images, with its 95% confidence interval."""

    ar: float
    ci95: tuple[float, float]


def score(proposals: Proposals, instances: Sequence[Instance]) -> Found:
    """What ``proposals`` find of ``instances``, the objects of an image that are no crowds."""
    best = np.argsort(-np.asarray(proposals.predicted_ious, dtype=np.float64), kind="stable")
    best = best[: max(measure.masks for measure in MEASURES.values())]
    ious = _iou_matrix([proposals.rles[index] for index in best.tolist()], [one.rle for one in instances])
    areas = np.array([one.area for one in instances], dtype=np.float64)
    ranks: dict[tuple[float, float], npt.NDArray[np.intp]] = {}
    found, objects = {}, {}
    for name, measure in MEASURES.items():
        low, high = measure.areas
        chosen = (areas >= low) & (areas <= high)
        if measure.areas not in ranks:
            ranks[measure.areas] = _ranks(ious[:, chosen])
        found[name] = float(np.count_nonzero(ranks[measure.areas] < measure.masks)) / len(THRESHOLDS)
        objects[name] = int(np.count_nonzero(chosen))
    return Found(found, objects)


def recall(images: Sequence[Found], measure: str) -> Recall:
    """``measure`` (a name of :data:`MEASURES`) over ``images``, at least one.

    The interval is that of :func:`samgate.evaluation.metrics.mean_iou`: a percentile bootstrap over images.
    """
    found, objects = _columns(images, measure)
    low, high = np.percentile(resampled_means(found, objects), [2.5, 97.5])
    return Recall(float(found.sum() / max(objects.sum(), 1.0)), (float(low), float(high)), int(objects.sum()))


def difference(images: Sequence[Found], others: Sequence[Found], measure: str) -> Difference:
    """``measure`` of ``images`` less that of ``others``, which are the same images in the same order, at least one.

    The interval is the paired bootstrap: each resample takes the same images of both. Raises ``ValueError`` if they
    aren't the same images, as far as their objects tell.
    """
    if [one.objects for one in images] != [other.objects for other in others]:
        raise ValueError("only recall on the same images can be paired")
    found, objects = _columns(images, measure)
    other, _ = _columns(others, measure)
    low, high = np.percentile(resampled_means(found - other, objects), [2.5, 97.5])
    return Difference(float((found - other).sum() / max(objects.sum(), 1.0)), (float(low), float(high)))


def _columns(images: Sequence[Found], measure: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    found = np.array([image.found[measure] for image in images], dtype=np.float64)
    return found, np.array([image.objects[measure] for image in images], dtype=np.float64)


def _iou_matrix(masks: Sequence[Rle], objects: Sequence[Rle]) -> npt.NDArray[np.float64]:
    """float64 ``[masks, objects]``."""
    packed = [[coco_rle(rle) for rle in rles] for rles in (masks, objects)]
    found = coco_mask.iou(*packed, [0] * len(objects)) if masks and objects else ()
    return np.asarray(found, dtype=np.float64).reshape(len(masks), len(objects))


def _ranks(ious: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """The rank (from 0) of the mask that takes each object, ``[thresholds, objects]``; beyond all ranks if none does.

    ``ious`` is float64 ``[masks, objects]``, best mask first. A mask's choice depends on those before it alone: with
    fewer masks, the first ones choose the same.
    """
    nobody = np.iinfo(np.intp).max
    ranks = np.full((len(THRESHOLDS), ious.shape[1]), nobody, dtype=np.intp)
    levels = np.arange(len(THRESHOLDS))
    for rank in np.flatnonzero((ious >= THRESHOLDS[0]).any(axis=1)).tolist():
        open_to = np.where((ranks == nobody) & (ious[rank] >= THRESHOLDS[:, None]), ious[rank], -1.0)
        # Of objects that are covered equally well COCO's loop takes the last.
        choice = open_to.shape[1] - 1 - open_to[:, ::-1].argmax(axis=1)
        takes = open_to[levels, choice] > 0
        ranks[levels[takes], choice[takes]] = rank
    return ranks
