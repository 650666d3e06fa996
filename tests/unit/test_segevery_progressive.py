"""The order of ``auto``: every prefix is useful, all of it is the grid."""

from __future__ import annotations

import numpy as np
import pytest

from samgate.imaging.preprocess import frame_of
from samgate.segevery.generator import GridSampler
from samgate.segevery.parameters import GridParameters
from samgate.segevery.progressive import ProgressiveSampler, coarse_count, coarse_to_fine
from segevery_support import NO_EMBEDDING, SPEC, Disc, Scene, run

DISCS: list[Disc] = [(80, 80, 40), (250, 90, 50), (330, 220, 30), (120, 220, 60), (50, 38, 9)]
SCENE = Scene((300, 400), DISCS, slope=12)


@pytest.mark.parametrize("side", [1, 2, 7, 8, 15, 16, 31, 32, 33, 100, 128])
def test_all_points_once_and_the_coarse_ones_first(side: int) -> None:
    order, coarse = coarse_to_fine(side), coarse_count(side)
    assert sorted(order.tolist()) == list(range(side**2))
    rows, columns = np.divmod(order[:coarse], side)
    assert min(side, 4) <= len(set(rows.tolist())) == len(set(columns.tolist())) <= 8
    assert coarse == len(set(rows.tolist())) ** 2
    for lines in (rows, columns):
        assert len(set(np.diff(sorted(set(lines.tolist()))).tolist())) <= 1  # evenly spaced


def test_each_grid_halves_the_spacing_of_the_one_before() -> None:
    order = coarse_to_fine(32)
    for count, spacing in ((4, 8), (8, 4), (16, 2)):
        rows, columns = np.divmod(order[: count**2], 32)
        assert set(np.diff(np.unique(rows))) == set(np.diff(np.unique(columns))) == {spacing}
    assert coarse_count(32) == 16


@pytest.mark.parametrize(
    "parameters",
    [
        GridParameters(),
        GridParameters(points_per_side=11, crop_n_layers=1),
        GridParameters(points_per_side=16, min_mask_region_area=500, max_masks=2),
    ],
)
@pytest.mark.parametrize("tie", [False, True])
def test_in_the_end_the_masks_are_the_grids(parameters: GridParameters, tie: bool) -> None:
    scene = Scene(SCENE.size, DISCS, slope=12, tie=tie)
    ours, _ = run(ProgressiveSampler(parameters, scene.size, SPEC), scene, limit=13)
    grids, _ = run(GridSampler(parameters, scene.size, SPEC), scene)
    assert ours == grids
    assert len(ours) > 0


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (3, 7)])
def test_tiny_images(size: tuple[int, int]) -> None:
    results, chunks = run(ProgressiveSampler(GridParameters(points_per_side=16), size, SPEC), Scene(size, []), 64)
    assert results == []
    assert sum(map(len, chunks)) == 256


def test_covered_points_go_last() -> None:
    sampler = ProgressiveSampler(GridParameters(), SCENE.size, SPEC)
    _, chunks = run(sampler, SCENE, limit=64)
    points = np.concatenate([chunk.coords for chunk in chunks[1:]])  # nothing is known before the first chunk
    inside = np.zeros(len(points), bool)
    for x, y, radius in DISCS[:4]:  # deep enough for the logits to be above 8.5
        inside |= np.hypot(points[:, 0] - x, points[:, 1] - y) < radius - 1
    first = int(np.argmax(inside))
    assert inside.sum() > 100
    assert inside[first:].mean() > 0.9
    assert not inside[: first - 1].any()


def test_where_the_embedding_promises_masks_comes_first() -> None:
    """One spot that differs, in the cell of the embedding that shows (250, 90)."""
    embedding = NO_EMBEDDING.copy()
    embedding[:, 14, 39:41] = 1
    sampler = ProgressiveSampler(GridParameters(), SCENE.size, SPEC)
    (crop,) = sampler.crops
    sampler.open_crop(crop, frame_of(*SCENE.size, SPEC), embedding)
    order = np.concatenate([chunk.coords for chunk in iter(lambda: sampler.next(crop, 100), None)])
    assert np.abs(order - (250, 90)).max(axis=1).argmin() < 3
    # All others are where the grid has them, and those that moved are still nearest to it.
    grid, asked = (set(map(tuple, points.tolist())) for points in (crop.points, order))
    moved = asked - grid
    assert 0 < len(moved) <= 3
    assert len(asked) == len(grid) == len(order)
    steps = np.array([400, 300]) / 32
    for point in moved:
        assert any(np.all(np.abs(np.array(point) - left) <= steps / 2) for left in grid - asked)


def test_boxes_go_first_and_pass_the_grids_filters() -> None:
    boxes = np.array([[41, 29, 59, 47], [0, 0, 20, 20], [40, 40, 120, 120]], np.float32)
    sampler = ProgressiveSampler(GridParameters(points_per_side=8), SCENE.size, SPEC, boxes)
    (crop,) = sampler.crops
    assert sampler.prompts_total == 67
    sampler.open_crop(crop, frame_of(*SCENE.size, SPEC), NO_EMBEDDING)
    first, rest = sampler.next(crop, 2), sampler.next(crop, 2)
    assert first is not None
    assert rest is not None
    assert np.array_equal(np.concatenate([first.coords, rest.coords]), boxes)
    assert sampler.min_ious.tolist() == [pytest.approx(0.88), np.inf, np.inf, np.inf]
    for chunk in (first, rest):
        sampler.add(chunk, SCENE.decode(chunk, sampler.min_ious))
    # Where there is nothing, the mask isn't worth it.
    found = {result.point: round(result.predicted_iou, 3) for result in sampler.present()}
    assert found == {(50, 38): 0.904, (80, 80): 0.9}
    points = sampler.next(crop, 64)
    assert points is not None
    assert points.coords.shape == (64, 2)
    assert sampler.min_ious.tolist() == [np.inf, *[pytest.approx(0.88)] * 3]
    with pytest.raises(ValueError, match="3 of 67 prompts were added"):
        sampler.finish_crop(crop)


def test_boxes_find_nothing_twice() -> None:
    boxes = np.array([[x - r, y - r, x + r, y + r] for x, y, r in DISCS], np.float32)
    results, _ = run(ProgressiveSampler(GridParameters(), SCENE.size, SPEC, boxes), SCENE)
    assert len(results) == len(DISCS)
