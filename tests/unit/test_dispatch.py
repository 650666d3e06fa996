"""The dispatcher: batches across callers, deadlines, cancellation, failure, the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable
from typing import Any

import pytest

from samgate.errors import DeadlineExceeded, Infeasible, Overloaded, Unavailable
from samgate.scheduling.core import Options, Scheduler
from samgate.scheduling.device import Batch
from samgate.scheduling.profile import DeviceProfile
from samgate.scheduling.request import Request
from samgate.serving.dispatch import Dispatcher
from scheduling_support import point, profile


class Recorder:
    """An engine that doubles numbers, one call at a time, as slowly as ``gate`` lets it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()

    async def __call__(self, batch: Batch, loads: list[int], deadline: float) -> list[int]:
        self.batches.append(loads)
        await self.gate.wait()
        if 13 in loads:
            raise Unavailable("unlucky")
        return [2 * number for number in loads]


def dispatcher(engine: Recorder, device: DeviceProfile | None = None, **options: Any) -> Dispatcher:
    device = device or profile(point("tiny", decode=0.001, max_prompts=8))
    return Dispatcher(Scheduler({"cpu": device}, time.monotonic(), Options(**options)), engine)


def request(seconds: float = 60.0, **fields: Any) -> Request:
    now = time.monotonic()
    return Request(now, now + seconds, "box", 1, encodes=0, **fields)


async def answer(desk: Dispatcher, number: int, wanted: Request, key: Hashable = "k") -> int:
    async with desk.admitted(wanted) as ticket:
        done = await desk.run(ticket, "decode", 1, key, number)
        return int(done.result)


async def started(desk: Dispatcher, number: int, wanted: Request | None = None) -> asyncio.Task[int]:
    task = asyncio.create_task(answer(desk, number, wanted or request()))
    await asyncio.sleep(0.01)
    return task


async def test_work_that_waits_together_runs_together_and_each_gets_its_own_result() -> None:
    engine = Recorder()
    desk = dispatcher(engine)
    tasks = [await started(desk, number) for number in (1, 2, 3)]
    engine.gate.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6]
    assert engine.batches == [[1], [2, 3]]
    assert desk.scheduler.open == 0
    await desk.close()


async def test_cancelled_and_hopeless_work_is_never_started() -> None:
    engine = Recorder()
    desk = dispatcher(engine)
    first = await started(desk, 1)
    cancelled = await started(desk, 2)
    hopeless = await started(desk, 3, request(0.04))
    cancelled.cancel()
    await asyncio.sleep(0.05)
    engine.gate.set()
    assert await first == 2
    with pytest.raises(DeadlineExceeded, match="given up"):
        await hopeless
    assert engine.batches == [[1]]
    assert desk.scheduler.open == 0
    await desk.close()


async def test_a_call_that_nobody_waits_for_any_more_is_cancelled_and_the_next_one_goes() -> None:
    engine = Recorder()
    desk = dispatcher(engine)
    running, waiting = await started(desk, 1), await started(desk, 2)
    running.cancel()
    await asyncio.sleep(0.01)
    assert engine.batches == [[1], [2]]
    engine.gate.set()
    assert await waiting == 4
    await desk.close()


async def test_a_failing_call_fails_its_callers_alone() -> None:
    engine = Recorder()
    engine.gate.set()
    desk = dispatcher(engine)
    unlucky = await started(desk, 13)
    with pytest.raises(Unavailable, match="unlucky"):
        await unlucky
    assert await (await started(desk, 4)) == 8
    await desk.close()


async def test_closing_finishes_what_runs_and_refuses_the_rest() -> None:
    engine = Recorder()
    desk = dispatcher(engine)
    running, waiting = await started(desk, 1), await started(desk, 2)
    closing = asyncio.create_task(desk.close())
    await asyncio.sleep(0.01)
    engine.gate.set()
    await closing
    assert await running == 2
    with pytest.raises(Unavailable):
        await waiting
    with pytest.raises(Unavailable):
        await answer(desk, 3, request())


async def test_what_cannot_be_on_time_is_refused_at_once_with_what_would_do() -> None:
    engine = Recorder()
    desk = dispatcher(engine, profile(point("slow", decode=0.2, max_prompts=1)))
    running = await started(desk, 1, request(1.0))
    with pytest.raises(Overloaded, match=r"0\.3 s can't be met") as busy:
        await answer(desk, 2, request(0.3))
    assert 0.0 < (busy.value.retry_after_s or 0.0) < 0.3
    with pytest.raises(Infeasible, match=r"smallest that would do is 0\.2 s") as short:
        await answer(desk, 2, request(0.1))
    assert short.value.smallest_deadline_s == pytest.approx(0.2)
    with pytest.raises(Infeasible, match=r"min_accuracy: 0\.9 .* best has 0\.75"):
        await answer(desk, 2, request(min_accuracy=0.9))
    engine.gate.set()
    assert await running == 2
    await desk.close()


async def test_as_many_requests_as_may_be_under_way_are_and_no_more() -> None:
    engine = Recorder()
    desk = dispatcher(engine, max_requests=1)
    running = await started(desk, 1)
    with pytest.raises(Overloaded, match="as many calls"):
        await answer(desk, 2, request())
    engine.gate.set()
    assert await running == 2
    assert await answer(desk, 2, request()) == 4
    await desk.close()
