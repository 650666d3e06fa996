"""The highest rate at which a system still answers on time, as MLPerf Inference's server scenario finds it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

TARGET = 0.99
"""Share of requests that must be answered on time."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """``rate`` is the highest that passed, in requests a second (0: none did); ``failed`` the lowest above it that
    didn't (infinite: all passed); ``trials`` are all rates that were tried with their attainment, in order."""

    rate: float
    failed: float
    trials: tuple[tuple[float, float], ...]


def capacity(
    attainment: Callable[[float], float],
    start: float,
    *,
    target: float = TARGET,
    precision: float = 0.02,
    most_trials: int = 40,
    nearly: float = 1.0,
    stride: float = 2.0,
) -> Capacity:
    """Bisect between a rate that passes and one that doesn't, found by going from ``start`` up or down by factors of
    ``stride``, until they are within ``precision`` (relative).

    ``attainment`` measures a rate: by a simulation, or by sending a real server that load. It needn't be monotonic;
    then the answer is a rate that passes next to one that doesn't. A rate that fails with at least ``nearly`` has a
    second chance, for where a neighbour's spell may have been the reason; both count as trials.
    """
    trials: list[tuple[float, float]] = []
    passed, failed, rate = 0.0, math.inf, start
    while len(trials) < most_trials:
        share = attainment(rate)
        trials.append((rate, share))
        if nearly <= share < target and len(trials) < most_trials:
            share = attainment(rate)
            trials.append((rate, share))
        if share >= target:
            passed = rate
        else:
            failed = rate
        if passed > 0 and failed - passed <= precision * passed:
            break
        if passed == 0:
            rate = failed / stride
        elif math.isinf(failed):
            rate = passed * stride
        else:
            rate = (passed + failed) / 2
    return Capacity(passed, failed, tuple(trials))
