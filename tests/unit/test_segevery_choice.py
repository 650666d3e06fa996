"""Which masks are made, against what the filters and NMS would have kept of all of them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from samgate.domain import FloatArray, least_ious
from samgate.imaging.preprocess import frame_of
from samgate.segevery.choice import Choice
from samgate.segevery.coarse import coarse_of
from samgate.segevery.crops import make_crops
from samgate.segevery.harvest import Harvest
from samgate.segevery.parameters import GridParameters
from samgate.segevery.sampler import Chunk
from samgate.variants.mobilesam import SPEC

SIZE = (480, 640)
POINTS = least_ious(SPEC.mask_tokens, SPEC.multimask_tokens, 0.88)


def disc(x: float, y: float, radius: float, steepness: float = 2.0) -> FloatArray:
    """Logits of a disc, in low-res pixels: the steeper, the stabler."""
    rows, columns = np.mgrid[:256, :256].astype(np.float32)
    return np.asarray((radius - np.hypot(columns - x, rows - y)) * steepness, np.float32)


def prompts(*masks: FloatArray, ious: tuple[float, ...]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """One prompt a mask, which is its second token's; the others are predicted to be bad. What ``choose`` takes."""
    coarse = np.full((len(masks), 4, 64, 64), -20, np.float32)
    coarse[:, 1] = coarse_of(np.stack(masks))
    told = np.full((len(masks), 4), 0.1, np.float32)
    told[:, 1] = ious
    return np.zeros((len(masks), 2), np.float32), told, coarse


def choice(parameters: GridParameters | None = None, size: tuple[int, int] = SIZE) -> Choice:
    return Choice(frame_of(*size, SPEC), parameters or GridParameters(), SPEC.mask_threshold)


def test_what_is_good_stable_and_new_is_made() -> None:
    asked = prompts(disc(60, 60, 30), disc(150, 90, 40), disc(60, 150, 20), ious=(0.9, 0.95, 0.87))
    assert choice().choose(*asked, POINTS).kept.tolist() == [[0, 1], [1, 1]]


def test_tokens_that_are_not_asked_for_are_never_made() -> None:
    asked = prompts(disc(60, 60, 30), ious=(0.99,))
    assert choice().choose(*asked, least_ious(4, (0,), -np.inf)).kept.tolist() == [[0, 0]]


def test_unstable_masks_are_left_out_and_doubtful_ones_made() -> None:
    # A band of ±1 logit that is 1 / steepness wide on each side: inner to outer is ((r − w) / (r + w))².
    flat, steep = disc(128, 90, 60, steepness=0.25), disc(128, 90, 60, steepness=1.3)
    assert choice().choose(*prompts(flat, ious=(0.9,)), POINTS).kept.tolist() == []
    assert (58.46 / 60 - 1) < 0.025, "within what samples scatter by"
    assert choice().choose(*prompts(steep, ious=(0.9,)), POINTS).kept.tolist() == [[0, 1]]
    off = GridParameters(stability_score_thresh=0)
    assert choice(off).choose(*prompts(flat, ious=(0.9,)), POINTS).kept.tolist() == [[0, 1]]


def test_small_masks_are_in_doubt_and_those_without_samples_too() -> None:
    tiny = disc(101.0, 101.0, 1.2, steepness=3.0)
    between = disc(103.0, 103.0, 1.0, steepness=3.0)
    assert not (coarse_of(between) > 0).any()
    assert choice().choose(*prompts(tiny, between, between, ious=(0.9, 0.9, 0.9)), POINTS).kept.tolist() == [
        [0, 1],
        [1, 1],
        [2, 1],
    ]


def test_of_masks_that_are_the_same_the_best_is_made() -> None:
    same = [disc(100 + shift, 90, 60, steepness=20) for shift in (0, 1, 2)]
    assert choice().choose(*prompts(*same, ious=(0.9, 0.97, 0.93)), POINTS).kept.tolist() == [[1, 1]]
    # Their boxes are alike, their pixels aren't.
    ring = np.minimum(disc(100, 90, 60, steepness=20), -disc(100, 90, 40, steepness=20))
    asked = prompts(disc(100, 90, 60, steepness=20), ring, ious=(0.97, 0.9))
    assert len(choice().choose(*asked, POINTS).kept) == 2


