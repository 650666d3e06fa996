"""Deadlines met under load, by every policy, on the same server and in the simulator."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from samgate.bench.context import Context
from samgate.bench.deadlines import LEAST_SLACK, slo_scale
from samgate.bench.open_loop import Load, send, simulated
from samgate.bench.pace import at_pace
from samgate.bench.points import with_points
from samgate.bench.profiled import served_profile
from samgate.bench.report import Result, Verdict
from samgate.bench.server import serving
from samgate.scheduling.policy import POLICIES
from samgate.scheduling.profile import DeviceProfile
from samgate.simulation.capacity import TARGET, capacity
from samgate.simulation.outcome import Run
from samgate.simulation.plots import plot_policies
from samgate.simulation.summary import Summary, summarise
from samgate.simulation.workload import Workload, read_workload

WORKLOAD = Path("loadtest/workloads/annotate-coco.yaml")
PLOT = Path("docs/slo.png")
LOADS = (0.5, 1.0, 1.5, 2.0, 3.0)
_OURS, _FAST, _ACCURATE = "samgate", "static-fast", "static-accurate"
_SEED = 7
_START = 24.0
_NEARLY = 0.95
_NOISE = 0.01
"""Of attainment × accuracy between two runs of the same policy: less is called equal."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """A run simulated with the machine's profile as it is, and at the ``pace`` that the machine had."""

    usual: Summary
    pace: float
    paced: Summary


def slo(context: Context) -> Result:
    """Every policy at several loads, in turns, with the same arrivals."""
    context = with_points(context)
    workload = read_workload(WORKLOAD)
    duration_s = context.repetitions(full=60, quick=12)
    measured: dict[tuple[str, float], Load] = {}
    with ExitStack() as stack:
        servers = {}
        for policy in POLICIES:
            chosen = {"SAMGATE_SCHEDULING_POLICY": policy, "SAMGATE_LOG_LEVEL": "WARNING"}
            servers[policy] = stack.enter_context(serving(context.inside(policy), chosen))
        profile = served_profile(context)
        workload = replace(workload, slo_scale=slo_scale(workload, profile))
        best = find_capacity(context, servers[_FAST].target, workload.slo_scale, "capacity")
        with context.progress("policies × loads", len(LOADS) * len(POLICIES)) as advance:
            for load in LOADS:
                for policy in POLICIES:
                    measured[policy, load] = send(
                        context, servers[policy].target, WORKLOAD, rate=load * best, duration_s=duration_s,
                        slo_scale=workload.slo_scale, seed=_SEED, salt=f"{policy} {load}", label=policy,
                    )  # fmt: skip
                    advance()
    found = {key: replace(one.summary, load=key[1]) for key, one in measured.items()}
    virtual = {}
    with context.progress("simulations", len(measured)) as advance:
        for (policy, load), one in measured.items():
            virtual[policy, load] = _simulated(workload, profile, policy, load, one.run)
            advance()
    if not context.quick:
        plot_policies(list(found.values()), f"{workload.name}, measured; capacity {best:.1f} requests/s", PLOT)
    return _result(context, workload, best, duration_s, found, virtual)


def _simulated(workload: Workload, profile: DeviceProfile, policy: str, load: float, measured: Run) -> Simulated:
    def run(pace: float) -> Run:
        return simulated(
            workload, profile, policy, rate=measured.rate, duration_s=measured.duration_s, seed=_SEED, pace=pace
        )

    paced, pace = at_pace(measured, run, profile)
    return Simulated(summarise(run(1.0), load), pace, summarise(paced, load))


def find_capacity(context: Context, target: str, scale: float, salt: str, known: float | None = None) -> float:
    """The highest rate that the server at ``target`` answers on time, in requests a second, with deadlines
    that are ``scale`` times the workload's; ``salt`` makes images new to it. What was ``known`` a little earlier can't
    have changed by much.

    Trials are as long as the runs that are compared with what they find: in half a minute, two thirds of which count,
    rates pass by luck that are missed by a tenth in a minute."""
    trial = 0
    duration_s = context.repetitions(full=60, quick=12)

    def attainment(rate: float) -> float:
        nonlocal trial
        trial += 1
        found = send(
            context, target, WORKLOAD, rate=rate, duration_s=duration_s, slo_scale=scale, seed=_SEED,
            salt=f"{salt} {trial}", label=f"{rate:.1f}/s",
        )  # fmt: skip
        context.console.print(f"{rate:.1f} requests/s: {found.summary.attainment:.1%} on time")
        return found.summary.attainment

    stride = 2.0 if known is None else 1.25
    return capacity(attainment, known or _START, precision=0.08, most_trials=10, nearly=_NEARLY, stride=stride).rate


