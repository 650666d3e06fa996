"""Small holes and islands, against a slow version of upstream's rules on whole images."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samgate.domain import UInt8Array
from samgate.imaging.rle import mask_to_rle, rle_to_mask
from samgate.segevery.filters import Candidates
from samgate.segevery.regions import clean_candidates, remove_small_regions


def reference(mask: UInt8Array, min_area: int) -> UInt8Array:
    for holes in (True, False):
        count, labels, stats, _ = cv2.connectedComponentsWithStats(mask ^ np.uint8(holes), connectivity=8)
        areas = stats[1:, cv2.CC_STAT_AREA]
        small = [label for label in range(1, count) if areas[label - 1] < min_area]
        if small and holes:
            mask = (mask | np.isin(labels, small)).astype(np.uint8)
        elif small:
            large = [label for label in range(1, count) if label not in small]
            mask = np.isin(labels, large or [int(np.argmax(areas)) + 1]).astype(np.uint8)
    return mask


@settings(max_examples=400, deadline=None)
@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_windows_change_nothing(height: int, width: int, seed: int, min_area: int) -> None:
    draw = np.random.default_rng(seed)
    mask = np.zeros((height, width), dtype=np.uint8)
    y, x = draw.integers(0, height), draw.integers(0, width)
    part = mask[y : y + draw.integers(1, height + 1), x : x + draw.integers(1, width + 1)]
    part[:] = draw.random(part.shape) < draw.random()
    before = mask.copy()
    cleaned, changed = remove_small_regions(mask, min_area)
    assert np.array_equal(cleaned, reference(before, min_area))
    assert changed or np.array_equal(cleaned, before)
    assert np.array_equal(mask, before)


def test_holes_are_filled_and_islands_removed() -> None:
    mask = np.zeros((40, 60), dtype=np.uint8)
    mask[5:30, 5:40] = 1
    mask[10:12, 10:12] = 0  # a small hole
    mask[15:25, 20:30] = 0  # a large one
    mask[35, 50] = 1  # a small island
    cleaned, changed = remove_small_regions(mask, 10)
    assert changed
    assert cleaned[10, 10] == 1
    assert cleaned[20, 25] == 0
    assert cleaned[35, 50] == 0


@pytest.mark.parametrize("value", [0, 1])
def test_plain_masks_do_not_change(value: int) -> None:
    mask = np.full((20, 30), value, dtype=np.uint8)
    cleaned, changed = remove_small_regions(mask, 10)
    assert not changed
    assert np.array_equal(cleaned, mask)


def test_the_largest_island_is_kept_if_all_are_small() -> None:
    mask = np.zeros((30, 30), dtype=np.uint8)
    mask[2:4, 2:4] = 1
    mask[10:13, 10:13] = 1
    cleaned, changed = remove_small_regions(mask, 50)
    assert changed
    assert cleaned.sum() == 9
    assert cleaned[11, 11] == 1


def candidates(masks: list[UInt8Array]) -> Candidates:
    rectangles = [cv2.boundingRect(mask) for mask in masks]
    count = len(masks)
    return Candidates(
        rles=tuple(mask_to_rle(mask) for mask in masks),
        boxes=np.array([(x, y, x + w - 1, y + h - 1) for x, y, w, h in rectangles], dtype=np.int32),
        areas=np.array([mask.sum() for mask in masks], dtype=np.int64),
        predicted_ious=np.linspace(0.9, 0.95, count, dtype=np.float32),
        stability_scores=np.ones(count, dtype=np.float32),
        points=np.zeros((count, 2), dtype=np.float32),
        crop_boxes=np.zeros((count, 4), dtype=np.int32),
    )


def test_cleaning_prefers_masks_that_did_not_change() -> None:
    clean = np.zeros((60, 60), dtype=np.uint8)
    clean[10:40, 10:40] = 1
    dirty = clean.copy()
    dirty[55, 55] = 1
    found = clean_candidates(candidates([dirty, clean]), 20, 0.7)
    assert len(found) == 1
    assert np.array_equal(rle_to_mask(found.rles[0]), clean)
    assert found.predicted_ious.tolist() == [np.float32(0.95)]


def test_cleaned_masks_have_new_boxes_and_areas() -> None:
    mask = np.zeros((60, 60), dtype=np.uint8)
    mask[10:40, 10:40] = 1
    mask[20, 20] = 0
    mask[55, 55] = 1
    found = clean_candidates(candidates([mask]), 20, 0.7)
    assert found.boxes.tolist() == [[10, 10, 39, 39]]
    assert found.areas.tolist() == [900]
    assert rle_to_mask(found.rles[0]).sum() == 900
