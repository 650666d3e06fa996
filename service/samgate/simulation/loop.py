"""A virtual clock and what is to happen at which of its times."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

Event = list[Any]
"""Time, sequence, function (None: cancelled), argument. Lists compare without calling Python code."""


class Loop:
    """Runs what is due, in order of time; at equal times in the order in which it was asked for."""

    __slots__ = ("_events", "_sequence", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[Event] = []
        self._sequence = itertools.count()

    def at(self, time_s: float, function: Callable[[Any], None], argument: Any) -> Event:
        """Call ``function(argument)`` at ``time_s``, or now if that has passed."""
        event: Event = [max(time_s, self.now), next(self._sequence), function, argument]
        heapq.heappush(self._events, event)
        return event

    def cancel(self, event: Event) -> None:
        """``event`` doesn't happen."""
        event[2] = None

    def run(self) -> None:
        """Run until nothing is left to happen."""
        events = self._events
        while events:
            at, _, function, argument = heapq.heappop(events)
            if function is not None:
                self.now = at
                function(argument)
