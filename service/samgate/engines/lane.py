"""One thread for calls of a model that runs in this process beside the engine's, one at a time, in their order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from samgate.errors import DeadlineExceeded, Overloaded, Unavailable

T = TypeVar("T")

MAX_WAITING = 64
"""Calls that may wait for their turn; each holds some MB."""
_RETRY_AFTER_S = 1.0


class Turns:
    """Of the model ``name``."""

    def __init__(self, name: str) -> None:
        self.closed = False
        self._name = name
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._waiting = 0

    async def run(self, work: Callable[[], T], deadline: float) -> T:
        """What ``work`` returns, when it is its turn.

        Raises Unavailable once closed, Overloaded when too many wait, DeadlineExceeded when the deadline, on
        :func:`time.monotonic`'s clock, passes before its turn; and what ``work`` raises.
        """
        if self.closed:
            raise Unavailable(f"{self._name} is closed")
        if self._waiting >= MAX_WAITING:
            raise Overloaded(f"{MAX_WAITING} calls wait for {self._name}", _RETRY_AFTER_S, "busy")
        self._waiting += 1
        job = self._thread.submit(self._in_time, work, deadline)
        call = asyncio.wrap_future(job)
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            # A graph that runs can't be stopped; what still waits for its turn can.
            if job.cancelled():
                raise Unavailable(f"{self._name} was closed") from None
            if not job.cancel():
                await asyncio.wait([call])
            raise
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Let the running call finish; what waits, and what comes later, raises Unavailable."""
        self.closed = True
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)

    def _in_time(self, work: Callable[[], T], deadline: float) -> T:
        if time.monotonic() >= deadline:
            raise DeadlineExceeded(f"the deadline passed before {self._name} had its turn")
        return work()
