"""What traces cost a call: off, a hundredth of the calls, all of them."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from samgate import tracing
from samgate.api.calls import Calls
from samgate.api.metrics import Metrics
from samgate.bench.context import Context
from samgate.bench.report import Result, Verdict
from samgate.bench.worker import working
from samgate.config import Settings
from samgate.domain import Choose, FloatArray, Format, Prompt, Selection, Survivors
from samgate.engines.base import Capacity, Decoded, Images, Prompts
from samgate.errors import NotInstalled
from samgate.scheduling.profile import DeviceProfile, Line, OperatingPoint
from samgate.security.identity import Identities
from samgate.serving.gateway import Gateway
from samgate.serving.models import Model
from samgate.serving.requests import RawImage, SegmentCall, Wish
from samgate.tracing import NOTHING, NoTracer, Shared, Tracer
from samgate.variants import get_variant

_SHARES = (0.01, 1.0)
_CALLS = 50
"""In a row, between turns."""
_OFF_LIMIT_US = 20.0
_ALL_LIMIT_US = 2000.0
_IMAGE = RawImage(64, 64, bytes(64 * 64 * 3))


class _Instant:
    """An engine that has answered already: what is left is the gateway's own."""

    name, precision = "none", "f32"
    capacity = Capacity(1, 1, 16, 1)

    def __init__(self) -> None:
        self._embedding = np.zeros((256, 64, 64), np.float32)
        self._decoded = Decoded(np.full((1, 1, 4, 256, 256), -1, np.float32), np.zeros((1, 1, 4), np.float32))

    async def encode(self, images: Images, deadline: float) -> list[FloatArray]:  # noqa: ARG002
        return [self._embedding]

    async def decode(self, embeddings: Sequence[FloatArray], prompts: Prompts, deadline: float) -> Decoded:  # noqa: ARG002
        return self._decoded

    async def survivors(self, embedding: FloatArray, prompts: Prompts, choose: Choose, deadline: float) -> Survivors:
        raise NotImplementedError

    async def healthy(self) -> bool:
        return True

    async def close(self) -> None:
        pass


class _Asked:
    """gRPC's side of a call."""

    def peer(self) -> str:
        return "ipv4:127.0.0.1:5"

    def time_remaining(self) -> float:
        return 60.0

    def auth_context(self) -> dict[str, Any]:
        return {}

    def invocation_metadata(self) -> tuple[()]:
        return ()


def traces(context: Context) -> Result:
    """Clicks through a gateway whose engine takes no time, in processor time of all threads, in turns."""
    try:
        from samgate.tracing.otel import OtelTracer
    except ImportError as error:
        raise NotInstalled("`samgate bench tracing` needs: pip install 'samgate[tracing]'") from error
    turns = context.repetitions(full=60, quick=3)
    command = [sys.executable, "-m", "samgate.bench.collector"]
    with working(command, context.scratch / "collector.log", os.environ, Path.cwd()) as collector:
        endpoint = str(collector.ready["endpoint"])

        def traced(share: float) -> tuple[Tracer, Callable[[], None]]:
            tracer = OtelTracer(endpoint, share, lambda count, sent: None)
            return tracer, tracer.flush

        ways = {"off": (NoTracer(), _nothing), **{f"{share:.0%} of the calls": traced(share) for share in _SHARES}}
        with context.progress("tracing", turns) as advance:
            times = asyncio.run(_measure(ways, turns, advance))
    off_us = _seam_us(context.repetitions(full=20_000, quick=500))
    least = {name: min(spent) for name, spent in times.items()}
    added = {name: least[name] - least["off"] for name in least}
    rows = []
    for name, spent in times.items():
        more = f"{1e6 * added[name]:+.0f}" if name != "off" else ""
        rows.append((name, f"{1e6 * least[name]:.0f}", f"{1e6 * median(spent):.0f}", more))
    all_us = 1e6 * added[f"{1.0:.0%} of the calls"]
    return Result(
        name="tracing",
        title="What traces cost",
        method=(
            f"Clicks on a held image, from gRPC's handler to the masks and back, in one process with an engine that "
            f"takes no time; spans go to a collector in another process. Processor time of all threads, sending "
            f"included, in microseconds a call: {turns} turns of {_CALLS} calls each way, interleaved; the least and "
            f"the median of the turns. What is there when traces are off is timed on its own: all that a click does "
            f"for them is {off_us:.1f} µs."
        ),
        columns=("traced", "least µs", "median µs", "added to the least"),
        rows=rows,
        verdicts=[
            Verdict(f"off: at most {_OFF_LIMIT_US:g} µs a call", f"{off_us:.1f} µs", off_us <= _OFF_LIMIT_US),
            Verdict(f"every call: at most {_ALL_LIMIT_US:g} µs more", f"{all_us:.0f} µs", all_us <= _ALL_LIMIT_US),
        ],
        figures={"off_us": round(off_us, 2), **{name: round(1e6 * value, 1) for name, value in least.items()}},
    )


