"""What the accuracy gate makes of its figures."""

from __future__ import annotations

import json

import pytest

from samgate.compile.gate import Agreement, GateResult
from samgate.compile.photographs import spread
from samgate.variants.graphs import GraphName
from samgate.variants.spec import Gate

GATE = Gate(min_mask_iou=0.9, max_miou_loss=0.02, reason="a test")


def _result(*ious: float, mious: tuple[float, float] | None = (0.75, 0.74)) -> GateResult:
    before, after = mious or (None, None)
    graphs: tuple[GraphName, ...] = ("decoder", "upscale", "masked_decoder")
    agreements = (
        Agreement(graph, "point", 8, iou, 0.0, before, after) for graph, iou in zip(graphs, ious, strict=False)
    )
    return GateResult(tuple(agreements), 2, GATE, {"encoder": (300.0, 200.0)})


def test_every_graph_has_to_reach_the_mask_iou() -> None:
    assert _result(0.9, 0.95).passed
    assert not _result(0.95, 0.89).passed
    assert _result(0.95, 0.89).mask_iou == 0.89


@pytest.mark.parametrize(("after", "passed"), [(0.735, True), (0.9, True), (0.729, False)])
def test_ground_truth_may_be_missed_by_as_much_as_the_gate_says(after: float, passed: bool) -> None:
    assert _result(0.99, mious=(0.75, after)).passed is passed


def test_without_labels_only_masks_are_compared() -> None:
    result = _result(0.99, mious=None)
    assert result.passed
    assert result.mious is None
    assert "mIoU" not in result.summary()


def test_summary_names_the_worst_graph_and_the_thresholds() -> None:
    words = _result(0.95, 0.85).summary()
    assert words == (
        "failed on 2 images: mask IoU with f32 0.8500 (upscale, point prompts; at least 0.9); mIoU 0.7400, f32 "
        "0.7500 (may lose 0.02)"
    )


def test_figures_survive_json() -> None:
    figures = _result(0.95, 0.85).as_dict()
    assert json.loads(json.dumps(figures)) == figures
    assert figures["passed"] is False
    assert [one["graph"] for one in figures["agreements"]] == ["decoder", "upscale"]


@pytest.mark.parametrize(
    ("items", "count", "chosen"),
    [(range(10), 3, (0, 3, 6)), (range(3), 16, (0, 1, 2)), (range(4), 4, (0, 1, 2, 3)), (range(0), 4, ())],
)
def test_spread(items: range, count: int, chosen: tuple[int, ...]) -> None:
    assert spread(items, count) == chosen
