"""Five minutes of far too many requests: goodput, lateness, and how soon the others are refused."""

from __future__ import annotations

from dataclasses import asdict

from samgate.bench.context import Context
from samgate.bench.deadlines import slo_scale
from samgate.bench.open_loop import Load, send
from samgate.bench.points import with_points
from samgate.bench.profiled import served_profile
from samgate.bench.report import Result, Verdict
from samgate.bench.server import serving
from samgate.bench.slo import WORKLOAD, find_capacity
from samgate.simulation.outcome import End
from samgate.simulation.summary import percentile
from samgate.simulation.workload import read_workload

LOADS = (1.5, 2.0, 3.0)
_SEED = 11


def overload(context: Context) -> Result:
    """Ours at 1.5, 2 and 3 times what the fastest point can do."""
    context = with_points(context)
    duration_s = context.repetitions(full=300, quick=12)
    quiet = {"SAMGATE_LOG_LEVEL": "WARNING"}
    fastest = quiet | {"SAMGATE_SCHEDULING_POLICY": "static-fast"}
    found: dict[float, Load] = {}
    scale = slo_scale(read_workload(WORKLOAD), served_profile(context))
    with serving(context.inside("fastest"), fastest) as fast, serving(context.inside("ours"), quiet) as ours:

        def find(number: int, known: float | None = None) -> float:
            return find_capacity(context, fast.target, scale, f"overload {number}", known)

        with context.progress("overload", len(LOADS)) as advance:
            # Before and after every run: what a shared machine can do changes by a quarter within the hour.
            capacities = [find(0)]
            for number, load in enumerate(LOADS, start=1):
                found[load] = send(
                    context, ours.target, WORKLOAD, rate=load * capacities[-1], duration_s=duration_s,
                    slo_scale=scale, seed=_SEED, salt=f"overload {load}", label=f"{load:g}×",
                )  # fmt: skip
                capacities.append(find(number, capacities[-1]))
                advance()
    rows, verdicts = [], []
    for (load, one), before, after in zip(found.items(), capacities[:-1], capacities[1:], strict=True):
        best = (before + after) / 2
        summary = one.summary
        refusals, probes = sorted(one.refusals_s), sorted(one.probes_s)
        beyond_ms = 1e3 * ((percentile(refusals, 0.99) or 0) - (percentile(probes, 0.99) or 0))
        first, last = (_goodput(one, part) for part in (0, 1))
        share = summary.on_time_of_admitted or 0
        rows.append(
            (
                f"{load:g}×",
                f"{summary.rate:.1f}",
                f"{before:.1f} → {after:.1f}",
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
            Verdict(f"{load:g}×: goodput of the last minute at least 90% of the capacity right after",
                    f"{last / after:.0%}", last >= 0.9 * after),
            Verdict(f"{load:g}×: of admitted at least 97% on time", f"{share:.2%}", share >= 0.97),
            Verdict(f"{load:g}×: refused within 10 ms at p99 beyond transport", f"{beyond_ms:.1f} ms",
                    beyond_ms <= 10),
        ]  # fmt: skip
    method = (
        f"The arrivals of `{WORKLOAD}` for {duration_s:g} s, with the deadlines of the benchmark above ({scale:.2f} "
        f"times the workload's), at multiples of the capacity of the fastest point, to one server. Capacity is "
        f"measured before and after each run, and goodput compared with the mean of both, that of the last minute with "
        f"the latter: neighbours change what a shared machine can do. Refusals are timed from sending to the answer; "
        f"“transport” is a request with an image that is refused for the name of its variant, before any scheduling, "
        f"ten a second beside the others. Generator and server share the cores. Points served: {context.variant}."
    )
    return Result(
        name="overload",
        title="Overload",
        method=method,
        columns=(
            "load", "requests/s", "capacity before → after", "goodput/s", "first → last minute", "on time of admitted",
            "mIoU", "refused", "refusal p50 / p99 ms", "transport p50 / p99 ms",
        ),
        rows=rows,
        verdicts=verdicts,
        figures={"capacities": capacities, "runs": [asdict(one.summary) for one in found.values()]},
    )  # fmt: skip


def _goodput(load: Load, part: int) -> float:
    """On-time answers a second in the first (0) or last (1) minute that counts."""
    run = load.run
    length = min(60.0, (run.duration_s - run.warmup_s) / 2)
    begin = run.warmup_s if part == 0 else run.duration_s - length
    inside = (one for one in run.outcomes if begin <= one.arrival.at_s < begin + length)
    return sum(one.end is End.ON_TIME for one in inside) / length
