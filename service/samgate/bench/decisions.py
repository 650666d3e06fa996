"""How long the scheduler takes to decide, by how much is queued."""

from __future__ import annotations

import gc
import math
import time
from random import Random

import numpy as np

from samgate.bench.context import Context
from samgate.bench.report import Result, Verdict
from samgate.bench.stats import Latency
from samgate.scheduling.core import Options, Scheduler
from samgate.scheduling.profile import DeviceProfile, Line, OperatingPoint
from samgate.scheduling.request import Request, Ticket

QUEUED = (0, 100, 1000, 10_000)
_LIMIT_US = 50.0
_SEED = 3
_TURNS = 3
"""Times that each decision on a request is made."""


def decisions(context: Context) -> Result:
    """Admissions, refusals and steps of a scheduler with four operating points, in processor time."""
    count = context.repetitions(full=20_000, quick=500)
    rows, figures, p99 = [], {}, 0.0
    with context.progress("decisions", len(QUEUED)) as advance:
        for queued in QUEUED:
            found = {name: Latency.of(times) for name, times in _decide(queued, count).items()}
            p99 = found["admission"].p99
            figures[str(queued)] = {name: one.figures(name) for name, one in found.items()}
            rows.append((f"{queued:,}", *(f"{1e3 * one.p50:.0f} / {1e3 * one.p99:.0f}" for one in found.values())))
            advance()
    method = (
        f"One process, no engines: {count:,} requests come to a scheduler with one device and four operating points; "
        f"three in ten have to encode, deadlines are 0.3 to 280 s away. In microseconds of processor time, p50 / p99: "
        f"a decision on a request (admission or refusal; the least of {_TURNS} times that it is made, since a "
        f"neighbour's spell makes any code take three times as long), queueing a piece of work, what to run next, and "
        f"the end of a request."
    )
    return Result(
        name="decisions",
        title="The cost of a decision",
        method=method,
        columns=("queued", "admission", "queueing", "step", "end"),
        rows=rows,
        verdicts=[
            Verdict(
                f"at most {_LIMIT_US:g} µs at p99 with {QUEUED[-1]:,} queued", f"{1e3 * p99:.0f} µs",
                1e3 * p99 <= _LIMIT_US,
            )
        ],
        figures=figures,
    )  # fmt: skip


def _decide(queued: int, count: int) -> dict[str, list[float]]:
    """Milliseconds of each kind of decision."""
    random = Random(_SEED)
    core = Scheduler({"cpu": _device()}, 0.0, Options(max_requests=10 * max(QUEUED)))
    now = 0.0
    for number in range(queued):
        now += 1e-5
        ticket = core.admit(_request(random, now, f"queued {number}", 270.0, 0.02), now)
        assert isinstance(ticket, Ticket)
        core.submit(ticket, "encode" if ticket.encodes else "decode", 1, "k", None, now)
    found: dict[str, list[float]] = {"admission": [], "queueing": [], "step": [], "end": []}
    gc.collect()
    gc.freeze()
    gc.disable()
    for number in range(count):
        now += 0.002
        wanted = _request(random, now, f"new {number}", random.choice((0.3, 0.5, 1.0, 2.0, 280.0)), 0.3)
        least = math.inf
        for turn in range(_TURNS):
            begun = time.thread_time()
            ticket = core.admit(wanted, now)
            least = min(least, time.thread_time() - begun)
            if isinstance(ticket, Ticket) and turn < _TURNS - 1:
                core.close(ticket, now, answered=False)
        found["admission"].append(least)
        work = None
        if isinstance(ticket, Ticket):
            begun = time.thread_time()
            work = core.submit(ticket, "encode" if ticket.encodes else "decode", 1, "k", None, now)
            found["queueing"].append(time.thread_time() - begun)
        begun = time.thread_time()
        step = core.step(now)
        found["step"].append(time.thread_time() - begun)
        for batch in step.start:
            # What was started stays under way for a moment, and what was queued stays queued.
            core.finish(batch, now)
            for one in batch.works:
                core.devices["cpu"].queues[batch.stage].push(one)
        if isinstance(ticket, Ticket) and work is not None:
            begun = time.thread_time()
            core.withdraw(work)
            core.close(ticket, now, answered=False)
            found["end"].append(time.thread_time() - begun)
    gc.enable()
    gc.unfreeze()
    return {name: [1e3 * seconds for seconds in times] for name, times in found.items()}


def _request(random: Random, now: float, image: str, seconds: float, cold: float) -> Request:
    held = frozenset() if random.random() < cold else frozenset({"v0:f32"})
    return Request(
        now, now + seconds, "box", 1, megapixels=0.3, image=image, cached=held, client=f"client {random.randrange(20)}"
    )


def _device() -> DeviceProfile:
    encodes = np.array([0.0030, 0.0020, 0.0014, 0.0005])
    points = tuple(
        OperatingPoint(
            f"v{place}", "f32", "none", Line(0.0, float(seconds)), Line(4e-5, 1e-4), Line(4e-5, 8e-5),
            Line(3e-5, 8e-5), Line(0.0, 1e-5), {"box": 0.76 - 0.03 * place, "point": 0.53 - 0.03 * place}, 1, 16,
        )
        for place, seconds in enumerate(encodes)
    )  # fmt: skip
    return DeviceProfile(points, 4e-5)
