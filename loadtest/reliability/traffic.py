"""The load: requests of several kinds in an open loop, each written into the ledger."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from random import Random

import grpc
import grpc.aio

from loadtest.reliability import asks
from loadtest.reliability.asks import KINDS, Asker, CancelledByUs
from loadtest.reliability.ledger import GRACE_S, WRONG, Entry, Fate, Ledger, fate
from loadtest.reliability.pictures import pictures
from samgate.client import AsyncClient
from samgate.errors import Overloaded
from samgate.simulation.draws import Weighted
from samgate.simulation.processes import Poisson

PICTURES = 12
"""Fewer than the smallest embedding cache of these runs holds."""


class Traffic:
    """Sends to ``target``; what becomes of it stands in ``ledger``. Made with :func:`connected`."""

    def __init__(self, asker: Asker, mix: Mapping[str, float], ledger: Ledger) -> None:
        self.ledger = ledger
        self._asker = asker
        self._kinds = Weighted(list(mix.items()))
        self._under_way: set[asyncio.Task[Entry]] = set()

    async def send(self, rate: float, stop: asyncio.Event) -> None:
        """Poisson arrivals at ``rate`` a second until ``stop`` is set, whatever becomes of those before; then waits
        for the last to end."""
        start = time.monotonic()
        random = self._asker.random
        for at_s in Poisson(rate).times(Random(random.random()), 1.0):
            wait = start + at_s - time.monotonic()
            if wait > 0:
                await asyncio.wait([stopped := asyncio.ensure_future(stop.wait())], timeout=wait)
                stopped.cancel()
            if stop.is_set():
                break
            self.one(self._kinds.draw(random))
        await self.settled()

    def one(self, kind: str) -> None:
        """Send one more request now."""
        call = asyncio.create_task(self._ask(kind))
        self._under_way.add(call)
        call.add_done_callback(self._under_way.discard)

    async def settled(self) -> None:
        """All requests have ended, or are past all time that they had."""
        while self._under_way:
            await asyncio.gather(*self._under_way)

    async def closed_loop(self, seconds: float, clients: int) -> float:
        """Requests answered a second while ``clients`` ask without pause: about what the server can do."""
        until, started = time.monotonic() + seconds, time.monotonic()
        answered = 0

        async def ask() -> None:
            nonlocal answered
            while time.monotonic() < until:
                entry = await self._ask(self._kinds.draw(self._asker.random))
                answered += fate(entry) is Fate.ANSWERED

        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(ask())
        return answered / (time.monotonic() - started)

    async def _ask(self, name: str) -> Entry:
        kind = KINDS[name]
        entry = self.ledger.open(name, time.monotonic(), kind.deadline_s, kind.wanted, kind.allowed)
        try:
            async with asyncio.timeout(kind.deadline_s + GRACE_S):
                right = await kind.ask(self._asker, kind.deadline_s)
            entry.status = "OK" if right else WRONG
        except CancelledByUs:
            entry.status, entry.cancelled = "CANCELLED", True
        except TimeoutError:
            # Nobody has ended it: it stays without an end.
            return entry
        except Exception as error:
            entry.status, entry.detail = asks.status_of(error), str(error)
            entry.retry_told = isinstance(error, Overloaded) and error.retry_after_s is not None
        entry.ended_s = time.monotonic()
        return entry


@asynccontextmanager
async def connected(
    target: str,
    mix: Mapping[str, float],
    ledger: Ledger,
    *,
    seed: int = 0,
    salt: str = "",
    retries: int = 4,
    credentials: grpc.ChannelCredentials | None = None,
    token: str | None = None,
) -> AsyncIterator[Traffic]:
    """Traffic to ``target`` inside the block; several comma-separated addresses are tried in turn."""
    if "," in target:
        target = f"ipv4:{target}"
    channel = grpc.aio.insecure_channel(target) if credentials is None else grpc.aio.secure_channel(target, credentials)
    async with AsyncClient(target, retries=retries, credentials=credentials, token=token) as client, channel:
        asker = Asker(client, channel, pictures(PICTURES, seed), Random(f"{seed} traffic"), salt)
        yield Traffic(asker, mix, ledger)
