"""SegmentEverything's strategies through the API, with the real model: what they find, stream and refuse."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import cv2
import grpc
import numpy as np
import pytest

from samgate.api.server import load_models, load_profile, running
from samgate.api.v1 import segmentation_pb2 as pb
from samgate.api.v1.segmentation_pb2_grpc import SegmentationStub
from samgate.client import AsyncClient, Client, Everything
from samgate.config import EngineSettings, Settings
from samgate.domain import FloatArray, UInt8Array
from samgate.errors import Infeasible, InvalidArgument, NotInstalled, Overloaded
from samgate.segevery.detections import DetectorParameters

POINT = [[100, 120]]


def enough(refused: Infeasible) -> float:
    """Seconds that let this machine decode a good part of what was asked for."""
    assert refused.smallest_deadline_s is not None
    return max(2.0, 2.5 * refused.smallest_deadline_s)


def disc_iou(mask: np.ndarray) -> float:
    y, x = np.mgrid[0:240, 0:320]
    disc = (x - 100) ** 2 + (y - 120) ** 2 < 60**2
    found = mask.astype(bool)
    return float((disc & found).sum() / (disc | found).sum())


def best_disc(answer: Everything) -> float:
    return max(disc_iou(one.mask.to_numpy()) for one in answer.masks)


def scene(seed: int) -> bytes:
    """A PNG with many things in it, so that there is much to find; ``seed`` makes it an image of its own."""
    random = np.random.default_rng(seed)
    picture = np.full((480, 640, 3), 120, np.uint8)
    for _ in range(60):
        centre = (int(random.integers(640)), int(random.integers(480)))
        colour = tuple(int(value) for value in random.integers(0, 255, 3))
        cv2.circle(picture, centre, int(random.integers(8, 45)), colour, -1)
    encoded, data = cv2.imencode(".png", picture)
    assert encoded
    return data.tobytes()


@pytest.fixture(scope="module")
def client(gateway: str) -> Iterator[Client]:
    with Client(gateway, retries=0) as connected:
        yield connected


@pytest.mark.parametrize("strategy", ["grid", "hierarchical", "aop", "auto"])
@pytest.mark.parametrize("anytime", [False, True])
def test_every_strategy_finds_the_disc(client: Client, photo: bytes, strategy: str, anytime: bool) -> None:
    answer = client.everything(photo, strategy=strategy, anytime=anytime, points_per_side=8, timeout_s=200)
    assert (answer.complete, answer.strategy) == (True, strategy)
    assert best_disc(answer) > 0.9
    if strategy == "aop":
        assert 4 <= answer.prompts_done <= 100
    else:
        assert 4 <= answer.prompts_done <= 64
        assert (answer.prompts_done < 64) == (strategy == "hierarchical")
    scores = [one.mask.predicted_iou for one in answer.masks]
    assert scores == sorted(scores, reverse=True)


def test_streaming_comes_to_the_grids_answer_and_auto_finds_more_of_small_things(client: Client) -> None:
    picture = scene(0)
    shown: list[int] = []
    grid = client.everything(picture, points_per_side=8, timeout_s=200)
    streamed = client.everything(
        picture, anytime=True, on_masks=lambda masks: shown.append(len(masks)), points_per_side=8, timeout_s=200
    )
    auto = client.everything(picture, strategy="auto", points_per_side=8, timeout_s=200)
    # Engines divide chunks over threads, so that sums may differ in their last digit: the masks are the same.
    expected = {(one.point, one.mask.box) for one in grid.masks}
    assert len(expected) > 10
    found = {(one.point, one.mask.box) for one in streamed.masks}
    assert len(found ^ expected) <= 0.1 * len(expected)
    # Its points are drawn to them from between the grid's.
    assert (auto.complete, auto.prompts_done) == (True, 64)
    assert len(auto.masks) > 1.2 * len(grid.masks)
    assert len(shown) > 1
    assert shown[0] > 0


def test_masks_come_while_work_goes_on_and_ids_are_told_once(gateway: str) -> None:
    request = pb.SegmentEverythingRequest(
        image=pb.Image(encoded=scene(1)),
        grid=pb.GridParameters(points_per_side=16),
        strategy=pb.STRATEGY_HIERARCHICAL,
        anytime=True,
        format=pb.MASK_FORMAT_PACKED_BITS,
    )
    with grpc.insecure_channel(gateway) as channel:
        events = list(SegmentationStub(channel).SegmentEverything(request, timeout=200))
    kinds = [str(event.WhichOneof("event")) for event in events]
    assert kinds.index("masks") < max(index for index, kind in enumerate(kinds) if kind == "progress")
    held: set[int] = set()
    ids: list[int] = []
    for event in events:
        change = event.masks
        assert held >= set(change.retracted)
        held -= set(change.retracted)
        ids += [found.id for found in change.masks]
        held |= {found.id for found in change.masks}
        if event.HasField("masks"):
            assert (change.width, change.height) == (640, 480)
    summary = events[-1].summary
    assert ids == list(range(len(ids)))
    assert len(held) == summary.mask_count > 0
    assert (summary.complete, summary.strategy) == (True, pb.STRATEGY_HIERARCHICAL)
    done = [event.progress for event in events if event.HasField("progress")]
    assert summary.prompts_done == done[-1].prompts_done == done[-1].prompts_total
    assert done[0].prompts_total == 16 < done[-1].prompts_total


@pytest.mark.parametrize("strategy", ["auto", "grid", "hierarchical"])
def test_at_the_deadline_what_is_there_is_the_answer(client: Client, strategy: str) -> None:
    handle = client.embed(scene(2), timeout_s=60).handle
    with pytest.raises(Infeasible) as refused:
        client.everything(handle, strategy=strategy, anytime=True, points_per_side=128, timeout_s=0.05)
    for limit_s in (enough(refused.value) * 2**times for times in range(4)):
        began = time.monotonic()
        # A machine that others use, too, may be slower than when it was measured.
        with suppress(Overloaded):
            answer = client.everything(handle, strategy=strategy, anytime=True, points_per_side=128, timeout_s=limit_s)
            break
    assert time.monotonic() - began < limit_s
    assert not answer.complete
    assert 0 < answer.prompts_done < 128**2
    assert len(answer.masks) > 0
    with pytest.raises((Infeasible, Overloaded)):
        client.everything(handle, points_per_side=128, timeout_s=limit_s)


def test_nothing_to_find_is_an_empty_answer(client: Client) -> None:
    for strategy in ("grid", "hierarchical", "aop", "auto"):
        answer = client.everything(
            np.zeros((1, 1, 3), np.uint8),
            strategy=strategy,
            points_per_side=8,
            stability_score_offset=32,
            timeout_s=100,
        )
        assert (answer.masks, answer.complete, answer.size) == ((), True, (1, 1))


def test_parameters_of_other_strategies_are_refused(client: Client, photo: bytes) -> None:
    with pytest.raises(InvalidArgument, match=r"hierarchical\.coarse_factor: is not for strategy GRID"):
        client.everything(photo, coarse_factor=2)
    with pytest.raises(InvalidArgument, match=r"object_aware\.conf: is not for strategy HIERARCHICAL"):
        client.everything(photo, strategy="hierarchical", conf=0.5)
    with pytest.raises(InvalidArgument, match=r"grid\.points_per_side: is not for strategy OBJECT_AWARE"):
        client.everything(photo, strategy="object_aware", points_per_side=4)
    with pytest.raises(InvalidArgument, match=r"hierarchical\.coarse_factor: must be from 1 to 16, is 17"):
        client.everything(photo, strategy="hierarchical", coarse_factor=17)
    with pytest.raises(InvalidArgument, match=r"object_aware\.conf: must be from 0 to 1, is 2"):
        client.everything(photo, strategy="object_aware", conf=2)


def test_without_a_detector_boxes_are_refused(client: Client, photo: bytes) -> None:
    with pytest.raises(NotInstalled, match=r"OBJECT_AWARE needs an object detector.*serve --detector"):
        client.everything(photo, strategy="object_aware")


class Boxes:
    """Finds what it was told is there; ``delay_s`` later."""

    def __init__(self, *boxes: tuple[float, float, float, float]) -> None:
        self.boxes: FloatArray = np.array(boxes, np.float32).reshape(-1, 4)
        self.delay_s = 0.0
        self.asked: list[tuple[tuple[int, ...], DetectorParameters]] = []

    async def __call__(self, pixels: UInt8Array, parameters: DetectorParameters, deadline: float) -> FloatArray:
        self.asked.append((pixels.shape, parameters))
        assert math.isfinite(deadline)
        await asyncio.sleep(self.delay_s)
        return self.boxes


@asynccontextmanager
async def serving(folder: Path, detect: Boxes) -> AsyncIterator[AsyncClient]:
    settings = Settings(engine=EngineSettings(name="auto"))
    models = await asyncio.to_thread(load_models, settings, lambda message: None)
    profile = await load_profile(settings, models, lambda message: None)
    target = f"unix:{folder / 'socket'}"
    async with (
        running(settings, models, profile, target, detect=detect, doors=False),
        AsyncClient(target, retries=0) as client,
    ):
        yield client


async def test_a_detectors_boxes_have_one_mask_each(installed: None, photo: bytes, tmp_path: Path) -> None:
    detect = Boxes((198, 58, 292, 162), (40, 60, 160, 180), (41, 61, 161, 181))
    async with serving(tmp_path, detect) as client:
        answer = await client.everything(photo, strategy="object_aware", conf=0.3, max_detections=7)
        assert detect.asked == [((240, 320, 3), DetectorParameters(conf=float(np.float32(0.3)), max_detections=7))]
        assert (answer.complete, answer.strategy, answer.prompts_done, len(answer.masks)) == (
            True,
            "object_aware",
            3,
            3,
        )
        assert sorted(one.point for one in answer.masks) == [(100, 120), (101, 121), (245, 110)]
        assert sum(disc_iou(one.mask.to_numpy()) > 0.9 for one in answer.masks) == 2
        segment = await client.segment(photo, box=[40, 60, 160, 180])
        of_box = next(one.mask for one in answer.masks if one.point == (100, 120))
        assert segment.masks[0].area == pytest.approx(of_box.area, rel=0.01)
        handle = answer.info.handle
        assert handle is not None
        with pytest.raises(InvalidArgument, match=r"image\.handle: has no pixels to find objects in"):
            await client.everything(handle, strategy="object_aware")
        detect.boxes = np.empty((0, 4), np.float32)
        empty = await client.everything(photo, strategy="object_aware", anytime=True)
        assert (empty.masks, empty.complete, empty.prompts_done) == ((), True, 0)
        assert empty.info.timings.detect_ms > 0


async def test_auto_asks_the_detector_only_where_time_is_short(installed: None, tmp_path: Path) -> None:
    detect = Boxes((40, 60, 160, 180))
    picture = scene(3)
    async with serving(tmp_path, detect) as client:
        whole = await client.everything(picture, strategy="auto", points_per_side=8, timeout_s=200)
        assert (whole.complete, detect.asked) == (True, [])
        with pytest.raises(Infeasible) as refused:
            await client.everything(picture, strategy="auto", points_per_side=128, timeout_s=0.05)
        limit_s = enough(refused.value)
        short = await client.everything(picture, strategy="auto", points_per_side=128, timeout_s=limit_s)
        assert (short.complete, len(detect.asked)) == (False, 1)
        assert short.prompts_done > 16
        detect.delay_s = 60
        began = time.monotonic()
        late = await client.everything(picture, strategy="auto", points_per_side=128, timeout_s=limit_s)
        assert time.monotonic() - began < limit_s
        assert (late.complete, len(detect.asked)) == (False, 2)
        assert late.prompts_done > 0


async def test_a_click_goes_before_an_anytime_call_and_cancelling_ends_it(installed: None, tmp_path: Path) -> None:
    async with serving(tmp_path, Boxes()) as client:
        picture = scene(4)
        embedded = await client.embed(picture)
        anytime = asyncio.create_task(client.everything(picture, strategy="auto", points_per_side=128, timeout_s=60))
        await asyncio.sleep(0.5)
        for _ in range(3):
            clicked = await client.segment(embedded, points=POINT, timeout_s=5)
            assert clicked.info.timings.queue_ms < 1000
        assert not anytime.done()
        anytime.cancel()
        with pytest.raises(asyncio.CancelledError):
            await anytime
        after = await client.segment(embedded, points=POINT, timeout_s=5)
        assert after.info.timings.queue_ms < 1000
