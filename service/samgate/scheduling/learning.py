"""What the scheduler learns while it runs: prediction errors, the price of load, room for encodes."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from hashlib import blake2b

_ERRORS = 128
_FEWEST_ERRORS = 16
_ERROR_MEMORY_S = 30.0
_QUANTILE = 0.95

_MEMORY_S = 2.0
_TARGET = 0.85
"""ρ*."""
_RATE = 1.0
"""η, in multiples of the price's scale."""
_HIGHEST = 4.0
_UPDATE_S = 0.01
_QUEUE_PRICE = 2.0
_LEAST_ENCODES = 0.1
"""Of the devices' time: without new images there would soon be nothing to prompt."""
_MOST_WORK = 0.95
"""Of the devices' time for encodes and what is asked for of held embeddings together: messages and masks take the
rest."""
_SAVED_S = 2.0
"""How much time for encodes is saved up at most."""
_PRECEDENCE_S = 120.0
"""For how long an image keeps its precedence: a few times as long as one is worked on."""


class PredictionError:
    """ε of one operating point: the 95th percentile of how much later than predicted requests were done lately.

    Of the last 128 errors and the last 30 seconds: one that came of a slow spell must not keep requests away for good.
    """

    def __init__(self) -> None:
        self._errors: deque[tuple[float, float]] = deque()
        self._sorted: list[float] = []
        self._margin: float | None = 0.0

    def add(self, error_s: float, now: float) -> None:
        """A request was done ``error_s`` seconds later than predicted (negative: earlier)."""
        self._margin = None
        self._errors.append((now, error_s))
        insort(self._sorted, error_s)
        if len(self._errors) > _ERRORS:
            self._forget()

    def margin(self, now: float) -> float:
        """ε in seconds, never negative; 0 while too little is known."""
        while self._errors and self._errors[0][0] < now - _ERROR_MEMORY_S:
            self._forget()
        if self._margin is None:
            known = len(self._sorted)
            self._margin = 0.0
            if known >= _FEWEST_ERRORS:
                self._margin = max(0.0, self._sorted[math.ceil(_QUANTILE * known) - 1])
        return self._margin

    def _forget(self) -> None:
        self._margin = None
        _, error_s = self._errors.popleft()
        del self._sorted[bisect_left(self._sorted, error_s)]


class Lateness:
    """How much later than predicted requests are done: ε by point, and by how much all of them are late while others
    wait, which ε leaves out. An encode is harder to predict than a decode: prompts of held images don't pay for that.
    """

    def __init__(self, points: Iterable[str]) -> None:
        names = set(points)
        # Of held images first.
        self._errors = tuple({name: PredictionError() for name in names} for _ in range(2))
        self._lags = PredictionError(), PredictionError()

    def margin(self, point: str, encodes: bool, others: bool, now: float) -> float:
        """How much later than predicted ``point`` may answer, in seconds, where ``others`` wait or don't."""
        own = self._errors[encodes][point].margin(now)
        return max(own, self._lags[encodes].margin(now)) if others else own

    def answered(self, point: str, encodes: bool, error_s: float, late_s: float, now: float) -> None:
        """A request took ``error_s`` seconds more than predicted, waiting left out, and was done ``late_s`` seconds
        after it had to be, any margin left out."""
        self._errors[encodes][point].add(error_s, now)
        self._lags[encodes].add(late_s, now)

    def cut_off(self, encodes: bool, late_s: float, now: float) -> None:
        """A request that nobody waits for any more would have been done at least ``late_s`` seconds too late."""
        self._lags[encodes].add(late_s, now)


class Decaying:
    """A sum whose parts fade with time constant ``memory_s``; divided by that, it is a rate."""

    def __init__(self, memory_s: float, now: float) -> None:
        self.memory_s = memory_s
        self._sum = 0.0
        self._then = now

    def add(self, amount: float, now: float) -> None:
        """Count ``amount``."""
        if now > self._then:
            self._sum *= math.exp((self._then - now) / self.memory_s)
            self._then = now
        self._sum += amount

    def sum(self, now: float) -> float:
        """What has not faded."""
        if now <= self._then:
            return self._sum
        return self._sum * math.exp((self._then - now) / self.memory_s)

    def rate(self, now: float) -> float:
        """Amount a second."""
        return self.sum(now) / self.memory_s


