"""The open loop on a real clock: requests go when they are due, whatever becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import gevent
import pytest

from loadtest.pacing import Watch, send
from samgate.simulation.arrival import Arrival
from samgate.simulation.outcome import End, Outcome


def due(*times_s: float, deadline_s: float = 0.2) -> Iterator[tuple[int, Arrival]]:
    for number, at_s in enumerate(times_s):
        yield number, Arrival(at_s, 0, 1.0, "point", 1, deadline_s)


@dataclass
class Server:
    """Answers after ``takes_s``; notes when it was asked."""

    takes_s: float
    asked: list[tuple[int, float]] = field(default_factory=list)
    told: dict[int, tuple[Outcome, float | None]] = field(default_factory=dict)

    def ask(self, number: int, arrival: Arrival, clock: Callable[[], float]) -> Outcome:
        self.asked.append((number, clock()))
        gevent.sleep(self.takes_s)
        return Outcome(arrival, End.ON_TIME, clock())

    def tell(self, number: int, outcome: Outcome, lag_s: float | None) -> None:
        assert number not in self.told
        self.told[number] = (outcome, lag_s)


def test_requests_go_at_their_times_while_none_is_answered() -> None:
    server = Server(takes_s=0.5)
    times_s = [0.02 * place for place in range(20)]
    send(due(*times_s, deadline_s=1.0), server.ask, server.tell, most=100)
    # All were sent before the first answer came.
    assert [number for number, _ in server.asked] == list(range(20))
    for (_, sent_s), due_s in zip(server.asked, times_s, strict=True):
        assert due_s <= sent_s < due_s + 0.1
    for number, (outcome, lag_s) in server.told.items():
        assert lag_s is not None
        assert lag_s < 0.1
        # Latency counts from when it was due.
        assert outcome.ended_s - times_s[number] == pytest.approx(0.5 + lag_s, abs=0.1)


def test_more_than_may_be_under_way_are_skipped_and_counted() -> None:
    server = Server(takes_s=0.3)
    send(due(0.0, 0.01, 0.02, 0.03, 0.04, 0.5), server.ask, server.tell, most=2)
    assert [number for number, _ in server.asked] == [0, 1, 5]
    ends = {number: outcome.end for number, (outcome, _) in server.told.items()}
    assert ends == {0: End.ON_TIME, 1: End.ON_TIME, 2: End.SKIPPED, 3: End.SKIPPED, 4: End.SKIPPED, 5: End.ON_TIME}
    assert server.told[2][1] is None


def test_a_generator_that_is_late_catches_up_and_says_how_late_it_was() -> None:
    import time

    server = Server(takes_s=0.0)

    def blocking(number: int, arrival: Arrival, clock: Callable[[], float]) -> Outcome:
        if number == 0:
            time.sleep(0.3)  # nothing else of this process runs
        return server.ask(number, arrival, clock)

    send(due(0.0, 0.1, 0.2, 0.4), blocking, server.tell, most=10)
    lags_s = [server.told[number][1] or 0.0 for number in range(4)]
    assert lags_s[0] < 0.1
    assert 0.15 < lags_s[1] < 0.35
    assert 0.05 < lags_s[2] < 0.25
    assert lags_s[3] < 0.1


def test_a_request_that_fails_in_the_generator_is_told_as_lost(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server(takes_s=0.0)

    def broken(number: int, arrival: Arrival, clock: Callable[[], float]) -> Outcome:
        raise ValueError(number)

    send(due(0.0), broken, server.tell, most=10)
    outcome, lag_s = server.told[0]
    assert (outcome.end, outcome.reason) == (End.LOST, "unfinished")
    assert lag_s is not None
    assert "ValueError" in capsys.readouterr().err


def test_the_watch_sees_an_event_loop_that_stands_still() -> None:
    import time

    watch = Watch("test", 0.0)
    gevent.sleep(0.2)
    time.sleep(0.4)
    gevent.sleep(0.1)
    node = watch.end()
    assert node.loop_lag_max_s > 0.3
    assert 0 <= node.cpu_share < 0.9
