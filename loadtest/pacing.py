"""The open loop: every request goes at its time, whatever became of those before it. A greenlet a request."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator

import gevent
from gevent.pool import Group

from loadtest.health import Node
from samgate.simulation.arrival import Arrival
from samgate.simulation.outcome import End, Outcome
from samgate.simulation.summary import percentile

Ask = Callable[[int, Arrival, Callable[[], float]], Outcome]
Tell = Callable[[int, Outcome, float | None], None]

_GRACE_S = 5.0
_TICK_S = 0.05
_MOST_TICKS = 100_000


def send(planned: Iterator[tuple[int, Arrival]], ask: Ask, tell: Tell, most: int) -> None:
    """Send each of ``planned`` with ``ask`` when it is due, counted from now; ``tell`` its outcome and how late it was
    sent. One that is due while ``most`` are under way is skipped. Returns when the last has ended, or should have."""
    calls: Group = Group()
    begun = time.perf_counter()
    last_s = 0.0

    def clock() -> float:
        return time.perf_counter() - begun

    def one(number: int, arrival: Arrival) -> None:
        lag_s = clock() - arrival.at_s
        outcome = Outcome(arrival, End.LOST, arrival.at_s, reason="unfinished")
        try:
            outcome = ask(number, arrival, clock)
        finally:
            tell(number, outcome, lag_s)

    try:
        for number, arrival in planned:
            # Also when nothing is to be waited for: what was spawned has to get its turn.
            gevent.sleep(max(arrival.at_s - clock(), 0.0))
            if len(calls) >= most:
                tell(number, Outcome(arrival, End.SKIPPED, arrival.at_s), None)
                continue
            calls.spawn(one, number, arrival)
            last_s = max(last_s, arrival.at_s + arrival.deadline_s)
        calls.join(timeout=max(last_s - clock(), 0.0) + _GRACE_S)
    finally:
        calls.kill()


class Watch:
    """Watches over this process while it sends: how late its event loop wakes up, how much of a core it uses."""

    def __init__(self, name: str, ready_s: float) -> None:
        self._name, self._ready_s = name, ready_s
        self._lags_s: deque[float] = deque(maxlen=_MOST_TICKS)
        self._begun, self._cpu_s = time.perf_counter(), time.process_time()
        self._ticking = gevent.spawn(self._tick)

    def end(self) -> Node:
        """Stop watching; what was seen."""
        self._ticking.kill()
        ascending = sorted(self._lags_s)
        return Node(
            name=self._name,
            loop_lag_p99_s=percentile(ascending, 0.99) or 0.0,
            loop_lag_max_s=ascending[-1] if ascending else 0.0,
            cpu_share=(time.process_time() - self._cpu_s) / max(time.perf_counter() - self._begun, 1e-9),
            ready_s=self._ready_s,
        )

    def _tick(self) -> None:
        while True:
            due = time.perf_counter() + _TICK_S
            gevent.sleep(_TICK_S)
            self._lags_s.append(time.perf_counter() - due)
