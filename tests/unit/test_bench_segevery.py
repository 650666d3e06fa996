"""SegmentEverything's benchmark: who is compared on what, when a floor is met, and the masks that are kept."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from samgate.bench.errors import BenchmarkError
from samgate.bench.segevery_report import COLUMNS, FLOORS, Contender, Floor, row, speed, verdicts
from samgate.bench.upstream_everything import MaskCache, ask_upstream, parameters
from samgate.bench.worker import working
from samgate.domain import Rle
from samgate.evaluation.everything import Answer
from samgate.evaluation.recall import MEASURES, Found, Proposals
from samgate.imaging.rle import rle_to_mask


def contender(name: str, seconds: list[float], found: list[float], first_s: float = 0.5, late: int = 0) -> Contender:
    """One whose n-th answer took ``seconds[n]``, the last ``late`` ones too long, and found ``found[n]`` of ten objects
    in the labelled images, which come first."""
    answers = {
        index: Answer(Proposals((), ()), taken, first_s, late=index >= len(seconds) - late)
        for index, taken in enumerate(seconds)
    }
    scores = {
        index: Found(dict.fromkeys(MEASURES, many), dict.fromkeys(MEASURES, 10)) for index, many in enumerate(found)
    }
    return Contender(name, answers, scores)


def test_speed_is_of_the_images_that_both_answered() -> None:
    upstream = Contender("upstream", {1: Answer(Proposals((), ()), 60.0), 9: Answer(Proposals((), ()), 1e9)})
    assert speed(contender("grid", [100.0, 2.0, 100.0], []), upstream) == 30
    assert speed(contender("grid", [100.0], []), upstream) is None


def test_recall_is_compared_on_the_images_that_both_answered() -> None:
    upstream, grid = contender("upstream", [60.0, 60.0], [5, 7]), contender("grid", [2.0] * 3, [5, 6, 9])
    figures = grid.figures(upstream)
    assert (figures["labelled_images"], figures["compared_images"]) == (3, 2)
    assert figures["recall"]["AR@1000"]["ar"] == pytest.approx(2 / 3, abs=1e-6)
    assert figures["less_upstream"]["AR@1000"] == {"ar": -0.05, "ci95": [-0.1, 0.0]}
    lines = [row(one, upstream, grid) for one in (upstream, grid)]
    assert lines[0][0] == "upstream (2 of 3 labelled images)"
    assert lines[1] == ("grid", *["0.667"] * 3, "-5.0 points (-10.0 to +0.0)", "2.00", "0.50", "0", "30.0×")
    assert all(len(line) == len(COLUMNS) for line in lines)


def test_without_labels_there_is_speed_alone() -> None:
    upstream, grid = contender("upstream", [60.0], []), contender("grid", [2.0], [])
    assert row(grid, upstream, grid) == ("grid", "", "", "", "", "2.00", "0.50", "0", "30.0×")
    assert [one.value for one in verdicts([grid], upstream)] == ["30.0×"]


@pytest.mark.parametrize(
    ("seconds", "found", "met"),
    [(3.0, 5.995, [True, True]), (3.0, 5.9, [False, True]), (3.1, 8.0, [True, False])],
)
def test_floors_of_recall_and_speed(seconds: float, found: float, met: list[bool]) -> None:
    upstream = contender("upstream", [60.0] * 2, [6, 6])
    measured = verdicts([contender("grid", [seconds] * 2, [found] * 2)], upstream)
    assert [one.met for one in measured] == met
    assert [one.claim for one in measured] == [
        "grid: AR@1000 at most 0.5 points below upstream's",
        "grid: at least 20× upstream's speed",
    ]


def test_the_best_of_those_that_fit() -> None:
    upstream = contender("upstream", [60.0] * 40, [6] * 40)
    floor = [Floor("auto", best_within_s=2.0, max_first_s=0.8)]
    auto = contender("auto", [1.9] * 40, [5] * 40)
    worse, slow = contender("hierarchical", [1.0] * 40, [4] * 40), contender("grid", [3.0] * 40, [6] * 40)
    late = contender("object_aware", [1.0] * 40, [6] * 40, late=3)
    best, first = verdicts([auto, worse, slow, late], upstream, floor)
    assert (best.met, best.value) == (True, "0.500, hierarchical 0.400")
    assert (first.met, first.value) == (True, "0.50 s")
    rival = contender("object_aware", [1.0] * 40, [6] * 40, late=2)
    assert [one.met for one in verdicts([auto, rival], upstream, floor)] == [False, True]
    tardy = contender("auto", [1.9] * 40, [5] * 40, first_s=0.9, late=3)
    assert [one.met for one in verdicts([tardy, worse], upstream, floor)] == [False, False]


def test_floors_of_strategies_that_are_not_measured_have_no_verdict() -> None:
    upstream = contender("upstream", [60.0], [6])
    assert {floor.strategy for floor in FLOORS} == {"grid", "hierarchical", "object_aware", "auto"}
    assert verdicts([contender("grid-16", [1.0], [6])], upstream) == []


def test_masks_are_kept_by_image_weights_and_parameters(tmp_path: Path) -> None:
    encoded = coco_mask.encode(np.asfortranarray(np.eye(5, 7, dtype=np.uint8)))
    kept = Proposals((Rle((5, 7), encoded["counts"]),), (0.9375,))
    cache = MaskCache("weights", parameters(32), tmp_path)
    assert cache.get(b"image") is None
    cache.put(b"image", Answer(kept, 60.0, size=(5, 7)))
    assert cache.get(b"image") == kept
    assert MaskCache("weights", parameters(32), tmp_path).get(b"image") == kept
    assert cache.get(b"another image") is None
    assert MaskCache("other weights", parameters(32), tmp_path).get(b"image") is None
    assert MaskCache("weights", parameters(16), tmp_path).get(b"image") is None
    assert MaskCache("weights", parameters(32), tmp_path, code=["other"]).get(b"image") is None
    (file,) = tmp_path.iterdir()
    file.write_text("{}")
    with pytest.raises(BenchmarkError, match="can't be used"):
        cache.get(b"image")


def answering(answer: str) -> list[str]:
    """A worker that says it is ready, then the same to whatever it is asked."""
    return [sys.executable, "-c", f"print('{{}}', flush=True); input(); print('''{answer}''', flush=True)"]


def test_run_lengths_become_masks(tmp_path: Path) -> None:
    masks = '[{"counts": [2, 3, 1], "predicted_iou": 0.5, "stability_score": 0.9}]'
    reply = f'{{"ms": 1500.0, "size": [2, 3], "masks": {masks}}}'
    with working(answering(reply), tmp_path / "log", os.environ, tmp_path) as worker:
        answer = ask_upstream(worker, tmp_path / "a.jpg", parameters(4))
    assert (answer.seconds, answer.size, answer.proposals.predicted_ious) == (1.5, (2, 3), (0.5,))
    assert rle_to_mask(answer.proposals.rles[0]).tolist() == [[0, 1, 1], [0, 1, 0]]
    with (
        working(answering(reply.replace("2, 3, 1", "2, 3")), tmp_path / "log", os.environ, tmp_path) as worker,
        pytest.raises(BenchmarkError, match="sum up to 5, its image has 6 pixels"),
    ):
        ask_upstream(worker, tmp_path / "a.jpg", parameters(4))
