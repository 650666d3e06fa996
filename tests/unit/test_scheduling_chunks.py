"""How many prompts of SegmentEverything one call has, and how many such calls run at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from samgate.scheduling.core import Scheduler
from samgate.scheduling.device import Batch
from samgate.scheduling.plans import chunk_size
from samgate.scheduling.profile import Line, OperatingPoint
from samgate.scheduling.queue import Priority, Work
from samgate.scheduling.request import Job, Request, Ticket
from scheduling_support import point, profile

LANES = 2
EVERYTHING = replace(point("a", encode=0.1, decode=Line(0.004, 0.01), max_images=4), lanes=LANES)
OTHER = replace(EVERYTHING, variant="other")


def test_chunks_are_as_long_as_may_be_waited_for() -> None:
    assert chunk_size(point("v", decode=Line(0.004, 0.01)), 0.04) == 3
    assert chunk_size(point("v", decode=Line(0.1, 0.01)), 0.04) == 1
    assert chunk_size(point("v", decode=Line(0.0, 0.0001)), 0.04) == 16


@pytest.mark.parametrize(
    ("together", "lanes", "expected"),
    [(1, 1, 7), (2, 1, 6), (3, 1, 6), (4, 1, 4), (8, 1, 8), (32, 1, 16), (1, 2, 3), (2, 2, 2), (4, 2, 4), (1, 9, 1)],
)
def test_chunks_are_filled_and_those_of_all_lanes_fit(together: int, lanes: int, expected: int) -> None:
    """A call with room to spare takes as long as a full one."""
    some = replace(point("v", decode=Line(0.0, 0.005)), together=together, lanes=lanes)
    assert chunk_size(some, 0.036) == expected


class Core:
    """A scheduler with held images at :data:`EVERYTHING` and :data:`OTHER` on one shared device."""

    def __init__(self) -> None:
        self.scheduler = Scheduler({"cpu": profile(EVERYTHING, OTHER, shared=True)}, 0.0)
        self.device = self.scheduler.devices["cpu"]

    def admit(self, some: OperatingPoint = EVERYTHING, now: float = 0.0, **fields: Any) -> Ticket:
        wanted = Request(now, now + 60.0, "point", 1, image="photo", cached=frozenset({some.name}))
        found = self.scheduler.admit(replace(wanted, points=frozenset({some.name}), **fields), now)
        assert isinstance(found, Ticket)
        return found

    def everything(self, some: OperatingPoint = EVERYTHING, chunks: int = 1) -> list[Work[Job]]:
        """Chunks of two prompts, queued."""
        ticket = self.admit(some, prompts=2 * chunks, everything=True, priority=Priority.BULK)
        return [self.scheduler.submit(ticket, "decode", 2, object(), None, 0.0) for _ in range(chunks)]

    def started(self, now: float) -> list[Work[Job]]:
        return [work for batch in self.scheduler.step(now).start for work in batch.works]

    def end(self, work: Work[Job], now: float) -> None:
        self.scheduler.finish(self.running(work), now)

    def running(self, work: Work[Job]) -> Batch:
        return next(batch for batch in self.device.running["decode"] if work in batch.works)


def test_every_lane_has_a_chunk_and_the_next_one_when_that_is_done() -> None:
    core = Core()
    chunks = core.everything(chunks=4)
    assert core.started(0.0) == chunks[:2]
    assert core.started(0.01) == []
    core.end(chunks[1], 0.02)
    assert core.started(0.02) == [chunks[2]]
    core.end(chunks[0], 0.03)
    core.end(chunks[2], 0.03)
    assert core.started(0.03) == [chunks[3]]


def test_calls_on_lanes_have_a_part_of_the_device_each_and_teach_the_pace_by_that() -> None:
    core = Core()
    chunks = core.everything(chunks=2)
    core.started(0.0)
    # 4 ms for both lanes together, and 10 a prompt.
    assert [core.running(chunk).seconds for chunk in chunks] == pytest.approx([0.022, 0.022])
    assert core.device.left("decode", 1.0) == pytest.approx(0.044)
    core.device.advance(0.03)
    assert core.device.left("decode", 1.0) == pytest.approx(0.014)
    for chunk in chunks:
        core.end(chunk, 0.044)
    assert core.device.pace("decode", 0.044) == pytest.approx(1.0)


def test_a_chunk_alone_is_no_faster_than_beside_another() -> None:
    core = Core()
    (chunk,) = core.everything()
    core.started(0.0)
    core.end(chunk, 0.044)
    assert core.device.pace("decode", 0.044) == pytest.approx(1.0)


def test_a_click_has_the_device_alone_and_goes_before_chunks_that_wait() -> None:
    core = Core()
    chunks = core.everything(chunks=3)
    core.started(0.0)
    click = core.scheduler.submit(core.admit(now=0.01), "decode", 1, "click", None, 0.01)
    core.end(chunks[0], 0.02)
    assert core.started(0.02) == []
    core.end(chunks[1], 0.03)
    assert core.started(0.03) == [click]
    assert core.started(0.04) == []
    core.end(click, 0.05)
    assert core.started(0.05) == [chunks[2]]


def test_lanes_are_of_one_point_at_a_time() -> None:
    """Each point's lanes are on all of the processor's cores."""
    core = Core()
    first, second = core.everything(), core.everything(OTHER)
    assert core.started(0.0) == first
    core.end(first[0], 0.044)
    assert core.started(0.044) == second


def test_bulk_prompts_of_segment_run_one_call_at_a_time() -> None:
    core = Core()
    ticket = core.admit(prompts=4, priority=Priority.BULK)
    works = [core.scheduler.submit(ticket, "decode", 2, object(), None, 0.0) for _ in range(2)]
    assert core.started(0.0) == works[:1]
    assert core.running(works[0]).seconds == pytest.approx(0.024)
