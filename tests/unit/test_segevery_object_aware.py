"""One mask for each box, whatever it is worth, in whatever chunks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from samgate.domain import FloatArray
from samgate.imaging.preprocess import frame_of
from samgate.segevery.object_aware import ObjectAwareSampler
from samgate.segevery.sampler import Chunk
from samgate.variants.spec import SingleMask
from segevery_support import NO_EMBEDDING, SPEC, Scene, run

SCENE = Scene((300, 400), [(80, 80, 40), (250, 90, 50)], slope=0.2)
BOXES = np.array([[200, 40, 300, 140], [350, 250, 390, 290], [40, 40, 120, 120], [42, 42, 118, 118]], np.float32)


@pytest.mark.parametrize("limit", [1, 3, 16])
def test_one_mask_a_box_best_first(limit: int) -> None:
    sampler = ObjectAwareSampler(BOXES, SCENE.size, SPEC)
    assert sampler.min_ious.tolist() == [-np.inf, np.inf, np.inf, np.inf]
    results, chunks = run(sampler, SCENE, limit)
    assert [len(chunk) for chunk in chunks] == {1: [1] * 4, 3: [3, 1], 16: [4]}[limit]
    # Neither NMS nor a filter takes any away: not the duplicate, not the empty one, and all are blurred.
    assert [result.point for result in results] == [(250, 90), (80, 80), (80, 80), (370, 270)]
    assert [round(result.predicted_iou, 3) for result in results] == [0.901, 0.9, 0.9, 0.1]
    assert (results[-1].area, results[-1].box) == (0, None)
    assert sampler.candidates == 4
    assert sampler.present() == results


def test_the_order_of_arrival_does_not_matter() -> None:
    expected, _ = run(ObjectAwareSampler(BOXES, SCENE.size, SPEC), SCENE)
    sampler = ObjectAwareSampler(BOXES, SCENE.size, SPEC)
    (crop,) = sampler.crops
    sampler.open_crop(crop, frame_of(*SCENE.size, SPEC), NO_EMBEDDING)
    chunks: list[Chunk] = []
    while chunk := sampler.next(crop, 1):
        chunks.append(chunk)
    with pytest.raises(ValueError, match="0 of 4 prompts were added"):
        sampler.finish_crop(crop)
    for one in reversed(chunks):
        sampler.add(one, SCENE.decode(one, sampler.min_ious))
    sampler.finish_crop(crop)
    assert sampler.finish() == expected


def test_no_boxes_no_masks() -> None:
    nothing: FloatArray = np.empty((0, 4), np.float32)
    assert run(ObjectAwareSampler(nothing, SCENE.size, SPEC), SCENE) == ([], [])


def test_without_a_token_for_boxes_the_best_predicted_mask_is_made() -> None:
    sampler = ObjectAwareSampler(BOXES, SCENE.size, replace(SPEC, single_mask=SingleMask.BEST))
    (crop,) = sampler.crops
    sampler.open_crop(crop, frame_of(*SCENE.size, SPEC), NO_EMBEDDING)
    chunk = sampler.next(crop, 4)
    assert chunk is not None
    ious = np.array([[9, 1, 2, 3], [9, 3, 2, 1], [9, 2, 3, 1], [9, -3, -2, -1]], np.float32)
    chosen = sampler.choose(chunk, ious, np.ones((4, 4, 64, 64), np.float32))
    assert chosen.kept.tolist() == [[0, 3], [1, 1], [2, 2], [3, 3]]
