"""How long the scheduler takes to decide, by how much is queued."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from random import Random

from samgate.bench.context import Context
from samgate.bench.report import Result, Verdict
from samgate.bench.stats import Latency
from samgate.scheduling.core import Options, Scheduler
from samgate.scheduling.device import Batch
from samgate.scheduling.profile import DeviceProfile, Line, OperatingPoint
from samgate.scheduling.request import Refusal, Request, Ticket

QUEUED = (1, 100, 1000, 10_000)
_LIMIT_US = 50.0
_SEED = 3
_TURNS = 5
"""Times that the whole is run: it is the same each time."""
_SECONDS = 250.0
"""Until the deadline of what is queued: it outlasts the run."""
_PROMPT_S = 1.25e-4
"""A little more than a prompt takes of :func:`_device`, two to a call: as many of them as are queued, and one more,
just fit."""

Times = dict[str, list[float]]
"""Seconds of each decision, by kind, in order."""


def decisions(context: Context) -> Result:
    """Admissions, refusals and steps of a scheduler with four operating points, in processor time."""
    count = context.repetitions(full=5000, quick=500)
    rows, figures = [], {}
    found: dict[str, Latency] = {}
    with context.progress("decisions", len(QUEUED) * _TURNS) as advance:
        for queued in QUEUED:
            turns = []
            for _ in range(_TURNS):
                turns.append(_roomy(queued, count) | _full(queued, count))
                advance()
            found = {name: Latency.of([1e3 * seconds for seconds in times]) for name, times in _least(turns).items()}
            figures[str(queued)] = {name: one.figures(name) for name, one in found.items()}
            rows.append((f"{queued:,}", *(f"{1e3 * one.p50:.1f} / {1e3 * one.p99:.1f}" for one in found.values())))
    method = (
        f"One process, no engines: {count:,} requests come to a scheduler with one device and four operating points; "
        f"three in ten have to encode, deadlines are 0.3 to 280 s away, both stages have a call under way. In "
        f"microseconds of processor time, p50 / p99: to admit a request while there is room; to refuse one when what "
        f"is queued fills all the time there is, which takes a look at every point; to queue a piece of work; to "
        f"choose what runs next, for each piece that goes; and to end a request. The run is repeated {_TURNS} times, "
        f"each decision counts with the least that it took, since a neighbour's spell makes any code take three times "
        f"as long."
    )
    return Result(
        name="decisions",
        title="The cost of a decision",
        method=method,
        columns=("queued", "admission", "queueing", "step, a piece", "end", "refusal"),
        rows=rows,
        verdicts=[
            Verdict(
                f"{name}: at most {_LIMIT_US:g} µs at p99 with {QUEUED[-1]:,} queued",
                f"{1e3 * found[name].p99:.1f} µs",
                1e3 * found[name].p99 <= _LIMIT_US,
            )
            for name in ("admission", "step", "refusal")
        ],
        figures=figures,
    )


def _least(turns: list[Times]) -> Times:
    """Each decision's least time; all turns made the same decisions."""
    return {name: [min(times) for times in zip(*(turn[name] for turn in turns), strict=True)] for name in turns[0]}


@contextmanager
def _no_collections() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def _roomy(queued: int, count: int) -> Times:
    """A scheduler that has room: what runs is replaced, so that ``queued`` pieces always wait."""
    random = Random(_SEED)
    core = Scheduler({"cpu": _device(1.0)}, 0.0, Options(max_requests=10 * max(QUEUED)))
    times: Times = {"admission": [], "queueing": [], "step": [], "end": []}
    now, number, held = 0.0, 0, 0
    running: list[Batch] = []
    with _no_collections():
        while len(times["admission"]) < count:
            now += 0.004
            for batch in running:
                core.finish(batch, now, failed=True)  # this clock says nothing of the device's pace
                for work in batch.works:
                    begun = time.thread_time()
                    core.close(work.payload.ticket, now, answered=False)
                    times["end"].append(time.thread_time() - begun)
                    held -= 1
            while held < queued:
                number += 1
                _queue(core, _request(random, now, f"queued {number}", _SECONDS, 0.02), now)
                held += 1
            number += 1
            wanted = _request(random, now, f"new {number}", random.choice((0.3, 0.5, 1.0, 2.0, 280.0)), 0.3)
            begun = time.thread_time()
            ticket = core.admit(wanted, now)
            admitted = time.thread_time()
            assert isinstance(ticket, Ticket), ticket
            work = core.submit(ticket, "encode" if ticket.encodes else "decode", 1, "k", None, now)
            submitted = time.thread_time()
            step = core.step(now)
            stepped = time.thread_time()
            times["admission"].append(admitted - begun)
            times["queueing"].append(submitted - admitted)
            times["step"].append((stepped - submitted) / max(1, sum(len(batch.works) for batch in step.start)))
            running = step.start
            if any(work in batch.works for batch in running):
                held += 1
                continue
            begun = time.thread_time()
            core.withdraw(work)
            core.close(ticket, now, answered=False)
            times["end"].append(time.thread_time() - begun)
    return times


def _full(queued: int, count: int) -> Times:
    """A scheduler whose queue fills the time until the deadlines of those in it: everybody else is refused."""
    random = Random(_SEED)
    slowness = _SECONDS / (queued + 1) / _PROMPT_S
    core = Scheduler({"cpu": _device(slowness)}, 0.0, Options(max_requests=10 * max(QUEUED)))
    for number in range(queued):
        _queue(core, replace(_request(random, 0.0, f"queued {number}", _SECONDS, 0.0), client="flood"), 0.0)
    now = _SECONDS / 8
    core.step(now)
    times: Times = {"refusal": []}
    with _no_collections():
        for number in range(count):
            now += 0.002
            wanted = _request(random, now, f"new {number}", random.choice((0.3, 0.5, 1.0, 2.0, 200.0)), 0.3)
            begun = time.thread_time()
            refusal = core.admit(wanted, now)
            times["refusal"].append(time.thread_time() - begun)
            assert isinstance(refusal, Refusal), refusal.point.name
    return times


def _queue(core: Scheduler, wanted: Request, now: float) -> None:
    ticket = core.admit(wanted, now)
    assert isinstance(ticket, Ticket), ticket
    core.submit(ticket, "encode" if ticket.encodes else "decode", 1, "k", None, now)


def _request(random: Random, now: float, image: str, seconds: float, cold: float) -> Request:
    held = frozenset() if random.random() < cold else frozenset({"v0:f32"})
    return Request(
        now, now + seconds, "box", 1, megapixels=0.3, image=image, cached=held, client=f"client {random.randrange(20)}"
    )


def _device(slowness: float) -> DeviceProfile:
    points = tuple(
        OperatingPoint(
            f"v{place}", "f32", "none", Line(0.0, slowness * seconds), Line(slowness * 4e-5, slowness * 1e-4),
            Line(slowness * 4e-5, slowness * 8e-5), Line(3e-5, 8e-5), Line(0.0, 1e-5),
            {"box": 0.76 - 0.03 * place, "point": 0.53 - 0.03 * place}, 1, 2, 16,
        )
        for place, seconds in enumerate((0.0030, 0.0020, 0.0014, 0.0005))
    )  # fmt: skip
    return DeviceProfile(points, 4e-5)
