"""Requests on embedded images, as an annotation tool sends them, at several levels of concurrency."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from samgate.bench.context import Context
from samgate.bench.images import size, unique_jpegs
from samgate.bench.report import Result
from samgate.bench.server import serving
from samgate.bench.stats import Latency
from samgate.bench.turns import milliseconds
from samgate.client import Client, EmbeddedImage

CONCURRENCIES = (1, 4, 16)
_IMAGES = 8
_SEED = 3


@dataclass(frozen=True, slots=True)
class Level:
    """What came of one level of concurrency."""

    concurrency: int
    latency: Latency
    requests_per_s: float


def warm(context: Context) -> Result:
    """Latency and throughput of one-point calls with a cached embedding, in closed loops."""
    count = context.repetitions(full=400, quick=32)
    jpegs = unique_jpegs(context.images, _IMAGES, _SEED)
    with serving(context) as server, Client(server.target) as client:
        images = [client.embed(jpeg, variant=context.variant) for jpeg in jpegs]
        closed_loop(context, client, images, max(CONCURRENCIES), 2 * max(CONCURRENCIES), "warming up")
        levels = [
            closed_loop(context, client, images, concurrency, count, f"warm: {concurrency} at once")
            for concurrency in CONCURRENCIES
        ]
        info = images[0].info
    alone, busiest = levels[0], levels[-1]
    gain = busiest.requests_per_s / alone.requests_per_s
    method = (
        f"One-point `Segment` calls on {_IMAGES} embedded images, one mask as RLE, {count} calls at each level; every "
        f"client sends its next call when it has the answer to the last. {info.precision}, {info.engine}, "
        f"{context.all_threads} threads; clients run on the same cores. {busiest.concurrency} at once are answered at "
        f"{gain:.2f}× the rate of one."
    )
    return Result(
        name="warm",
        title="Requests with a cached embedding",
        method=method,
        columns=("concurrency", "p50 ms", "p95 ms", "p99 ms", "requests/s"),
        rows=[
            (
                str(level.concurrency),
                f"{level.latency.p50:.1f}",
                f"{level.latency.p95:.1f}",
                f"{level.latency.p99:.1f}",
                f"{level.requests_per_s:.1f}",
            )
            for level in levels
        ],
        verdicts=[],
        figures={
            str(level.concurrency): {
                **level.latency.figures("latency"),
                "requests_per_s": round(level.requests_per_s, 2),
            }
            for level in levels
        },
    )


def closed_loop(
    context: Context, client: Client, images: Sequence[EmbeddedImage | bytes], concurrency: int, count: int, label: str
) -> Level:
    """``count`` calls with one point each on ``images``, embedded or as JPEG, in turn; ``concurrency`` at once."""
    random = np.random.default_rng([_SEED, concurrency])
    positions = random.uniform(0, 1, (count, 2))
    sizes = [size(image) if isinstance(image, bytes) else image.size for image in images]
    with context.progress(label, count) as advance, ThreadPoolExecutor(concurrency) as clients:

        def ask(index: int) -> float:
            height, width = sizes[index % len(images)]
            point = positions[index] * (width - 1, height - 1)
            image = images[index % len(images)]
            elapsed = milliseconds(lambda: client.segment(image, points=point, variant=context.variant))
            advance()
            return elapsed

        started = time.perf_counter()
        latencies = list(clients.map(ask, range(count)))
        elapsed_s = time.perf_counter() - started
    return Level(concurrency, Latency.of(latencies), count / elapsed_s)
