"""Whether the load generator itself kept up: if it didn't, a run says nothing about the server. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from samgate.simulation.summary import percentile

MAX_CPU_SHARE = 0.9
"""Of one core: a Python process has no more."""
MAX_SKIPPED = 0.01


@dataclass(frozen=True, slots=True)
class Node:
    """A generating user: ``loop_lag_p99_s`` and ``loop_lag_max_s`` are how late its process's event loop woke up,
    ``cpu_share`` how much of a core that process used while it sent, ``ready_s`` how long it took to get ready."""

    name: str
    loop_lag_p99_s: float
    loop_lag_max_s: float
    cpu_share: float
    ready_s: float


@dataclass(frozen=True, slots=True)
class Health:
    """All generating users together: ``lag`` is how late requests were sent, in seconds; ``unreported`` ones may have
    been sent or not."""

    nodes: tuple[Node, ...]
    lag_p50_s: float | None
    lag_p99_s: float | None
    lag_max_s: float | None
    skipped: int
    unreported: int
    problems: tuple[str, ...]

    @property
    def valid(self) -> bool:
        """Whether the run's figures are the server's."""
        return not self.problems


def health(
    nodes: Sequence[Node],
    lags_s: Sequence[float],
    *,
    planned: int,
    counted: int,
    skipped: int,
    unreported: int,
    expected_nodes: int,
    max_lag_s: float,
    interrupted: bool = False,
) -> Health:
    """The generator's health after a run of ``planned`` requests, of which ``counted`` were due after the warm-up, and
    those sent were ``lags_s`` late."""
    ascending = sorted(lags_s)
    late, loop = percentile(ascending, 0.99), max((one.loop_lag_p99_s for one in nodes), default=0.0)
    cpu = max((one.cpu_share for one in nodes), default=0.0)
    limit = f"{1e3 * max_lag_s:.0f} ms"
    checks = (
        (interrupted, "the run was stopped before its end"),
        (not lags_s, "nothing was sent"),
        (not counted, "no request was due after the warm-up: raise the rate, or the duration"),
        (len(nodes) < expected_nodes, f"{len(nodes)} of {expected_nodes} generating users said how they fared"),
        (unreported > 0, f"of {unreported} requests nobody knows what became: a worker went away"),
        (
            skipped > MAX_SKIPPED * planned,
            f"{skipped} of {planned} requests were skipped: raise --in-flight, or add workers",
        ),
        (
            late is not None and late > max_lag_s,
            f"one request in 100 was sent {1e3 * (late or 0):.0f} ms late (at most {limit}): add workers, or cores",
        ),
        (
            loop > max_lag_s,
            f"the generator's event loop was {1e3 * loop:.0f} ms late at its 99th percentile (at most {limit})",
        ),
        (
            cpu > MAX_CPU_SHARE,
            f"a generating process used {cpu:.0%} of a core (at most {MAX_CPU_SHARE:.0%}): add workers",
        ),
    )
    return Health(
        nodes=tuple(nodes),
        lag_p50_s=percentile(ascending, 0.5),
        lag_p99_s=late,
        lag_max_s=ascending[-1] if ascending else None,
        skipped=skipped,
        unreported=unreported,
        problems=tuple(text for wrong, text in checks if wrong),
    )
