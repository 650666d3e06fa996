"""Which images are encoded under overload."""

from __future__ import annotations

import pytest

from samgate.scheduling.learning import EncodeBudget

ENCODE_S = 0.1


def admitted(budget: EncodeBudget, images: list[str], every_s: float, begin: float = 0.0) -> list[str]:
    """Those of ``images``, which come one after the other, that may be encoded."""
    return [image for turn, image in enumerate(images) if budget.allows(image, ENCODE_S, begin + turn * every_s)]


def test_encodes_get_nearly_all_of_the_time_when_nothing_else_is_asked_for() -> None:
    # 20 images a second, of which 9.5 fit; the first two seconds' worth isn't saved up yet.
    images = [str(number) for number in range(2000)]
    assert len(admitted(EncodeBudget(0.0), images, 0.05)) == pytest.approx(950, rel=0.05)


def test_requests_for_held_embeddings_go_first() -> None:
    budget = EncodeBudget(0.0)
    found = 0
    for turn in range(2000):
        now = turn * 0.05
        budget.ask(0.03, now)  # 0.6 of the devices
        found += budget.allows(str(turn), ENCODE_S, now)
    assert found == pytest.approx(100 * 0.35 / ENCODE_S, rel=0.1)


def test_a_tenth_of_the_time_is_always_for_encodes() -> None:
    budget = EncodeBudget(0.0)
    found = 0
    for turn in range(2000):
        now = turn * 0.05
        budget.ask(0.1, now)  # twice what there is
        found += budget.allows(str(turn), ENCODE_S, now)
    assert found == pytest.approx(100 * 0.1 / ENCODE_S, rel=0.1)


def test_an_image_gets_in_at_its_first_request_or_hardly_ever() -> None:
    budget = EncodeBudget(0.0)
    requests = [str(number) for number in range(300)] * 8  # round after round, each of 15 s
    by_round = [admitted(budget, requests[:300], 0.05, begin=15.0 * turn) for turn in range(8)]
    first = set(by_round[2])
    # Which are in stays much the same: by chance less than half of one round would be in the next as well.
    assert 100 < len(first) < 170
    assert len(first & set(by_round[3])) > 0.85 * len(first)
    # Two minutes after, all have had a new rank.
    later = set(admitted(budget, requests[:300], 0.05, begin=15.0 * 2 + 120.0))
    assert len(first & later) < 0.7 * len(first)


def test_nothing_is_saved_up_beyond_two_seconds_and_a_longer_encode_gets_its_turn() -> None:
    budget = EncodeBudget(0.0)
    assert sum(budget.allows(None, 0.125, 1000.0) for _ in range(100)) == 16
    assert not budget.allows(None, 5.0, 1001.0)
    assert budget.allows(None, 5.0, 1007.0)
    assert budget.allows("any", 5.0, 1020.0)
