"""Drives the scheduler in real time: requests on one side, calls of the engines on the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from samgate import tracing
from samgate.errors import DeadlineExceeded, Infeasible, Overloaded, SamgateError, Unavailable
from samgate.scheduling.core import Scheduler
from samgate.scheduling.device import Batch, Stage
from samgate.scheduling.queue import Work
from samgate.scheduling.request import Job, Refusal, Refused, Request, Ticket
from samgate.tracing import Shared, Span

Run = Callable[[Batch, list[Any], float], Coroutine[Any, Any, list[Any]]]
"""Runs the loads of a batch, of use until a deadline, and returns a result for each."""


_BROKEN = ("UNAVAILABLE", "INTERNAL")
"""What an engine's call ends with when that is the engine's fault."""


class Watch(Protocol):
    """Who is told of the engines' calls, when they begin, and when they end: after how long, and whether the engine
    failed."""

    def batch_began(self, batch: Batch) -> None: ...

    def batch_ended(self, batch: Batch, seconds: float, *, failed: bool) -> None: ...


class Unwatched:
    """Nobody."""

    def batch_began(self, batch: Batch) -> None:
        """See :class:`Watch`."""

    def batch_ended(self, batch: Batch, seconds: float, *, failed: bool) -> None:
        """See :class:`Watch`."""


@dataclass(frozen=True, slots=True)
class Done:
    """A result with the seconds its work waited and the seconds the call ran that made it."""

    result: Any
    queue_s: float
    run_s: float


@dataclass(slots=True)
class _Pending:
    load: Any
    future: asyncio.Future[Done]
    span: Span

    def fail(self, error: Exception) -> None:
        """Tell the caller, unless it has gone."""
        if not self.future.done():
            self.future.set_exception(error)


class Dispatcher:
    """Asks ``scheduler`` what to do whenever something happens, and has ``run`` do it. For one event loop.

    A caller that is cancelled takes its work out of the queue with it; of a call that already runs that share of the
    result is dropped, and the call is cancelled when nobody waits for it any more.
    """

    def __init__(self, scheduler: Scheduler, run: Run, watch: Watch | None = None) -> None:
        self.scheduler = scheduler
        self._run = run
        self._watch = watch or Unwatched()
        self._calls: set[asyncio.Task[None]] = set()
        self._waiting: set[Work[Job]] = set()
        self._due: asyncio.Handle | None = None
        self._wake: asyncio.TimerHandle | None = None
        self._closed = False

    @asynccontextmanager
    async def admitted(self, request: Request) -> AsyncIterator[Ticket]:
        """A ticket for ``request`` inside the block, whose normal end is that of the answer.

        Raises Overloaded when it can't be on time, Infeasible when it never could, Unavailable when closed.
        """
        if self._closed:
            raise Unavailable("the engine is shutting down")
        found = self.scheduler.admit(request, time.monotonic())
        if isinstance(found, Refusal):
            raise _refused(request, found)
        answered = False
        try:
            yield found
            answered = True
        finally:
            self.scheduler.close(found, time.monotonic(), answered=answered)

    async def run(self, ticket: Ticket, stage: Stage, size: int, key: Hashable, load: Any) -> Done:
        """``run``'s result for ``load``; pieces of equal ``key`` may share a call.

        Raises Overloaded when the queue is full, DeadlineExceeded when the deadline can't be met any more,
        Unavailable when closed, and what ``run`` raises.
        """
        if self._closed:
            raise Unavailable("the engine is shutting down")
        pending = _Pending(load, asyncio.get_running_loop().create_future(), tracing.current.get())
        work = self.scheduler.submit(ticket, stage, size, key, pending, time.monotonic())
        self._waiting.add(work)
        self._soon()
        try:
            return await pending.future
        finally:
            self._waiting.discard(work)
            if self.scheduler.withdraw(work):
                self._soon()
            # The scheduler may remember the work for a while; what it was about, and came to, can be large.
            work.payload.load = None

    async def close(self) -> None:
        """Finish the calls under way, fail what waits with Unavailable, and take no more."""
        self._closed = True
        for work in list(self._waiting):
            if self.scheduler.withdraw(work):
                _pending(work).fail(Unavailable("the engine is shutting down"))
        while self._calls:
            await asyncio.wait(self._calls)
        for handle in (self._due, self._wake):
            if handle is not None:
                handle.cancel()

    def _soon(self) -> None:
        # At the end of this turn of the loop: what comes in together is batched together.
        if self._due is None:
            self._due = asyncio.get_running_loop().call_soon(self._step)

    def _step(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        now = time.monotonic()
        step = self.scheduler.step(now)
        for work in step.dropped:
            _pending(work).fail(DeadlineExceeded("the deadline can't be met any more: the work was given up unstarted"))
        for batch in step.start:
            call = asyncio.get_running_loop().create_task(self._call(batch, [_pending(work) for work in batch.works]))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
        if step.wake is not None:
            self._wake = asyncio.get_running_loop().call_later(max(0.0, step.wake - now), self._step)

    async def _call(self, batch: Batch, pending: list[_Pending]) -> None:
        started = time.monotonic()
        self._watch.batch_began(batch)
        shared = Shared(
            [one.span for one in pending], [work.submitted for work in batch.works], batch.stage, batch.size
        )
        # This task has the context of whoever happened to be the first to ask for it.
        tracing.current.set(shared.lead)
        until = max(work.payload.ticket.request.deadline for work in batch.works)
        call = asyncio.create_task(self._run(batch, [one.load for one in pending], until))

        def stop_if_unwanted(_: asyncio.Future[Done]) -> None:
            if all(one.future.done() for one in pending):
                call.cancel()

        for one in pending:
            one.future.add_done_callback(stop_if_unwanted)
        failed, ended = True, "cancelled"
        try:
            results = await call
            failed, ended = False, ""
        except asyncio.CancelledError:
            if not all(one.future.done() for one in pending):
                raise
            return
        except Exception as error:  # the callers get it, whatever it is
            ended = error.status if isinstance(error, SamgateError) else "INTERNAL"
            for one in pending:
                one.fail(error)
            return
        finally:
            self.scheduler.finish(batch, time.monotonic(), failed=failed)
            self._watch.batch_ended(batch, time.monotonic() - started, failed=ended in _BROKEN)
            shared.end(ended)
            self._soon()
        run_s = time.monotonic() - started
        for work, one, result in zip(batch.works, pending, results, strict=True):
            if not one.future.done():
                one.future.set_result(Done(result, started - work.submitted, run_s))


def _pending(work: Work[Job]) -> _Pending:
    pending = work.payload.load
    assert isinstance(pending, _Pending)
    return pending


def _refused(request: Request, refusal: Refusal) -> SamgateError:
    """What the client is told."""
    given = request.deadline - request.arrival
    match refusal.reason:
        case Refused.DEADLINE:
            smallest = refusal.smallest_s or 0.0
            return Infeasible(
                f"deadline: {given:.3g} s is too short even for an idle server; the smallest that would do is "
                f"{smallest:.3g} s",
                smallest_deadline_s=smallest,
                reason=refusal.reason.value,
            )
        case Refused.ACCURACY:
            return Infeasible(
                f"min_accuracy: {request.min_accuracy:g} is more than anything has that may answer; the best has "
                f"{refusal.best_accuracy or 0.0:.4g}",
                reason=refusal.reason.value,
            )
        case Refused.DOWN:
            return Unavailable("no engine is up that could answer: retry later", refusal.reason.value)
        case Refused.SHARE:
            message = "the server is busy and this client has its share of it"
        case Refused.LIMIT:
            message = "as many calls are under way as the server takes"
        case Refused.BUSY:
            message = f"the deadline of {given:.3g} s can't be met: too much is queued"
    wait = refusal.retry_after_s or 0.0
    message = f"{message}; retry in {wait:.2g} s, or give it more time"
    return Overloaded(message, retry_after_s=wait, reason=refusal.reason.value)