def _result(
    context: Context,
    workload: Workload,
    best: float,
    duration_s: float,
    found: dict[tuple[str, float], Summary],
    virtual: dict[tuple[str, float], Simulated],
) -> Result:
    rows = [
        (
            f"{load:g}×, {policy}",
            f"{one.attainment:.1%}",
            f"{virtual[policy, load].usual.attainment:.1%}",
            f"{virtual[policy, load].pace:.2f}",
            f"{virtual[policy, load].paced.attainment:.1%}",
            f"{one.goodput:.1f}",
            f"{one.accuracy or 0:.4f}",
            f"{one.value:.4f}",
            f"{sum(one.refused.values()):.1%}",
            f"{one.on_time_of_admitted or 0:.1%}",
            ", ".join(f"{name} {share:.0%}" for name, share in one.points.items()),
        )
        for (policy, load), one in found.items()
    ]
    others = [policy for policy in POLICIES if policy != _OURS]
    calm, accurate = found[_OURS, 0.5], found[_ACCURATE, 0.5]
    worst = min(found[_OURS, load].value - found[other, load].value for load in LOADS for other in others)
    gap = max(abs(one.attainment - virtual[key].paced.attainment) for key, one in found.items() if key[0] == _OURS)
    verdicts = [
        Verdict("0.5×: at least 99% on time", f"{calm.attainment:.1%}", calm.attainment >= TARGET),
        Verdict(
            "0.5×: accuracy at most 0.5 points below static-accurate's",
            f"{100 * ((calm.accuracy or 0) - (accurate.accuracy or 0)):+.2f} points",
            (calm.accuracy or 0) >= (accurate.accuracy or 0) - 0.005,
        ),
        Verdict(
            f"attainment × accuracy at least each baseline's at every load (equal: within {_NOISE:g})",
            f"{worst:+.4f} at worst",
            worst >= -_NOISE,
        ),
        _better_than_static(found),
        Verdict(
            "attainment simulated at the run's pace within 5 points, samgate",
            f"{100 * gap:.1f} points at most",
            gap <= 0.05,
        ),
    ]
    method = (
        f"Open loop: seeded Poisson arrivals of `{WORKLOAD}` (a new image every 16 requests on average, clicks and "
        f"boxes) for {duration_s:g} s, the first {workload.warmup_s:g} not counted, from a generator in a process of "
        f"its own on the same cores; a server for each policy, in turns. Deadlines are {workload.slo_scale:.2f} times "
        f"the workload's 0.5 to 2 s after the scheduled send: the factor, at least 1, that makes the shortest "
        f"{LEAST_SLACK:g} times what a cold request at the most accurate point takes on this machine when it is idle, "
        f"so that a slow machine is asked for what a fast one is. "
        f"Capacity is the highest rate that static-fast answers {TARGET:.0%} of on time, found by bisection in trials "
        f"of {duration_s:g} s: {best:.1f} requests/s. "
        f"Accuracy is the mean over on-time answers of their operating point's mIoU for that "
        f"kind of prompt, as `samgate eval` measured it. “Simulated” is `samgate simulate`'s scheduler and model with "
        f"this machine's profile and the same arrivals. “Pace” is how many times as long as there everything has to "
        f"take for the simulation's decoder calls to take as long as the run's, in the mean; “at that pace” is that "
        f"simulation: neighbours change what a shared machine can do. "
        f"Points served: {context.variant}.\n\n"
        f"![policies over load]({PLOT.name})"
    )
    return Result(
        name="slo",
        title="Deadlines under load",
        method=method,
        columns=(
            "load, policy", "on time", "simulated", "pace", "at that pace", "goodput/s", "mIoU", "on time × mIoU",
            "refused", "on time of admitted", "answered by",
        ),
        rows=rows,
        verdicts=verdicts,
        figures={
            "capacity": best,
            "runs": [asdict(one) for one in found.values()],
            "simulated": [asdict(one) for one in virtual.values()],
        },
    )  # fmt: skip


def _better_than_static(found: dict[tuple[str, float], Summary]) -> Verdict:
    """Where ours beats the better of the static policies by the most."""
    claim = "beats the best static policy somewhere: ≥ 10% goodput at equal accuracy or ≥ 3 points at equal attainment"
    best, value = False, "nowhere"
    for load in LOADS:
        ours = found[_OURS, load]
        static = max((found[_FAST, load], found[_ACCURATE, load]), key=lambda one: one.value)
        gain = ours.goodput / static.goodput - 1 if static.goodput else 1.0
        points = 100 * ((ours.accuracy or 0) - (static.accuracy or 0))
        if gain >= 0.10 and points >= -0.5:
            best, value = True, f"{gain:+.0%} goodput at {points:+.1f} points, {load:g}× ({static.policy})"
        elif points >= 3 and ours.attainment >= static.attainment - 0.005 and not best:
            best, value = True, f"{points:+.1f} points at {gain:+.1%} goodput, {load:g}× ({static.policy})"
    return Verdict(claim, value, best)
