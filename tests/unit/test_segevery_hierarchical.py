"""The hierarchical strategy against a literal, slow version of what TinySAM does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from samgate.domain import FloatArray
from samgate.errors import InvalidArgument
from samgate.imaging.masks import full_logits
from samgate.imaging.preprocess import frame_of
from samgate.segevery.crops import Crop
from samgate.segevery.hierarchical import HierarchicalSampler
from samgate.segevery.parameters import GridParameters, HierarchicalParameters
from samgate.segevery.sampler import Chunk
from segevery_support import NO_EMBEDDING, SPEC, Disc, Scene, run

DISCS: list[Disc] = [(80, 80, 40), (250, 90, 50), (330, 220, 30), (120, 220, 60), (50, 38, 9)]
SCENES = {
    "discs": Scene((300, 400), DISCS, slope=12),
    "edges that nothing is sure of": Scene((300, 400), DISCS, slope=0.5),
    "nothing there": Scene((300, 400), []),
    "upright": Scene((700, 100), [(50, 100, 40), (40, 500, 30)]),
}


def literal(scene: Scene, side: int = 32, high: float = 8.5) -> tuple[list[list[float]], list[list[float]]]:
    """The points of stage one, and those of stage two, in order."""
    height, width = scene.size
    coarse = [[(i + 0.5) / (side // 4) * width, (j + 0.5) / (side // 4) * height]
              for j in range(side // 4) for i in range(side // 4)]  # fmt: skip
    whole = Crop((0, 0, width, height), 0, np.array(coarse, np.float32))
    frame = frame_of(height, width, SPEC)
    covered = np.zeros(scene.size, bool)
    survivors = scene.decode(Chunk(whole, whole.points), np.array([np.inf, 0.88, 0.88, 0.88], np.float32))
    for low_res in survivors.masks:
        logits = full_logits(low_res, frame)
        outer = np.count_nonzero(logits > -1)
        if outer and np.count_nonzero(logits > 1) / outer >= 0.95:
            covered |= logits > high
    wstride, hstride = width // side, height // side
    fine: list[list[float]] = []

    def look(x: float, y: float) -> None:
        if not covered[int(y), int(x)] and [x, y] not in fine and [x, y] not in coarse:
            fine.append([x, y])

    for x, y in coarse:
        for sx in (-1, 0, 1):
            for sy in (-1, 0, 1):
                look(x + wstride * sx, y + hstride * sy)
        if x + wstride * 2 < width:
            for sy in (-1, 0, 1):
                look(x + wstride * 2, y + hstride * sy)
        if y + hstride * 2 < height:
            for sx in (-1, 0, 1):
                look(x + wstride * sx, y + hstride * 2)
        if x + wstride * 2 < width and y + hstride * 2 < height:
            look(x + wstride * 2, y + hstride * 2)
    return coarse, fine


def coords(chunks: list[Chunk]) -> FloatArray:
    return np.concatenate([chunk.coords for chunk in chunks])


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("limit", [5, 64])
def test_the_points_are_tinysams(name: str, limit: int) -> None:
    scene = SCENES[name]
    sampler = HierarchicalSampler(HierarchicalParameters(covering_stages=1, neighbours_per_point=0), scene.size, SPEC)
    _, chunks = run(sampler, scene, limit)
    coarse, fine = literal(scene)
    found = coords(chunks)
    assert len(coarse) == 64
    assert np.allclose(found[:64], coarse, atol=1e-3)
    assert 0 < len(fine) <= 960
    assert np.allclose(sorted(found[64:].tolist()), sorted(fine), atol=1e-3)


def test_stage_two_goes_from_coarse_to_fine_and_leaves_out_what_it_covers() -> None:
    """The disc lies amid four coarse points, where stage two begins: none of the points around that are asked again."""
    disc = (50, 37, 28)
    scene = Scene((300, 400), [disc], slope=12)

    def on_it(points: FloatArray) -> int:
        return int(np.count_nonzero(np.hypot(*(points - disc[:2]).T) < disc[2] - 2))

    strict, every = run(
        HierarchicalSampler(HierarchicalParameters(covering_stages=1, neighbours_per_point=0), scene.size, SPEC),
        scene,
        8,
    )
    sampler = HierarchicalSampler(HierarchicalParameters(), scene.size, SPEC)
    results, chunks = run(sampler, scene, 8)
    assert [(one.area, one.predicted_iou) for one in results] == [(one.area, one.predicted_iou) for one in strict]
    points = coords(chunks)
    assert points[64].tolist() == [49, 36.75]
    assert (on_it(points[:64]), on_it(points[64:])) == (0, 1)
    assert on_it(coords(every)) > 15
    assert sampler.prompts_total == sampler.prompts_done == len(points)


@pytest.mark.parametrize(("covering_stages", "begins"), [(1, False), (2, True)])
def test_stage_two_begins_where_the_embedding_promises_masks(covering_stages: int, begins: bool) -> None:
    """One spot that differs, in the cell of the embedding that shows (250, 90)."""
    embedding, size = NO_EMBEDDING.copy(), (300, 400)
    embedding[:, 14, 39:41] = 1
    scene, sampler = (
        Scene(size, []),
        HierarchicalSampler(
            HierarchicalParameters(covering_stages=covering_stages, neighbours_per_point=0), size, SPEC
        ),
    )
    (crop,) = sampler.crops
    sampler.open_crop(crop, frame_of(*size, SPEC), embedding)
    chunks = []
    while chunk := sampler.next(crop, 64):
        chunks.append(chunk)
        sampler.add(chunk, scene.decode(chunk, sampler.min_ious))
    order = coords(chunks)
    assert len(order) == len(np.unique(order, axis=0)) == 1024
    near = np.abs(order[64:] - (250, 90)).max(axis=1)
    assert (near.argmin() < 3) == begins


def test_masks_of_both_stages_are_told_once_each() -> None:
    scene = SCENES["discs"]
    results, _ = run(HierarchicalSampler(HierarchicalParameters(), scene.size, SPEC), scene)
    assert [round(result.predicted_iou, 3) for result in results] == [0.904, 0.903, 0.902, 0.901, 0.9]
    # The smallest lies between the points of stage one.
    x, y, radius = DISCS[-1]
    coarse, _ = literal(scene)
    assert all(np.hypot(px - x, py - y) > radius for px, py in coarse)


def test_of_equally_good_masks_those_of_stage_two_win() -> None:
    scene = Scene((300, 400), [(200, 150, 120)], slope=0.05, tie=True)
    grid = GridParameters(stability_score_thresh=0)
    sampler = HierarchicalSampler(HierarchicalParameters(grid), scene.size, SPEC)
    (result, *_), chunks = run(sampler, scene)
    points = coords(chunks)
    assert [list(result.point)] in points[64:, None].tolist()


def test_nothing_is_left_for_stage_two_where_everything_is_covered() -> None:
    scene = Scene((300, 400), [(200, 150, 2000)])
    sampler = HierarchicalSampler(HierarchicalParameters(), scene.size, SPEC)
    results, chunks = run(sampler, scene)
    assert sum(map(len, chunks)) == 64
    assert len(results) == 1
    assert results[0].area == 300 * 400


@pytest.mark.parametrize(
    ("size", "count"),
    [((1, 1), 64), ((31, 31), 64), ((1, 10_000), 64 + 64 * 3), ((10_000, 1), 64 + 64 * 3), ((32, 32), 31 * 31)],
)
def test_images_without_room_for_steps(size: tuple[int, int], count: int) -> None:
    scene = Scene(size, [])
    results, chunks = run(HierarchicalSampler(HierarchicalParameters(neighbours_per_point=0), size, SPEC), scene)
    assert results == []
    points = coords(chunks)
    assert len(points) == len(np.unique(points, axis=0)) == count
    assert ((points >= 0) & (points < size[::-1])).all()


@pytest.mark.parametrize(
    ("side", "factor", "count"), [(32, 1, 1024), (32, 2, 31 * 31), (32, 8, 31 * 31), (3, 4, 9), (1, 4, 1)]
)
def test_other_factors(side: int, factor: int, count: int) -> None:
    scene = Scene((640, 640), [])
    grid = GridParameters(points_per_side=side)
    parameters = HierarchicalParameters(grid, coarse_factor=factor, neighbours_per_point=0)
    _, chunks = run(HierarchicalSampler(parameters, scene.size, SPEC), scene)
    points = coords(chunks)
    assert len(points) == len(np.unique(points, axis=0)) == count
    assert ((points >= 0) & (points < 640)).all()


def test_stage_two_waits_for_all_of_stage_one() -> None:
    scene = SCENES["discs"]
    sampler = HierarchicalSampler(HierarchicalParameters(), scene.size, SPEC)
    (crop,) = sampler.crops
    sampler.open_crop(crop, frame_of(*scene.size, SPEC), NO_EMBEDDING)
    first, second = sampler.next(crop, 40), sampler.next(crop, 40)
    assert first is not None
    assert second is not None
    assert (len(first), len(second), sampler.prompts_total) == (40, 24, 64)
    sampler.add(second, scene.decode(second, sampler.min_ious))
    assert sampler.next(crop, 40) is None
    sampler.add(first, scene.decode(first, sampler.min_ious))
    with pytest.raises(ValueError, match="stage two was not asked for"):
        sampler.finish_crop(crop)
    assert sampler.next(crop, 40) is not None
    assert sampler.prompts_total > 64


@pytest.mark.parametrize(("per_point", "layers", "limit"), [(1, 0, 5), (2, 0, 64), (3, 1, 16), (16, 0, 64), (0, 1, 64)])
def test_stage_two_ends_after_so_many_neighbours(per_point: int, layers: int, limit: int) -> None:
    """Which are those that come first without an end; and no more prompts than were announced."""
    scene = Scene((640, 640), [])
    grid = GridParameters(16, crop_n_layers=layers, crop_n_points_downscale_factor=2)
    every = HierarchicalParameters(grid, neighbours_per_point=0)
    parameters = HierarchicalParameters(grid, neighbours_per_point=per_point)
    sampler = HierarchicalSampler(parameters, scene.size, SPEC)
    found, first = run(sampler, scene, limit)[1], run(HierarchicalSampler(every, scene.size, SPEC), scene)[1]
    for crop in sampler.crops:
        some, all_ = (coords([chunk for chunk in chunks if chunk.crop.box == crop.box]) for chunks in (found, first))
        coarse = len(crop.points)
        count = min(len(all_), coarse * (1 + per_point)) if per_point else len(all_)
        assert np.array_equal(some, all_[:count])
        assert count <= parameters.layer_prompts(crop.layer) <= coarse * 16
    assert sampler.prompts_done == sampler.prompts_total == len(coords(found))


def test_crops_have_two_stages_each() -> None:
    scene = SCENES["discs"]
    grid = GridParameters(crop_n_layers=1, crop_n_points_downscale_factor=2)
    results, chunks = run(HierarchicalSampler(HierarchicalParameters(grid), scene.size, SPEC), scene)
    assert len({chunk.crop for chunk in chunks}) == 5
    assert len(results) == len(DISCS)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"coarse_factor": 0}, "hierarchical.coarse_factor: must be from 1 to 16, is 0"),
        ({"high_score_thresh": float("nan")}, "hierarchical.high_score_thresh: must be from -100 to 100, is nan"),
    ],
)
def test_limits(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        HierarchicalParameters(**wrong)
    assert str(refused.value) == told
