"""Strategies by name, their figures and tables, and what is drawn of them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from rich.console import Console

from samgate.client import AnswerInfo, Decision, Timings
from samgate.domain import Rle
from samgate.errors import InvalidArgument
from samgate.evaluation.dataset import Instance, LabelledImage, spread
from samgate.evaluation.everything import STRATEGIES, Answer, Scored, Strategy, chosen_strategies
from samgate.evaluation.everything_summary import as_markdown, as_table, summarise
from samgate.evaluation.pictures import CELL_SIDE, MAX_SIDE, contact_sheet, draw_proposals, fit
from samgate.evaluation.recall import Proposals, score

INFO = AnswerInfo(
    "mobilesam", "f32", "openvino", False, None, Timings(0, 0, 0, 0, 0, 0), Decision("named", 0.7, 1, 2, 0)
)


def square(side: int, size: tuple[int, int] = (120, 160)) -> Rle:
    mask = np.zeros(size, np.uint8, order="F")
    mask[:side, :side] = 1
    return Rle(size, coco_mask.encode(mask)["counts"])


def scored(name: str, image: LabelledImage, seconds: float, *sides: int) -> Scored:
    proposals = Proposals(tuple(square(side) for side in sides), tuple(0.9 for _ in sides))
    answer = Answer(proposals, seconds, seconds / 2 if sides else None, (120, 160), INFO, late=not sides)
    return Scored(Strategy(name, {}), image, answer, score(proposals, image.instances))


def run() -> list[Scored]:
    images = [
        LabelledImage(Path(name), (120, 160), "one", (Instance(square(100), (0, 0, 100, 100), 10_000.0),))
        for name in ("a", "b")
    ]
    return [
        scored("all", images[0], 1.0, 100, 10),
        scored("half", images[0], 0.5, 87),
        scored("half", images[1], 0.7),
        scored("all", images[1], 2.0, 100),
    ]


def test_strategies_are_chosen_by_name() -> None:
    assert chosen_strategies([]) == [one for one in STRATEGIES if one.name != "object_aware"]
    few = chosen_strategies(["grid-4", "grid", "grid-4"], deadline_s=2.5)
    assert [(one.name, one.options["points_per_side"], one.deadline_s) for one in few] == [
        ("grid-4", 4, 2.5),
        ("grid", 32, 2.5),
    ]
    with pytest.raises(InvalidArgument, match=r"strategy: must be one of grid, .* or grid-N, is 'gird'"):
        chosen_strategies(["gird"])


def test_figures_are_by_strategy_and_differences_from_the_first() -> None:
    summary = json.loads(json.dumps(summarise(run())))
    assert (summary["images"], summary["objects"], summary["variant"]) == (2, 2, "mobilesam")
    whole, half = summary["strategies"]["all"], summary["strategies"]["half"]
    assert whole["recall"]["AR@1000"] == {"ar": 1.0, "ci95": [1.0, 1.0], "n": 2}
    assert whole["recall"]["small"] == {"ar": 0.0, "ci95": [0.0, 0.0], "n": 0}
    # 87² of 100² pixels pass six of the ten thresholds, in one image of two.
    assert half["recall"]["large"] == {"ar": 0.3, "ci95": [0.0, 0.6], "n": 2}
    assert half["difference"]["AR@10"] == {"ar": -0.7, "ci95": [-1.0, -0.4]}
    assert (half["median_s"], half["median_first_s"], half["masks"], half["late"]) == (0.6, 0.25, 0.5, 1)


def test_tables_say_what_the_figures_do() -> None:
    summary = summarise(run())
    console = Console(width=250, record=True, file=io.StringIO())
    console.print(as_table(summary))
    text, markdown = console.export_text(), as_markdown(summary)
    for cell in ("1.000", "0.300", "0.000 – 0.600", "-0.700 (-1.000 – -0.400)", "less all", "0.60"):
        assert cell in text
        assert cell in markdown
    assert markdown.startswith("mobilesam, f32, openvino, 2 objects in 2 images:\n\n| strategy | AR@10 |")
    rows = markdown.splitlines()[2:]
    assert len({row.count("|") for row in rows}) == 1
    assert [row.split(" | ")[4] for row in rows[2:]] == ["–", "–"], "there are no small objects to find"


def test_images_are_spread_over_the_file() -> None:
    assert spread(range(10), 2) == [2, 7]
    assert spread(range(3), 5) == [0, 1, 2]
    assert spread(range(100), 1) == [50]


def test_pictures_are_small_and_show_the_masks() -> None:
    image = np.full((600, 2048, 3), 200, np.uint8)
    drawn = draw_proposals(image, Proposals((square(300, (600, 2048)),), (0.9,)))
    assert drawn.shape == (300, MAX_SIDE, 3)
    changed = (drawn != 200).any(axis=-1)
    assert changed[:149, :149].all()
    assert not changed[155:].any()
    assert not changed[:, 155:].any()
    assert fit(image[:30, :40]).shape == (30, 40, 3)


def test_a_contact_sheet_has_every_picture_below_its_caption() -> None:
    red, blue = (np.full((90, 120, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    large = np.full((1000, 500, 3), (0, 255, 0), np.uint8)
    sheet = contact_sheet([[("photo", red), ("grid: 3 masks", blue)], [("large", large)]])
    pixels = {colour: int((sheet == colour).all(axis=-1).sum()) for colour in ((255, 0, 0), (0, 0, 255), (0, 255, 0))}
    assert pixels == {(255, 0, 0): 90 * 120, (0, 0, 255): 90 * 120, (0, 255, 0): CELL_SIDE * CELL_SIDE // 2}
    captions = sheet[: int(np.argmax((sheet == (255, 0, 0)).all(axis=-1).any(axis=1)))]
    ink = np.asarray(captions.max(axis=-1) < 100)
    assert ink[:, :128].any(), "nothing is written above the first picture"
    assert ink[:, 136:].any(), "nothing is written above the second"
