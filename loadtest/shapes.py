"""How the rate moves during a run, as arrival processes: a workload file says what clients ask, a shape when. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from samgate.errors import InvalidArgument
from samgate.simulation.processes import Diurnal, Poisson, Process

AS_WORKLOAD = "workload"
"""No shape: requests come as the workload's own process says."""

STEPS = (0.5, 0.75, 1.0, 1.25, 1.5)
BURST = (0.5, 0.5, 0.5, 0.5, 3.0)
BURSTS = 6
NIGHT = 0.8
_SLICES = 10
_SOAK_S = 3600.0


@dataclass(frozen=True, slots=True)
class Shape:
    """``process`` of a mean rate, in requests a second, and a duration. ``duration_s`` is how long a run usually takes
    (None: as long as the workload says), ``slices`` in how many parts of equal length it is reported."""

    says: str
    process: Callable[[float, float], Process]
    slices: int = _SLICES
    duration_s: float | None = None


def _steady(rate: float, duration_s: float) -> Process:  # noqa: ARG001 - a shape's arguments
    return Poisson(rate)


SHAPES: dict[str, Shape] = {
    "steady": Shape("the same rate throughout", _steady),
    "step": Shape(
        f"up in steps of equal length, {' '.join(f'{one:g}' for one in STEPS)} times the rate",
        lambda rate, duration_s: Diurnal(rate, duration_s, STEPS),
        slices=len(STEPS),
    ),
    "burst": Shape(
        f"{BURSTS} times calm ({BURST[0]:g} times the rate), then for a fifth of the time {BURST[-1]:g} times the rate",
        lambda rate, duration_s: Diurnal(rate, duration_s / BURSTS, BURST),
        slices=BURSTS * len(BURST),
    ),
    "diurnal": Shape(
        f"a day pressed into the run: a sinusoid from {1 - NIGHT:g} times the rate to {1 + NIGHT:g} times and back",
        lambda rate, duration_s: Diurnal(rate, duration_s, amplitude=NIGHT),
    ),
    "soak": Shape("the same rate for an hour, to see whether anything drifts", _steady, duration_s=_SOAK_S),
}


def get_shape(name: str) -> Shape | None:
    """The shape of that name; None for ``workload``. Raises InvalidArgument."""
    if name == AS_WORKLOAD:
        return None
    if name not in SHAPES:
        raise InvalidArgument("shape", f"is {name!r}; it must be one of {', '.join((AS_WORKLOAD, *SHAPES))}")
    return SHAPES[name]
