"""What GridParameters accepts, and how many prompts it asks for."""

from __future__ import annotations

import math

import pytest

from samgate.errors import InvalidArgument
from samgate.segevery.crops import make_crops
from samgate.segevery.parameters import AopParameters, GridParameters


def test_defaults_are_upstreams() -> None:
    parameters = GridParameters()
    assert parameters.points_per_side == 32
    assert (parameters.pred_iou_thresh, parameters.stability_score_thresh) == (0.88, 0.95)
    assert parameters.crop_overlap_ratio == 512 / 1500
    assert parameters.prompt_count() == 1024


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("points_per_side", 0, "must be from 1 to 128, is 0"),
        ("points_per_side", 129, "must be from 1 to 128, is 129"),
        ("pred_iou_thresh", -0.1, "must be from 0 to 1, is -0.1"),
        ("pred_iou_thresh", math.nan, "must be from 0 to 1, is nan"),
        ("stability_score_thresh", 1.5, "must be from 0 to 1, is 1.5"),
        ("stability_score_offset", -1.0, "must be from 0 to 32, is -1.0"),
        ("stability_score_offset", math.inf, "must be from 0 to 32, is inf"),
        ("box_nms_thresh", 2.0, "must be from 0 to 1, is 2.0"),
        ("crop_n_layers", 5, "must be from 0 to 4, is 5"),
        ("crop_nms_thresh", -1.0, "must be from 0 to 1, is -1.0"),
        ("crop_overlap_ratio", 0.95, "must be from 0 to 0.9, is 0.95"),
        ("crop_n_points_downscale_factor", 0, "must be from 1 to 8, is 0"),
        ("min_mask_region_area", -1, "must be from 0 to 4294967295, is -1"),
        ("max_masks", -1, "must be from 0 to 4294967295, is -1"),
    ],
)
def test_out_of_range(name: str, value: float, problem: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        GridParameters(**{name: value})  # type: ignore[arg-type]
    assert (raised.value.field, raised.value.problem) == (f"grid.{name}", problem)


@pytest.mark.parametrize(
    ("parameters", "count"),
    [
        (GridParameters(points_per_side=1), 1),
        (GridParameters(points_per_side=128, crop_n_layers=4), 128**2 * 341),
        (GridParameters(crop_n_layers=2, crop_n_points_downscale_factor=2), 1024 + 4 * 256 + 16 * 64),
        # 4 // 8 points a side would be none.
        (GridParameters(points_per_side=4, crop_n_layers=1, crop_n_points_downscale_factor=8), 16 + 4),
    ],
)
def test_prompt_count(parameters: GridParameters, count: int) -> None:
    assert parameters.prompt_count() == count
    if count < 10_000:
        assert sum(len(crop.points) for crop in make_crops((1500, 2000), parameters)) == count


def test_defaults_are_aop_sams() -> None:
    parameters = AopParameters()
    assert (parameters.smoothing_sigma, parameters.confidence_thresh) == (2.0, 0.2)
    assert (parameters.spacing, parameters.elimination_factor) == (6, 1.3)
    assert parameters.grid == GridParameters()


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("smoothing_sigma", -1.0, "must be from 0 to 32, is -1.0"),
        ("smoothing_sigma", math.inf, "must be from 0 to 32, is inf"),
        ("confidence_thresh", 1.1, "must be from 0 to 1, is 1.1"),
        ("spacing", 0, "must be from 1 to 64, is 0"),
        ("spacing", 65, "must be from 1 to 64, is 65"),
        ("elimination_factor", -0.1, "must be from 0 to 100, is -0.1"),
        ("elimination_factor", math.nan, "must be from 0 to 100, is nan"),
    ],
)
def test_aop_out_of_range(name: str, value: float, problem: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        AopParameters(**{name: value})  # type: ignore[arg-type]
    assert (raised.value.field, raised.value.problem) == (f"aop.{name}", problem)
