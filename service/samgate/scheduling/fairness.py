"""Shares of the devices among clients: one's flood takes what others leave, and no more."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from samgate.scheduling.learning import Decaying

_ACTIVE_S = 5.0
_MAX_CLIENTS = 4096
_CONTENDED = 0.9
_LARGEST_SHARE = 0.7
"""Of what can be done until a deadline, to one of several clients: the others' next request has to find room."""


@dataclass(slots=True)
class _Client:
    weight: float
    asked: Decaying
    seen: float
    waiting_s: float = field(default=0.0)


class FairShares:
    """Bounds each client's admitted work while more is asked for than can be done.

    A client may always have one request under way. Beyond that, its admitted work may fill its share of the time until
    its deadline: its weight's part among the clients of the last seconds, or what the others leave, if that is more.

    Args:
        weight: of a client, asked when it turns up.
    """

    def __init__(self, now: float, weight: Callable[[str], float] = lambda client: 1.0) -> None:
        self._weight_of = weight
        self._clients: OrderedDict[str, _Client] = OrderedDict()
        self._weight = 0.0
        self._asked = Decaying(_ACTIVE_S, now)

    def ask(self, client: str, share_s: float, now: float) -> None:
        """``client`` asked for ``share_s`` seconds of all devices together."""
        known = self._clients.get(client)
        if known is None:
            known = _Client(self._weight_of(client), Decaying(_ACTIVE_S, now), now)
            self._clients[client] = known
            self._weight += known.weight
        known.seen = now
        self._clients.move_to_end(client)
        known.asked.add(share_s, now)
        self._asked.add(share_s, now)
        if len(self._clients) > 1:
            self._forget(now)

    def allows(self, client: str, share_s: float, time_s: float, now: float) -> bool:
        """Whether ``client``, that has just asked, may have ``share_s`` more seconds within the next ``time_s``."""
        known = self._clients[client]
        if known.waiting_s <= 0 or len(self._clients) < 2 or self._asked.rate(now) <= _CONTENDED:
            return True
        others = max(0.0, self._asked.rate(now) - known.asked.rate(now))
        share = min(max(known.weight / self._weight, 1.0 - others), _LARGEST_SHARE)
        return known.waiting_s + share_s <= share * time_s

    def modest(self, client: str, now: float) -> bool:
        """Whether ``client``, that has just asked, asks for no more than its part while others ask, too."""
        known = self._clients[client]
        return len(self._clients) > 1 and known.asked.rate(now) <= known.weight / self._weight

    def admit(self, client: str, share_s: float) -> None:
        """``client`` has ``share_s`` more seconds of work under way, or less where negative."""
        known = self._clients.get(client)
        if known is not None:
            known.waiting_s = max(0.0, known.waiting_s + share_s)
            if known.waiting_s < 1e-9:
                known.waiting_s = 0.0

    def _forget(self, now: float) -> None:
        while True:  # who has just asked stays
            name, oldest = next(iter(self._clients.items()))
            if oldest.seen > now - _ACTIVE_S and len(self._clients) <= _MAX_CLIENTS:
                return
            del self._clients[name]
            self._weight -= oldest.weight


class ConcurrencyLimit:
    """The backstop: how many requests may be under way, should predictions turn out wrong.

    Netflix's Gradient2 with the prediction in place of the long-term average: ``limit ← limit · clamp(predicted /
    actual, 0.5, 1) + √limit``, smoothed. What is on time counts as predicted: a request may have to let more urgent
    ones pass, and only lateness says that too many were admitted.
    """

    def __init__(self, highest: int, lowest: int = 8) -> None:
        self._highest, self._lowest = highest, min(lowest, highest)
        self._limit = float(highest)

    @property
    def limit(self) -> int:
        """Requests."""
        return int(self._limit)

    def observe(self, predicted_s: float, actual_s: float, *, on_time: bool) -> None:
        """A request that was to take ``predicted_s`` took ``actual_s``."""
        gradient = 1.0 if on_time or actual_s <= 0 else min(max(predicted_s / actual_s, 0.5), 1.0)
        wanted = self._limit * gradient + self._limit**0.5
        self._limit = min(max(0.8 * self._limit + 0.2 * wanted, self._lowest), self._highest)
