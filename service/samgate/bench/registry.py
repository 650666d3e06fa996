"""All benchmarks, in the order of the report."""

from __future__ import annotations

from collections.abc import Callable

from samgate.bench.cold import cold
from samgate.bench.context import Context
from samgate.bench.decisions import decisions
from samgate.bench.engines import engines
from samgate.bench.memory import memory
from samgate.bench.overhead import overhead
from samgate.bench.overload import overload
from samgate.bench.report import Result
from samgate.bench.segevery import segevery
from samgate.bench.slo import slo
from samgate.bench.tracing import traces
from samgate.bench.triton import triton
from samgate.bench.warm import warm
from samgate.bench.yielding import yielding

BENCHMARKS: dict[str, Callable[[Context], Result]] = {
    "cold": cold,
    "overhead": overhead,
    "warm": warm,
    "memory": memory,
    "engines": engines,
    "triton": triton,
    "decisions": decisions,
    "tracing": traces,
    "yielding": yielding,
    "segevery": segevery,
    "slo": slo,
    "overload": overload,
}
