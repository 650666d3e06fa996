"""When a model on a server is left alone, and when it gets another chance."""

from __future__ import annotations

from samgate.engines.triton.breaker import Breaker, State


def allows(breaker: Breaker) -> bool:
    return breaker.allows


def state(breaker: Breaker) -> State:
    return breaker.state


def test_a_failure_opens_and_one_call_decides() -> None:
    breaker = Breaker(hang_s=10)
    breaker.begin()
    assert breaker.fail()
    assert not allows(breaker)
    breaker.try_again()
    assert state(breaker) is State.TRYING
    assert allows(breaker)
    breaker.begin()
    assert not allows(breaker)
    breaker.succeed()
    assert state(breaker) is State.CLOSED


def test_calls_that_fail_together_open_once() -> None:
    breaker = Breaker(hang_s=10)
    assert [breaker.fail(), breaker.fail(), breaker.fail()] == [True, False, False]
    assert breaker.pause_s == 0.25


def test_pauses_double_up_to_the_longest() -> None:
    breaker = Breaker(hang_s=10, first_pause_s=1, longest_pause_s=5)
    pauses = []
    for _ in range(5):
        breaker.fail()
        pauses.append(breaker.pause_s)
        breaker.try_again()
        breaker.begin()
    assert pauses == [1, 2, 4, 5, 5]
    breaker.fail()
    breaker.still_bad()
    assert breaker.pause_s == 5
    breaker.succeed()
    breaker.fail()
    assert breaker.pause_s == 1


def test_short_deadlines_do_not_hide_a_hang() -> None:
    breaker = Breaker(hang_s=10)
    assert not any(breaker.waste(2) for _ in range(4))
    assert allows(breaker)
    assert breaker.waste(2)
    assert not allows(breaker)


def test_a_success_forgives_what_was_wasted() -> None:
    breaker = Breaker(hang_s=10)
    breaker.waste(9)
    breaker.succeed()
    assert not breaker.waste(9)


def test_a_try_that_is_given_up_leaves_room_for_another() -> None:
    breaker = Breaker(hang_s=10)
    breaker.fail()
    breaker.try_again()
    breaker.begin()
    breaker.waste(1)
    assert allows(breaker)
