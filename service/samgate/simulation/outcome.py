"""What became of requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from samgate.simulation.arrival import Arrival


class End(StrEnum):
    """How a request ended."""

    ON_TIME = "on time"
    LATE = "late"
    """Answered after its deadline."""
    REFUSED = "refused"
    """Not admitted; the outcome's ``reason`` says why."""
    DROPPED = "dropped"
    """Admitted, and given up when its deadline couldn't be met any more."""
    LOST = "lost"
    """Admitted to a device that failed, and not admitted again; to a real server, failed for whatever other reason."""
    SKIPPED = "skipped"
    """Never sent: so many were under way that a load generator would have had to send it late. None of a simulation."""


@dataclass(slots=True, eq=False)
class Outcome:
    """The end of ``arrival``: at ``ended_s`` of the simulation's time.

    ``point``, ``accuracy``, ``cached`` (its embedding was held), ``joined`` (it waited for another's encode) and
    ``decode_s`` (for how long its decoder calls ran) are of the last admission. ``attempts`` counts how often its
    client sent it.
    """

    arrival: Arrival
    end: End
    ended_s: float
    reason: str = ""
    point: str = ""
    accuracy: float = 0.0
    cached: bool = False
    joined: bool = False
    decode_s: float = 0.0
    attempts: int = 1


@dataclass(slots=True)
class Run:
    """One simulation: outcomes in the order of arrivals, and how busy devices were between warm-up and end (0 to 1,
    the mean over all)."""

    policy: str
    rate: float
    warmup_s: float
    duration_s: float
    outcomes: list[Outcome] = field(default_factory=list)
    utilisation: float = 0.0
    devices: int = 0
