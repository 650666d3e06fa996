"""Logits at chosen pixels are those of the whole image there."""

from __future__ import annotations

import numpy as np
import pytest

from samgate.imaging.masks import full_logits
from samgate.imaging.preprocess import frame_of
from samgate.imaging.sampling import logits_at
from samgate.variants import get_variant


@pytest.mark.parametrize("variant", ["mobilesam", "mobilesam-768", "mobilesam-512"])
@pytest.mark.parametrize("size", [(300, 400), (1024, 1024), (1500, 900), (1, 1), (1, 10_000), (7, 3), (768, 511)])
def test_points_have_the_logits_of_the_whole_image(variant: str, size: tuple[int, int]) -> None:
    random = np.random.default_rng(sum(size))
    low_res = random.normal(0, 9, (3, 256, 256)).astype(np.float32)
    frame = frame_of(*size, get_variant(variant))
    rows, columns = (np.unique(random.integers(0, side, 40)) for side in size)
    rows, columns = np.union1d(rows, [0, size[0] - 1]), np.union1d(columns, [0, size[1] - 1])
    found = logits_at(low_res, frame, rows, columns)
    assert found.dtype == np.float32
    assert found.shape == (3, len(rows), len(columns))
    for mask, there in zip(low_res, found, strict=True):
        assert np.allclose(there, full_logits(mask, frame)[np.ix_(rows, columns)], atol=2e-3)


def test_no_masks() -> None:
    frame = frame_of(30, 40, get_variant("mobilesam"))
    places = np.arange(3)
    assert logits_at(np.empty((0, 256, 256), np.float32), frame, places, places).shape == (0, 3, 3)
