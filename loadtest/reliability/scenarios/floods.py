"""Far too much of what is harmless in small numbers: cancelled calls, scrapes."""

from __future__ import annotations

import asyncio

from loadtest.reliability.findings import Finding, Story
from loadtest.reliability.stage import Scenario, Stage, idle_finding, same

_CANCELLED = 150.0
_FLOOD_S = 8.0
_SCRAPERS = 16
_FLOOD = {"cancelled": 1.0}


async def _cancelled(stage: Stage) -> Story:
    async with stage.gateway() as gateway:
        async with (
            stage.load(gateway.target) as load,
            stage.load(gateway.target, _FLOOD, rate=0.1) as flood,
        ):
            await load.calm()
            load.fault()
            flood.fault()
            stop = asyncio.Event()
            sending = asyncio.create_task(flood.traffic.send(_CANCELLED, stop))
            await load.go_on(_FLOOD_S)
            stop.set()
            await sending
            load.over()
            await load.calm()
        lost = len(flood.ledger.lost())
        findings = [
            load.goodput_held(),
            same(f"none of {len(flood.ledger.entries)} cancelled calls lost", lost, 0),
            await idle_finding(gateway),
            same("ends with status 0", await gateway.stop(), 0),
        ]
    return load.story("cancelled-flood", findings)


async def _scraped(stage: Stage) -> Story:
    async with stage.gateway() as gateway:
        async with stage.load(gateway.target) as load:
            await load.calm()
            load.fault()
            over = asyncio.Event()
            counts = [0, 0]

            async def scrape() -> None:
                while not over.is_set():
                    counts[await gateway.probe("/metrics") == 200] += 1

            async with asyncio.TaskGroup() as group:
                for _ in range(_SCRAPERS):
                    group.create_task(scrape())
                await load.go_on(_FLOOD_S)
                over.set()
            load.over()
            await load.calm()
        findings = [
            load.goodput_held(),
            Finding("metrics were scraped", f"{counts[1]} times, {counts[0]} failed", held=counts[1] > 0),
            await idle_finding(gateway),
            same("ends with status 0", await gateway.stop(), 0),
        ]
    return load.story("scrape-flood", findings)


CANCELLED = Scenario(
    "cancelled-flood",
    f"{_CANCELLED:g} calls a second that are cancelled at once",
    "good clients keep their goodput; nothing is left in the queues; lost: 0",
    _cancelled,
)
SCRAPED = Scenario(
    "scrape-flood",
    f"{_SCRAPERS} scrapers of /metrics without a pause",
    "good clients keep their goodput; lost: 0",
    _scraped,
)
