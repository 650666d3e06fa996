"""Five minutes of far too many requests: goodput, lateness, and how soon the others are refused."""

from __future__ import annotations

from dataclasses import asdict

from samgate.bench.context import Context
from samgate.bench.open_loop import Load, send
from samgate.bench.points import with_points
from samgate.bench.report import Result, Verdict
from samgate.bench.server import serving
from samgate.bench.slo import WORKLOAD, find_capacity
from samgate.simulation.outcome import End
from samgate.simulation.summary import percentile

LOADS = (1.5, 2.0, 3.0)
_SEED = 11


def overload(context: Context) -> Result:
    """Ours at 1.5, 2 and 3 times what the fastest point can do."""
    context = with_points(context)
    duration_s = context.repetitions(full=300, quick=12)
    quiet = {"SAMGATE_LOG_LEVEL": "WARNING"}
    with serving(context, quiet | {"SAMGATE_SCHEDULING_POLICY": "static-fast"}) as server:
        best = find_capacity(context, server.target, context.repetitions(full=30, quick=12))
    found: dict[float, Load] = {}
    with serving(context, quiet) as server, context.progress("overload", len(LOADS)) as advance:
        for load in LOADS:
            found[load] = send(
                context, server.target, WORKLOAD, rate=load * best, duration_s=duration_s, seed=_SEED,
                salt=f"overload {load}", label=f"{load:g}×",
            )  # fmt: skip
            advance()
    rows, verdicts = [], []
    for load, one in found.items():
        summary = one.summary
        refusals, probes = sorted(one.refusals_s), sorted(one.probes_s)
        beyond_ms = 1e3 * ((percentile(refusals, 0.99) or 0) - (percentile(probes, 0.99) or 0))
        first, last = (_goodput(one, part) for part in (0, 1))
        share = summary.on_time_of_admitted or 0
        rows.append(
            (
                f"{load:g}×",
                f"{summary.rate:.1f}",
                f"{summary.goodput:.1f}",
                f"{first:.1f} → {last:.1f}",
                f"{share:.2%}",
                f"{summary.accuracy or 0:.4f}",
                f"{sum(summary.refused.values()):.1%}",
                f"{1e3 * (percentile(refusals, 0.5) or 0):.1f} / {1e3 * (percentile(refusals, 0.99) or 0):.1f}",
                f"{1e3 * (percentile(probes, 0.5) or 0):.1f} / {1e3 * (percentile(probes, 0.99) or 0):.1f}",
            )
        )
        verdicts += [
            Verdict(f"{load:g}×: goodput at least 90% of capacity", f"{summary.goodput / best:.0%}",
                    summary.goodput >= 0.9 * best),
            Verdict(f"{load:g}×: no collapse (last minute against the first)", f"{last / first - 1:+.0%}",
                    last >= 0.9 * first),
            Verdict(f"{load:g}×: of admitted at least 97% on time", f"{share:.2%}", share >= 0.97),
            Verdict(f"{load:g}×: refused within 10 ms at p99 beyond transport", f"{beyond_ms:.1f} ms",
                    beyond_ms <= 10),
        ]  # fmt: skip
    method = (
        f"The arrivals of `{WORKLOAD}` for {duration_s:g} s at multiples of {best:.1f} requests/s, the capacity of the "
        f"fastest point (see above), to one server. Refusals are timed from sending to the answer; “transport” is a "
        f"request with an image that is refused for the name of its variant, before any scheduling, ten a second "
        f"beside the others. Generator and server share the cores. Points served: {context.variant}."
    )
    return Result(
        name="overload",
        title="Overload",
        method=method,
        columns=(
            "load", "requests/s", "goodput/s", "first → last minute", "on time of admitted", "mIoU", "refused",
            "refusal p50 / p99 ms", "transport p50 / p99 ms",
        ),
        rows=rows,
        verdicts=verdicts,
        figures={"capacity": best, "runs": [asdict(one.summary) for one in found.values()]},
    )  # fmt: skip


def _goodput(load: Load, part: int) -> float:
    """On-time answers a second in the first (0) or last (1) minute that counts."""
    run = load.run
    length = min(60.0, (run.duration_s - run.warmup_s) / 2)
    begin = run.warmup_s if part == 0 else run.duration_s - length
    inside = (one for one in run.outcomes if begin <= one.arrival.at_s < begin + length)
    return sum(one.end is End.ON_TIME for one in inside) / length
