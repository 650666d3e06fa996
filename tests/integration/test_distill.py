"""A student is evaluated as it would be served, and installed nowhere for that."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parity.weights import draw_state
from samgate.evaluation.dataset import load_dataset
from samgate.training.evaluation import served
from samgate.variants import VARIANTS
from samgate.variants.nanosam import SPEC
from samgate.weights.formats import network_shapes


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_student_is_evaluated_as_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SPEC.reduced()
    monkeypatch.setitem(VARIANTS, spec.name, spec)
    monkeypatch.setenv("SAMGATE_HOME", str(tmp_path / "home"))
    pixels = np.random.default_rng(2).integers(0, 255, (60, 90, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    square = {"segmentation": [[10, 10, 60, 10, 60, 50, 10, 50]], "bbox": [10, 10, 50, 40], "area": 2000}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 90, "height": 60}],
        "annotations": [{"id": 1, "image_id": 1, "iscrowd": 0, **square}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    images = load_dataset(tmp_path / "instances.json")
    found = served(spec, draw_state(network_shapes(spec)), images, tmp_path, threads=1)
    assert (found["variant"], found["precision"], found["images"]) == ("nanosam", "f32", 1)
    assert 0 <= found["box"]["miou"] <= 1
    assert found["box"]["n"] == found["point"]["n"] == 1
    assert os.environ["SAMGATE_HOME"] == str(tmp_path / "home")
    assert not list((tmp_path / "home").rglob("*.safetensors"))
    assert not list(tmp_path.glob(".home-*"))
