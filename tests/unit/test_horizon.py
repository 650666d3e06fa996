"""How long an anytime answer may be worked on."""

from __future__ import annotations

import asyncio
import math
import time

import pytest

from samgate.errors import DeadlineExceeded, Unavailable
from samgate.serving.horizon import Horizon, OutOfTime


def in_time(seconds: float) -> Horizon:
    now = time.monotonic()
    return Horizon(now, now + seconds)


async def test_what_takes_too_long_is_cancelled() -> None:
    slow = asyncio.create_task(asyncio.sleep(60))
    horizon = in_time(0.2)
    with pytest.raises(OutOfTime):
        await horizon.within(slow)
    assert slow.cancelled()
    assert not horizon.over  # there is time left for the last update
    assert await in_time(60).within(asyncio.sleep(0, "done")) == "done"


async def test_work_that_the_scheduler_gave_up_ends_the_answer_and_other_errors_are_errors() -> None:
    async def fail(error: Exception) -> None:
        raise error

    with pytest.raises(OutOfTime):
        await in_time(60).within(fail(DeadlineExceeded("given up")))
    with pytest.raises(Unavailable):
        await in_time(60).within(fail(Unavailable("down")))
    with pytest.raises(DeadlineExceeded):
        await Horizon(time.monotonic(), math.inf).within(fail(DeadlineExceeded("given up")))


def test_the_time_for_the_last_update_is_learnt() -> None:
    horizon = in_time(2)
    first = horizon.ends
    horizon.updated(0.3)
    assert horizon.ends == pytest.approx(horizon.last - 0.6)
    horizon.updated(0.01)
    assert horizon.ends < first


def test_no_chunk_is_begun_that_cannot_be_done() -> None:
    horizon = in_time(2)
    assert horizon.allows_chunk()
    horizon.decoded(1.0)
    assert horizon.allows_chunk()
    horizon.decoded(5.0)
    assert not horizon.allows_chunk()
    endless = Horizon(time.monotonic(), math.inf)
    endless.decoded(1e9)
    assert endless.allows_chunk()
    assert not endless.over


@pytest.mark.parametrize(("whole", "kept"), [(0.3, 0.05), (1, 0.075), (2, 0.15), (10, 0.15), (300, 3.0)])
def test_long_calls_keep_more_back(whole: float, kept: float) -> None:
    assert Horizon(0.0, whole).last == pytest.approx(whole - kept)
