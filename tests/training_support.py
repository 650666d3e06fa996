"""A teacher and a student small enough to train in a test, and images for them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parity.weights import draw_state
from samgate.training.recipe import Recipe
from samgate.variants import VARIANTS
from samgate.variants.nanosam import SPEC
from samgate.variants.spec import VariantSpec
from samgate.weights.formats import network_shapes
from samgate.weights.store import Origin, save

SIDE = 128
_SMALL = replace(SPEC, input_size=SIDE, embedding_shape=(256, 8, 8), reader="")
STUDENT = replace(_SMALL, name="student", architecture={"widths": (16, 16, 16, 16), "depths": (1, 1, 1, 1), "neck": 16})
TEACHER = replace(_SMALL, name="teacher", architecture={"widths": (8, 8, 8, 8), "depths": (1, 1, 1, 1), "neck": 8})
RECIPE = Recipe("teacher", "student", epochs=3, batch=2, lr=3e-3)


@cache
def draw_teacher() -> dict[str, np.ndarray]:
    return draw_state(network_shapes(TEACHER))


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[VariantSpec, VariantSpec]:
    """Teacher and student by name, the teacher's weights installed in a home of its own."""
    monkeypatch.setenv("SAMGATE_HOME", str(tmp_path / "home"))
    for spec in (TEACHER, STUDENT):
        monkeypatch.setitem(VARIANTS, spec.name, spec)
    save(TEACHER, draw_teacher(), Origin("teacher", "drawn", {}))
    return TEACHER, STUDENT


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with five images of several kinds and shapes, one in a folder of its own."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    random = np.random.default_rng(5)
    sizes = {"a.jpg": (90, 120), "b.png": (150, 60), "more/c.webp": (64, 64), "d.JPG": (200, 40), "e.jpg": (70, 71)}
    for name, size in sizes.items():
        blocks = random.integers(0, 255, (size[0] // 8 + 1, size[1] // 8 + 1, 3), np.uint8)
        Image.fromarray(blocks.repeat(8, axis=0).repeat(8, axis=1)[: size[0], : size[1]]).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder
