"""What NanoSAM does with images, points and masks around its networks, against upstream's own functions."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from parity.recording import GOLDEN, Golden, read
from parity.weights import draw, draw_pixels
from samgate.domain import Prompt, Selection
from samgate.imaging.masks import finish, full_logits
from samgate.imaging.preprocess import encoder_input, frame_of
from samgate.serving.prompting import group_prompts, point_group, select
from samgate.variants.nanosam import SPEC

EVERY = [(height, width) for height in range(1, 200) for width in range(1, 200)]
NOTHING = np.zeros((0, 2), np.float32), np.zeros(0, np.int32)
ROUNDING = 4e-4
"""In f32 a place of up to 256 is known to 1.5e-5 of a pixel, on both axes, and neighbours are up to 14 apart."""


@pytest.fixture(scope="module")
def golden() -> Golden:
    return read(GOLDEN / "rules_nanosam.npz")


def keys() -> list[tuple[int, int]]:
    return [(int(height), int(width)) for height, width in read(GOLDEN / "rules_nanosam.npz")["sizes"]]


def digest(sizes: list[tuple[int, int]]) -> str:
    return hashlib.sha256(np.array(sizes, np.int64).tobytes()).hexdigest()


def test_images_of_every_size_are_resized_and_cut_where_upstream_does(golden: Golden) -> None:
    frames = [frame_of(height, width, SPEC) for height, width in EVERY]
    assert digest([frame.resized for frame in frames[::7]]) == str(golden["every/resized"])
    assert digest([(rows.stop, columns.stop) for rows, columns in (frame.cut(256) for frame in frames)]) == str(
        golden["every/cuts"]
    )


@pytest.mark.parametrize(("height", "width"), keys())
def test_the_encoder_sees_upstreams_pixels(height: int, width: int, golden: Golden) -> None:
    key = f"{height}x{width}"
    square, frame = encoder_input(draw_pixels(f"rules/{key}", (height, width, 3)), SPEC)
    mean, std = (np.array(values, np.float32) for values in (SPEC.pixel_mean, SPEC.pixel_std))
    ours = (square.astype(np.float32) - mean) / std
    ours[frame.resized[0] :] = 0
    ours[:, frame.resized[1] :] = 0
    # A grey level is 0.017.
    np.testing.assert_allclose(ours.transpose(2, 0, 1).ravel()[::5998], golden[f"{key}/input"], atol=1e-6)


@pytest.mark.parametrize(("height", "width"), keys())
def test_points_and_corners_are_upstreams_without_one_of_padding(height: int, width: int, golden: Golden) -> None:
    key = f"{height}x{width}"
    points = np.abs(draw(f"rules/{key}/points", (5, 2))).astype(np.float64) / 2 * (width, height)
    frame = frame_of(height, width, SPEC)
    box = points[3:].astype(np.float32).ravel()
    prompts = [Prompt(points[:3].astype(np.float32), np.ones(3, np.int32)), Prompt(*NOTHING, box=box)]
    three, corners = (group.prompts for group in group_prompts(prompts, frame, SPEC, 8))
    ours = np.concatenate((three.coords[0, 0], corners.coords[0, 0]))
    # Upstream scales doubles; a request's coordinates are floats.
    np.testing.assert_allclose(ours, golden[f"{key}/points"], rtol=2e-7)
    assert three.labels.tolist() == [[[1, 1, 1]]]
    assert corners.labels.tolist() == [[[2, 3]]]


@pytest.mark.parametrize(("height", "width"), keys())
def test_masks_are_brought_to_the_image_as_upstream_does(height: int, width: int, golden: Golden) -> None:
    logits = draw("rules/logits", (1, 4, 256, 256))[0] * np.float32(4)
    frame = frame_of(height, width, SPEC)
    full = np.stack([full_logits(one, frame) for one in logits])
    theirs = golden[f"{height}x{width}/masks"]
    np.testing.assert_allclose(full.ravel()[:: max(1, full.size // 1024) | 1], theirs, atol=ROUNDING)
    for one, whole in zip(logits, full, strict=True):
        np.testing.assert_array_equal(finish(one, frame, SPEC.mask_threshold).mask, whole > 0)


def test_one_mask_is_the_best_predicted_of_all_four() -> None:
    masks = np.zeros((4, 256, 256), np.float32)
    for best in range(4):
        ious = np.full(4, 0.5, np.float32)
        ious[best] = 0.6
        assert select(masks, ious, Selection.SINGLE, SPEC) == select(masks, ious, Selection.BEST, SPEC) == (best,)
    assert select(masks, ious, Selection.MULTI, SPEC) == (1, 2, 3)


def test_segeverys_points_are_followed_by_padding_as_in_the_generator_that_upstream_has() -> None:
    prompts = point_group(np.full((3, 2), 10, np.float32), frame_of(480, 640, SPEC), SPEC)
    assert prompts.labels.tolist() == [[[1, -1]] * 3]
