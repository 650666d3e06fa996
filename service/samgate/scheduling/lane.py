"""Drives a :class:`BatchQueue` in real time: waiting callers on one side, calls of the engine on the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from samgate.errors import DeadlineExceeded, Unavailable
from samgate.scheduling.queue import BatchQueue, Priority, Work

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Done(Generic[R]):
    """A result with the seconds its work waited and the seconds the call ran that made it."""

    result: R
    queue_s: float
    run_s: float


@dataclass(slots=True)
class _Pending(Generic[T, R]):
    payload: T
    submitted: float
    future: asyncio.Future[Done[R]]


class Lane(Generic[T, R]):
    """One kind of call on one engine: ``run`` gets the payloads of a batch, and the latest of their deadlines, and
    returns a result for each.

    ``parallel`` calls are under way at once. A caller that is cancelled takes its work out of the queue with it; of a
    call that already runs that share of the result is dropped, and the call is cancelled when nobody waits for it any
    more. Use within a running event loop; :meth:`close` ends it.
    """

    def __init__(
        self,
        run: Callable[[list[T], float], Coroutine[Any, Any, list[R]]],
        *,
        max_batch: int,
        max_waiting: int,
        parallel: int = 1,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._run = run
        self._on_batch = on_batch
        self._queue: BatchQueue[_Pending[T, R]] = BatchQueue(max_batch, max_waiting)
        self._work_added = asyncio.Event()
        self._closed = False
        self._workers = [asyncio.create_task(self._serve()) for _ in range(parallel)]

    def __len__(self) -> int:
        """Pieces of work that wait."""
        return len(self._queue)

    async def submit(
        self,
        payload: T,
        *,
        key: Hashable,
        size: int,
        deadline: float,
        priority: Priority = Priority.INTERACTIVE,
    ) -> Done[R]:
        """``run``'s result for ``payload``; ``deadline`` is on :func:`time.monotonic`'s clock.

        Raises Overloaded when the queue is full, DeadlineExceeded when the deadline passed before the work was
        started, Unavailable when the lane is closed, and what ``run`` raises.
        """
        if self._closed:
            raise Unavailable("the engine is shutting down")
        pending = _Pending[T, R](payload, time.monotonic(), asyncio.get_running_loop().create_future())
        work = Work(pending, key, size, deadline, priority)
        self._queue.push(work)
        self._work_added.set()
        try:
            return await pending.future
        finally:
            self._queue.cancel(work)

    async def close(self) -> None:
        """Finish the calls under way, fail what waits with Unavailable, and take no more."""
        self._closed = True
        self._work_added.set()
        await asyncio.gather(*self._workers)

    async def _serve(self) -> None:
        while True:
            batch, expired = self._queue.pop(time.monotonic())
            for work in expired:
                _fail(work.payload, DeadlineExceeded("the deadline passed while the work was waiting"))
            if batch and self._closed:
                for work in batch:
                    _fail(work.payload, Unavailable("the engine is shutting down"))
            elif batch:
                await self._call(batch)
            elif self._closed:
                return
            else:
                self._work_added.clear()
                await self._work_added.wait()

    async def _call(self, batch: list[Work[_Pending[T, R]]]) -> None:
        started = time.monotonic()
        self._on_batch(sum(work.size for work in batch))
        futures = [work.payload.future for work in batch]
        call = asyncio.create_task(
            self._run([work.payload.payload for work in batch], max(work.deadline for work in batch))
        )

        def stop_if_unwanted(_: asyncio.Future[Done[R]]) -> None:
            if all(future.done() for future in futures):
                call.cancel()

        for future in futures:
            future.add_done_callback(stop_if_unwanted)
        try:
            results = await call
        except asyncio.CancelledError:
            if not all(future.done() for future in futures):
                raise
            return
        except Exception as error:  # the callers get it, whatever it is; the lane goes on
            for work in batch:
                _fail(work.payload, error)
            return
        run_s = time.monotonic() - started
        for work, result in zip(batch, results, strict=True):
            pending = work.payload
            if not pending.future.done():
                pending.future.set_result(Done(result, started - pending.submitted, run_s))


def _fail(pending: _Pending[T, R], error: Exception) -> None:
    if not pending.future.done():
        pending.future.set_exception(error)
