"""Several Triton servers that have the same models, for whoever calls these: a call goes to one that can answer it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tritonclient.utils import InferenceServerException

from samgate.engines.base import ServerHealth
from samgate.engines.triton.breaker import State
from samgate.engines.triton.discovery import Directory
from samgate.engines.triton.endpoint import Endpoint
from samgate.engines.triton.failures import Failure, as_samgate_error, classify
from samgate.engines.triton.region import Region, Regions
from samgate.engines.triton.transfer import Call, Found
from samgate.errors import DeadlineExceeded, SamgateError, Unavailable
from samgate.logs import log
from samgate.security.exposure import is_loopback

T = TypeVar("T")

logger = logging.getLogger("samgate.triton")

_LOOK_AGAIN_S = 0.05
_LOOK_UP_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to hope: ``call_s`` for an answer to a call, before its server is taken for hung; ``outage_s`` for a
    server to come back when none is left."""

    call_s: float
    outage_s: float


class Servers:
    """The servers at ``urls`` (host:port of each), and those that ``directory`` knows of later.

    A call goes to the server that has the fewest under way. When that one fails, the call goes to another, within the
    deadline; when none is left, the caller has its own way, or the call waits a while for one to come back. All calls
    can be repeated without harm. Arrays lie in memory that is shared with servers on this machine, ``shared_bytes`` of
    it.
    """

    def __init__(self, urls: Sequence[str], directory: Directory, shared_bytes: int, patience: Patience) -> None:
        self.closed = False
        self._urls = tuple(urls)
        self._directory = directory
        self._patience = patience
        self._regions = Regions(shared_bytes)
        self._connected: list[Endpoint] = []
        self._looked = time.monotonic()
        self._looking: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._turn = itertools.count()
        self._out_since: dict[str, float] = {}

    @property
    def count(self) -> int:
        """How many servers there are, well or not."""
        return len(self._urls)

    def region(self) -> Region | None:
        """The shared memory in use; None without any."""
        return self._regions.current()

    def believed_to_run(self, models: Iterable[str]) -> bool:
        """Whether for each of ``models`` some server is believed to run it."""
        return all(
            any(endpoint.breaker(model).state is not State.OPEN for endpoint in self._endpoints()) for model in models
        )

    def believed(self) -> list[ServerHealth]:
        """What is believed of each model on each server, as far as they were called."""
        return [
            ServerHealth(endpoint.url, model, well)
            for endpoint in self._connected
            for model, well in endpoint.believed.items()
        ]

    async def close(self) -> None:
        """Close all connections. Calls made later raise Unavailable."""
        self.closed = True
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        for task in self._leaving:
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        await asyncio.gather(*(endpoint.close() for endpoint in self._connected))
        self._regions.retire()

    async def run(
        self,
        call: Call,
        deadline: float,
        result: Callable[[Found], T],
        instead: Callable[[], Awaitable[T]] | None = None,
    ) -> T:
        """``call`` wherever it is answered, as ``result`` reads it; ``instead`` is done when nobody can answer now.

        Raises Unavailable, Overloaded and DeadlineExceeded.
        """
        failed: SamgateError | None = None
        gone: set[str] = set()
        while not self.closed:
            endpoint = self._choose(call.model, gone)
            if endpoint is None:
                if instead is not None:
                    return await instead()
                # Counted from the first call that found nobody: later ones don't wait as long once more.
                since = self._out_since.setdefault(call.model, time.monotonic())
                until = min(deadline, since + self._patience.outage_s)
                if time.monotonic() >= until:
                    break
                gone.clear()
                await asyncio.sleep(_LOOK_AGAIN_S)
                continue
            try:
                found = await endpoint.call(call, deadline)
            except InferenceServerException as error:
                failure, failed = classify(error), as_samgate_error(error, endpoint.url, call.model)
                if failure is Failure.REFUSED or time.monotonic() >= deadline:
                    raise failed from error
                gone.add(endpoint.url)
            else:
                self._out_since.pop(call.model, None)
                return result(found)
        if time.monotonic() >= deadline:
            raise DeadlineExceeded(f"the deadline passed while {call.model} was out on Triton") from failed
        raise failed or Unavailable(f"no Triton has {call.model} now: {', '.join(self._urls)}")

    def _choose(self, model: str, gone: set[str]) -> Endpoint | None:
        """Of those that may be asked, one of those with the fewest calls under way, in turn."""
        able = [one for one in self._endpoints() if one.url not in gone and one.breaker(model).allows]
        if not able:
            return None
        turn = next(self._turn)
        return min(
            (able[(turn + index) % len(able)] for index in range(len(able))), key=lambda endpoint: endpoint.in_flight
        )

    def _endpoints(self) -> list[Endpoint]:
        # Channels belong to the event loop that makes them, so they wait for the first call.
        if not self._connected and not self.closed:
            self._connected = [self._connect(url) for url in self._urls]
        if self._directory.moves and not self.closed and time.monotonic() - self._looked > _LOOK_UP_EVERY_S:
            self._looked = time.monotonic()
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look_up())
        return self._connected

    def _connect(self, url: str) -> Endpoint:
        return Endpoint(url, self._regions if is_here(url) else None, self._patience.call_s)

    async def _look_up(self) -> None:
        """Take in servers that have turned up, and take leave of those that are gone."""
        known = frozenset(self._urls)
        urls = await asyncio.to_thread(self._directory.now, known)
        if not urls or known == frozenset(urls):
            return
        log(logger, logging.INFO, "triton servers changed", servers=", ".join(urls))
        gone = [endpoint for endpoint in self._connected if endpoint.url not in urls]
        stay = [endpoint for endpoint in self._connected if endpoint.url in urls]
        self._connected = stay + [self._connect(url) for url in urls if url not in known]
        self._urls = tuple(urls)
        for endpoint in gone:
            task = asyncio.create_task(self._part_with(endpoint))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _part_with(self, endpoint: Endpoint) -> None:
        """Close it once its calls are over: a server that has no name any more may still be finishing them."""
        until = time.monotonic() + self._patience.call_s
        try:
            while endpoint.in_flight and time.monotonic() < until:
                await asyncio.sleep(_LOOK_AGAIN_S)
        finally:
            await endpoint.close()


def is_here(url: str) -> bool:
    """Whether ``url`` is on this machine, by its name: only there can memory be shared."""
    return is_loopback(url.rpartition(":")[0])
