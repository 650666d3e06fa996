"""What the gateway adds to the engine that it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from samgate.bench.context import Context
from samgate.bench.images import centre, size, unique_jpegs
from samgate.bench.report import Result, Verdict
from samgate.bench.server import serving
from samgate.bench.stats import Latency
from samgate.bench.turns import in_turns, milliseconds
from samgate.bench.worker import Worker, working
from samgate.client import Client

COLD_FLOOR_PERCENT = 10.0
WARM_FLOOR_MS = 5.0
_WARM_UP = 3
_PAUSE_S = 0.02
_SEED = 2


def overhead(context: Context) -> Result:
    """Cold and warm calls over gRPC against encode and decode called directly in another process, in turns."""
    cold_pairs, warm_pairs = context.repetitions(full=30, quick=3), context.repetitions(full=150, quick=10)
    command = [sys.executable, "-m", "samgate.bench.bare", "--variant", context.variant]
    command += ["--precision", context.precision, "--engine", context.engine, "--threads", str(context.all_threads)]
    total = cold_pairs + warm_pairs + 2 * _WARM_UP
    with (
        serving(context) as server,
        _bare(context, command) as bare,
        Client(server.target) as client,
        context.progress("overhead: gateway and bare engine", total) as advance,
    ):
        jpegs = unique_jpegs(context.images, cold_pairs + _WARM_UP, _SEED)
        cold_gateway, cold_bare = _cold(context, client, bare, jpegs, advance)
        warm_gateway, warm_bare = _warm(context, client, bare, jpegs[-1], warm_pairs, advance)
        precision, engine = bare.ready["precision"], bare.ready["engine"]
    percent = 100 * (cold_gateway.p50 / cold_bare.p50 - 1)
    added_ms = warm_gateway.p50 - warm_bare.p50
    method = (
        f"Calls over gRPC against the bare engine ({precision}, {engine}) in a process of its own with as many threads "
        f"({context.all_threads}), in turns. Cold: an unseen JPEG and one point, {cold_pairs} pairs; the bare engine "
        f"gets pixels at its input size and gives logits, so that decoding the JPEG, resizing, scheduling, masks, RLE "
        f"and gRPC all count as overhead. Warm: one point on an embedded image, {warm_pairs} pairs."
    )
    rows = [
        ("cold, gateway", *_cells(cold_gateway), f"{percent:+.1f}%"),
        ("cold, bare engine", *_cells(cold_bare), ""),
        ("warm, gateway", *_cells(warm_gateway), f"{added_ms:+.1f} ms"),
        ("warm, bare engine", *_cells(warm_bare), ""),
    ]
    return Result(
        name="overhead",
        title="The gateway's overhead over the bare engine",
        method=method,
        columns=("", "p50 ms", "p95 ms", "p99 ms", "overhead at p50"),
        rows=rows,
        verdicts=[
            Verdict(f"cold: at most {COLD_FLOOR_PERCENT:g}% at p50", f"{percent:+.1f}%", percent <= COLD_FLOOR_PERCENT),
            Verdict(f"warm: at most {WARM_FLOOR_MS:g} ms at p50", f"{added_ms:+.1f} ms", added_ms <= WARM_FLOOR_MS),
        ],
        figures={
            **cold_gateway.figures("cold_gateway"),
            **cold_bare.figures("cold_bare"),
            **warm_gateway.figures("warm_gateway"),
            **warm_bare.figures("warm_bare"),
            "cold_overhead_percent": round(percent, 2),
            "warm_overhead_ms": round(added_ms, 2),
            "precision": precision,
            "engine": engine,
        },
    )


def _bare(context: Context, command: list[str]) -> AbstractContextManager[Worker]:
    return working(command, context.scratch / "bare.log", os.environ, Path.cwd())


def _cold(
    context: Context, client: Client, bare: Worker, jpegs: list[bytes], advance: Callable[[], None]
) -> tuple[Latency, Latency]:
    path = context.scratch / "bare.jpg"
    centres = [centre(jpeg) for jpeg in jpegs]

    def ask_gateway(index: int) -> float:
        point = [centres[index]]
        return milliseconds(lambda: client.segment(jpegs[index], points=point, variant=context.variant))

    def ask_bare(index: int) -> float:
        path.write_bytes(jpegs[index])
        return float(bare.ask(image=str(path), point=centres[index])["ms"])

    return _measure(in_turns(ask_gateway, ask_bare, len(jpegs), _PAUSE_S, _WARM_UP), advance)


def _warm(
    context: Context, client: Client, bare: Worker, jpeg: bytes, pairs: int, advance: Callable[[], None]
) -> tuple[Latency, Latency]:
    height, width = size(jpeg)
    random = np.random.default_rng(_SEED)
    points = random.uniform((0, 0), (width - 1, height - 1), (pairs + _WARM_UP, 2)).tolist()
    embedded = client.embed(jpeg, variant=context.variant)
    path = context.scratch / "bare.jpg"
    path.write_bytes(jpeg)
    bare.ask(image=str(path), point=points[0])

    def ask_gateway(index: int) -> float:
        return milliseconds(lambda: client.segment(embedded, points=[points[index]], variant=context.variant))

    def ask_bare(index: int) -> float:
        return float(bare.ask(point=points[index])["ms"])

    return _measure(in_turns(ask_gateway, ask_bare, len(points), _PAUSE_S, _WARM_UP), advance)


def _measure(pairs: Iterable[tuple[float, float] | None], advance: Callable[[], None]) -> tuple[Latency, Latency]:
    gateway: list[float] = []
    bare: list[float] = []
    for pair in pairs:
        advance()
        if pair is not None:
            gateway.append(pair[0])
            bare.append(pair[1])
    return Latency.of(gateway), Latency.of(bare)


def _cells(latency: Latency) -> tuple[str, str, str]:
    return f"{latency.p50:.1f}", f"{latency.p95:.1f}", f"{latency.p99:.1f}"
