"""Fixtures: real weights, a real gateway, real photographs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from samgate.config import EngineSettings, Settings
from samgate.variants import VARIANTS
from triton_support import triton

__all__ = ["triton"]

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The evaluation data beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the evaluation data in {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def installed() -> None:
    """MobileSAM's weights, pulled once into the user's cache."""
    from samgate.weights.pull import pull

    pull(VARIANTS["mobilesam"])


@pytest.fixture(scope="session", params=["auto", "triton"])
def gateway(request: pytest.FixtureRequest, installed: None) -> Iterator[str]:
    """The target of a running gateway with real weights: with default settings, and with a Triton of its own."""
    from samgate.api.local import local_gateway

    with local_gateway(Settings(engine=EngineSettings(name=request.param))) as target:
        yield target


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A PNG photograph-like picture of 320 × 240 pixels: a bright disc and a dark square on a gradient."""
    import cv2
    import numpy as np

    y, x = np.mgrid[0:240, 0:320].astype(np.float32)
    picture = np.stack([60 + x / 4, 90 + y / 4, np.full_like(x, 120)], axis=-1)
    picture[(x - 100) ** 2 + (y - 120) ** 2 < 60**2] = (230, 200, 60)
    picture[60:160, 200:290] = (30, 30, 90)
    noisy = picture + np.random.default_rng(0).normal(0, 4, picture.shape)
    encoded, data = cv2.imencode(".png", np.clip(noisy, 0, 255).astype(np.uint8)[..., ::-1])
    assert encoded
    return data.tobytes()
