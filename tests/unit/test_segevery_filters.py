"""Which masks pass, one filter at a time, and what is known of them then."""

from __future__ import annotations

import numpy as np
import pytest

from samgate.domain import FloatArray, Frame, Survivors
from samgate.imaging.masks import finish, full_logits
from samgate.imaging.preprocess import longest_side
from samgate.imaging.rle import mask_to_rle, rle_to_mask
from samgate.segevery.crops import CropBox
from samgate.segevery.filters import Candidates, concatenate, filter_chunk, near_crop_edge
from samgate.segevery.parameters import GridParameters

SIZE = (300, 400)
WHOLE = (0, 0, 400, 300)


def frame_of(size: tuple[int, int]) -> Frame:
    return Frame(size, longest_side(*size, 1024), 1024)


def disc(radius: float, slope: float = 3.0, centre: tuple[float, float] = (96, 128)) -> FloatArray:
    y, x = np.mgrid[:256, :256].astype(np.float32)
    return np.asarray((radius - np.hypot(y - centre[0], x - centre[1])) * slope, dtype=np.float32)


def run(
    masks: list[list[FloatArray]],
    ious: list[list[float]],
    parameters: GridParameters,
    crop_box: CropBox = WHOLE,
    size: tuple[int, int] = SIZE,
) -> Candidates:
    x0, y0, x1, y1 = crop_box
    points = np.array([[10 * index, 5] for index in range(len(masks))], dtype=np.float32)
    threshold = parameters.pred_iou_thresh or -np.inf
    kept = np.argwhere(np.array(ious, dtype=np.float32) > np.float32(threshold)).astype(np.int32)
    survivors = np.array([masks[prompt][token] for prompt, token in kept], dtype=np.float32)
    return filter_chunk(
        Survivors(survivors, kept, np.array(ious, dtype=np.float32)),
        points,
        frame_of((y1 - y0, x1 - x0)),
        crop_box,
        size,
        parameters,
        0.0,
    ).found


ALL = GridParameters(pred_iou_thresh=0, stability_score_thresh=0)


def test_order_is_by_prompt_then_token() -> None:
    found = run([[disc(10), disc(20)], [disc(30), disc(40)]], [[0.1, 0.2], [0.3, 0.4]], ALL)
    assert found.predicted_ious.tolist() == [np.float32(value) for value in (0.1, 0.2, 0.3, 0.4)]
    assert found.points.tolist() == [[0, 5], [0, 5], [10, 5], [10, 5]]
    assert sorted(found.areas.tolist()) == found.areas.tolist()


def test_predicted_iou_must_be_above() -> None:
    found = run([[disc(10), disc(20), disc(30)]], [[0.88, 0.881, 0.5]], GridParameters(stability_score_thresh=0))
    assert found.predicted_ious.tolist() == [np.float32(0.881)]


def test_no_predicted_iou_filter_at_zero() -> None:
    assert len(run([[disc(10)]], [[-0.2]], ALL)) == 1


def test_stability_must_be_at_least() -> None:
    blurred = disc(30, slope=0.2)
    logits = full_logits(blurred, frame_of(SIZE))
    exact = np.float32(np.count_nonzero(logits > 1)) / np.float32(np.count_nonzero(logits > -1))
    for threshold, count in ((float(exact), 1), (float(exact) + 1e-4, 0)):
        parameters = GridParameters(pred_iou_thresh=0, stability_score_thresh=threshold)
        found = run([[blurred]], [[1.0]], parameters)
        assert len(found) == count
    assert run([[blurred]], [[1.0]], ALL).stability_scores[0] == exact


def test_empty_masks_pass_only_without_a_stability_filter() -> None:
    nothing = np.full((256, 256), -9, dtype=np.float32)
    assert len(run([[nothing]], [[1.0]], GridParameters())) == 0
    found = run([[nothing]], [[1.0]], ALL)
    assert found.boxes.tolist() == [[0, 0, 0, 0]]
    assert found.areas.tolist() == [0]
    assert not rle_to_mask(found.rles[0]).any()


def test_boxes_name_the_last_row_and_column() -> None:
    found = run([[disc(30)]], [[1.0]], ALL)
    rows, columns = np.nonzero(rle_to_mask(found.rles[0]))
    assert found.boxes.tolist() == [[columns.min(), rows.min(), columns.max(), rows.max()]]
    assert found.areas.tolist() == [len(rows)]


def test_masks_of_crops_lie_in_the_image() -> None:
    crop_box = (100, 50, 500, 350)
    found = run([[disc(30)]], [[1.0]], ALL, crop_box, (700, 900))
    mask = np.zeros((700, 900), dtype=np.uint8)
    mask[50:350, 100:500] = finish(disc(30), frame_of((300, 400)), 0).mask
    assert found.rles[0] == mask_to_rle(mask)
    assert found.points.tolist() == [[100, 55]]
    assert found.crop_boxes.tolist() == [list(crop_box)]


def test_masks_at_a_crops_edge_are_dropped_unless_it_is_the_images() -> None:
    at_the_left = disc(30, centre=(96, 20))
    assert len(run([[at_the_left]], [[1.0]], ALL, (0, 50, 400, 350), (700, 900))) == 1
    assert len(run([[at_the_left]], [[1.0]], ALL, (100, 50, 500, 350), (700, 900))) == 0


@pytest.mark.parametrize(
    ("box", "near"),
    [
        ((150, 150, 300, 300), False),
        ((120, 150, 300, 300), True),
        ((121, 150, 300, 300), False),
        ((150, 150, 380, 300), True),
        ((150, 20, 300, 300), False),  # near the image's top as well
        ((150, 150, 300, 480), True),
    ],
)
def test_near_crop_edge(box: tuple[int, int, int, int], near: bool) -> None:
    boxes = np.array([box], dtype=np.int32)
    assert near_crop_edge(boxes, (100, 0, 400, 500), (600, 800)).tolist() == [near]


def test_candidates_concatenate_and_take() -> None:
    first = run([[disc(10), disc(20)]], [[0.1, 0.2]], ALL)
    second = run([[disc(30)]], [[0.3]], ALL)
    assert len(concatenate([])) == 0
    taken = concatenate([first, concatenate([]), second]).take([2, 0])
    assert taken.predicted_ious.tolist() == [np.float32(0.3), np.float32(0.1)]
    assert taken.rles == (second.rles[0], first.rles[0])
    assert len(taken.take([])) == 0
