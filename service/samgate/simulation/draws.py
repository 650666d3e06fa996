"""Distributions as workload files spell them: a value, ``{uniform: [low, high]}`` or ``{choices: {value: weight}}``."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Any, Generic, TypeVar

from samgate.errors import InvalidArgument
from samgate.simulation import spec

T = TypeVar("T")

_MOST_CHOICES = 1000
_MOST_WEIGHT = 1e9


class Weighted(Generic[T]):
    """Values, each as likely as its weight says."""

    def __init__(self, weights: Iterable[tuple[T, float]]) -> None:
        self.weights = tuple(weights)
        self._values = [value for value, _ in self.weights]
        self._bounds = list(accumulate(weight for _, weight in self.weights))

    def draw(self, random: Random) -> T:
        """One of the values."""
        if len(self._values) == 1:
            return self._values[0]
        place = bisect_right(self._bounds, random.random() * self._bounds[-1])
        return self._values[min(place, len(self._values) - 1)]

    @property
    def values(self) -> tuple[T, ...]:
        """All of them."""
        return tuple(self._values)


@dataclass(frozen=True, slots=True)
class Numbers:
    """A distribution of numbers: uniform between two, or among ``choices``; whole numbers where ``whole``."""

    choices: Weighted[float] | None
    low: float
    high: float
    whole: bool

    def draw(self, random: Random) -> float:
        """One number."""
        if self.choices is not None:
            return self.choices.draw(random)
        if self.whole:
            return float(random.randint(int(self.low), int(self.high)))
        return random.uniform(self.low, self.high)

    def draw_whole(self, random: Random) -> int:
        """One whole number, of a distribution of such."""
        return int(self.draw(random))


def numbers(value: Any, path: str, low: float, high: float, *, whole: bool = False) -> Numbers:
    """The distribution that ``value`` spells, of numbers from ``low`` to ``high``. Raises InvalidArgument."""

    def one(candidate: Any, where: str) -> float:
        if whole:
            return float(spec.whole(candidate, where, int(low), int(high)))
        return spec.number(candidate, where, low, high)

    if not isinstance(value, dict):
        only = one(value, path)
        return Numbers(Weighted([(only, 1.0)]), only, only, whole)
    section = spec.Section(value, path)
    if section.has("choices"):
        choices = weighted(section.raw("choices"), section.where("choices"), one)
        section.end()
        return Numbers(choices, min(choices.values), max(choices.values), whole)
    ends = section.items("uniform", 2)
    section.end()
    if len(ends) != 2:
        raise InvalidArgument(section.where("uniform"), f"has {len(ends)} ends; it must have 2, as [low, high]")
    first, last = (one(end, where) for where, end in ends)
    if first > last:
        raise InvalidArgument(section.where("uniform"), f"begins at {first:g}, above its end {last:g}")
    return Numbers(None, first, last, whole)


def weighted(value: Any, path: str, one: Callable[[Any, str], T]) -> Weighted[T]:
    """``{value: weight, …}``, each value read by ``one``. Raises InvalidArgument."""
    if not isinstance(value, dict) or not 1 <= len(value) <= _MOST_CHOICES:
        raise spec.refuse(path, value, f"a mapping of 1 to {_MOST_CHOICES} values to their weights")
    found = []
    for key, weight in value.items():
        where = f"{path}[{spec.shown(key)}]"
        found.append((one(key, where), spec.number(weight, where, 0, _MOST_WEIGHT)))
    if sum(weight for _, weight in found) <= 0:
        raise InvalidArgument(path, "has weights of 0 alone; one must be above")
    return Weighted(found)
