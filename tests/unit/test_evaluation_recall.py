"""Average recall against COCO's own evaluator, and its intervals."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from samgate.domain import Rle, UInt8Array
from samgate.evaluation.dataset import Instance, LabelledImage, coco_rle, load_dataset
from samgate.evaluation.recall import MEASURES, Found, Proposals, difference, recall, score

SIZE = (160, 200)
AREAS = ("all", "small", "medium", "large")
MASKS = (10, 100, 1000)


def packed(mask: UInt8Array) -> Rle:
    encoded = coco_mask.encode(np.asfortranarray(mask))
    return Rle((mask.shape[0], mask.shape[1]), encoded["counts"])


def rectangle(y: int, x: int, height: int, width: int) -> UInt8Array:
    mask = np.zeros(SIZE, np.uint8)
    mask[y : y + height, x : x + width] = 1
    return mask


def labelled(*masks: UInt8Array) -> list[Instance]:
    return [Instance(packed(mask), (0, 0, 1, 1), float(mask.sum())) for mask in masks]


def coco_recall(
    truth: Sequence[Sequence[Instance]], crowds: Sequence[Sequence[Rle]], found: Sequence[Proposals]
) -> dict[tuple[str, int], float]:
    """AR by area class and number of masks, as pycocotools calculates it; -1 where there is no object."""
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for index, (instances, crowd, proposals) in enumerate(zip(truth, crowds, found, strict=True), start=1):
        shapes = [(one.rle, one.area, 0) for one in instances] + [(rle, 500.0, 1) for rle in crowd]
        for rle, area, is_crowd in shapes:
            shape = {"segmentation": coco_rle(rle), "area": area, "iscrowd": is_crowd, "bbox": [0, 0, 1, 1]}
            annotations.append({"id": len(annotations) + 1, "image_id": index, "category_id": 1, **shape})
        for rle, predicted in zip(proposals.rles, proposals.predicted_ious, strict=True):
            answer = {"segmentation": coco_rle(rle), "score": predicted, "area": 1, "bbox": [0, 0, 1, 1], "iscrowd": 0}
            results.append({"id": len(results) + 1, "image_id": index, "category_id": 1, **answer})
    sizes = [dict(zip(("height", "width"), instances[0].rle.size, strict=True)) for instances in truth]
    images = [{"id": index, **size} for index, size in enumerate(sizes, start=1)]
    sets = []
    with contextlib.redirect_stdout(io.StringIO()):
        for entries in (annotations, results):
            sets.append(COCO())
            sets[-1].dataset = {"images": images, "annotations": entries, "categories": [{"id": 1, "name": "object"}]}
            sets[-1].createIndex()
        evaluator = COCOeval(*sets, iouType="segm")
        evaluator.params.useCats = 0
        evaluator.params.maxDets = list(MASKS)
        evaluator.evaluate()
        evaluator.accumulate()
    mean = evaluator.eval["recall"].mean(axis=0)[0]
    return {(area, masks): float(mean[a, m]) for a, area in enumerate(AREAS) for m, masks in enumerate(MASKS)}


def assert_the_same(images: Sequence[Found], expected: dict[tuple[str, int], float]) -> None:
    for name, measure in MEASURES.items():
        ours = recall(images, name)
        theirs = expected[name if name in AREAS else "all", measure.masks]
        assert ours.ar == pytest.approx(max(theirs, 0.0), abs=1e-9), name
        assert (ours.n == 0) == (theirs == -1), name


def jittered(random: np.random.Generator, mask: UInt8Array) -> UInt8Array:
    shifts = random.integers(-4, 5, 2)
    return np.roll(mask, (int(shifts[0]), int(shifts[1])), axis=(0, 1))


@pytest.mark.parametrize("seed", range(8))
def test_recall_of_random_masks_is_cocos(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth: list[list[Instance]] = []
    crowds: list[list[Rle]] = []
    found: list[Proposals] = []
    for _ in range(4):
        sides = random.integers(8, 130, (int(random.integers(1, 15)), 2))
        shapes = [rectangle(int(random.integers(30)), int(random.integers(70)), int(h), int(w)) for h, w in sides]
        truth.append(labelled(*shapes))
        # Several masks an object, equal scores, masks that hit a crowd, and noise.
        masks = [jittered(random, shapes[int(random.integers(len(shapes)))]) for _ in range(60)]
        crowd = rectangle(100, 0, 50, 190)
        masks += [rectangle(int(random.integers(100, 120)), 0, 20, 180) for _ in range(20)]
        crowds.append([packed(crowd)])
        scores = np.round(random.uniform(0.5, 1, len(masks)), 1).tolist()
        found.append(Proposals(tuple(packed(mask) for mask in masks), tuple(scores)))
    found[-1] = Proposals((), ())
    images = [score(proposals, instances) for proposals, instances in zip(found, truth, strict=True)]
    expected = coco_recall(truth, crowds, found)
    assert_the_same(images, expected)
    assert 0 < expected["all", 10] < expected["all", 100] < 1


def test_recall_on_photographs_is_cocos(shared_data: Path) -> None:
    """Labelled masks of photographs, moved, cut and doubled, as proposals: 1,000 and more an image."""
    images = load_dataset(shared_data / "eval" / "instances.json", min_area=0)
    random = np.random.default_rng(0)
    chosen = [image for image in images if image.size[0] * image.size[1] < 400_000][::12]
    found = [proposals_from(random, image) for image in chosen]
    scored = [score(proposals, image.instances) for proposals, image in zip(found, chosen, strict=True)]
    assert_the_same(scored, coco_recall([image.instances for image in chosen], [[] for _ in chosen], found))
    assert max(len(proposals.rles) for proposals in found) > 1000
    assert all(recall(scored, name).n > 0 for name in MEASURES)


def proposals_from(random: np.random.Generator, image: LabelledImage) -> Proposals:
    masks = [one.mask() for one in image.instances]
    rles = [packed(jittered(random, masks[int(random.integers(len(masks)))])) for _ in range(300)]
    rles = [rles[index] for index in random.integers(len(rles), size=1200).tolist()]
    return Proposals(tuple(rles), tuple(random.uniform(0, 1, len(rles)).tolist()))


def test_a_mask_takes_one_object_and_an_object_one_mask() -> None:
    whole = rectangle(0, 0, 100, 100)
    twins = labelled(whole, whole)
    assert score(Proposals((packed(whole),), (0.9,)), twins).found["AR@1000"] == 1.0
    (lone,) = labelled(whole)
    twice = Proposals((packed(whole), packed(whole)), (0.9, 0.8))
    assert score(twice, [lone]).found["AR@1000"] == 1.0


def test_recall_is_the_mean_over_thresholds_and_only_the_best_masks_count() -> None:
    truth = labelled(rectangle(0, 0, 100, 100))
    three_quarters = packed(rectangle(0, 0, 75, 100))
    wrong = packed(rectangle(120, 120, 9, 9))
    found = score(Proposals((*[wrong] * 10, three_quarters), (*[0.9] * 10, 0.8)), truth)
    assert found.found == {"AR@10": 0, "AR@100": 0.6, "AR@1000": 0.6, "small": 0, "medium": 0, "large": 0.6}
    assert found.objects == {"AR@10": 1, "AR@100": 1, "AR@1000": 1, "small": 0, "medium": 0, "large": 1}


def ten(found: float) -> Found:
    return Found({"AR@10": found}, {"AR@10": 10})


def test_intervals_are_over_images_and_differences_are_paired() -> None:
    random = np.random.default_rng(0)
    levels = random.uniform(0, 9, 80)
    images = [ten(float(level)) for level in levels]
    whole = recall(images, "AR@10")
    assert whole.ar == pytest.approx(levels.mean() / 10)
    assert whole.n == 800
    width = whole.ci95[1] - whole.ci95[0]
    assert width == pytest.approx(2 * 1.96 * levels.std() / 10 / np.sqrt(80), rel=0.05)
    better = difference([ten(float(level) + 0.5) for level in levels], images, "AR@10")
    assert better.ar == pytest.approx(0.05)
    assert better.ci95 == pytest.approx((0.05, 0.05)), "whatever images are drawn, the difference is the same"
    with pytest.raises(ValueError, match="the same images"):
        difference(images[1:], images, "AR@10")
