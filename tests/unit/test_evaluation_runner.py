"""Scoring with a client whose answers are known."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from rich.console import Console

from samgate.client import AnswerInfo, Client, Decision, EmbeddedImage, Handle, Mask, Segmentation, Timings
from samgate.domain import Format, Prompt, Rle
from samgate.evaluation.dataset import DatasetError, Instance, LabelledImage
from samgate.evaluation.runner import evaluate
from samgate.evaluation.summary import as_table, summarise

CHOSEN = Decision("named", 0.7, 1, 2, 0)
INFO = AnswerInfo(
    "mobilesam", "f32", "openvino", True, Handle("h"), Timings(0, 0, 0, 0, 0, 0), Decision("named", 0.7, 1, 2, 0)
)


def rectangle(width: int) -> Rle:
    mask = np.zeros((20, 30), np.uint8, order="F")
    mask[5:15, 5 : 5 + width] = 1
    return Rle((20, 30), coco_mask.encode(mask)["counts"])


class KnownClient:
    """Finds 8 of 10 columns for a box; for a point 5, 10 and 2 columns, of which it likes the first best."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, str]] = []

    def embed(self, image: bytes, variant: str = "") -> EmbeddedImage:
        return EmbeddedImage(Handle("h"), (20, 30), 1.0, INFO)

    def segment(self, image: Any, *, prompts: list[Prompt], selection: str, **options: Any) -> Segmentation:
        self.calls.append((len(prompts), selection))
        answer_format = Format(options["format"])
        found = {"single": [(8, 0.7)], "multi": [(5, 0.9), (10, 0.8), (2, 0.1)]}[selection]
        masks = tuple(
            Mask((20, 30), answer_format, rectangle(width), None, 1, liked, 1.0, None) for width, liked in found
        )
        return Segmentation((masks,) * len(prompts), (20, 30), INFO)


def labelled(path: Path, count: int, source: str) -> LabelledImage:
    path.write_bytes(b"image")
    return LabelledImage(path, (20, 30), source, (Instance(rectangle(10), (5, 5, 15, 15), 100),) * count)


def test_every_object_gets_a_box_and_a_point(tmp_path: Path) -> None:
    client, seen = KnownClient(), []
    images = [labelled(tmp_path / "a", 70, "one"), labelled(tmp_path / "b", 1, "two")]
    evaluation = evaluate(cast(Client, client), images, on_image=lambda: seen.append(1))
    assert client.calls == [(64, "single"), (64, "multi"), (6, "single"), (6, "multi"), (1, "single"), (1, "multi")]
    assert len(seen) == 2
    summary = json.loads(json.dumps(summarise(evaluation)))
    assert summary["box"] == {"miou": 0.8, "ci95": [0.8, 0.8], "n": 71}
    assert summary["point"] == {"miou": 0.5, "ci95": [0.5, 0.5], "n": 71, "oracle_miou": 1.0}
    assert summary["by_source"]["two"]["box"]["n"] == 1
    assert (summary["variant"], summary["precision"], summary["engine"]) == ("mobilesam", "f32", "openvino")
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(as_table(summary))
    assert "0.8000" in console.export_text()


def test_an_image_of_another_size_than_labelled_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"image")
    image = LabelledImage(path, (21, 30), "one", (Instance(rectangle(10), (5, 5, 15, 15), 100),))
    with pytest.raises(DatasetError, match=r"is 30×20 pixels, the data set says 30×21"):
        evaluate(cast(Client, KnownClient()), [image])
