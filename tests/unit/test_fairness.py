"""Shares among clients, and the backstop."""

from __future__ import annotations

import pytest

from samgate.scheduling.fairness import ConcurrencyLimit, FairShares


def flood(shares: FairShares, client: str, now: float, seconds: float = 100.0) -> None:
    """``client`` asks for far more than can be done."""
    shares.ask(client, seconds, now)


def test_a_client_alone_has_everything() -> None:
    shares = FairShares(0.0)
    flood(shares, "a", 0.0)
    shares.admit("a", 50.0)
    assert shares.allows("a", 1.0, 1.0, 0.0)


def test_while_nobody_is_short_nobody_is_bounded() -> None:
    shares = FairShares(0.0)
    for client in ("a", "b"):
        shares.ask(client, 0.1, 0.0)
        shares.admit(client, 50.0)
        assert shares.allows(client, 1.0, 1.0, 0.0)


@pytest.mark.parametrize(("weights", "expected"), [({}, 0.5), ({"a": 3.0}, 0.7), ({"a": 0.25}, 0.2)])
def test_floods_share_by_weight_up_to_a_bound(weights: dict[str, float], expected: float) -> None:
    shares = FairShares(0.0, lambda client: weights.get(client, 1.0))
    for client in ("a", "b"):
        flood(shares, client, 0.0)
    assert shares.allows("a", 5.0, 1.0, 0.0)  # one may always be under way
    shares.admit("a", 0.01)
    assert shares.allows("a", expected - 0.02, 1.0, 0.0)
    assert not shares.allows("a", expected, 1.0, 0.0)


def test_what_calm_clients_leave_goes_to_the_flood() -> None:
    shares = FairShares(0.0)
    flood(shares, "flood", 0.0)
    for client in ("b", "c", "d", "e", "f", "g", "h", "i", "j"):
        shares.ask(client, 0.2, 0.0)  # 0.36 of the device in all
    shares.admit("flood", 0.01)
    assert shares.allows("flood", 0.6, 1.0, 0.0)
    assert not shares.allows("flood", 0.66, 1.0, 0.0)
    shares.admit("b", 0.02)
    assert shares.allows("b", 0.05, 1.0, 0.0)


def test_clients_that_ask_no_more_are_forgotten() -> None:
    shares = FairShares(0.0)
    for number in range(10_000):
        shares.ask(f"client {number}", 1.0, 0.0)
    assert len(shares._clients) == 4096
    flood(shares, "late", 60.0)
    assert list(shares._clients) == ["late"]
    shares.admit("client 9999", -1.0)  # its end is nobody's concern any more
    shares.admit("late", 5.0)
    shares.admit("late", -5.0)
    assert shares.allows("late", 9.0, 1.0, 60.0)


def test_who_asks_for_no_more_than_its_part_is_modest() -> None:
    shares = FairShares(0.0, {"heavy": 3.0, "light": 1.0}.__getitem__)
    shares.ask("heavy", 5.0, 0.0)
    assert not shares.modest("heavy", 0.0)  # nobody else is there
    shares.ask("light", 0.5, 0.0)
    # A second of the devices' each: of 4 parts heavy has 3. Rates are over five seconds.
    assert not shares.modest("heavy", 0.0)
    assert shares.modest("light", 0.0)
    shares.ask("light", 1.0, 0.0)
    assert not shares.modest("light", 0.0)
    assert shares.modest("heavy", 2.0)


def test_the_limit_shrinks_while_answers_are_late_and_grows_again() -> None:
    limit = ConcurrencyLimit(256)
    for _ in range(100):
        limit.observe(1.0, 5.0, on_time=True)
    assert limit.limit == 256
    for _ in range(200):
        limit.observe(1.0, 5.0, on_time=False)
    assert limit.limit == 8
    for _ in range(200):
        limit.observe(1.0, 1.0, on_time=True)
    assert limit.limit == 256
