"""SegmentEverything against upstream's automatic mask generator, whose answers are in tests/parity/golden."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from samgate.api.local import local_gateway
from samgate.client import Client, Everything
from samgate.config import EngineSettings, Settings

GOLDEN = sorted((Path(__file__).resolve().parents[1] / "parity" / "golden").glob("everything_*.json"))
SAME_IOU = 0.9
FOUND, PAIRED, EXTRA = 0.92, 0.86, 0.07
"""Of upstream's masks, how many are found, and how many by one of their own; and how many more there may be.

Measured: 38, 21, 46, 58 and 25 of 41, 22, 47, 58 and 25 found, 37, 19, 46, 56 and 23 by one of their own, and 3 too
many in the third. Upstream also keeps masks that are another of its masks but for a few pixels far off, since their
boxes differ: these aren't made. Without merged tokens (:mod:`samgate.variants.merging`) it was 40, 22, 47, 58, 25; 39,
21, 47, 56, 23; and one too many."""


@pytest.fixture(scope="module")
def client(shared_data: Path, installed: None) -> Iterator[Client]:
    """Of a gateway that runs in upstream's precision."""
    settings = replace(Settings(), engine=EngineSettings(precision="f32"))
    with local_gateway(settings) as target, Client(target) as connected:
        yield connected


def likeness(golden: dict[str, Any], ours: Everything) -> NDArray[np.float64]:
    """IoU of upstream's masks with ours: ``[upstream's, ours]``."""
    size = [golden["height"], golden["width"]]
    theirs = [{"size": size, "counts": mask["rle"].encode()} for mask in golden["masks"]]
    found = [{"size": size, "counts": one.mask.rle.counts} for one in ours.masks if one.mask.rle is not None]
    return np.asarray(coco_mask.iou(theirs, found, [0] * len(found)), np.float64).reshape(len(theirs), len(found))


def count_pairs(same: NDArray[np.bool_]) -> int:
    """The most pairs of rows and columns, each in one pair at most, that are ``same`` ``[rows, columns]``."""
    partner: dict[int, int] = {}

    def find(mine: int, seen: set[int]) -> bool:
        for other in np.flatnonzero(same[mine]).tolist():
            if other not in seen:
                seen.add(other)
                if other not in partner or find(partner[other], seen):
                    partner[other] = mine
                    return True
        return False

    return sum(find(mine, set()) for mine in range(len(same)))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_masks_are_upstreams(path: Path, client: Client, shared_data: Path) -> None:
    golden = json.loads(path.read_text(encoding="utf-8"))
    content = (shared_data / "eval" / "images" / golden["image"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == golden["sha256"], "not the image that upstream was run on"
    ours = client.everything(content, timeout_s=280)
    assert ours.info.precision == "f32"
    assert ours.size == (golden["height"], golden["width"])
    total, same = len(golden["masks"]), likeness(golden, ours) >= SAME_IOU
    pairs = count_pairs(same)
    assert same.any(axis=1).sum() >= FOUND * total, f"{same.any(axis=1).sum()} of upstream's {total} masks found"
    assert pairs >= PAIRED * total, f"{pairs} of upstream's {total} masks found, each by another"
    assert len(ours.masks) - pairs <= EXTRA * total, f"{len(ours.masks) - pairs} masks that upstream doesn't have"


def test_there_is_something_to_compare_with() -> None:
    assert len(GOLDEN) == 5
