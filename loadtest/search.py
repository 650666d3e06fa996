"""The highest rate whose runs pass, from as few runs as will do, each of which is noisy. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

_INVALID_TRIES = 2
_STRIDE = 2.0


@dataclass(frozen=True, slots=True)
class Trial:
    """A run at ``rate`` requests a second: what share was on time; None when its generator was to blame."""

    rate: float
    share: float | None


@dataclass(frozen=True, slots=True)
class Rules:
    """``target`` must be answered on time. A rate that fails with ``nearly`` or more is run again at once. The answer
    is known when a rate that passed ``repeats`` times and one that failed ``repeats`` times, each more often than not,
    are within ``precision`` (relative); it stays unknown after ``most`` runs."""

    target: float = 0.99
    nearly: float = 0.9
    precision: float = 0.1
    repeats: int = 2
    most: int = 12


@dataclass(frozen=True, slots=True)
class Found:
    """``rate`` is the highest that passed (0: none did), ``failed`` the lowest above it that didn't (infinite: none).
    ``limited``: that one couldn't be tried, the generator didn't keep up. ``confirmed``: both are as close as was asked
    for, and ``rate`` has passed as often."""

    rate: float
    failed: float
    limited: bool
    confirmed: bool
    trials: tuple[Trial, ...]


class _Is(Enum):
    PASSED = auto()
    FAILED = auto()
    INVALID = auto()
    OPEN = auto()


def search(probe: Callable[[float, int], float | None], start: float, rules: Rules) -> Found:
    """Run ``probe(rate, number of the run)`` at one rate after the other: doubled or halved from ``start`` until one
    passes and one fails, then between these at their geometric mean, then at both again. Of rates that contradict
    each other the lower ones count."""
    trials: list[Trial] = []
    while len(trials) < rules.most:
        rate = following(trials, start, rules)
        if rate is None:
            break
        trials.append(Trial(rate, probe(rate, len(trials))))
    low, high, limited = _bracket(trials, rules)
    return Found(low, high, limited, bool(trials) and following(trials, start, rules) is None, tuple(trials))


def following(trials: Sequence[Trial], start: float, rules: Rules) -> float | None:
    """The rate to try after ``trials``; None when the answer is known."""
    if not trials:
        return start
    last = trials[-1].rate
    if _verdict(last, trials, rules) is _Is.OPEN:
        return last
    low, high, limited = _bracket(trials, rules)
    if low == 0:
        return high / _STRIDE
    if math.isinf(high):
        return low * _STRIDE
    if high > low * (1 + rules.precision):
        return math.sqrt(low * high)
    if _count(low, trials, rules, passed=True) < rules.repeats:
        return low
    # A neighbour's spell may have been why it failed.
    return high if not limited and _count(high, trials, rules, passed=False) < rules.repeats else None


def _bracket(trials: Sequence[Trial], rules: Rules) -> tuple[float, float, bool]:
    verdicts = {rate: _verdict(rate, trials, rules) for rate in {one.rate for one in trials}}
    high = min((rate for rate, one in verdicts.items() if one in (_Is.FAILED, _Is.INVALID)), default=math.inf)
    low = max((rate for rate, one in verdicts.items() if one is _Is.PASSED and rate < high), default=0.0)
    return low, high, verdicts.get(high) is _Is.INVALID


def _verdict(rate: float, trials: Sequence[Trial], rules: Rules) -> _Is:
    passes, fails = (_count(rate, trials, rules, passed=passed) for passed in (True, False))
    if not passes and not fails:
        tries = sum(one.rate == rate for one in trials)
        return _Is.INVALID if tries >= _INVALID_TRIES else _Is.OPEN
    if passes == fails:
        return _Is.OPEN
    nearly = fails == 1 and any(
        one.share is not None and one.share >= rules.nearly for one in trials if one.rate == rate
    )
    return _Is.PASSED if passes > fails else _Is.OPEN if nearly and not passes else _Is.FAILED


def _count(rate: float, trials: Sequence[Trial], rules: Rules, *, passed: bool) -> int:
    """Runs at ``rate`` that count, and passed or didn't."""
    return sum(one.rate == rate and one.share is not None and (one.share >= rules.target) == passed for one in trials)
