"""Prompts a gateway with every labelled object and scores what comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from samgate.client import Client, EmbeddedImage, Mask, Segmentation, prompt
from samgate.domain import Rle
from samgate.evaluation.dataset import DatasetError, Instance, LabelledImage
from samgate.evaluation.metrics import ious
from samgate.evaluation.prompts import box_prompt, centre_point

T = TypeVar("T")

PROMPTS_PER_CALL = 64
"""Most objects of one image in one call: far below what a server accepts, and its answer stays small."""


@dataclass(frozen=True, slots=True)
class ImageScores:
    """IoU with the truth of each object of one image, in the data set's order.

    ``box`` is the single mask for the labelled box; ``point`` the one of three masks for the centre point that the
    model predicts to be best, ``oracle`` the one that is best.
    """

    source: str
    box: tuple[float, ...]
    point: tuple[float, ...]
    oracle: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All images' scores, and what answered."""

    images: tuple[ImageScores, ...]
    variant: str
    precision: str
    engine: str


def evaluate(
    client: Client,
    images: Sequence[LabelledImage],
    variant: str = "",
    on_image: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Score every instance of ``images`` (at least one) with a box prompt and with a point prompt.

    Args:
        variant: name of the variant to evaluate; empty takes the server's default.
        on_image: called after each image.

    Raises :class:`~samgate.errors.SamgateError`: what the server answers, or DatasetError for an image whose size
    isn't what the data set says.
    """
    scores, last = [], None
    for image in images:
        found, last = _evaluate_image(client, image, variant)
        scores.append(found)
        on_image()
    if last is None:
        raise ValueError("there is no image to evaluate")
    return Evaluation(tuple(scores), last.info.variant, last.info.precision, last.info.engine)


def _evaluate_image(client: Client, image: LabelledImage, variant: str) -> tuple[ImageScores, Segmentation]:
    embedded = client.embed(image.path.read_bytes(), variant=variant)
    if embedded.size != image.size:
        found, said = (f"{width}×{height}" for height, width in (embedded.size, image.size))
        raise DatasetError(f"{image.path} is {found} pixels, the data set says {said}")
    box: list[float] = []
    point: list[float] = []
    oracle: list[float] = []
    for instances in _chunks(image.instances, PROMPTS_PER_CALL):
        boxes, points = _ask(client, embedded, instances)
        for instance, for_box, for_point in zip(instances, boxes.results, points.results, strict=True):
            box.append(float(ious(instance.rle, _rles(for_box))[0]))
            candidates = ious(instance.rle, _rles(for_point))
            point.append(float(candidates[int(np.argmax([mask.predicted_iou for mask in for_point]))]))
            oracle.append(float(candidates.max()))
    return ImageScores(image.source, tuple(box), tuple(point), tuple(oracle)), points


def _ask(client: Client, image: EmbeddedImage, instances: Sequence[Instance]) -> tuple[Segmentation, Segmentation]:
    boxes = [prompt(box=box_prompt(instance)) for instance in instances]
    points = [prompt(points=centre_point(instance.mask())) for instance in instances]
    return (
        client.segment(image, prompts=boxes, selection="single", format="rle"),
        client.segment(image, prompts=points, selection="multi", format="rle"),
    )


def _rles(masks: Iterable[Mask]) -> list[Rle]:
    return [mask.rle for mask in masks if mask.rle is not None]


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
