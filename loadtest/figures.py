"""Outcomes → figures: whole run, tiers, parts of the run, the error budget. Pure."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from loadtest.health import Health, Node, health
from loadtest.plan import Plan
from samgate.simulation.arrival import Arrival
from samgate.simulation.outcome import End, Outcome, Run
from samgate.simulation.summary import Summary, percentile, summarise

SCHEMA = 1
_MOST_BUCKETS = 120
_KEPT = ("end", "ended_s", "reason", "point", "accuracy", "cached", "decode_s")
_ANSWERED = (End.ON_TIME, End.LATE)
# What a simulator's summary has, and a measurement not.
_SIMULATED = (
    "policy",
    "load",
    "utilisation",
    "joined",
    "attempts",
    "attainment_interactive",
    "attainment_everything",
    "value",
)


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of request ``number`` of ``source``, which was sent ``lag_s`` after it was due (None: it wasn't). The
    rest is what :class:`Outcome` has of it; its arrival is in the plan."""

    source: int
    number: int
    lag_s: float | None
    end: End
    ended_s: float
    reason: str = ""
    point: str = ""
    accuracy: float = 0.0
    cached: bool = False
    decode_s: float = 0.0

    @classmethod
    def of(cls, source: int, number: int, lag_s: float | None, outcome: Outcome) -> Sent:
        """Without the arrival."""
        return cls(source, number, lag_s, *(getattr(outcome, name) for name in _KEPT))

    @classmethod
    def read(cls, row: Sequence[Any]) -> Sent:
        """From a message, where it is its fields in order."""
        made = cls(*row)
        return replace(made, end=End(made.end))

    def outcome(self, arrival: Arrival) -> Outcome:
        """With the arrival again."""
        return Outcome(arrival, **{name: getattr(self, name) for name in _KEPT})


@dataclass(frozen=True, slots=True)
class Budget:
    """Of ``sent`` requests ``allowed`` might be missed at the target and ``missed`` were; ``used`` is what that is of
    the budget (1: all of it; None: there is none to use)."""

    target: float
    sent: int
    allowed: float
    missed: int
    used: float | None


def figures(
    plan: Plan, sent: Iterable[Sent], nodes: Sequence[Node], expected_nodes: int, end_s: float | None = None
) -> dict[str, Any]:
    """Everything that a report says, as plain data. Shares are of all requests that were due after the warm-up, times
    in seconds. What the plan has and ``sent`` doesn't is unreported, and lost. A run that was stopped counts until
    ``end_s``."""
    stop_s = plan.duration if end_s is None else min(end_s, plan.duration)
    found = {(one.source, one.number): one for one in sent}
    every: list[tuple[str, Outcome]] = []
    lags_s: list[float] = []
    unreported = 0
    for source in range(len(plan.sources)):
        for number, arrival in plan.arrivals(source):
            if arrival.at_s >= stop_s:
                break
            told = found.get((source, number))
            if told is None:
                unreported += 1
                told = Sent(source, number, None, End.LOST, arrival.at_s, "unreported")
            if told.lag_s is not None:
                lags_s.append(told.lag_s)
            every.append((plan.tier(source, arrival), told.outcome(arrival)))
    every.sort(key=lambda pair: pair[1].arrival.at_s)
    outcomes = [one for _, one in every]
    warmup_s = min(plan.warmup, stop_s)
    tiers: defaultdict[str, list[Outcome]] = defaultdict(list)
    for tier, one in every:
        tiers[tier].append(one)
    counted = [one for one in outcomes if one.arrival.at_s >= warmup_s]
    skipped = sum(one.end is End.SKIPPED for one in outcomes)
    checked = health(
        nodes,
        lags_s,
        planned=len(every),
        counted=len(counted),
        skipped=skipped,
        unreported=unreported,
        expected_nodes=expected_nodes,
        max_lag_s=plan.max_lag_s,
        interrupted=end_s is not None and end_s < plan.duration,
    )
    overall = _summary(outcomes, warmup_s, stop_s)
    return {
        "schema": SCHEMA,
        "plan": {**plan.message(), "rate": sum(plan.rates), "duration_s": stop_s, "warmup_s": warmup_s},
        "valid": checked.valid,
        "met": overall.attainment >= plan.target_share,
        "requests": {
            "planned": len(every),
            "sent": len(every) - skipped - unreported,
            "skipped": skipped,
            "unreported": unreported,
            "warming_up": len(every) - len(counted),
        },
        "overall": _plain(overall),
        "tiers": {tier: _plain(_summary(mine, warmup_s, stop_s)) for tier, mine in sorted(tiers.items())},
        "ends": dict(
            Counter(f"{one.end.value}: {one.reason}" if one.reason else one.end.value for one in counted).most_common()
        ),
        "budget": asdict(budget(plan.target_share, counted)),
        "slices": parts(outcomes, 0.0, stop_s, plan.slices),
        "buckets": parts(outcomes, 0.0, stop_s, min(_MOST_BUCKETS, max(1, math.floor(stop_s)))),
        "generator": _generator(checked),
    }


def budget(target: float, outcomes: Sequence[Outcome]) -> Budget:
    """What of the error budget ``outcomes`` have used."""
    allowed = (1 - target) * len(outcomes)
    missed = sum(one.end is not End.ON_TIME for one in outcomes)
    return Budget(target, len(outcomes), allowed, missed, missed / allowed if allowed > 0 else None)


def parts(outcomes: Sequence[Outcome], begin_s: float, end_s: float, count: int) -> list[dict[str, Any]]:
    """``outcomes`` by when they were due, in ``count`` parts of equal length; rates are a second."""
    length = (end_s - begin_s) / count
    if length <= 0:
        return []
    sorted_in: list[list[Outcome]] = [[] for _ in range(count)]
    for one in outcomes:
        place = math.floor((one.arrival.at_s - begin_s) / length)
        if 0 <= place < count:
            sorted_in[place].append(one)
    return [_part(begin_s + place * length, length, mine) for place, mine in enumerate(sorted_in)]


def _part(begin_s: float, length_s: float, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    ends = Counter(one.end for one in outcomes)
    latencies = sorted(one.ended_s - one.arrival.at_s for one in outcomes if one.end in _ANSWERED)
    total = len(outcomes)
    return {
        "from_s": begin_s,
        "to_s": begin_s + length_s,
        "offered": total / length_s,
        "goodput": ends[End.ON_TIME] / length_s,
        "refused": ends[End.REFUSED] / length_s,
        "attainment": ends[End.ON_TIME] / total if total else None,
        "p50_s": percentile(latencies, 0.5),
        "p95_s": percentile(latencies, 0.95),
        "p99_s": percentile(latencies, 0.99),
    }


def _summary(outcomes: list[Outcome], warmup_s: float, end_s: float) -> Summary:
    counted = sum(one.arrival.at_s >= warmup_s for one in outcomes)
    length = end_s - warmup_s
    return summarise(
        Run("", counted / length if length > 0 else 0.0, warmup_s, max(end_s, warmup_s + 1e-9), outcomes), 1.0
    )


def _plain(summary: Summary) -> dict[str, Any]:
    kept = {name: value for name, value in asdict(summary).items() if name not in _SIMULATED}
    return {**kept, "shed": sum(summary.refused.values())}


def _generator(checked: Health) -> dict[str, Any]:
    return {**asdict(checked), "nodes": [asdict(one) for one in checked.nodes], "problems": list(checked.problems)}
