"""Latencies by size → a line. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
if there are any, and too low if there are none. Full measurements came to 1.1 to 1.4 on two shared cores."""

_DIGITS = 7
"""A tenth of a microsecond."""
_INSTANT_S = 1e-9
"""What takes no time has no relative errors."""


def percentile_95(seconds: Sequence[float]) -> float:
    """Of at least one latency, without outliers. Raises ValueError."""
    return float(np.percentile(without_outliers(seconds), 95))


def without_outliers(seconds: Sequence[float]) -> list[float]:
    """``seconds`` without those above ``OUTLIER_RATIO`` medians, unless these are more than ``MAX_OUTLIERS`` of all.
    Raises ValueError for none."""
    if not seconds:
        raise ValueError("there is no latency to take percentiles of")
    limit = OUTLIER_RATIO * float(np.median(seconds))
    kept = [value for value in seconds if value <= limit]
    return kept if len(seconds) - len(kept) <= MAX_OUTLIERS * len(seconds) else list(seconds)


def fit_line(by_size: Mapping[float, Sequence[float]], origin: Origin) -> Line:
    """The line at the 95th percentile of ``by_size`` (seconds by number of items): through the medians of all sizes,
    times the 95th percentile of all calls relative to their size's median.

    A size's own percentile hangs on its two or three slowest calls, which are a neighbour's doing as often as not; its
    median doesn't, and all sizes together have slow calls enough. Errors count relatively: calls of one item are the
    most frequent and the shortest. Where the measurement was ``quick``, ``QUICK_TAIL`` is taken for the percentile.

    Neither coefficient is negative. Of one size alone all goes into ``each_s``, so that the line is right there: an
    engine that takes one image at a time has no call with another number. Raises ValueError for no size at all.
    """
    kept = {size: without_outliers(seconds) for size, seconds in by_size.items()}
    medians = {size: float(np.median(seconds)) for size, seconds in kept.items()}
    sizes = np.array(list(kept), dtype=np.float64)
    fixed, each = _least_squares(sizes, np.array(list(medians.values())))
    relative = [value / medians[size] for size, seconds in kept.items() for value in seconds if medians[size] > 0]
    quick = origin == "quick"
    factor = QUICK_TAIL if quick else float(np.percentile(relative or [1.0], 95))
    fixed, each = factor * fixed, factor * each
    own = {size: QUICK_TAIL * medians[size] if quick else percentile_95(seconds) for size, seconds in by_size.items()}
    residual = max(abs(fixed + each * size - seconds) for size, seconds in own.items())
    return Line(round(fixed, _DIGITS), round(each, _DIGITS), round(residual, _DIGITS), round(min(1.0, 1 / factor), 4))


def _least_squares(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """(fixed, each) of the least relative errors, neither negative: where the free optimum isn't, the optimum has one
    of them at zero."""
    weight = 1.0 / np.maximum(y, _INSTANT_S)
    proportional = (0.0, float((x * y * weight**2).sum() / ((x * weight) ** 2).sum()))
    if len(x) == 1:
        return proportional
    each, fixed = (float(value) for value in np.polyfit(x, y, 1, w=weight))
    if fixed >= 0 and each >= 0:
        return fixed, each
    constant = (float((y * weight**2).sum() / (weight**2).sum()), 0.0)
    return min(proportional, constant, key=lambda line: float((((line[0] + line[1] * x - y) * weight) ** 2).sum()))
