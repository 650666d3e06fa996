"""A click beside a running SegEvery: how long it has to wait."""

from __future__ import annotations

import threading
import time

from samgate.bench.context import Context
from samgate.bench.images import centre, unique_jpegs
from samgate.bench.report import Result, Verdict
from samgate.bench.server import serving
from samgate.bench.stats import Latency
from samgate.bench.turns import milliseconds
from samgate.client import Client

_EVERY_S = 0.25
_SEED = 5


def yielding(context: Context) -> Result:
    """One point on an embedded image, alone and while a 32 × 32 SegmentEverything runs."""
    count = context.repetitions(full=300, quick=10)
    clicked, busy = unique_jpegs(context.images, 2, _SEED)
    with serving(context) as server, Client(server.target) as client, Client(server.target) as other:
        image = client.embed(clicked, variant=context.variant)
        everything = other.embed(busy, variant=context.variant)
        point = centre(clicked)

        def click() -> float:
            return milliseconds(lambda: client.segment(image, points=point))

        for _ in range(10):
            click()
        with context.progress("clicks", 2 * count) as advance:
            idle = _clicks(click, count, advance)
            stop, runs, began = threading.Event(), [0], threading.Event()

            def segment_everything() -> None:
                while not stop.is_set():
                    other.everything(everything, points_per_side=32, on_progress=lambda _: began.set(), timeout_s=600)
                    runs[0] += 1

            thread = threading.Thread(target=segment_everything)
            thread.start()
            began.wait(60)
            beside = _clicks(click, count, advance)
            stop.set()
            thread.join()
    ratio = beside.p99 / idle.p99
    method = (
        f"One point on an embedded image, {count} clicks, one every {1e3 * _EVERY_S:g} ms: alone, then while another "
        f"client runs SegmentEverything with 32 × 32 points on an embedded image, one after the other ({runs[0]} were "
        f"finished meanwhile)."
    )
    return Result(
        name="yielding",
        title="A click beside SegmentEverything",
        method=method,
        columns=("click", "p50 ms", "p95 ms", "p99 ms"),
        rows=[
            (label, f"{one.p50:.1f}", f"{one.p95:.1f}", f"{one.p99:.1f}")
            for label, one in (("alone", idle), ("beside SegmentEverything", beside))
        ],
        verdicts=[Verdict("p99 at most 3× its idle p99", f"{ratio:.2f}×", ratio <= 3)],
        figures={**idle.figures("idle"), **beside.figures("beside"), "ratio": round(ratio, 3)},
    )


def _clicks(click: object, count: int, advance: object) -> Latency:
    assert callable(click)
    assert callable(advance)
    latencies = []
    due = time.perf_counter()
    for _ in range(count):
        due += _EVERY_S
        time.sleep(max(0.0, due - time.perf_counter()))
        latencies.append(click())
        advance()
    return Latency.of(latencies)
