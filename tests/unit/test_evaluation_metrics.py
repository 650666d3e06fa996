"""Prompts and figures of an evaluation."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from samgate.domain import Rle
from samgate.evaluation.dataset import Instance
from samgate.evaluation.metrics import ious, mean_iou
from samgate.evaluation.prompts import box_prompt, centre_point


def rle(y0: int, y1: int, x0: int, x1: int) -> Rle:
    mask = np.zeros((20, 30), np.uint8, order="F")
    mask[y0:y1, x0:x1] = 1
    return Rle((20, 30), coco_mask.encode(mask)["counts"])


def test_iou_is_intersection_over_union() -> None:
    truth = rle(0, 10, 0, 10)
    found = ious(truth, [truth, rle(0, 10, 5, 15), rle(10, 20, 10, 20), rle(0, 0, 0, 0)])
    np.testing.assert_allclose(found, [1, 50 / 150, 0, 0])
    assert ious(truth, []).shape == (0,)


def test_the_mean_is_over_masks_and_its_interval_over_images() -> None:
    random = np.random.default_rng(0)
    levels = random.uniform(0.2, 0.9, 60)
    correlated = [[float(level)] * 10 for level in levels]
    whole = mean_iou(correlated)
    assert whole.n == 600
    assert whole.miou == pytest.approx(levels.mean())
    expected = levels.std() / np.sqrt(60) * 1.96
    assert whole.ci95[1] - whole.ci95[0] == pytest.approx(2 * expected, rel=0.05)
    assert asdict(mean_iou(correlated)) == asdict(whole), "the seed is fixed"
    assert mean_iou([[0.5], [1.0, 1.0, 1.0]]).miou == 0.875


def test_a_mean_over_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no mask"):
        mean_iou([[], []])


def test_the_point_is_deepest_inside_and_the_border_counts_as_edge() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[0:11, 10:21] = 1
    assert centre_point(mask) == (15, 5)
    mask[:] = 0
    mask[13, 17] = 1
    assert centre_point(mask) == (17, 13)
    assert centre_point(np.ones((9, 9), np.uint8)) == (4, 4)


def test_boxes_are_cut_off_at_the_edge_of_the_image() -> None:
    assert box_prompt(Instance(rle(0, 1, 0, 1), (-0.5, 1.5, 30.01, 20.4), 1)) == (0, 1.5, 30, 20)