async def _measure(
    ways: dict[str, tuple[Tracer, Callable[[], None]]], turns: int, advance: Callable[[], None]
) -> dict[str, list[float]]:
    """Seconds of processor time a call, of each turn of each way."""
    settings = Settings()
    gateway = Gateway(settings, [Model(get_variant("mobilesam"), _Instant())], _profile())
    times: dict[str, list[float]] = {name: [] for name in ways}
    async with AsyncExitStack() as stack:
        stack.push_async_callback(gateway.close)
        calls = {name: Calls(settings, Metrics(), Identities(settings), tracer) for name, (tracer, _) in ways.items()}
        for tracer, _ in ways.values():
            stack.push_async_callback(tracer.close)
        for turn in range(-1, turns):
            for name, (_, flush) in ways.items():
                gc.collect()
                begun = time.process_time()
                for _ in range(_CALLS):
                    # As gRPC does: each call in a task of its own.
                    await asyncio.create_task(_click(calls[name], gateway))
                flush()
                if turn >= 0:  # the first only warms up
                    times[name].append((time.process_time() - begun) / _CALLS)
            if turn >= 0:
                advance()
    return times


async def _click(calls: Calls, gateway: Gateway) -> None:
    async with calls.answer("Segment", _Asked(), None) as call:  # type: ignore[arg-type]
        prompt = Prompt(np.array([[9, 9]], np.float32), np.ones(1, np.int32))
        wish = Wish(call.started, call.deadline)
        _, call.trace = await gateway.segment(SegmentCall(_IMAGE, (prompt,), Selection.SINGLE, Format.RLE, False, wish))


def _profile() -> DeviceProfile:
    free = Line(0.0, 1e-6)
    accuracy = {"box": 0.7, "point": 0.5}
    point = OperatingPoint("mobilesam", "f32", "none", free, free, free, free, free, accuracy, 1, 1, 16)  # type: ignore[arg-type]
    return DeviceProfile((point,), 0.0)


def _seam_us(count: int) -> float:
    """Microseconds of all that a click does for traces that are off."""
    tracer: Tracer = NoTracer()
    found = []
    for _ in range(5):
        begun = time.process_time()
        for _ in range(count):
            span = tracer.call("Segment", None, 0.0)
            if span is not NOTHING:
                raise AssertionError("traces are off")
            with tracing.stage("embedding") as inner:
                inner.set({"samgate.cached": True})
            parent = tracing.current.get()
            shared = Shared([parent], [0.0], "decode", 1)
            tracing.current.set(shared.lead)
            shared.end("")
            with tracing.stage("masks"):
                pass
            if span.recording:
                raise AssertionError("traces are off")
        found.append(1e6 * (time.process_time() - begun) / count)
    return min(found)


def _nothing() -> None:
    pass
