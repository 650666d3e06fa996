"""Simulations as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from samgate.simulation.capacity import TARGET, Capacity
from samgate.simulation.runs import Study
from samgate.simulation.summary import Summary

SCHEMA = 1


def tables(summaries: Sequence[Summary]) -> tuple[Table, Table]:
    """One row a simulation each: what became of requests, and how they were answered.

    ``good/s`` is goodput, ``product`` on time × mIoU."""
    ends = _table("policy", "load", "rate/s", "good/s", "on time", "mIoU", "product", "refused", "dropped", "late")
    ways = _table("policy", "load", "p50 ms", "p95 ms", "p99 ms", "busy", "cached")
    ways.add_column("answered by")
    for place, one in enumerate(summaries):
        if place and one.policy != summaries[place - 1].policy:
            ends.add_section()
            ways.add_section()
        ends.add_row(
            one.policy,
            f"{one.load:g}",
            f"{one.rate:.4g}",
            f"{one.goodput:.4g}",
            _percent(one.attainment),
            _number(one.accuracy, 4),
            _number(one.value, 4),
            _percent(sum(one.refused.values())),
            _percent(one.dropped + one.lost),
            _percent(one.late),
        )
        ways.add_row(
            one.policy,
            f"{one.load:g}",
            *(_milliseconds(seconds) for seconds in (one.p50_s, one.p95_s, one.p99_s)),
            _percent(one.utilisation),
            _percent(one.cached),
            ", ".join(f"{name} {share:.0%}" for name, share in one.points.items()),
        )
    return ends, ways


def capacity_table(found: Mapping[str, Capacity]) -> Table:
    """One row a policy."""
    rows = _table("policy", f"requests/s at {TARGET:.0%} on time", "too much", "trials")
    for policy, one in found.items():
        rows.add_row(policy, f"{one.rate:.4g}" if one.rate else "none", f"{one.failed:.4g}", str(len(one.trials)))
    return rows


def as_json(study: Study, summaries: Sequence[Summary], capacities: Mapping[str, Capacity]) -> dict[str, Any]:
    """Everything, with what it is about. Times are in seconds, rates a second."""
    workload, fleet = study.workload, study.fleet
    duration_s = workload.duration_s if study.duration_s is None else study.duration_s
    return {
        "schema": SCHEMA,
        "workload": {
            "name": workload.name,
            "rate": study.base_rate,
            "duration_s": duration_s,
            "warmup_s": workload.warmup_s,
            "slo_scale": workload.slo_scale,
        },
        "fleet": {"name": fleet.name, "gateways": fleet.gateways, "devices": fleet.all_devices, "origin": fleet.origin},
        "seed": study.seed,
        "runs": [asdict(one) for one in summaries],
        "capacity": {
            policy: {
                "rate": one.rate,
                "failed": one.failed if one.failed != float("inf") else None,
                "target": TARGET,
                "trials": [{"rate": rate, "attainment": share} for rate, share in one.trials],
            }
            for policy, one in capacities.items()
        },
    }


def _table(first: str, *headings: str) -> Table:
    found = Table(box=SIMPLE, padding=(0, 1, 0, 0), header_style="bold", pad_edge=False)
    found.add_column(first, no_wrap=True)
    for heading in headings:
        found.add_column(heading, justify="right", no_wrap=True)
    return found


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _milliseconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{1e3 * seconds:.0f}"
