"""How a server stops taking calls."""

from __future__ import annotations

import asyncio
from typing import cast

import grpc
import grpc.aio
import pytest

from calls_support import StubContext
from samgate.api.calls import Calls, Context
from samgate.api.metrics import Metrics
from samgate.config import Settings
from samgate.security.identity import Identities


async def test_who_asks_again_after_the_last_answer_is_refused_however_long_that_took() -> None:
    calls = Calls(Settings(), Metrics(), Identities(Settings()))
    under_way = asyncio.Event()

    async def one(seconds: float, context: StubContext) -> None:
        async with calls.answer("Segment", cast(Context, context), None):
            under_way.set()
            await asyncio.sleep(seconds)

    # Longer than it has to be quiet for, counted from the call's arrival.
    last = asyncio.create_task(one(0.7, StubContext()))
    await under_way.wait()
    draining = asyncio.create_task(calls.drain(30.0))
    await last
    await asyncio.sleep(0.1)
    assert not draining.done()
    again = StubContext()
    with pytest.raises(grpc.aio.AbortError):
        await one(0.0, again)
    assert again.code is grpc.StatusCode.UNAVAILABLE
    begun = asyncio.get_running_loop().time()
    assert await draining
    assert asyncio.get_running_loop().time() - begun > 0.4


async def test_what_is_left_at_the_end_is_told() -> None:
    calls = Calls(Settings(), Metrics(), Identities(Settings()))
    async with calls.answer("Segment", cast(Context, StubContext()), None):
        assert not await calls.drain(0.05)
    assert await calls.drain(5.0)
