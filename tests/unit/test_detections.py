"""From a detector's candidates to boxes worth prompting with, and the letterbox both ways."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samgate.domain import FloatArray
from samgate.errors import InvalidArgument
from samgate.imaging.letterbox import Letterboxed, detector_input, letterbox_of
from samgate.segevery.detections import (
    MAX_CANDIDATES,
    SNAP_PIXELS,
    DetectorParameters,
    detections,
    snapped,
)
from samgate.variants.detectors import DETECTORS, DetectorSpec

YOLOX = DETECTORS["yolox-nano"]
YOLOV8 = DETECTORS["yolov8"].sized(640)
SPECS = [pytest.param(YOLOX, id="yolox"), pytest.param(YOLOV8, id="yolov8")]
SIZES = st.tuples(st.integers(1, 6000), st.integers(1, 6000))


def test_sizes_are_upstream_s() -> None:
    # ultralytics: 640 × 427 fills the width, 213 rows are left, 106 of them above.
    assert letterbox_of(427, 640, YOLOV8) == Letterboxed((427, 640), (427, 640), (106, 0), 640)
    # 480.5 rounds to even, as Python does.
    assert letterbox_of(961, 1280, YOLOV8).resized == (480, 640)
    # YOLOX cuts: 1200 / 1800 of 416 is 277.3.
    assert letterbox_of(1200, 1800, YOLOX) == Letterboxed((1200, 1800), (277, 416), (0, 0), 416)
    # Small images are made larger.
    assert letterbox_of(10, 20, YOLOX).resized == (208, 416)


@given(size=SIZES, spec=st.sampled_from([YOLOX, YOLOV8]), corners=st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_boxes_come_back_and_edges_are_exact(size: tuple[int, int], spec: DetectorSpec, corners: list[float]) -> None:
    height, width = size
    place = letterbox_of(height, width, spec)
    assert max(place.resized) in (place.side, place.side - 1)
    assert min(place.resized) >= 1
    assert all(
        first >= 0 and first + part <= place.side for first, part in zip(place.offset, place.resized, strict=True)
    )
    whole = np.array([[0, 0, width, height]], np.float32)
    np.testing.assert_array_equal(place.to_square(whole)[0], place.edges)
    np.testing.assert_array_equal(place.to_image(place.edges[None]), whole)
    boxes = np.array([corners], np.float32) * whole[:, [2, 3, 2, 3]]
    back = place.to_image(place.to_square(boxes))
    # A float's last digit in the square, in pixels of the image.
    scale = np.array([width / place.resized[1], height / place.resized[0]] * 2)
    assert (np.abs(back - boxes) <= 1e-4 * scale + 1e-3).all()


@pytest.mark.parametrize("spec", SPECS)
def test_the_picture_is_where_its_place_says(spec: DetectorSpec) -> None:
    draw = np.random.default_rng(0)
    image = np.kron(draw.integers(0, 256, (9, 13, 3)), np.ones((30, 30, 1))).astype(np.uint8)
    square, place = detector_input(image, spec)
    (height, width), (top, left) = place.resized, place.offset
    inside = square[top : top + height, left : left + width]
    expected = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(inside, expected)
    outside = np.ones(square.shape[:2], bool)
    outside[top : top + height, left : left + width] = False
    assert (square[outside] == 114).all()
    assert outside.sum() == place.side**2 - height * width


def test_an_image_of_one_column_has_a_place() -> None:
    square, place = detector_input(np.full((5000, 1, 3), 7, np.uint8), YOLOX)
    assert place.resized == (416, 1)
    assert (square[:, 0] == 7).all()


SQUARE = Letterboxed((400, 400), (400, 400), (0, 0), 400)


def boxes_of(*rows: tuple[float, float, float, float]) -> FloatArray:
    return np.array(rows, np.float32)


def found(boxes: FloatArray, scores: list[float], place: Letterboxed = SQUARE, **chosen: float) -> list[list[float]]:
    result = detections(boxes, np.array(scores, np.float32), place, DetectorParameters(**chosen))  # type: ignore[arg-type]
    assert len(result) == len(result.boxes)
    assert (np.diff(result.scores) <= 0).all()
    return [list(map(float, box)) for box in result.boxes]


def test_the_best_of_many_comes_first_and_duplicates_go() -> None:
    boxes = boxes_of((100, 100, 200, 200), (100, 100, 200, 198), (250, 250, 300, 300), (100, 100, 200, 180))
    # The last overlaps the first by 0.82, less than 0.9.
    assert found(boxes, [0.5, 0.9, 0.7, 0.45]) == boxes[[1, 2, 3]].tolist()
    assert found(boxes, [0.5, 0.9, 0.7, 0.45], iou=0.8) == boxes[[1, 2]].tolist()


def test_a_score_has_to_be_above_the_threshold() -> None:
    boxes = boxes_of((100, 100, 200, 200), (250, 250, 300, 300))
    assert found(boxes, [0.4, 0.401]) == [[250, 250, 300, 300]]
    assert found(boxes, [0.4, 0.401], conf=0.5) == []
    assert len(found(boxes, [0.1, 0.0], conf=0)) == 1


def test_no_more_than_the_limit() -> None:
    boxes = boxes_of(*((30 + 4 * index, 30, 32 + 4 * index, 40) for index in range(50)))
    scores = [0.5 + index / 1000 for index in range(50)]
    assert found(boxes, scores, max_detections=3) == boxes[[49, 48, 47]].tolist()


def test_nms_looks_at_a_bounded_number_of_boxes_the_best() -> None:
    count = 100_000
    side = math.ceil(math.sqrt(count))
    place = Letterboxed((side, side), (side, side), (0, 0), side)
    y, x = np.divmod(np.arange(count, dtype=np.float32), side)
    boxes = np.stack([x, y, x + 1, y + 1], axis=1)
    scores = np.linspace(0.5, 1, count, dtype=np.float32)
    result = detections(boxes, scores, place, DetectorParameters(max_detections=MAX_CANDIDATES, iou=1))
    assert result.scores.min() >= np.sort(scores)[-MAX_CANDIDATES]
    assert len(result) == MAX_CANDIDATES


def test_sides_near_the_border_of_the_image_snap_to_it() -> None:
    # 400 × 200 in the middle of a square of 400: the image's border is at 100 and 300.
    place = Letterboxed((200, 400), (200, 400), (100, 0), 400)
    near, far = SNAP_PIXELS - 1, SNAP_PIXELS
    boxes = boxes_of((near, 100 + near, 400 - near, 300 - near), (far, 100 + far, 400 - far, 300 - far))
    np.testing.assert_array_equal(snapped(boxes, place), boxes_of((0, 100, 400, 300), tuple(boxes[1])))
    # Beyond the border as well: padding is no part of the image.
    np.testing.assert_array_equal(snapped(boxes_of((-9, 3, 409, 333)), place), boxes_of((0, 100, 400, 300)))
    # NMS comes first, on boxes as they were found.
    assert found(boxes, [0.9, 0.8], place, iou=1) == [[0, 0, 400, 200], [20, 20, 380, 180]]


def test_boxes_without_area_in_the_image_are_dropped() -> None:
    place = Letterboxed((200, 400), (200, 400), (0, 0), 400)
    boxes = boxes_of(
        (100, 250, 200, 300),  # in the padding
        (100, 100, 100, 150),  # no width
        (150, 150, 120, 160),  # inside out
        (math.nan, 50, 90, 90),
        (math.inf, 50, math.inf, 90),
        (100, 50, 150, 90),
    )
    assert found(boxes, [0.9] * 6, place) == [[100, 50, 150, 90]]


def test_scores_that_are_not_numbers_are_below_any_threshold() -> None:
    assert found(boxes_of((100, 100, 200, 200)), [math.nan], conf=0) == []


def test_nothing_found_is_an_answer() -> None:
    result = detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), SQUARE, DetectorParameters())
    assert (result.boxes.shape, result.scores.shape, len(result)) == ((0, 4), (0,), 0)


def test_boxes_are_in_pixels_of_the_image() -> None:
    place = letterbox_of(1000, 2000, YOLOV8)
    assert place.offset == (160, 0)
    boxes = boxes_of((320, 240, 480, 320))
    np.testing.assert_allclose(found(boxes, [0.5], place), [[1000, 250, 1500, 500]])


@pytest.mark.parametrize(
    ("name", "value"),
    [("conf", -0.1), ("conf", 1.1), ("conf", math.nan), ("iou", 2), ("max_detections", 0), ("max_detections", 2049)],
)
def test_parameters_are_checked(name: str, value: float) -> None:
    with pytest.raises(InvalidArgument, match=rf"object_aware.{name}: must be from .* to .*, is {value}"):
        DetectorParameters(**{name: value})  # type: ignore[arg-type]
