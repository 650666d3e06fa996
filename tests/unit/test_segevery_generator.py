"""The grid sampler with a made-up decoder: bookkeeping, NMS within and across crops, order, determinism."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from samgate.domain import Survivors, least_ious
from samgate.imaging.preprocess import frame_of
from samgate.imaging.rle import rle_to_mask
from samgate.segevery.generator import GridSampler
from samgate.segevery.parameters import GridParameters
from samgate.segevery.sampler import Chunk, EverythingResult, Sampler
from samgate.variants import get_variant

SPEC = get_variant("mobilesam")
NO_EMBEDDING = np.zeros((256, 64, 64), np.float32)
SIZE = (300, 400)
DISCS = [(80.0, 80.0, 40.0), (250.0, 90.0, 50.0), (330.0, 220.0, 30.0), (120.0, 220.0, 60.0)]
"""Objects of the image: x, y, radius."""


def decode(chunk: Chunk, least: float = 0.88) -> Survivors:
    """What a perfect decoder would say: for each point the object it is on, and a bad and an unstable mask."""
    crop, points = chunk.crop, chunk.points
    frame = frame_of(*crop.size, SPEC)
    x0, y0, _, _ = crop.box
    y, x = np.mgrid[:256, :256].astype(np.float32) * 4 + 2
    x, y = x * crop.size[1] / frame.resized[1] + x0, y * crop.size[0] / frame.resized[0] + y0
    low_res = np.full((len(points), 4, 256, 256), -20, dtype=np.float32)
    ious = np.tile(np.array([1, 0.5, 0.5, 0.99], dtype=np.float32), (len(points), 1))
    for index, (px, py) in enumerate((points + np.array([x0, y0])).tolist()):
        for number, (cx, cy, radius) in enumerate(DISCS):
            if np.hypot(px - cx, py - cy) < radius:
                low_res[index, 1] = (radius - np.hypot(x - cx, y - cy)) * 3
                ious[index, 1] = 0.9 + number / 100
    low_res[:, 3] += 19.5
    kept = np.argwhere(ious > least_ious(4, (1, 2, 3), least))
    return Survivors(low_res[kept[:, 0], kept[:, 1]], kept.astype(np.int32), ious)


def run(parameters: GridParameters, limit: int = 16, size: tuple[int, int] = SIZE) -> list[EverythingResult]:
    sampler = GridSampler(parameters, size, SPEC)
    for crop in sampler.crops:
        sampler.open_crop(crop, frame_of(*crop.size, SPEC), NO_EMBEDDING)
        while chunk := sampler.next(crop, limit):
            sampler.add(chunk, decode(chunk))
        sampler.finish_crop(crop)
    assert sampler.prompts_done == sampler.prompts_total
    return sampler.finish()


def handed_out(sampler: Sampler, limit: int) -> list[Chunk]:
    """All prompts of the first crop that are known."""
    chunks = []
    while chunk := sampler.next(sampler.crops[0], limit):
        chunks.append(chunk)
    return chunks


def test_each_object_is_found_once_best_first() -> None:
    results = run(GridParameters(points_per_side=16))
    assert [round(result.predicted_iou, 2) for result in results] == [0.93, 0.92, 0.91, 0.9]
    for result, (x, y, radius) in zip(results, reversed(DISCS), strict=True):
        mask = rle_to_mask(result.rle)
        assert mask.shape == SIZE
        assert result.area == mask.sum() == pytest.approx(np.pi * radius**2, rel=0.02)
        assert result.box is not None
        assert np.allclose(result.box, (x - radius, y - radius, x + radius, y + radius), atol=2)
        assert mask[int(result.point[1]), int(result.point[0])] == 1
        assert result.stability_score > 0.95
        assert result.crop_box == (0, 0, 400, 300)


def test_most_masks() -> None:
    parameters = GridParameters(points_per_side=16, max_masks=2)
    assert run(parameters) == run(GridParameters(points_per_side=16))[:2]


def test_the_smaller_crop_wins() -> None:
    results = run(GridParameters(points_per_side=16, crop_n_layers=1, crop_overlap_ratio=0))
    assert len(results) == len(DISCS)
    whole = [result for result in results if result.crop_box == (0, 0, 400, 300)]
    # Only what a crop's edge cuts is left to the whole image.
    assert 0 < len(whole) < len(DISCS)


def test_small_regions_are_removed() -> None:
    results = run(GridParameters(points_per_side=16, min_mask_region_area=4000))
    assert len(results) == len(DISCS)


def test_nothing_found() -> None:
    assert run(GridParameters(points_per_side=1), size=(20, 20)) == []
    assert run(GridParameters(points_per_side=1, crop_n_layers=1, min_mask_region_area=9), size=(20, 20)) == []


def test_progress_and_chunks() -> None:
    sampler: Sampler = GridSampler(GridParameters(points_per_side=5), SIZE, SPEC)
    (crop,) = sampler.crops
    assert (sampler.prompts_done, sampler.prompts_total, sampler.candidates) == (0, 25, 0)
    with pytest.raises(ValueError, match="was not opened"):
        sampler.add(Chunk(crop, crop.points[:0]), decode(Chunk(crop, crop.points[:0])))
    sampler.open_crop(crop, frame_of(*SIZE, SPEC), NO_EMBEDDING)
    chunks = handed_out(sampler, 10)
    assert [len(chunk) for chunk in chunks] == [10, 10, 5]
    assert np.array_equal(np.concatenate([chunk.coords for chunk in chunks]), crop.points)
    assert sampler.next(crop, 10) is None
    sampler.add(chunks[0], decode(chunks[0]))
    assert sampler.prompts_done == 10
    with pytest.raises(ValueError, match="10 of 25 prompts were added"):
        sampler.finish_crop(crop)
    for chunk in chunks[1:]:
        sampler.add(chunk, decode(chunk))
    assert sampler.candidates == sum(int((decode(one).ious[:, 1] > 0.88).sum()) for one in chunks)


def test_neither_chunk_size_nor_order_of_arrival_matters() -> None:
    parameters = GridParameters(points_per_side=12)
    expected = run(parameters)
    assert run(parameters, limit=7) == expected
    sampler = GridSampler(parameters, SIZE, SPEC)
    (crop,) = sampler.crops
    sampler.open_crop(crop, frame_of(*SIZE, SPEC), NO_EMBEDDING)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(sampler.add, chunk, decode(chunk)) for chunk in reversed(handed_out(sampler, 9))]:
            done.result()
    assert sampler.present() == expected
    sampler.finish_crop(crop)
    assert sampler.present() == sampler.finish() == expected
