"""The search for the capacity: right for servers that have one, careful with those that are noisy, never endless."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from loadtest.search import Found, Rules, search

RULES = Rules(most=60)
RATES = st.floats(0.01, 1e5)


def steep(capacity: float) -> Found:
    return search(lambda rate, _: 1.0 if rate <= capacity else 0.5, 8.0, RULES)


@given(RATES)
def test_the_capacity_of_a_server_that_has_one_is_found_as_closely_as_asked_for(capacity: float) -> None:
    found = steep(capacity)
    assert found.confirmed
    assert not found.limited
    assert found.rate <= capacity < found.failed <= found.rate * (1 + RULES.precision)
    counts = Counter(one.rate for one in found.trials)
    assert counts[found.rate] == counts[found.failed] == RULES.repeats


@given(RATES)
def test_it_doubles_or_halves_until_it_has_both_sides(capacity: float) -> None:
    rates = [one.rate for one in steep(capacity).trials]
    passes = [rate <= capacity for rate in rates]
    other = passes.index(not passes[0])
    factor = 2.0 if passes[0] else 0.5
    assert all(math.isclose(after, before * factor) for before, after in pairwise(rates[: other + 1]))


@given(RATES, st.floats(1e-3, 0.2), st.integers(0, 2**32), st.integers(1, 40))
def test_noise_neither_makes_it_endless_nor_has_it_report_what_mostly_failed(
    capacity: float, noise: float, seed: int, most: int
) -> None:
    random = Random(seed)

    def noisy(rate: float, _: int) -> float:
        return min(1.0, max(0.0, (1.0 if rate <= capacity else 0.9) + random.gauss(0, noise)))

    rules = Rules(most=most)
    found = search(noisy, 8.0, rules)
    assert len(found.trials) <= most
    shares = [one.share for one in found.trials if one.rate == found.rate and one.share is not None]
    passes = sum(share >= rules.target for share in shares)
    if found.rate:
        assert passes > len(shares) / 2
        assert found.rate < found.failed
    if found.confirmed:
        assert passes >= rules.repeats
        assert found.failed <= found.rate * (1 + rules.precision)


def test_of_rates_that_contradict_each_other_the_lower_counts() -> None:
    # 16 fails twice, 32 passes by luck: nobody should plan with 32.
    shares = {8.0: [1.0], 16.0: [0.95, 0.95], 32.0: [1.0]}
    asked: list[float] = []

    def probe(rate: float, _: int) -> float:
        asked.append(rate)
        return shares[rate].pop(0) if shares.get(rate) else 1.0 if rate < 16 else 0.5

    found = search(probe, 8.0, RULES)
    assert found.rate < 16
    assert asked[:3] == [8.0, 16.0, 16.0]


def test_a_near_miss_has_a_second_run_and_a_clear_one_has_not() -> None:
    def runs(share: float) -> Counter[float]:
        found = search(lambda rate, _: 1.0 if rate < 10 else share, 8.0, RULES)
        return Counter(one.rate for one in found.trials)

    assert runs(0.95)[16.0] == 2
    assert runs(0.5)[16.0] == 1


def test_a_spell_in_which_a_rate_failed_is_found_out_before_the_end() -> None:
    def probe(rate: float, place: int) -> float:
        # Run 3 is at 11.3, in the middle of somebody else's compilation.
        return 0.2 if place == 2 else 1.0 if rate <= 14 else 0.5

    found = search(probe, 8.0, RULES)
    assert found.confirmed
    assert found.rate <= 14 < found.failed


def test_a_generator_that_does_not_keep_up_is_the_limit_and_not_the_server() -> None:
    found = search(lambda rate, _: 1.0 if rate < 100 else None, 8.0, RULES)
    assert found.limited
    assert found.rate < 100 <= found.failed
    nothing = search(lambda rate, _: None, 8.0, Rules(most=6))
    assert nothing.rate == 0
    assert nothing.limited
    assert not nothing.confirmed
    assert len(nothing.trials) == 6


def test_a_run_of_which_the_generator_was_to_blame_once_is_repeated() -> None:
    found = search(lambda rate, place: None if place == 1 else 1.0 if rate <= 20 else 0.5, 8.0, RULES)
    assert [one.rate for one in found.trials[:3]] == [8.0, 16.0, 16.0]
    assert found.confirmed
    assert not found.limited


def test_one_that_answers_whatever_is_sent_is_not_confirmed() -> None:
    found = search(lambda rate, _: 1.0, 8.0, Rules(most=5))
    assert found.rate == 128
    assert math.isinf(found.failed)
    assert not found.confirmed
