"""How fast a machine was during a run. On a shared one neighbours change that by half within seconds."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

from samgate.scheduling.profile import DeviceProfile
from samgate.simulation.outcome import End, Run

_MOST_STEPS = 5
_PRECISION = 0.01
_BOUNDS = (0.5, 3.0)
_ANSWERED = (End.ON_TIME, End.LATE)


def stretch(run: Run, profile: DeviceProfile) -> float | None:
    """How many times as long as ``profile``'s median the decoder calls of ``run``'s answers took, in the mean; None
    without any that say so. Calls beside others take longer, so it is above 1 on a busy machine."""
    points = {point.name: point for point in profile.points}
    found = []
    for one in run.outcomes:
        point = points.get(one.point)
        prompts = one.arrival.prompts
        if one.end not in _ANSWERED or one.decode_s <= 0 or point is None or prompts > point.max_prompts:
            continue
        found.append(one.decode_s / (point.decode(prompts) * point.decode.median_ratio))
    return fmean(found) if found else None


def at_pace(measured: Run, simulate: Callable[[float], Run], profile: DeviceProfile) -> tuple[Run, float]:
    """The simulation in which decoder calls take as long in the mean as in the run that was ``measured``, and its pace:
    ``simulate`` makes one in which everything takes so many times as long as ``profile`` says. The profile's own pace
    where the measured run has no answers to go by."""
    wanted = stretch(measured, profile)
    pace = 1.0
    run = simulate(pace)
    for _ in range(_MOST_STEPS):
        found = stretch(run, profile)
        if wanted is None or found is None or abs(wanted / found - 1) <= _PRECISION:
            break
        pace = min(max(pace * wanted / found, _BOUNDS[0]), _BOUNDS[1])
        run = simulate(pace)
    return run, pace
