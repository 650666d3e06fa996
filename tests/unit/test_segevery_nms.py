"""Box NMS as torchvision has it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from samgate.domain import FloatArray, IntArray
from samgate.segevery.nms import box_nms

THRESHOLDS = (0.0, 1e-45, 0.01, 0.3, 0.5, 0.7, 0.95, 1.0)


def reference(boxes: IntArray | FloatArray, scores: FloatArray, threshold: float) -> list[int]:
    """One pair at a time, in float32 but for the comparison."""
    kept: list[int] = []
    values = boxes.astype(np.float32)
    area = (values[:, 2] - values[:, 0]) * (values[:, 3] - values[:, 1])
    for one in sorted(range(len(scores)), key=lambda index: -float(scores[index])):
        for other in kept:
            low = np.maximum(values[one, :2], values[other, :2])
            width, height = np.maximum(np.minimum(values[one, 2:], values[other, 2:]) - low, 0)
            inner = width * height
            union = area[one] + area[other] - inner
            if union > 0 and float(inner / union) > threshold:
                break
        else:
            kept.append(one)
    return kept


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 40), st.integers(0, 2**32 - 1), st.sampled_from(THRESHOLDS), st.integers(1, 40))
def test_greedy(count: int, seed: int, threshold: float, spread: int) -> None:
    draw = np.random.default_rng(seed)
    low = draw.integers(0, spread, (count, 2))
    boxes = np.concatenate([low, low + draw.integers(0, 30, (count, 2))], axis=1).astype(np.int32)
    scores = draw.choice([0.1, 0.5, 0.5, 0.9], count).astype(np.float32)
    assert box_nms(boxes, scores, threshold).tolist() == reference(boxes, scores, threshold)


def test_order_is_by_score_and_stable() -> None:
    boxes = np.array([[0, 0, 9, 9], [50, 0, 59, 9], [0, 0, 9, 9], [80, 0, 89, 9]], dtype=np.int32)
    assert box_nms(boxes, np.array([0.5, 0.5, 0.5, 0.9], dtype=np.float32), 0.7).tolist() == [3, 0, 1]


def test_only_above_the_threshold() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], dtype=np.int32)
    scores = np.array([1, 0], dtype=np.float32)
    assert box_nms(boxes, scores, 0.5).tolist() == [0, 1]
    assert box_nms(boxes, scores, 0.49).tolist() == [0]


def test_boxes_without_area_are_kept() -> None:
    boxes = np.array([[5, 5, 5, 5], [5, 5, 5, 5], [0, 5, 9, 5]], dtype=np.int32)
    assert box_nms(boxes, np.ones(3, dtype=np.float32), 0.0).tolist() == [0, 1, 2]


def test_none() -> None:
    assert box_nms(np.zeros((0, 4), dtype=np.int32), np.zeros(0, dtype=np.float32), 0.7).tolist() == []


def test_boxes_of_fractions_of_a_pixel() -> None:
    draw = np.random.default_rng(1)
    for threshold in (0.2, 0.5, 0.9):
        low = draw.random((60, 2), np.float32)
        boxes = np.concatenate([low, low + draw.random((60, 2), np.float32)], axis=1)
        scores = draw.random(60, np.float32)
        assert box_nms(boxes, scores, threshold).tolist() == reference(boxes, scores, threshold)
