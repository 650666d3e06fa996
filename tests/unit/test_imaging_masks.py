"""Logits → masks, against torch's interpolate in the two steps upstream takes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import cv2
import numpy as np
import pytest
import torch

from samgate.domain import FloatArray, Frame
from samgate.imaging.masks import finish, finish_region, full_logits
from samgate.imaging.preprocess import longest_side

SIZES = [
    (480, 640),
    (1200, 1800),
    (1024, 683),
    (1024, 1024),
    (100, 37),
    (768, 1366),
    (1, 1),
    (3, 5000),
    (1, 20_000),
    (20_000, 1),
]


def frame_of(size: tuple[int, int], side: int = 1024) -> Frame:
    return Frame(size, longest_side(*size, side), side)


def blob(radius: float, centre: tuple[float, float] = (85, 120), slope: float = 0.6) -> FloatArray:
    y, x = np.mgrid[:256, :256].astype(np.float32)
    wave = 3 * np.sin(x / 5) * np.cos(y / 7)
    return np.asarray((radius - np.hypot(y - centre[0], x - centre[1]) + wave) * slope, dtype=np.float32)


def noise(seed: int, sigma: float = 6) -> FloatArray:
    values = np.random.default_rng(seed).normal(0, 1, (256, 256)).astype(np.float32)
    smooth = cv2.GaussianBlur(values, (0, 0), sigma)
    return np.asarray(smooth / smooth.std() * 8, dtype=np.float32)


def upstream(low_res: FloatArray, frame: Frame) -> FloatArray:
    resize = partial(torch.nn.functional.interpolate, mode="bilinear", align_corners=False)
    logits = torch.from_numpy(low_res)[None, None]
    logits = resize(logits, (frame.side, frame.side))
    logits = logits[..., : frame.resized[0], : frame.resized[1]]
    return np.asarray(resize(logits, frame.original)[0, 0].numpy())


@pytest.mark.parametrize("size", SIZES)
def test_full_logits_are_torchs(size: tuple[int, int]) -> None:
    frame, low_res = frame_of(size), noise(1)
    logits = full_logits(low_res, frame)
    assert logits.shape == size
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, upstream(low_res, frame), atol=1e-5 * np.abs(low_res).max(), rtol=0)


def test_other_input_sizes() -> None:
    for side in (512, 768, 1000):
        frame, low_res = frame_of((300, 400), side), noise(2)
        np.testing.assert_allclose(full_logits(low_res, frame), upstream(low_res, frame), atol=3e-4)
        assert finish(low_res, frame, 0).area == pytest.approx((upstream(low_res, frame) > 0).sum(), abs=2)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("low_res", [blob(6), blob(30), blob(90, (10, 250)), noise(3), noise(4) - 12, blob(-9)])
def test_masks_are_upstreams(size: tuple[int, int], low_res: FloatArray) -> None:
    frame = frame_of(size)
    logits = upstream(low_res, frame)
    expected = logits > 0
    finished = finish(low_res, frame, 0)
    flipped = np.count_nonzero(finished.mask != expected)
    # Only where the logit is zero but for rounding.
    assert flipped <= 3
    assert finished.mask.dtype == np.uint8
    assert finished.mask.shape == size
    assert finished.area == np.count_nonzero(finished.mask)
    outer = np.count_nonzero(logits > -1)
    stability = np.count_nonzero(logits > 1) / outer if outer else 0
    assert finished.stability_score == pytest.approx(stability, abs=1e-3)
    if finished.box is None:
        assert finished.area == 0
    else:
        x0, y0, x1, y1 = finished.box
        rows, columns = np.nonzero(finished.mask)
        assert (x0, y0, x1, y1) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


@pytest.mark.parametrize("radius", [4, 20, 60, 200])
def test_a_region_is_the_mask_cut_out(radius: float) -> None:
    frame = frame_of((600, 900))
    whole, region = finish(blob(radius), frame, 0), finish_region(blob(radius), frame, 0)
    assert region.box == whole.box
    assert region.box is not None
    x0, y0, x1, y1 = region.box
    assert np.array_equal(region.mask, whole.mask[y0:y1, x0:x1])
    assert (region.area, region.stability_score) == (whole.area, whole.stability_score)


def test_thresholds_and_offsets_are_used() -> None:
    frame, low_res = frame_of((300, 400)), blob(40)
    logits = full_logits(low_res, frame)
    finished = finish(low_res, frame, 2.5, 0.5)
    assert finished.area == np.count_nonzero(logits > 2.5)
    expected = np.count_nonzero(logits > 3) / np.count_nonzero(logits > 2)
    assert finished.stability_score == pytest.approx(expected, abs=1e-6)


def test_nothing_anywhere_is_empty_and_unstable() -> None:
    finished = finish(np.full((256, 256), -9, dtype=np.float32), frame_of((30, 40)), 0)
    assert (finished.box, finished.area, finished.stability_score) == (None, 0, 0.0)
    assert not finished.mask.any()


def test_almost_a_mask_is_empty_too() -> None:
    finished = finish(np.full((256, 256), -0.5, dtype=np.float32), frame_of((30, 40)), 0)
    assert (finished.box, finished.area, finished.stability_score) == (None, 0, 0.0)


def test_what_lies_in_the_padding_is_nowhere() -> None:
    low_res = np.full((256, 256), -9, dtype=np.float32)
    low_res[200:] = 9
    assert finish(low_res, frame_of((400, 800)), 0).area == 0


def test_everywhere_is_the_whole_image() -> None:
    finished = finish(np.full((256, 256), 9, dtype=np.float32), frame_of((30, 40)), 0)
    assert finished.box == (0, 0, 40, 30)
    assert (finished.area, finished.stability_score) == (1200, 1.0)


def test_threads_agree() -> None:
    frame = frame_of((480, 640))
    inputs = [blob(5 + 3 * index) for index in range(32)]
    expected = [finish(low_res, frame, 0).area for low_res in inputs]
    with ThreadPoolExecutor(4) as pool:
        assert [done.area for done in pool.map(lambda low_res: finish(low_res, frame, 0), inputs)] == expected
