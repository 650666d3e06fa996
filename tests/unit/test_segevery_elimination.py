"""Which prompts made-up masks explain on made-up embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from samgate.domain import FloatArray
from samgate.segevery.elimination import Elimination

CELLS = 16
LEFT, RIGHT, BACK, ODD = (3.5, 5.5), (12.5, 5.5), (8.5, 11.5), (4.5, 5.5)
PLACES = np.array([LEFT, RIGHT, BACK, ODD], np.float32)


def features() -> FloatArray:
    """``[12, 16, 8]``: two objects that look the same, and in the left one a cell that looks otherwise."""
    found = np.random.default_rng(0).normal(0, 0.05, (12, 16, 8)).astype(np.float32)
    found[..., 0] += 1
    found[3:8, 2:6, 1] += 1
    found[3:8, 11:15, 1] += 1
    found[5, 4, 1:4] = (0, 2, 2)
    return found


def mask(x0: int, y0: int, x1: int, y1: int, side: int = 64) -> FloatArray:
    """Logits ``[1, side, side]`` of a mask of those cells."""
    found = np.full((1, side, side), -5, np.float32)
    step = side // CELLS
    found[0, y0 * step : y1 * step, x0 * step : x1 * step] = 5
    return found


LEFT_MASK, RIGHT_MASK = mask(2, 3, 6, 8), mask(11, 3, 15, 8)


def explained(factor: float, *rounds: FloatArray, known: int | None = None) -> list[bool]:
    elimination = Elimination(features(), CELLS, factor, 0.0)
    for number, masks in enumerate(rounds):
        elimination.add(number, masks)
    return [bool(one) for one in elimination.explained(PLACES, len(rounds) if known is None else known)]


def test_what_looks_like_its_mask_and_lies_on_it_goes() -> None:
    assert explained(1.3, LEFT_MASK) == [True, False, False, False]
    assert explained(1.3, LEFT_MASK, RIGHT_MASK) == [True, True, False, False]


def test_a_factor_of_nothing_leaves_what_is_unlike_its_mask_and_a_large_one_everything() -> None:
    assert explained(0, LEFT_MASK) == [True, False, False, False]
    assert explained(100, LEFT_MASK, RIGHT_MASK) == [False] * 4


def test_a_mask_of_its_own_explains_what_is_unlike_the_other() -> None:
    assert explained(1.3, LEFT_MASK, mask(4, 5, 5, 6)) == [True, False, False, True]


def test_the_threshold_is_the_factor_times_the_mean() -> None:
    vectors = features()
    vectors -= vectors.mean(axis=(0, 1))
    units = vectors / np.linalg.norm(vectors, axis=2, keepdims=True)
    inside = units[3:8, 2:6].mean(axis=(0, 1))
    cosines = np.maximum(units @ (inside / np.linalg.norm(inside)), 0)
    # At the factor with which the threshold is the prompt's own cosine.
    factor = float(cosines[5, 3] / cosines.mean())
    assert explained(factor * 0.999, LEFT_MASK)[0]
    assert not explained(factor * 1.001, LEFT_MASK)[0]


def test_only_rounds_that_are_asked_for_count() -> None:
    assert explained(1.3, LEFT_MASK, RIGHT_MASK, known=0) == [False] * 4
    assert explained(1.3, LEFT_MASK, RIGHT_MASK, known=1) == explained(1.3, LEFT_MASK)


def test_neither_order_nor_division_matters() -> None:
    both = np.concatenate([LEFT_MASK, RIGHT_MASK])
    expected = explained(1.3, both)
    for parts in ([LEFT_MASK, RIGHT_MASK], [RIGHT_MASK, both[:0], LEFT_MASK]):
        elimination = Elimination(features(), CELLS, 1.3, 0.0)
        for part in parts:
            elimination.add(0, part)
        assert elimination.explained(PLACES, 1).tolist() == expected


@pytest.mark.parametrize("masks", [np.full((1, 64, 64), -5, np.float32), np.empty((0, 64, 64), np.float32)])
def test_masks_of_nothing_explain_nothing(masks: FloatArray) -> None:
    assert explained(0, masks) == [False] * 4


def test_a_cell_is_covered_by_more_than_half() -> None:
    thin = np.full((1, 64, 64), -5, np.float32)
    thin[0, 12:32, 12:14] = 5
    assert explained(0, thin)[0] is False
    thin[0, 12:32, 14] = 5
    assert explained(0, thin)[0] is True


def test_what_lies_in_the_padding_has_no_say() -> None:
    padded = LEFT_MASK.copy()
    padded[0, 48:] = 5
    assert explained(1.3, padded) == explained(1.3, LEFT_MASK)
