"""The lane: batches across callers, deadlines, cancellation, failure, the end."""

from __future__ import annotations

import asyncio
import time

import pytest

from samgate.errors import DeadlineExceeded, Overloaded, Unavailable
from samgate.scheduling.lane import Lane


class Recorder:
    """An engine that doubles numbers, one call at a time, as slowly as ``gate`` lets it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()

    async def __call__(self, batch: list[int], deadline: float) -> list[int]:
        self.batches.append(batch)
        await self.gate.wait()
        if 13 in batch:
            raise Unavailable("unlucky")
        return [2 * number for number in batch]


def soon() -> float:
    return time.monotonic() + 60


async def started(lane: Lane[int, int], number: int, deadline: float | None = None) -> asyncio.Task[int]:
    async def submit() -> int:
        return (await lane.submit(number, key="k", size=1, deadline=deadline or soon())).result

    task = asyncio.create_task(submit())
    await asyncio.sleep(0.01)
    return task


async def test_work_that_waits_together_runs_together_and_each_gets_its_own_result() -> None:
    engine = Recorder()
    lane = Lane(engine, max_batch=8, max_waiting=10)
    tasks = [await started(lane, number) for number in (1, 2, 3)]
    engine.gate.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6]
    assert engine.batches == [[1], [2, 3]]
    await lane.close()


async def test_cancelled_and_expired_work_is_never_started() -> None:
    engine = Recorder()
    lane = Lane(engine, max_batch=8, max_waiting=10)
    first = await started(lane, 1)
    cancelled = await started(lane, 2)
    expired = await started(lane, 3, deadline=time.monotonic() + 0.02)
    cancelled.cancel()
    await asyncio.sleep(0.05)
    engine.gate.set()
    assert await first == 2
    with pytest.raises(DeadlineExceeded):
        await expired
    assert engine.batches == [[1]]
    await lane.close()


async def test_a_failing_call_fails_its_callers_alone() -> None:
    engine = Recorder()
    engine.gate.set()
    lane = Lane(engine, max_batch=1, max_waiting=10)
    unlucky, lucky = await started(lane, 13), await started(lane, 4)
    with pytest.raises(Unavailable, match="unlucky"):
        await unlucky
    assert await lucky == 8
    await lane.close()


async def test_closing_finishes_what_runs_and_refuses_the_rest() -> None:
    engine = Recorder()
    lane = Lane(engine, max_batch=1, max_waiting=10)
    running, waiting = await started(lane, 1), await started(lane, 2)
    closing = asyncio.create_task(lane.close())
    await asyncio.sleep(0.01)
    engine.gate.set()
    await closing
    assert await running == 2
    with pytest.raises(Unavailable):
        await waiting
    with pytest.raises(Unavailable):
        await lane.submit(3, key="k", size=1, deadline=soon())


async def test_a_full_lane_refuses_at_once() -> None:
    engine = Recorder()
    lane = Lane(engine, max_batch=1, max_waiting=1)
    running, waiting = await started(lane, 1), await started(lane, 2)
    with pytest.raises(Overloaded):
        await lane.submit(3, key="k", size=1, deadline=soon())
    engine.gate.set()
    assert [await running, await waiting] == [2, 4]
    await lane.close()
