"""IoU, its mean, and how sure the mean is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from samgate.domain import Rle
from samgate.evaluation.dataset import coco_rle

RESAMPLES = 10_000
SEED = 20_250_101
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class MeanIou:
    """``miou`` over ``n`` masks with its 95% confidence interval ``ci95`` (low, high); all are 0 to 1."""

    miou: float
    ci95: tuple[float, float]
    n: int


def ious(truth: Rle, masks: Sequence[Rle]) -> npt.NDArray[np.float64]:
    """IoU of each of ``masks`` with ``truth``, float64 ``[N]``."""
    found = coco_mask.iou([coco_rle(mask) for mask in masks], [coco_rle(truth)], [0])
    return np.asarray(found, dtype=np.float64).reshape(len(masks))


def mean_iou(by_image: Sequence[Sequence[float]]) -> MeanIou:
    """The mean over all masks, of which ``by_image`` holds one list per image.

    The interval is a percentile bootstrap that draws *images*, with all of their masks, not masks: those of one image
    share its embedding and its difficulty, and treating them as independent would make the interval too narrow. The
    seed is fixed, so the same IoUs always give the same interval.
    """
    sums = np.array([sum(values) for values in by_image], dtype=np.float64)
    counts = np.array([len(values) for values in by_image], dtype=np.float64)
    if not counts.sum():
        raise ValueError("there is no mask to take a mean over")
    low, high = np.percentile(resampled_means(sums, counts), [2.5, 97.5])
    return MeanIou(float(sums.sum() / counts.sum()), (float(low), float(high)), int(counts.sum()))


def resampled_means(sums: npt.NDArray[np.float64], counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The bootstrap over images: float64 ``[RESAMPLES, ...]``, the mean of each resample of the images.

    Args:
        sums, counts: float64 ``[images, ...]``: the sum of each image's values, and how many they are. A resample
            without any value has the mean 0.

    The seed is fixed and the draws depend on the number of images alone: two calls for the same images draw the same
    ones, so that the difference of their answers is the paired bootstrap of the difference.
    """
    random, shares = np.random.default_rng(SEED), np.full(len(sums), 1 / len(sums))
    means: list[npt.NDArray[np.float64]] = []
    for _ in range(RESAMPLES // _CHUNK):
        drawn = random.multinomial(len(sums), shares, size=_CHUNK).astype(np.float64)
        means.append((drawn @ sums) / np.maximum(drawn @ counts, 1.0))
    return np.concatenate(means)
