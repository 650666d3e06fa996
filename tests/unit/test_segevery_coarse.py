"""Which blocks of a mask its samples leave open."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from samgate.domain import BoolArray, FloatArray
from samgate.imaging.masks import finish_region
from samgate.imaging.preprocess import frame_of
from samgate.segevery.coarse import coarse_of, outlines, samples_on
from samgate.variants.mobilesam import SPEC

SQUARE = frame_of(1024, 1024, SPEC)


CORNER = np.zeros((1, 2), np.float32)
"""A prompt far from anything."""


def disc(x: float, y: float, radius: float, steepness: float = 2.0) -> FloatArray:
    rows, columns = np.mgrid[:256, :256].astype(np.float32)
    return np.asarray((radius - np.hypot(columns - x, rows - y)) * steepness, np.float32)


def left_out(mask: FloatArray, blocks: BoolArray) -> FloatArray:
    """``mask`` with its samples all over where ``blocks`` needn't be made."""
    known = np.kron(coarse_of(mask), np.ones((4, 4), np.float32))
    return np.where(np.kron(blocks, np.ones((4, 4), np.bool_)), mask, known)


@pytest.mark.parametrize(
    ("size", "samples"),
    [((1024, 1024), (64, 64)), ((480, 640), (48, 64)), ((1, 10_000), (1, 64)), ((10_000, 1), (64, 1))],
)
def test_samples_on_the_image(size: tuple[int, int], samples: tuple[int, int]) -> None:
    assert samples_on(frame_of(*size, SPEC), 64) == samples


@pytest.mark.parametrize("threshold", [0.0, -1.5])
@pytest.mark.parametrize("offset", [0.0, 1.0, 5.0])
def test_masks_are_the_same_without_what_is_not_needed(threshold: float, offset: float) -> None:
    random = np.random.default_rng(3)
    smooth = cv2.GaussianBlur(random.normal(0, 1, (256, 256)), (0, 0), 12)
    for mask in (disc(100, 90, 40), disc(20, 250, 90, 0.4), (smooth / smooth.std() * 12).astype(np.float32)):
        (blocks,) = outlines(coarse_of(mask)[None], CORNER, SQUARE, threshold, offset)
        shorter = left_out(mask, blocks)
        assert 0 < np.count_nonzero(blocks) < blocks.size
        for shift in (0, offset, -offset):
            assert np.array_equal(mask > threshold + shift, shorter > threshold + shift)
        ours, whole = (finish_region(one, SQUARE, threshold, offset) for one in (shorter, mask))
        assert np.array_equal(ours.mask, whole.mask)
        assert ours.stability_score == whole.stability_score


def test_a_steep_outline_is_all_that_is_made() -> None:
    (blocks,) = outlines(coarse_of(disc(128, 128, 80, steepness=50))[None], CORNER, SQUARE, 0.0, 1.0)
    around = 2 * np.pi * 80 / 4
    assert around < np.count_nonzero(blocks) < 4 * around
    assert not blocks[28:31, 28:36].any()
    assert np.argwhere(blocks[0]).tolist() == [[0]]


def test_of_a_mask_between_samples_the_prompts_block_is_made_and_the_highest_samples() -> None:
    between = disc(103.0, 99.0, 1.0, steepness=20.0)
    samples = coarse_of(between)
    assert samples.max() < -10
    (blocks,) = outlines(samples[None], CORNER, SQUARE, 0.0, 1.0)
    assert np.argwhere(blocks).tolist() == [[0, 0], [24, 25]]
    assert np.array_equal(left_out(between, blocks) > 0, between > 0)
    samples[50, 3] = -5
    (blocks,) = outlines(samples[None], np.array([[103 * 4, 99 * 4]], np.float32), SQUARE, 0.0, 1.0)
    assert np.argwhere(blocks).tolist() == [[24, 25], [50, 3]]


def test_a_prompt_at_the_images_very_end() -> None:
    frame = frame_of(480, 640, SPEC)
    (blocks,) = outlines(np.full((1, 64, 64), -20, np.float32), np.array([[640, 480]], np.float32), frame, 0.0, 1.0)
    assert np.argwhere(blocks).tolist() == [[0, 0], [48, 63]]


def test_padding_is_not_made_but_for_what_its_neighbours_are_interpolated_with() -> None:
    frame = frame_of(480, 640, SPEC)
    noise = np.random.default_rng(0).normal(0, 1, (2, 64, 64)).astype(np.float32)
    blocks = outlines(noise, np.array([[10, 900], [900, 10]], np.float32), frame, 0.0, 1.0)
    assert blocks[:, :49].all()
    assert not blocks[:, 49:].any()


def test_nothing_of_nothing() -> None:
    assert outlines(np.empty((0, 64, 64), np.float32), CORNER[:0], SQUARE, 0.0, 1.0).shape == (0, 64, 64)
