"""SegmentEverything on images that cameras don't take: every strategy answers all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from samgate.api.local import local_gateway
from samgate.client import Client
from samgate.config import Settings
from samgate.variants.detectors import DETECTORS
from samgate.weights.pull_detector import pull_detector

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True)
class Odd:
    """An image and the (height, width) that it is answered with."""

    name: str
    pixels: Pixels

    @property
    def png(self) -> bytes:
        encoded, data = cv2.imencode(".png", self.pixels)
        assert encoded
        return data.tobytes()


def disc(shape: tuple[int, ...], dtype: type[np.uint8 | np.uint16] = np.uint8) -> Pixels:
    """A bright disc on a dark ground, in all channels but for the fourth, which is transparent on the left half."""
    high = np.iinfo(dtype).max
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    on = np.hypot(rows - shape[0] / 2, columns - shape[1] / 2) < min(shape[:2]) / 3
    pixels: Any = np.where(on, high * 4 // 5, high // 8).astype(dtype)
    if len(shape) == 3:
        pixels = np.repeat(pixels[..., None], shape[2], axis=2)
        if shape[2] == 4:
            pixels[:, : shape[1] // 2, 3] = 0
    found: Pixels = pixels
    return found


ODD = (
    Odd("one pixel", np.full((1, 1, 3), 90, np.uint8)),
    Odd("two by one", np.full((1, 2, 3), 200, np.uint8)),
    Odd("panorama", np.random.default_rng(0).integers(0, 255, (1, 10_000, 3), np.uint8)),
    Odd("tower", np.random.default_rng(1).integers(0, 255, (10_000, 1, 3), np.uint8)),
    Odd("flat", np.full((64, 64, 3), 128, np.uint8)),
    Odd("alpha", disc((120, 160, 4))),
    Odd("grey", disc((120, 160))),
    Odd("16 bit", disc((120, 160, 3), np.uint16)),
    Odd("16 bit grey", disc((120, 160), np.uint16)),
)
WITH_DISC = ("alpha", "grey", "16 bit", "16 bit grey")


@pytest.fixture(scope="module")
def client(gateway: str) -> Iterator[Client]:
    with Client(gateway, retries=0) as connected:
        yield connected


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.name)
@pytest.mark.parametrize("strategy", ["grid", "hierarchical", "aop", "auto"])
def test_every_strategy_answers(client: Client, strategy: str, odd: Odd) -> None:
    answer = client.everything(odd.png, strategy=strategy, points_per_side=5, timeout_s=200)
    height, width = odd.pixels.shape[:2]
    assert answer.size == (height, width)
    assert answer.complete
    for found in answer.masks:
        mask = found.mask.to_numpy()
        assert mask.shape == (height, width)
        assert mask.sum() == found.mask.area
    if odd.name in WITH_DISC:
        truth = disc((height, width)) > 128
        ious = [
            (truth & (one.mask.to_numpy() > 0)).sum() / (truth | (one.mask.to_numpy() > 0)).sum()
            for one in answer.masks
        ]
        assert max(ious) > 0.9


@pytest.fixture(scope="module")
def detecting(installed: None, shared_data: Path) -> Iterator[Client]:
    """A gateway with YOLOX-Nano."""
    pull_detector(DETECTORS["yolox-nano"], from_file=shared_data / "weights" / "yolox_nano.onnx")
    with local_gateway(Settings(detector="yolox-nano")) as target, Client(target, retries=0) as connected:
        yield connected


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.name)
def test_a_detector_answers(detecting: Client, odd: Odd) -> None:
    answer = detecting.everything(odd.png, strategy="object_aware", timeout_s=200)
    assert answer.size == odd.pixels.shape[:2]
    assert answer.complete
    assert len(answer.masks) == answer.prompts_done
    assert answer.info.timings.detect_ms > 0


def test_a_detectors_boxes_become_masks(detecting: Client, shared_data: Path) -> None:
    answer = detecting.everything((shared_data / "media" / "dogs.jpg").read_bytes(), strategy="object_aware", conf=0.2)
    assert 1 < len(answer.masks) == answer.prompts_done < 100
    assert max(one.mask.area for one in answer.masks) > 20_000


def test_crops_of_a_small_image(client: Client) -> None:
    """Crops that would have no pixels are left out."""
    answer = client.everything(ODD[1].png, points_per_side=2, crop_n_layers=2, timeout_s=200)
    assert answer.complete
    assert answer.size == (1, 2)
