"""The embedded engines against each other."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from samgate.bench.context import Context
from samgate.bench.images import centre, unique_jpegs
from samgate.bench.report import Result
from samgate.bench.stats import Latency
from samgate.bench.worker import Worker, working
from samgate.engines.cpu import has_native_bf16
from samgate.variants import get_variant

_WARM_UP = 3
_PAUSE_S = 0.1
"""Longer than the threads of any of them spin when they have nothing to do."""
_SEED = 8
_CALLS = ("encode", "decode")


@dataclass(frozen=True, slots=True)
class _Way:
    """One engine in one precision; ``compile`` is the setting ``engine.compile``."""

    engine: str
    precision: str
    compile: str = "off"

    @property
    def name(self) -> str:
        """As in the report."""
        return f"{self.engine}{', compiled' if self.compile == 'on' else ''}, {self.precision}"


def engines(context: Context) -> Result:
    """Encoder and decoder calls of every engine that runs in the gateway's process, in turns."""
    turns = context.repetitions(full=20, quick=1)
    ways = list(_ways(context))
    found = _measure(context, ways, turns)
    rows = []
    for way in ways:
        reference = found[_Way("openvino", way.precision)]
        encode, decode = (found[way][call] for call in _CALLS)
        cells = (f"{value:.1f}" for value in (encode.p50, encode.p95, decode.p50, decode.p95))
        speeds = (f"{reference[call].p50 / found[way][call].p50:.2f}×" for call in _CALLS)
        rows.append((way.name, *cells, *speeds))
    return Result(
        name="engines",
        title="The embedded engines",
        method=(
            f"An unseen image and one point on it, {turns} times, asked in turns of engines that are each alone in a "
            f"process of its own with {context.all_threads} threads: the encoder and a decoder call, in milliseconds. "
            "Speed is OpenVINO's time in the same precision over the engine's. ONNX Runtime has no bf16 on CPUs. "
            "`torch` is there for GPUs, where none was at hand: what it does on one isn't known."
        ),
        columns=("", "encode p50", "p95", "decode p50", "p95", "encode, speed", "decode, speed"),
        rows=rows,
        verdicts=(),
        figures={
            way.name: found[way]["encode"].figures("encode") | found[way]["decode"].figures("decode") for way in ways
        },
    )


def _ways(context: Context) -> Iterator[_Way]:
    yield _Way("onnxruntime", "f32")
    for precision in ("f32", "bf16"):
        if precision == "f32" or (has_native_bf16() and precision in get_variant(context.variant).precisions):
            yield _Way("openvino", precision)
            yield _Way("torch", precision)
            if shutil.which(os.environ.get("CXX", "g++")):  # which torch compiles with
                yield _Way("torch", precision, compile="on")


def _measure(context: Context, ways: list[_Way], turns: int) -> dict[_Way, dict[str, Latency]]:
    """Latencies in milliseconds of each of ``_CALLS``."""
    jpegs = unique_jpegs(context.images, _WARM_UP + turns, _SEED)
    path = context.scratch / "engines.jpg"
    times: dict[_Way, dict[str, list[float]]] = {way: {call: [] for call in _CALLS} for way in ways}
    total = len(jpegs) * len(ways)
    with ExitStack() as open_, context.progress("engines: an image and a point", total) as advance:
        workers = {way: open_.enter_context(_alone(context, way)) for way in ways}
        for turn, jpeg in enumerate(jpegs):
            path.write_bytes(jpeg)
            for place in range(len(ways)):
                way = ways[(turn + place) % len(ways)]
                answer = workers[way].ask(image=str(path), point=centre(jpeg))
                if turn >= _WARM_UP:
                    for call in _CALLS:
                        times[way][call].append(float(answer[f"{call}_ms"]))
                time.sleep(_PAUSE_S)
                advance()
    return {way: {call: Latency.of(values) for call, values in calls.items()} for way, calls in times.items()}


def _alone(context: Context, way: _Way) -> AbstractContextManager[Worker]:
    command = [sys.executable, "-m", "samgate.bench.bare", "--variant", context.variant, "--engine", way.engine]
    command += ["--precision", way.precision, "--compile", way.compile, "--threads", str(context.all_threads)]
    log = context.scratch / f"{way.engine}-{way.precision}-{way.compile}.log"
    return working(command, log, os.environ, Path.cwd())
