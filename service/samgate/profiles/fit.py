"""Latencies by size → a line. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from samgate.scheduling.profile import Line

Origin = Literal["measured", "quick"]

OUTLIER_RATIO = 3.0
"""A call that takes so many times the median of its size is a neighbour's doing: shapes and work are the same every
time."""
MAX_OUTLIERS = 0.1
"""As long as no more than this share of a size's calls are: what happens more often is how the machine is."""
QUICK_TAIL = 1.25
"""The 95th percentile as a multiple of the median, where a few calls have to do. Their maximum would be the neighbours'
if there are any, and too low if there are none. Full measurements came to 1.1 to 1.35 on two shared cores."""

_DIGITS = 7
"""A tenth of a microsecond."""


@dataclass(frozen=True, slots=True)
class Tail:
    """The 95th percentile and the median of a size's latencies, in seconds."""

    p95: float
    median: float


def tail(seconds: Sequence[float], origin: Origin) -> Tail:
    """Of at least one latency; estimated from the median where the measurement was ``quick``. Raises ValueError."""
    if not seconds:
        raise ValueError("there is no latency to take percentiles of")
    kept = without_outliers(seconds)
    median = float(np.median(kept))
    return Tail(QUICK_TAIL * median if origin == "quick" else float(np.percentile(kept, 95)), median)


def without_outliers(seconds: Sequence[float]) -> list[float]:
    """``seconds`` without those above ``OUTLIER_RATIO`` medians, unless these are more than ``MAX_OUTLIERS`` of all."""
    limit = OUTLIER_RATIO * float(np.median(seconds))
    kept = [value for value in seconds if value <= limit]
    return kept if len(seconds) - len(kept) <= MAX_OUTLIERS * len(seconds) else list(seconds)


def fit_line(by_size: Mapping[float, Sequence[float]], origin: Origin) -> Line:
    """The line of least squares through the 95th percentiles of ``by_size`` (seconds by number of items).

    Neither coefficient is negative. Of one size alone all goes into ``each_s``, so that the line is right there: an
    engine that takes one image at a time has no call with another number. Raises ValueError for no size at all.
    """
    tails = {size: tail(seconds, origin) for size, seconds in by_size.items()}
    sizes = np.array(list(tails), dtype=np.float64)
    p95 = np.array([one.p95 for one in tails.values()])
    fixed, each = _least_squares(sizes, p95)
    residual = float(np.abs(fixed + each * sizes - p95).max())
    ratio = float(np.mean([one.median / one.p95 if one.p95 > 0 else 1.0 for one in tails.values()]))
    return Line(round(fixed, _DIGITS), round(each, _DIGITS), round(residual, _DIGITS), round(min(ratio, 1.0), 4))


def _least_squares(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """(fixed, each), neither negative: where the free optimum isn't, the optimum has one of them at zero."""
    proportional = (0.0, float(x @ y / (x @ x)))
    if len(x) == 1:
        return proportional
    each, fixed = (float(value) for value in np.polyfit(x, y, 1))
    if fixed >= 0 and each >= 0:
        return fixed, each
    constant = (float(y.mean()), 0.0)
    return min(proportional, constant, key=lambda line: float(((line[0] + line[1] * x - y) ** 2).sum()))
