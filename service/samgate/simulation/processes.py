"""When requests come: Poisson, bursty, diurnal. Seeded, endless streams of times, in seconds since the start."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Protocol

from samgate.errors import InvalidArgument
from samgate.simulation.spec import Section, number

MAX_RATE = 1e7
MIN_RATE = 1e-6
MAX_SECONDS = 1e7
PROCESSES = ("poisson", "bursty", "diurnal", "replay")


class Process(Protocol):
    """Where arrival times come from."""

    @property
    def mean_rate(self) -> float:
        """Requests a second, over a long time."""

    def times(self, random: Random, factor: float) -> Iterator[float]:
        """Ascending times without end, at ``factor`` times the process's rate; how the rate changes with time stays
        as it is."""


@dataclass(frozen=True, slots=True)
class Poisson:
    """Independent arrivals at ``rate`` a second."""

    rate: float

    @property
    def mean_rate(self) -> float:
        """Requests a second."""
        return self.rate

    def times(self, random: Random, factor: float) -> Iterator[float]:
        """See :class:`Process`."""
        now, rate = 0.0, self.rate * factor
        while True:
            now += random.expovariate(rate)
            yield now


@dataclass(frozen=True, slots=True)
class Bursty:
    """A two-state Markov-modulated Poisson process: ``rates`` a second in the calm and in the burst state, each of
    which lasts for an exponentially distributed time of mean ``dwell_s``. Begins calm."""

    rates: tuple[float, float]
    dwell_s: tuple[float, float]

    @property
    def mean_rate(self) -> float:
        """Requests a second, over many bursts."""
        return sum(r * d for r, d in zip(self.rates, self.dwell_s, strict=True)) / sum(self.dwell_s)

    def times(self, random: Random, factor: float) -> Iterator[float]:
        """See :class:`Process`."""
        now, state = 0.0, 0
        while True:
            until = now + random.expovariate(1 / self.dwell_s[state])
            rate = self.rates[state] * factor
            while rate > 0:
                # Exponential gaps have no memory: what would come after the change is drawn anew at the new rate.
                now += random.expovariate(rate)
                if now >= until:
                    break
                yield now
            now, state = until, 1 - state


@dataclass(frozen=True, slots=True)
class Diurnal:
    """A Poisson process whose rate is ``rate`` times the factor of the time of day, by thinning (Lewis and Shedler
    1979). A day lasts ``period_s`` and begins with the first factor; ``factors`` have mean 1; between them the rate
    jumps."""

    rate: float
    period_s: float
    factors: tuple[float, ...] = ()
    amplitude: float = 0.0

    @property
    def mean_rate(self) -> float:
        """Requests a second, over a day."""
        return self.rate

    def factor(self, at_s: float) -> float:
        """What the rate is of its mean at a time."""
        phase = at_s / self.period_s % 1.0
        if self.factors:
            return self.factors[int(phase * len(self.factors)) % len(self.factors)]
        # A sinusoid that begins with the night.
        return 1.0 - self.amplitude * math.cos(2 * math.pi * phase)

    def times(self, random: Random, factor: float) -> Iterator[float]:
        """See :class:`Process`."""
        highest = max(self.factors) if self.factors else 1.0 + self.amplitude
        now, rate = 0.0, self.rate * factor * highest
        while True:
            now += random.expovariate(rate)
            if random.random() * highest < self.factor(now):
                yield now


def read_process(section: Section) -> Poisson | Bursty | Diurnal:
    """``arrivals`` of a workload, but for replays. Raises InvalidArgument."""
    name = section.choice("process", PROCESSES)
    found: Poisson | Bursty | Diurnal
    if name == "poisson":
        found = Poisson(section.number("rate", MIN_RATE, MAX_RATE))
    elif name == "bursty":
        found = Bursty(_pair(section, "rates", 0.0, MAX_RATE), _pair(section, "dwell_s", 1e-3, MAX_SECONDS))
        if found.mean_rate < MIN_RATE:
            raise InvalidArgument(section.where("rates"), f"are {found.rates}; one must be above 0")
    else:
        found = _diurnal(section)
    section.end()
    return found


def _pair(section: Section, name: str, low: float, high: float) -> tuple[float, float]:
    items = section.items(name, 2)
    if len(items) != 2:
        raise InvalidArgument(section.where(name), f"has {len(items)} values; it must have 2, as [calm, burst]")
    first, second = (number(value, where, low, high) for where, value in items)
    return first, second


def _diurnal(section: Section) -> Diurnal:
    rate = section.number("rate", MIN_RATE, MAX_RATE)
    period_s = section.number("period_s", 1.0, MAX_SECONDS, default=86400.0)
    if not section.has("hourly"):
        return Diurnal(rate, period_s, amplitude=section.number("amplitude", 0, 1))
    factors = [number(value, where, 0, 1e6) for where, value in section.items("hourly", 24 * 60)]
    if sum(factors) <= 0:
        raise InvalidArgument(section.where("hourly"), "has no factor above 0")
    mean = sum(factors) / len(factors)
    return Diurnal(rate, period_s, tuple(factor / mean for factor in factors))