def test_a_threshold_of_1_keeps_duplicates() -> None:
    asked = prompts(disc(100, 90, 60, steepness=20), disc(100, 90, 60, steepness=20), ious=(0.9, 0.97))
    assert len(choice(GridParameters(box_nms_thresh=1)).choose(*asked, POINTS).kept) == 2


def test_a_doubtful_mask_takes_no_other_ones_place() -> None:
    doubtful, sure = disc(100, 90, 40, steepness=1.6), disc(101, 90, 40, steepness=20)
    assert choice().choose(*prompts(doubtful, sure, ious=(0.97, 0.9)), POINTS).kept.tolist() == [[0, 1], [1, 1]]


@pytest.mark.parametrize(
    ("cut", "made"),
    [((0, 0, 0, 0), [[0, 1]]), ((1, 0, 0, 0), [[0, 1], [1, 1]]), ((0, 1, 1, 1), [[0, 1]])],
)
def test_a_mask_that_the_crops_edge_cuts_takes_no_other_ones_place(cut: tuple[int, ...], made: list[list[int]]) -> None:
    # 640 pixels are 256 low-res ones: the first disc begins 15 pixels from the left side, the other 25.
    at_the_edge, inside = disc(66, 90, 60, steepness=20), disc(70, 90, 60, steepness=20)
    one = Choice(frame_of(*SIZE, SPEC), GridParameters(), SPEC.mask_threshold, np.array(cut, np.bool_))
    assert one.choose(*prompts(at_the_edge, inside, ious=(0.97, 0.9)), POINTS).kept.tolist() == made


@pytest.mark.parametrize(("x", "made"), [(186, [[0, 1], [1, 1]]), (70, [[0, 1]])])
def test_only_sides_that_are_not_the_images_cut(x: int, made: list[list[int]]) -> None:
    _, crop, *_ = make_crops(SIZE, parameters := GridParameters(crop_n_layers=1))  # the upper left one
    harvest = Harvest([crop], parameters, SIZE, SPEC.mask_threshold)
    harvest.open_crop(crop, frame_of(*crop.size, SPEC))
    # 402 pixels are 256 low-res ones: 15 pixels from the crop's right side, or from the left one, which is the image's.
    points, ious, coarse = prompts(
        disc(x, 90, 60, steepness=20), disc(x + (4 if x < 128 else -4), 90, 60, steepness=20), ious=(0.97, 0.9)
    )
    assert harvest.choose(Chunk(crop, points), ious, coarse, POINTS).kept.tolist() == made


def test_masks_that_passed_the_filters_take_the_place_of_worse_ones() -> None:
    made = choice()
    asked = prompts(disc(100, 90, 40), disc(200, 90, 30), ious=(0.9, 0.9))
    made.made(disc(101, 90, 40)[None], np.array([0.95], np.float32))
    made.made(disc(201, 90, 30)[None], np.array([0.89], np.float32))
    assert made.choose(*asked, POINTS).kept.tolist() == [[1, 1]]


def test_samples_of_the_padding_do_not_count() -> None:
    # Of 640 × 480 pixels the image fills 192 of 256 rows; this disc is outside of it but for its edge.
    below = disc(128, 215, 30)
    asked = prompts(below, disc(128, 185, 30), ious=(0.9, 0.9))
    inside = choice().choose(*asked, POINTS).kept.tolist()
    assert [1, 1] in inside


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1), (3, 4)])
def test_any_size_of_image(size: tuple[int, int]) -> None:
    ious = np.full((3, 4), 0.9, np.float32)
    coarse = np.random.default_rng(0).normal(0, 5, (3, 4, 64, 64)).astype(np.float32)
    chosen = choice(size=size).choose(np.zeros((3, 2), np.float32), ious, coarse, POINTS)
    assert chosen.kept.dtype == np.int32
    assert set(map(tuple, chosen.kept.tolist())) <= set(product(range(3), SPEC.multimask_tokens))
    assert chosen.blocks.shape == (len(chosen.kept), 64, 64)


def test_nothing_good_is_nothing() -> None:
    asked = prompts(disc(60, 60, 30), ious=(0.5,))
    assert choice().choose(*asked, POINTS).kept.shape == (0, 2)
