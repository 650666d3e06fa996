"""Which image a request is about: sessions on images one after the other, or a catalogue of which some are popular."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from samgate.simulation.draws import Numbers


@dataclass(frozen=True, slots=True)
class Sessions:
    """A new image every ``requests_per_image`` requests on average; the others go to one of the images that are at
    most ``session_s`` seconds old, each as likely, or to the latest when none is."""

    requests_per_image: float
    session_s: float


@dataclass(frozen=True, slots=True)
class Catalogue:
    """``size`` images, the k-th of them asked for in proportion to ``k ** -exponent`` (Zipf)."""

    size: int
    exponent: float


class Pictures:
    """Draws images: their number, and their size in megapixels, the same whenever the number is."""

    def __init__(self, popularity: Sessions | Catalogue, megapixels: Numbers, random: Random) -> None:
        self._popularity = popularity
        self._megapixels = megapixels
        self._random = random
        self._salt = random.getrandbits(64)
        self._sessions: deque[tuple[float, int, float]] = deque()
        self._next = 0
        self._bounds: list[float] = []
        if isinstance(popularity, Catalogue):
            self._bounds = list(accumulate((rank + 1) ** -popularity.exponent for rank in range(popularity.size)))

    def next(self, at_s: float) -> tuple[int, float]:
        """The image of a request at ``at_s``, which must not run backwards, and its megapixels."""
        if isinstance(self._popularity, Catalogue):
            place = bisect_right(self._bounds, self._random.random() * self._bounds[-1])
            image = min(place, len(self._bounds) - 1)
            return image, self._megapixels.draw(Random(self._salt + image))
        sessions, oldest = self._sessions, at_s - self._popularity.session_s
        while len(sessions) > 1 and sessions[0][0] < oldest:
            sessions.popleft()
        if not sessions or self._random.random() * self._popularity.requests_per_image < 1.0:
            sessions.append((at_s, self._next, self._megapixels.draw(self._random)))
            self._next += 1
            found = sessions[-1]
        else:
            found = sessions[int(self._random.random() * len(sessions))]
        return found[1], found[2]
