"""Crops and grids, with numbers from segment_anything's own functions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samgate.segevery.crops import crop_boxes, make_crops, point_grid
from samgate.segevery.parameters import GridParameters


def test_grid_runs_along_x_first() -> None:
    assert point_grid(2).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    assert point_grid(1).tolist() == [[0.5, 0.5]]


UPSTREAM = [
    ((0, 0, 900, 600), 0),
    ((348, 0, 900, 402), 1),
    ((0, 125, 302, 352), 2),
    ((200, 0, 502, 227), 2),
    ((200, 375, 502, 600), 2),
    ((400, 250, 702, 477), 2),
    ((600, 125, 900, 352), 2),
]


def test_the_default_is_one_crop() -> None:
    (crop,) = make_crops((480, 640), GridParameters(points_per_side=2))
    assert (crop.box, crop.layer, crop.size) == ((0, 0, 640, 480), 0, (480, 640))
    assert crop.points.dtype == np.float32
    assert crop.points.tolist() == [[160, 120], [480, 120], [160, 360], [480, 360]]


def test_points_are_in_the_crops_pixels() -> None:
    crops = make_crops((480, 640), GridParameters(points_per_side=2, crop_n_layers=1))
    assert [crop.layer for crop in crops] == [0, 1, 1, 1, 1]
    last = crops[-1]
    height, width = last.size
    assert last.points[-1].tolist() == [width * 0.75, height * 0.75]


def test_upstreams_boxes() -> None:
    """``generate_crop_boxes((600, 900), 2, 512 / 1500)``, one box in three."""
    boxes = crop_boxes((600, 900), 2, 512 / 1500)
    assert len(boxes) == 1 + 4 + 16
    assert boxes[::3] == UPSTREAM


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 3), (7, 2)])
def test_tiny_images_have_no_crops_outside_of_them(size: tuple[int, int]) -> None:
    crops = make_crops(size, GridParameters(points_per_side=2, crop_n_layers=4))
    assert crops[0].size == size
    for crop in crops:
        assert min(crop.size) >= 1
        assert crop.box[2] <= size[1]
        assert crop.box[3] <= size[0]


@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 4), st.floats(0, 0.9))
def test_each_layer_covers_the_image(height: int, width: int, layers: int, overlap: float) -> None:
    covered = {layer: np.zeros((height, width), dtype=np.bool_) for layer in range(layers + 1)}
    for (x0, y0, x1, y1), layer in crop_boxes((height, width), layers, overlap):
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        covered[layer][y0:y1, x0:x1] = True
    assert all(layer.all() for layer in covered.values())
