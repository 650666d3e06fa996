"""Whether a series of samples is flat. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loadtest.reliability.findings import Finding

FEWEST = 8
"""Samples in the second half of a run: fewer say nothing about a trend."""


@dataclass(frozen=True, slots=True)
class Series:
    """One quantity over time: seconds since the start, and values in ``unit``."""

    name: str
    unit: str
    at_s: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Bound:
    """How far a flat series may drift over the second half of a run: ``share`` of its median or ``least`` in its unit,
    whichever is more; and why so much."""

    share: float
    least: float
    reason: str

    def of(self, median: float) -> float:
        """In the series' unit."""
        return max(self.share * median, self.least)


def theil_sen(at_s: Sequence[float], values: Sequence[float]) -> float:
    """The median of the slopes between all pairs of samples, per second: up to 29% of them may be outliers. Raises
    ValueError for fewer than two different times."""
    times, series = np.asarray(at_s, np.float64), np.asarray(values, np.float64)
    first, second = np.triu_indices(len(times), 1)
    gaps = times[second] - times[first]
    apart = gaps > 0
    if not apart.any():
        raise ValueError("a slope needs samples at two different times")
    slopes: npt.NDArray[np.float64] = (series[second] - series[first])[apart] / gaps[apart]
    return float(np.median(slopes))


def second_half(series: Series) -> Series:
    """The samples from the middle of the run on: caches and allocators have filled by then."""
    if not series.at_s:
        return series
    middle = (series.at_s[0] + series.at_s[-1]) / 2
    kept = [(at, value) for at, value in zip(series.at_s, series.values, strict=True) if at >= middle]
    return Series(series.name, series.unit, [at for at, _ in kept], [value for _, value in kept])


def flat(series: Series, bound: Bound) -> Finding:
    """Whether ``series`` stays where it is over the second half of the run; what shrinks is flat, too."""
    half = second_half(series)
    if len(half.values) < FEWEST:
        return Finding(f"{series.name} flat", f"only {len(half.values)} samples, {FEWEST} are the least", held=False)
    slope = theil_sen(half.at_s, half.values)
    span = half.at_s[-1] - half.at_s[0]
    drift, median = slope * span, float(np.median(half.values))
    limit = bound.of(median)
    found = f"{median:.0f} {series.unit}, {drift:+.1f} in {span / 60:.1f} min ({3600 * slope:+.1f} an hour)"
    claim = f"{series.name} flat: drifts by less than {limit:.1f} {series.unit} in the second half"
    return Finding(claim, found, held=drift < limit)
