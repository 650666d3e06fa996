"""The truth about a processor: what runs on it, how fast, until when. What the scheduler only believes is its own."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from random import Random
from typing import Any, Literal

from samgate.scheduling.profile import Line
from samgate.simulation.loop import Loop

Kind = Literal["encode", "decode", "imaging"]

_P95 = 1.6448536269514722
"""Standard deviations between the median and the 95th percentile of a normal distribution."""
_LEAST_RATIO = 0.05
_SAME_S = 1e-10
"""Times closer than this differ by rounding alone."""


def draw_seconds(line: Line, size: float, random: Random) -> float:
    """How long one call of ``size`` takes alone: lognormal, with the line as its 95th percentile and ``median_ratio``
    of that as its median. Exactly the line where the ratio is 1."""
    seconds = line(size)
    if line.median_ratio >= 1.0 or seconds <= 0:
        return seconds
    # ln p95 = ln median + 1.645 σ. A ratio near 0 would mean a tail without bounds.
    log_ratio = math.log(max(line.median_ratio, _LEAST_RATIO))
    return seconds * math.exp(log_ratio + random.gauss(0.0, 1.0) * -log_ratio / _P95)


class Task:
    """Something that runs: ``end`` is what its processor's own time will be when it is done."""

    __slots__ = ("done", "end", "kind", "live", "load")

    def __init__(self, kind: Kind, end: float, done: Callable[[Any], None], load: Any) -> None:
        self.kind, self.end, self.done, self.load = kind, end, done, load
        self.live = True


class Processor:
    """Shares itself equally among what runs on it (processor sharing).

    Calls of one stage count as one sharer however many there are, since instances run side by side at full speed;
    where ``shared``, those of the other stage count as another. Each imaging task counts as ``weight`` of a sharer.
    While there are more than one sharer in sum, everything runs at one over that sum of its speed alone, and over
    ``crowding``, what they lose by disturbing each other. ``slow`` divides the speed further.

    Its own time runs at that speed, so all that is known of a task is at which of its times it ends.
    """

    __slots__ = ("_counts", "_crowding", "_heap", "_loop", "_next", "_rate", "_sequence", "_shared", "_slow", "_then",
                 "_time", "_weight", "busy_from", "busy_s", "busy_to")  # fmt: skip

    def __init__(self, loop: Loop, *, shared: bool, weight: float = 0.0, crowding: float = 1.0) -> None:
        self._loop = loop
        self._shared, self._weight, self._crowding = shared, weight, crowding
        self._slow = 1.0
        self._counts = {"encode": 0, "decode": 0, "imaging": 0}
        self._heap: list[tuple[float, int, Task]] = []
        self._sequence = 0
        self._time, self._then, self._rate = 0.0, 0.0, 1.0
        self._next: list[Any] | None = None
        self.busy_from, self.busy_to = 0.0, math.inf
        """What counts as busy: the time between these."""
        self.busy_s = 0.0
        """For how many seconds of it an encoder or decoder call was running."""

    def start(self, kind: Kind, seconds: float, done: Callable[[Any], None], load: Any) -> Task:
        """Run something that takes ``seconds`` alone; ``done(load)`` when it has ended."""
        self._advance()
        task = Task(kind, self._time + seconds, done, load)
        self._sequence += 1
        heapq.heappush(self._heap, (task.end, self._sequence, task))
        self._counts[kind] += 1
        self._plan()
        return task

    def stop(self, task: Task) -> None:
        """``task`` is lost: it never ends."""
        if task.live:
            self._advance()
            task.live = False
            self._counts[task.kind] -= 1
            self._plan()

    def slow(self, factor: float) -> None:
        """Everything takes ``factor`` times as long from now on."""
        self._advance()
        self._slow = factor
        self._plan()

    def _advance(self) -> None:
        now = self._loop.now
        elapsed = now - self._then
        if elapsed > 0:
            self._time += elapsed * self._rate
            if self._counts["encode"] or self._counts["decode"]:
                self.busy_s += max(0.0, min(now, self.busy_to) - max(self._then, self.busy_from))
            self._then = now

    def _plan(self) -> None:
        counts = self._counts
        if self._shared:
            sharers = (counts["encode"] > 0) + (counts["decode"] > 0) + self._weight * counts["imaging"]
        else:
            sharers = (counts["encode"] > 0 or counts["decode"] > 0) + self._weight * counts["imaging"]
        self._rate = 1.0 / ((sharers * self._crowding if sharers > 1.0 else 1.0) * self._slow)
        while self._heap and not self._heap[0][-1].live:
            heapq.heappop(self._heap)
        event = self._next
        if not self._heap:
            if event is not None:
                self._loop.cancel(event)
                self._next = None
            return
        at = self._then + max(0.0, self._heap[0][0] - self._time) / self._rate
        if event is not None:
            if abs(event[0] - at) < _SAME_S:
                return
            self._loop.cancel(event)
        self._next = self._loop.at(at, self._ended, None)

    def _ended(self, _: Any) -> None:
        self._next = None
        self._advance()
        end, _, task = heapq.heappop(self._heap)
        self._time = max(self._time, end)
        task.live = False
        self._counts[task.kind] -= 1
        self._plan()
        task.done(task.load)
