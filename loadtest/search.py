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
    """``target`` must be answered on time. A rate that fails with ``nearly`` or more gets a second run, as does one
    below a rate that passed. The answer is known when a rate that passed in ``confirm`` runs and one that didn't pass
    are within ``precision`` (relative), or unknown after ``most`` runs."""

    target: float = 0.99
    nearly: float = 0.9
    precision: float = 0.08
    confirm: int = 2
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
    passes and one fails, then between these at their geometric mean, then at the best again. Of rates that contradict
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
    low, high, _ = _bracket(trials, rules)
    if low == 0:
        return high / _STRIDE
    if math.isinf(high):
        return low * _STRIDE
    if high > low * (1 + rules.precision):
        return math.sqrt(low * high)
    passes = sum(one.rate == low and _passes(one, rules) for one in trials)
    return low if passes < rules.confirm else None


def _bracket(trials: Sequence[Trial], rules: Rules) -> tuple[float, float, bool]:
    verdicts = {rate: _verdict(rate, trials, rules) for rate in {one.rate for one in trials}}
    high = min((rate for rate, one in verdicts.items() if one in (_Is.FAILED, _Is.INVALID)), default=math.inf)
    low = max((rate for rate, one in verdicts.items() if one is _Is.PASSED and rate < high), default=0.0)
    return low, high, verdicts.get(high) is _Is.INVALID


def _verdict(rate: float, trials: Sequence[Trial], rules: Rules) -> _Is:
    mine = [one for one in trials if one.rate == rate]
    shares = [one.share for one in mine if one.share is not None]
    if not shares:
        return _Is.INVALID if len(mine) >= _INVALID_TRIES else _Is.OPEN
    passes = sum(share >= rules.target for share in shares)
    fails = len(shares) - passes
    if passes != fails and (passes or fails > 1):
        return _Is.PASSED if passes > fails else _Is.FAILED
    if passes:
        return _Is.OPEN
    contradicted = any(_passes(one, rules) for one in trials if one.rate > rate)
    return _Is.OPEN if shares[0] >= rules.nearly or contradicted else _Is.FAILED


def _passes(trial: Trial, rules: Rules) -> bool:
    return trial.share is not None and trial.share >= rules.target
