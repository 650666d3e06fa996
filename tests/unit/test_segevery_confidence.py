"""Confidence maps of made-up embeddings, and the prompts that follow from them."""

from __future__ import annotations

import numpy as np
import pytest

from samgate.domain import FloatArray
from samgate.segevery.confidence import confident_positions, distinctiveness, drawn, homogeneity, peaks, unit
from samgate.segevery.parameters import AopParameters

SHARP = AopParameters(smoothing_sigma=0)


def hills(*places: tuple[float, float, float, float], size: tuple[int, int] = (48, 64)) -> FloatArray:
    """A map with Gaussian hills: x, y, height, width of each."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    found = np.zeros(size)
    for column, row, height, width in places:
        found += height * np.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * width**2))
    return found.astype(np.float32)


def test_homogeneity_is_the_mean_cosine_with_the_neighbours() -> None:
    features = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    found = homogeneity(features)
    assert found.shape == (4, 5)
    for row in range(4):
        for column in range(5):
            cosines = [
                features[row, column]
                @ features[y, x]
                / np.linalg.norm(features[row, column])
                / np.linalg.norm(features[y, x])
                for y in range(max(row - 1, 0), min(row + 2, 4))
                for x in range(max(column - 1, 0), min(column + 2, 5))
                if (y, x) != (row, column)
            ]
            assert found[row, column] == pytest.approx(np.mean(cosines), abs=1e-6)


def test_maps_of_a_single_cell_and_of_nothing() -> None:
    assert homogeneity(np.ones((1, 1, 8), np.float32)).tolist() == [[0.0]]
    assert homogeneity(np.zeros((2, 2, 8), np.float32)).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert unit(np.zeros(3, np.float32)).tolist() == [0.0, 0.0, 0.0]


def test_distinctiveness_is_the_distance_from_the_mean() -> None:
    features = np.zeros((2, 2, 3), np.float32)
    features[0, 0] = (0, 4, 0)
    assert distinctiveness(features).tolist() == [[3.0, 1.0], [1.0, 1.0]]


def test_peaks_are_the_hills_most_confident_first() -> None:
    found = peaks(hills((10.5, 10.5, 0.5, 3), (50.5, 30.5, 1, 3), (30.5, 40.5, 0.8, 3)), AopParameters())
    assert found.tolist() == [[50.5, 30.5], [30.5, 40.5], [10.5, 10.5]]
    assert found.dtype == np.float32


def test_peaks_below_the_threshold_are_left_out() -> None:
    confidence = hills((10.5, 10.5, 0.3, 3), (50.5, 30.5, 1, 3))
    assert len(peaks(confidence, AopParameters(confidence_thresh=0.25))) == 2
    assert len(peaks(confidence, AopParameters(confidence_thresh=0.35))) == 1
    # Not the map's values count, but where they are between the lowest and the highest.
    assert len(peaks(confidence * 7 - 3, AopParameters(confidence_thresh=0.25))) == 2
    assert len(peaks(confidence, AopParameters(confidence_thresh=1))) == 0


def test_of_peaks_too_near_the_most_confident_stays() -> None:
    confidence = np.zeros((20, 20), np.float32)
    confidence[10, 10], confidence[10, 14], confidence[14, 16], confidence[2, 15] = 0.9, 1.0, 0.8, 0.7
    assert peaks(confidence, AopParameters(smoothing_sigma=0, spacing=4)).tolist() == [
        [14.5, 10.5],
        [10.5, 10.5],
        [16.5, 14.5],
        [15.5, 2.5],
    ]
    assert peaks(confidence, AopParameters(smoothing_sigma=0, spacing=5)).tolist() == [[14.5, 10.5], [15.5, 2.5]]


def test_smoothing_joins_what_is_noise() -> None:
    noise = np.random.default_rng(1).uniform(0, 0.3, (48, 64)).astype(np.float32)
    confidence = hills((20.5, 20.5, 1, 8)) + noise
    narrow = AopParameters(spacing=1)
    assert len(peaks(confidence, narrow)) < len(peaks(confidence, AopParameters(smoothing_sigma=0, spacing=1))) / 5


def test_a_flat_top_is_one_peak_and_a_flat_map_none() -> None:
    confidence = np.zeros((20, 20), np.float32)
    confidence[5:9, 5:9] = 1
    assert peaks(confidence, SHARP).tolist() == [[5.5, 5.5]]
    assert peaks(np.ones((20, 20), np.float32), AopParameters()).shape == (0, 2)


def scene() -> FloatArray:
    """Features ``[48, 64, 16]``: a background that varies, a large square of one kind, a cell of another."""
    features = np.random.default_rng(2).normal(0, 0.1, (48, 64, 16)).astype(np.float32)
    features[..., 0] += 3
    features[12:36, 8:32, 1] += 4
    features[20, 50, 2] += 6
    return features


def test_large_and_small_objects_are_prompted() -> None:
    found = confident_positions(scene(), AopParameters())
    assert found.dtype == np.float32
    x, y = found.T
    assert ((x > 9) & (x < 31) & (y > 13) & (y < 35)).any()
    assert (np.abs(found - (50.5, 20.5)).max(axis=1) < 0.5).any()


@pytest.mark.parametrize("spacing", [1, 6, 20])
def test_prompts_keep_their_distance(spacing: int) -> None:
    found = confident_positions(scene(), AopParameters(spacing=spacing))
    apart = np.abs(found[:, None] - found[None]).max(axis=2)
    assert len(found) > 5
    assert apart[~np.eye(len(found), dtype=bool)].min() >= spacing / 4
    assert (found >= 0).all()
    assert (found < (64, 48)).all()


def test_nothing_to_tell_apart() -> None:
    assert confident_positions(np.ones((48, 64, 16), np.float32), AopParameters()).shape == (0, 2)


def test_points_are_drawn_to_what_is_nearest() -> None:
    grid = np.array([(x, y) for y in (37.5, 112.5, 187.5, 262.5) for x in (50, 150, 250, 350)], np.float32)
    points = np.array([[399.5, 299.5], [0, 0], [120, 0], [99, 70], [399, 299]], np.float32)
    moved, places = drawn(grid, points)
    assert places.tolist() == [15, 0, 1]
    assert np.array_equal(moved[places], points[:3])
    others = np.delete(np.arange(16), places)
    assert np.array_equal(moved[others], grid[others])
    for some, confident in ((grid, points[:0]), (grid[:0], points)):
        moved, places = drawn(some, confident)
        assert np.array_equal(moved, some)
        assert len(places) == 0
