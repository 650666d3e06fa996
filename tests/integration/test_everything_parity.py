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
from pycocotools import mask as coco_mask

from samgate.api.local import local_gateway
from samgate.client import Client, Everything
from samgate.config import EngineSettings, Settings

GOLDEN = sorted((Path(__file__).resolve().parents[1] / "parity" / "golden").glob("everything_*.json"))
SAME_IOU = 0.9
MATCHED = 0.98
EXTRA = 0.02


@pytest.fixture(scope="module")
def client(shared_data: Path, installed: None) -> Iterator[Client]:
    """Of a gateway that runs in upstream's precision."""
    settings = replace(Settings(), engine=EngineSettings(precision="f32"))
    with local_gateway(settings) as target, Client(target) as connected:
        yield connected


def count_pairs(golden: dict[str, Any], ours: Everything) -> int:
    """The most pairs of one of upstream's masks and one of ours, each mask in one pair at most, that are the same."""
    size = [golden["height"], golden["width"]]
    theirs = [{"size": size, "counts": mask["rle"].encode()} for mask in golden["masks"]]
    found = [{"size": size, "counts": one.mask.rle.counts} for one in ours.masks if one.mask.rle is not None]
    same = np.asarray(coco_mask.iou(theirs, found, [0] * len(found))).reshape(len(theirs), len(found)) >= SAME_IOU
    partner: dict[int, int] = {}

    def find(mine: int, seen: set[int]) -> bool:
        for other in np.flatnonzero(same[mine]).tolist():
            if other not in seen:
                seen.add(other)
                if other not in partner or find(partner[other], seen):
                    partner[other] = mine
                    return True
        return False

    return sum(find(mine, set()) for mine in range(len(theirs)))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_masks_are_upstreams(path: Path, client: Client, shared_data: Path) -> None:
    golden = json.loads(path.read_text(encoding="utf-8"))
    content = (shared_data / "eval" / "images" / golden["image"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == golden["sha256"], "not the image that upstream was run on"
    ours = client.everything(content, timeout_s=280)
    assert ours.info.precision == "f32"
    assert ours.size == (golden["height"], golden["width"])
    total, pairs = len(golden["masks"]), count_pairs(golden, ours)
    assert pairs >= MATCHED * total, f"{pairs} of upstream's {total} masks found"
    assert len(ours.masks) - pairs <= EXTRA * total, f"{len(ours.masks) - pairs} masks that upstream doesn't have"


def test_there_is_something_to_compare_with() -> None:
    assert len(GOLDEN) == 5
