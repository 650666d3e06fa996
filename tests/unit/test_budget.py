"""The shared memory budget: bounded, fair, and whole again after every kind of end."""

from __future__ import annotations

import asyncio

from samgate.serving.budget import ByteBudget


async def test_never_more_than_the_total_is_out_and_everyone_gets_a_turn() -> None:
    budget, out, most, turns = ByteBudget(100), 0, 0, 0

    async def use(size: int) -> None:
        nonlocal out, most, turns
        async with budget.hold(size):
            out += min(size, 100)
            most = max(most, out)
            await asyncio.sleep(0)
            out -= min(size, 100)
            turns += 1

    await asyncio.gather(*(use(size) for size in (60, 60, 30, 500, 10, 90)))
    assert (turns, budget.free) == (6, 100)
    assert most <= 100


async def test_who_is_cancelled_while_waiting_or_holding_gives_way() -> None:
    budget = ByteBudget(100)
    entered = asyncio.Event()

    async def keep() -> None:
        async with budget.hold(80):
            entered.set()
            await asyncio.Event().wait()

    holder = asyncio.create_task(keep())
    await entered.wait()
    waiting = asyncio.create_task(keep())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    async with budget.hold(20):
        assert budget.free == 0
    holder.cancel()
    await asyncio.wait([holder, waiting])
    assert budget.free == 100
    async with budget.hold(100):
        assert budget.free == 0
