"""The sampler of confident prompts with made-up embeddings and a made-up decoder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from samgate.domain import FloatArray, Frame, Survivors
from samgate.imaging.preprocess import frame_of
from samgate.imaging.rle import rle_to_mask
from samgate.segevery.aop import MOST_PROMPTS, ROUND, AopSampler
from samgate.segevery.confidence import filled, to_image
from samgate.segevery.crops import Crop
from samgate.segevery.parameters import AopParameters, GridParameters
from samgate.segevery.sampler import Chunk, EverythingResult, Sampler
from samgate.variants import get_variant

SPEC = get_variant("mobilesam")
SIZE = (300, 400)
DISCS = [(80.0, 80.0, 40.0), (250.0, 90.0, 50.0), (330.0, 220.0, 30.0), (120.0, 220.0, 60.0)]
"""Objects of the image: x, y, radius."""


def places(crop: Crop, frame: Frame, side: int) -> tuple[FloatArray, FloatArray]:
    """x and y in the image of the middles of ``side`` × ``side`` cells of the padded square."""
    y, x = (np.mgrid[:side, :side].astype(np.float32) + 0.5) * frame.side / side
    height, width = (original / resized for original, resized in zip(frame.original, frame.resized, strict=True))
    return x * width + crop.box[0], y * height + crop.box[1]


def embedding(crop: Crop) -> FloatArray:
    """float32 ``[256, 64, 64]``: each object has features of its own; noise makes many more maxima."""
    frame = frame_of(*crop.size, SPEC)
    x, y = places(crop, frame, 64)
    found = np.random.default_rng(0).normal(0, 0.3, (256, 64, 64)).astype(np.float32)
    found[0] += 5
    for number, (cx, cy, radius) in enumerate(DISCS, start=1):
        found[number] += 6 * (np.hypot(x - cx, y - cy) < radius)
    return found


def decode(chunk: Chunk, min_ious: FloatArray) -> Survivors:
    """What a perfect decoder would say: for each point the object that it is on, or nothing."""
    crop = chunk.crop
    x, y = places(crop, frame_of(*crop.size, SPEC), 256)
    masks = np.full((len(chunk), 4, 256, 256), -20, np.float32)
    ious = np.zeros((len(chunk), 4), np.float32)
    for index, (px, py) in enumerate((chunk.points + np.array(crop.box[:2])).tolist()):
        for number, (cx, cy, radius) in enumerate(DISCS):
            if np.hypot(px - cx, py - cy) < radius:
                masks[index, 1] = (radius - np.hypot(x - cx, y - cy)) * 3
                ious[index, 1] = 0.9 + number / 100
    kept = np.argwhere(ious > min_ious)
    return Survivors(masks[kept[:, 0], kept[:, 1]], kept.astype(np.int32), ious)


def opened(parameters: AopParameters | None = None, size: tuple[int, int] = SIZE) -> AopSampler:
    sampler = AopSampler(parameters or AopParameters(), size, SPEC)
    for crop in sampler.crops:
        sampler.open_crop(crop, frame_of(*crop.size, SPEC), embedding(crop))
    return sampler


def handed_out(sampler: Sampler, crop: Crop, limit: int) -> list[Chunk]:
    """All prompts that are known."""
    chunks = []
    while chunk := sampler.next(crop, limit):
        chunks.append(chunk)
    return chunks


def run(sampler: Sampler, limit: int = ROUND) -> list[EverythingResult]:
    """One chunk is decoded while the one before is filtered."""
    for crop in sampler.crops:
        under_way: list[Chunk] = []
        while (chunk := sampler.next(crop, limit)) or under_way:
            if chunk:
                under_way.append(chunk)
            if len(under_way) > 1 or not chunk:
                first = under_way.pop(0)
                sampler.add(first, decode(first, sampler.min_ious))
        sampler.finish_crop(crop)
    assert sampler.prompts_done == sampler.prompts_total
    return sampler.finish()


def test_each_object_is_found_once_best_first() -> None:
    sampler = opened()
    results = run(sampler)
    assert [round(result.predicted_iou, 2) for result in results] == [0.93, 0.92, 0.91, 0.9]
    for result, (x, y, radius) in zip(results, reversed(DISCS), strict=True):
        mask = rle_to_mask(result.rle)
        assert result.area == mask.sum() == pytest.approx(np.pi * radius**2, rel=0.02)
        assert np.hypot(result.point[0] - x, result.point[1] - y) < radius
    assert sampler.candidates >= len(DISCS)


def test_prompts_that_masks_explain_are_left_out() -> None:
    def on_objects(parameters: AopParameters) -> int:
        sampler = opened(parameters)
        assert len(run(sampler)) == len(DISCS)
        return sampler.candidates

    assert on_objects(AopParameters()) < on_objects(AopParameters(elimination_factor=100))


def test_the_total_shrinks_with_what_is_left_out() -> None:
    sampler = opened()
    before = sampler.prompts_total
    run(sampler)
    assert 2 * ROUND < sampler.prompts_done == sampler.prompts_total < before <= MOST_PROMPTS


def test_a_round_waits_for_all_rounds_but_the_one_before() -> None:
    sampler = opened()
    (crop,) = sampler.crops
    first, second, third, fourth = handed_out(sampler, crop, 8)
    assert len(first) + len(second) == len(third) + len(fourth) == ROUND
    sampler.add(fourth, decode(fourth, sampler.min_ious))
    sampler.add(second, decode(second, sampler.min_ious))
    assert sampler.next(crop, 8) is None
    with pytest.raises(ValueError, match=rf"{ROUND} of \d+ prompts were added"):
        sampler.finish_crop(crop)
    sampler.add(first, decode(first, sampler.min_ious))
    assert sampler.next(crop, 8) is not None


def test_neither_chunk_size_nor_order_of_arrival_matters() -> None:
    expected = run(opened())
    assert run(opened(), limit=7) == expected
    sampler = opened()
    (crop,) = sampler.crops
    with ThreadPoolExecutor(4) as pool:
        while chunks := handed_out(sampler, crop, 5):
            for done in [
                pool.submit(sampler.add, chunk, decode(chunk, sampler.min_ious)) for chunk in reversed(chunks)
            ]:
                done.result()
    sampler.finish_crop(crop)
    assert sampler.present() == sampler.finish() == expected
    assert sampler.prompts_done == sampler.prompts_total


def test_crops_have_prompts_of_their_own() -> None:
    sampler = opened(AopParameters(GridParameters(crop_n_layers=1, crop_overlap_ratio=0)))
    assert len(sampler.crops) == 5
    results = run(sampler)
    assert len(results) == len(DISCS)
    assert len({result.crop_box for result in results}) > 1


@pytest.mark.parametrize("size", [(301, 399), (1, 400), (7, 5), (1200, 900)])
def test_prompts_lie_in_the_image(size: tuple[int, int]) -> None:
    sampler = opened(AopParameters(spacing=1, smoothing_sigma=0.5, confidence_thresh=0), size)
    (crop,) = sampler.crops
    for chunk in handed_out(sampler, crop, 16):
        assert (chunk.coords >= 0).all()
        assert (chunk.coords <= np.array(size[::-1]) - 0.5).all()
        assert chunk.coords.dtype == np.float32


def test_what_is_not_open_or_has_nothing_to_tell_apart() -> None:
    sampler = AopSampler(AopParameters(), SIZE, SPEC)
    (crop,) = sampler.crops
    with pytest.raises(KeyError):
        sampler.next(crop, 16)
    sampler.open_crop(crop, frame_of(*SIZE, SPEC), np.ones((256, 64, 64), np.float32))
    assert sampler.next(crop, 16) is None
    assert run(sampler) == []


def test_the_most_prompts() -> None:
    sampler = opened(AopParameters(spacing=1, smoothing_sigma=0, confidence_thresh=0))
    assert sampler.prompts_total == MOST_PROMPTS


def test_only_cells_of_the_image_count() -> None:
    frame = Frame((300, 400), (768, 1024), 1024)
    values = np.arange(2 * 64 * 64, dtype=np.float32).reshape(2, 64, 64)
    found = filled(values, frame)
    assert found.shape == (48, 64, 2)
    assert found[47, 63].tolist() == values[:, 47, 63].tolist()
    assert filled(values, Frame((300, 400), (769, 1024), 1024)).shape == (49, 64, 2)


def test_positions_in_the_image() -> None:
    frame = Frame((150, 200), (384, 512), 512)
    positions = np.array([(0.5, 0.5), (32, 24), (64, 48.5)], np.float32)
    assert to_image(positions, 64, frame).tolist() == [[1.5625, 1.5625], [100, 75], [199.5, 149.5]]
