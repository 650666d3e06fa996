"""What every scenario of chaos has: a folder, servers, load before, during and after the fault, and the bookkeeping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from loadtest.reliability.asks import PROMPTS
from loadtest.reliability.findings import Finding, Story
from loadtest.reliability.ledger import Fate, Ledger, Outage, Tally
from loadtest.reliability.process import ChaosError, Gateway, serving
from loadtest.reliability.traffic import Traffic, connected

BEFORE, DURING, AFTER = "before", "during", "after"
SHARE = 0.4
"""Of capacity: little enough that a machine which others use, too, keeps up."""
_WARM_S, _MEASURE_S, _CLIENTS = 3.0, 4.0, 4
_LEAST_RATE = 1.0
_FEW, _PATIENCE_S = 5, 30.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a scenario plays: its own empty ``folder``, the ``seconds`` of load before and after the fault, a folder
    for ``tools`` that have to be fetched; ``report`` gets a line for what takes long."""

    folder: Path
    tools: Path
    seconds: float
    seed: int = 0
    report: Callable[[str], None] = lambda message: None

    def gateway(
        self, name: str = "gateway", settings: Mapping[str, str] | None = None
    ) -> AbstractAsyncContextManager[Gateway]:
        """A server for the block."""
        self.report(f"starting {name}")
        return serving(self.folder, name, settings)

    @asynccontextmanager
    async def load(
        self,
        target: str,
        mix: Mapping[str, float] = PROMPTS,
        *,
        rate: float | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | None = None,
    ) -> AsyncIterator[Load]:
        """Open-loop load on ``target`` inside the block, at ``rate`` requests a second or :data:`SHARE` of what it can
        do; at its end every request has ended."""
        ledger, stop = Ledger(), asyncio.Event()
        async with connected(target, mix, ledger, seed=self.seed, credentials=credentials, token=token) as traffic:
            # Before anything counts, embeddings of the pictures are cached, and the scheduler knows the machine's pace.
            await traffic.closed_loop(min(_WARM_S, self.seconds), _CLIENTS)
            measure_s = min(_MEASURE_S, 2 * self.seconds)
            capacity = await traffic.closed_loop(measure_s, _CLIENTS) if rate is None else rate
            if not capacity:
                raise ChaosError(f"nothing was answered within {measure_s:g} s before the fault")
            warm = len(ledger.entries)
            chosen = rate or max(SHARE * capacity, _LEAST_RATE)
            sending = asyncio.create_task(traffic.send(chosen, stop))
            self.report(f"{chosen:.1f} requests a second; {capacity:.1f} is what can be done")
            load = Load(self, ledger, traffic, sending, capacity)
            load.marks[BEFORE] = time.monotonic()
            try:
                yield load
            finally:
                stop.set()
                await sending
                del ledger.entries[:warm]


@dataclass(slots=True)
class Load:
    """Load under way."""

    stage: Stage
    ledger: Ledger
    traffic: Traffic
    sending: asyncio.Task[None]
    capacity: float
    """Requests a second of this mix that four clients got answered who asked without pause."""
    marks: dict[str, float] = field(default_factory=dict)
    recovery_s: float | None = None

    def fault(self) -> float:
        """The fault begins now."""
        self.stage.report("the fault begins")
        return self.marks.setdefault(DURING, time.monotonic())

    def over(self) -> None:
        """The fault, and what it did, is over."""
        self.marks[AFTER] = time.monotonic()

    async def calm(self) -> None:
        """Load as usual: for the stage's seconds, and until a few requests of it were answered, so that a slow machine
        has something to compare with."""
        started = time.monotonic()
        await self.go_on(self.stage.seconds)
        while time.monotonic() < started + _PATIENCE_S:
            if self.ledger.tally(started)[Fate.ANSWERED] >= _FEW:
                return
            await self.go_on(0.1)

    async def go_on(self, seconds: float) -> None:
        """Let the load go on for so long."""
        await asyncio.wait([self.sending], timeout=seconds)
        if self.sending.done():
            self.sending.result()
            raise ChaosError("the load ended before its time")

    async def back(self, since_s: float, within_s: float = 90.0, kinds: Sequence[str] = ()) -> bool:
        """Wait until a request that was sent after ``since_s``, or one of each of ``kinds``, is answered; notes how
        long that took."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            first = self.ledger.answered_after(since_s, kinds)
            if first is not None:
                self.recovery_s = first - since_s
                return True
            await self.go_on(0.1)
        return False

    def outage(self, from_s: float, until_s: float | None = None) -> None:
        """No server could answer between these; until now when no end is given."""
        self.ledger.outages.append(Outage(from_s, time.monotonic() if until_s is None else until_s))

    def spans(self) -> dict[str, Tally]:
        """Before, during, after."""
        names = list(self.marks)
        ends = [*(self.marks[name] for name in names[1:]), float("inf")]
        return {name: self.ledger.tally(self.marks[name], end) for name, end in zip(names, ends, strict=True)}

    def story(self, name: str, findings: Sequence[Finding], figures: Mapping[str, Any] | None = None) -> Story:
        """What came of it: that nothing was lost, and ``findings``."""
        lost = self.ledger.lost()
        told = "; ".join(f"{entry.kind}: {entry.status or 'no end'} {entry.detail[:90]}" for entry in lost[:3])
        first = Finding("no request lost", f"{len(lost)}{told and f' ({told})'}", held=not lost)
        last = Finding("load was answered before and after", self._ends(), held=self._answers())
        return Story(name, self.spans(), [first, *findings, last], self.recovery_s, figures or {})

    def goodput_held(self, floor: float = 0.9) -> Finding:
        """Whether as large a part of the requests was answered during the fault as before it, but for 1 − ``floor``."""
        spans = self.spans()
        before, during = (spans[name][Fate.ANSWERED] / max(spans[name].sent, 1) for name in (BEFORE, DURING))
        return Finding(
            f"good clients get at least {floor:.0%} of the answers that they got before",
            f"{before:.1%} answered before, {during:.1%} during",
            held=during >= floor * before > 0,
        )

    def _ends(self) -> str:
        spans = self.spans()
        return ", ".join(f"{name} {spans[name][Fate.ANSWERED]}/{spans[name].sent}" for name in spans)

    def _answers(self) -> bool:
        spans = self.spans()
        return all(name in spans and spans[name][Fate.ANSWERED] > 0 for name in (BEFORE, AFTER))


@dataclass(frozen=True, slots=True)
class Scenario:
    """``breaks``: what goes wrong; ``holds``: what must hold all the same."""

    name: str
    breaks: str
    holds: str
    run: Callable[[Stage], Coroutine[Any, Any, Story]]


async def idle_finding(gateway: Gateway, within_s: float = 40.0) -> Finding:
    """Whether nothing is under way or waiting any more."""
    until = time.monotonic() + within_s
    while True:
        scrape = await gateway.scrape()
        left = (scrape.total("samgate_queue_length") or 0) + (scrape.total("samgate_requests_in_flight") or 0)
        if not left or time.monotonic() > until:
            return Finding("nothing left over: queues empty, no call under way", f"{left:g} left", held=not left)
        await asyncio.sleep(0.25)


def within(claim: str, seconds: float | None, limit_s: float) -> Finding:
    """Whether something took no longer than ``limit_s``; None is never."""
    found = "never" if seconds is None else f"{seconds:.1f} s"
    return Finding(f"{claim} within {limit_s:g} s", found, held=seconds is not None and seconds <= limit_s)


def same(claim: str, found: object, wanted: object) -> Finding:
    """Whether what was found is what was wanted."""
    return Finding(claim, str(found), held=found == wanted)
