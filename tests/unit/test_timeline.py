"""The timeline against a plain list of reservations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from samgate.scheduling.timeline import Reservation, Timeline

ROUNDING = 1 / 24
"""Of the time left, by which a deadline is rounded down at most; and a slot of 2 ms."""


def test_slots_are_fine_near_now_and_coarse_far_away() -> None:
    timeline = Timeline(1, 1000.0)
    for seconds in (0.01, 0.1, 0.4, 1.0, 3.0, 10.0, 60.0, 200.0):
        edge = float(timeline.edges[timeline.slot(1000.0 + seconds)])
        assert 1000.0 + seconds - max(0.004, ROUNDING * seconds) <= edge <= 1000.0 + seconds
    assert timeline.slot(1e9) == len(timeline.edges) - 1
    assert timeline.slot(0.0) == 0


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.floats(0.0, 400.0), st.floats(0.001, 2.0), st.integers(0, 1)),
        st.tuples(st.just("take"), st.integers(0, 30), st.floats(0.1, 1.0)),
        st.tuples(st.just("advance"), st.floats(0.0, 30.0)),
    ),
    max_size=50,
)


@given(STEPS)
@example(
    [("advance", 1.0), ("reserve", 306.0, 1.0, 0), ("advance", 1.0), ("advance", 1.0), ("take", 0, 0.5)]
)  # the last slot began later, then earlier, then later again
def test_what_is_due_by_when_is_what_was_reserved_and_not_taken(steps: list[tuple[object, ...]]) -> None:
    now = 5.0
    timeline = Timeline(2, now)
    held: list[tuple[Reservation, float, float]] = []  # with the deadline, and the time it was made
    for step in steps:
        match step:
            case ("reserve", float(seconds), float(work), int(row)):
                held.append((timeline.reserve(row, timeline.slot(now + seconds), work), now + seconds, now))
            case ("take", int(index), float(share)) if index < len(held):
                timeline.take(held[index][0], share * held[index][0].work)
            case ("advance", float(seconds)):
                now += seconds
                timeline.advance(now)
        for row in (0, 1):
            mine = [entry for entry in held if entry[0].row == row]
            assert timeline.total[row] == pytest.approx(sum(one.work for one, *_ in mine), abs=1e-9)
            for when in (now + 0.3, now + 2.0, now + 50.0):
                due = float(timeline.due[row, timeline.slot(when)])
                # Everything due by then counts, and nothing that is due later by more than the rounding.
                surely = sum(one.work for one, deadline, _ in mine if deadline <= when - max(2.1, 0.1 * (when - now)))
                maybe = sum(
                    one.work
                    for one, deadline, made in mine
                    if min(deadline, made + 257) <= when + max(2.1, 0.1 * (deadline - made))
                )
                assert surely - 1e-9 <= due <= maybe + 1e-9
        assert np.all(np.diff(timeline.due, axis=1) >= -1e-9)


def test_nothing_is_left_of_what_was_taken_back() -> None:
    timeline = Timeline(1, 0.0)
    reservations = [timeline.reserve(0, timeline.slot(0.1 * index), 0.1) for index in range(100)]
    for step, reservation in enumerate(reservations):
        timeline.advance(0.05 * step)
        timeline.take(reservation)
        timeline.take(reservation)
    assert np.all(timeline.due == 0.0)
