"""The embedded detector's lane: one at a time, bounded, given up in time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samgate.engines import lane
from samgate.engines.detector import EmbeddedDetector
from samgate.errors import DeadlineExceeded, Overloaded, Unavailable
from samgate.variants.detectors import DETECTORS

SPEC = DETECTORS["yolox-nano"]
PIXELS = np.zeros((416, 416, 3), np.uint8)


class Graph:
    """Counts, and waits until it is told to go on."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.began = 0

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        self.began += 1
        assert inputs["image"].shape == (1, 416, 416, 3)
        assert self.go.wait(10)
        return [np.zeros((1, 3549, 4), np.float32), np.full((1, 3549), self.began, np.float32)]


def soon() -> float:
    return time.monotonic() + 10


async def began(graph: Graph) -> None:
    while not graph.began:
        await asyncio.sleep(0.001)


async def test_boxes_and_scores_of_one_image() -> None:
    graph = Graph()
    graph.go.set()
    detector = EmbeddedDetector("test", SPEC, graph)
    boxes, scores = await detector.detect(PIXELS, soon())
    assert (boxes.shape, scores.shape, scores[0]) == ((3549, 4), (3549,), 1)
    assert await detector.healthy()
    await detector.close()
    assert not await detector.healthy()
    with pytest.raises(Unavailable):
        await detector.detect(PIXELS, soon())


async def test_what_is_late_when_its_turn_comes_does_not_run() -> None:
    graph = Graph()
    detector = EmbeddedDetector("test", SPEC, graph)
    first = asyncio.create_task(detector.detect(PIXELS, soon()))
    await began(graph)
    late = asyncio.create_task(detector.detect(PIXELS, time.monotonic() + 0.01))
    await asyncio.sleep(0.05)
    graph.go.set()
    await first
    with pytest.raises(DeadlineExceeded, match="before yolox-nano had its turn"):
        await late
    assert graph.began == 1
    await detector.close()


async def test_a_cancelled_call_that_waits_never_runs_and_one_that_runs_is_waited_for() -> None:
    graph = Graph()
    detector = EmbeddedDetector("test", SPEC, graph)
    first = asyncio.create_task(detector.detect(PIXELS, soon()))
    await began(graph)
    second = asyncio.create_task(detector.detect(PIXELS, soon()))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    first.cancel()
    await asyncio.sleep(0.02)
    assert not first.done()
    graph.go.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    await detector.detect(PIXELS, soon())
    assert graph.began == 2
    await detector.close()


async def test_only_so_many_calls_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "MAX_WAITING", 2)
    graph = Graph()
    detector = EmbeddedDetector("test", SPEC, graph)
    calls = [asyncio.create_task(detector.detect(PIXELS, soon())) for _ in range(2)]
    await began(graph)
    with pytest.raises(Overloaded, match="2 calls wait for yolox-nano") as refused:
        await detector.detect(PIXELS, soon())
    assert refused.value.reason == "busy"
    graph.go.set()
    await asyncio.gather(*calls)
    await detector.detect(PIXELS, soon())
    await detector.close()


async def test_closing_ends_what_runs_and_refuses_what_waits() -> None:
    graph = Graph()
    detector = EmbeddedDetector("test", SPEC, graph)
    runs = asyncio.create_task(detector.detect(PIXELS, soon()))
    await began(graph)
    waits = asyncio.create_task(detector.detect(PIXELS, soon()))
    await asyncio.sleep(0)
    closing = asyncio.create_task(detector.close())
    with pytest.raises(Unavailable, match="closed"):
        await waits
    graph.go.set()
    await runs
    await closing


async def test_a_graph_that_fails_is_unavailable() -> None:
    def fails(inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        raise ValueError("no memory")

    detector = EmbeddedDetector("test", SPEC, fails)
    with pytest.raises(Unavailable, match="test could not run yolox-nano: no memory"):
        await detector.detect(PIXELS, soon())
    await detector.close()