class LoadPrice:
    """μ: the accuracy that a request must bring for a second of a device.

    ``μ ← max(0, μ + η(ρ − ρ*))`` by the second. ρ is the share of their time that the devices work, and what they were
    asked for and refused beside it: under overload it passes 1, and cheaper points are chosen until it is back at ρ*.

    Args:
        scale: μ at which the fastest point is worth as much as the most accurate.
        least: μ without load, in multiples of ``scale``: differences in accuracy that are within the noise of their
            measurement are not worth a multiple of the time.
    """

    def __init__(self, now: float, scale: float, least: float) -> None:
        self._scale, self._least = scale, least
        self._refused = Decaying(_MEMORY_S, now)
        self._then = now
        self._steps = 0.0
        self.value = self.at(0.0)
        """μ, in mIoU a second, on a device without a queue."""

    def due(self, now: float) -> bool:
        """Whether it is time for an :meth:`update`: more often it would cost more than it changes."""
        return now - self._then >= _UPDATE_S

    def at(self, filled: float) -> float:
        """μ on a device whose queue fills that share of the time until the deadline: what takes less time leaves more
        room for those to come."""
        return self._scale * max(self._steps + _QUEUE_PRICE * min(filled, 1.0), self._least)

    @property
    def overloaded(self) -> bool:
        """Whether even the fastest points can't do all that is asked for."""
        return self._steps > 0.75 * _HIGHEST

    def update(self, busy: float, now: float) -> None:
        """``busy`` (0 to 1) is the share of the last moments in which the devices worked."""
        elapsed, self._then = min(now - self._then, 1.0), now
        steps = self._steps + _RATE * (busy + self._refused.rate(now) - _TARGET) * elapsed
        self._steps = min(max(steps, 0.0), _HIGHEST)
        self.value = self.at(0.0)

    def refuse(self, share_s: float, now: float) -> None:
        """A request for ``share_s`` seconds of all devices together was refused for want of room."""
        self._refused.add(share_s, now)


class EncodeBudget:
    """How many images may be encoded under overload: what the requests for embeddings that are there leave.

    Each image that is encoded will be prompted again, for a fraction of the cost. Without a bound, many images would be
    encoded of which few requests get answered.

    Which ones is not up to chance at each request: images would get in half way through their requests, and half of
    what an encode is good for be lost. Every image has a precedence for a while, by a hash, as users have in DAGOR
    (Zhou et al., "Overload Control for Scaling WeChat Microservices", SoCC 2018): the less time is saved up, the higher
    it must be. So an image's first request gets in or, most likely, none; two minutes later others have their turn.
    """

    def __init__(self, now: float) -> None:
        self._held = Decaying(_MEMORY_S, now)
        self._left_s = 0.0
        self._then = now

    def ask(self, share_s: float, now: float) -> None:
        """A request whose embedding is there, or on its way, asked for ``share_s`` seconds of all devices."""
        self._held.add(share_s, now)

    def allows(self, image: str | None, share_s: float, now: float) -> bool:
        """Whether ``share_s`` seconds may go into an encode of ``image`` (None: it has the highest precedence); they
        are taken if so."""
        most_s = max(_SAVED_S, share_s)
        rate = max(_LEAST_ENCODES, _MOST_WORK - self._held.rate(now))
        self._left_s = min(self._left_s + rate * (now - self._then), most_s)
        self._then = now
        rank = 0.0 if image is None else _rank(image, now)
        if self._left_s < share_s + rank * (most_s - share_s):
            return False
        self._left_s -= share_s
        return True


def _rank(image: str, now: float) -> float:
    """0 (first) to 1, as good as random, the same for the same image for ``_PRECEDENCE_S`` from a time of its own."""
    phase = _uniform(image)
    return _uniform(f"{math.floor(now / _PRECEDENCE_S + phase)} {image}")


def _uniform(text: str) -> float:
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest()) / 2**32
