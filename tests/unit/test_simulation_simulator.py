"""Simulations against what can be computed by hand or from theory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from samgate.scheduling.policy import POLICIES
from samgate.scheduling.profile import Line
from samgate.simulation.capacity import capacity
from samgate.simulation.fleet import Trouble
from samgate.simulation.outcome import End, Outcome
from samgate.simulation.runs import Study, run_study
from samgate.simulation.simulator import merged
from samgate.simulation.summary import percentile, summarise
from samgate.simulation.workload import arrivals
from simulation_support import Rules, fleet, point, run, trace, two_cores, workload

SLOW = point("a:x", 0.1, Line(0.0, 0.02), prepare=Line(0.01, 0.03), finish=Line(0.0, 0.005))


def latencies(outcomes: list[Outcome]) -> list[float]:
    return [one.ended_s - one.arrival.at_s for one in outcomes]


def test_a_request_alone_takes_the_sum_of_its_stages(tmp_path: Path) -> None:
    found = run(trace(tmp_path, [{"at_s": 1, "prompts": 2}]), fleet(SLOW, overhead_s=0.004))
    assert latencies(found.outcomes) == [pytest.approx(0.04 + 0.1 + 0.04 + 0.01 + 0.004)]
    assert found.outcomes[0].end is End.ON_TIME


def test_requests_for_one_image_share_an_encode_and_later_ones_its_embedding(tmp_path: Path) -> None:
    rules = Rules()
    found = run(trace(tmp_path, [{"at_s": at} for at in (0, 0.02, 0.1, 1)]), fleet(SLOW), watch=rules)
    assert [stage for _, _, stage, _ in rules.started].count("encode") == 1
    first, second, third, cached = found.outcomes
    assert [one.joined for one in found.outcomes] == [False, True, True, False]
    assert [one.cached for one in found.outcomes] == [False, False, False, True]
    # The encode is done at 0.14; all three are decoded in one call, of 3 · 0.02 s, and their masks made side by side.
    assert {round(one.ended_s, 6) for one in (first, second, third)} == {0.205}
    assert cached.ended_s == pytest.approx(1.025)


@pytest.mark.parametrize(("embeddings", "again"), [(0, False), (1, False), (2, True)])
def test_the_cache_is_as_large_as_the_fleet_says(tmp_path: Path, embeddings: int, again: bool) -> None:
    entries = [{"at_s": at, "image": image} for at, image in ((0, 0), (1, 1), (2, 0))]
    found = run(trace(tmp_path, entries), fleet(SLOW, embeddings=embeddings))
    assert [one.cached for one in found.outcomes] == [False, False, again]


def test_under_overload_a_slow_spell_lets_in_fewer_images() -> None:
    """Counted in the time that encodes take on an idle device, too many got in, and their prompts were late."""
    slow = two_cores(embeddings=128, threads=3, troubles=(Trouble(0, 0, 0.0, 400.0, 1.5),))
    work = workload({"deadline_s": {"choices": {0.5: 1, 1: 2, 2: 1}}}, per_image=16, warmup_s=10)
    most, overloaded = (summarise(run(work, slow, rate=rate), 1.0) for rate in (40, 90))
    assert most.attainment > 0.99
    assert overloaded.on_time_of_admitted is not None
    assert overloaded.on_time_of_admitted > 0.99
    assert overloaded.goodput > most.goodput


def test_a_request_of_a_failed_device_goes_to_another(tmp_path: Path) -> None:
    rules = Rules()
    broken = fleet(SLOW, devices=2, troubles=(Trouble(0, 0, 0.1, 5.0), Trouble(0, 1, 0.02, 0.03)))
    found = run(trace(tmp_path, [{"at_s": 0}, {"at_s": 6}]), broken, watch=rules)
    assert [one.end for one in found.outcomes] == [End.ON_TIME] * 2
    # Prepared and encoded anew from 0.1 on.
    assert found.outcomes[0].ended_s == pytest.approx(0.1 + 0.04 + 0.1 + 0.02 + 0.005)
    assert [device for at, device, stage, _ in rules.started if stage == "encode" and at < 1] == ["device0", "device1"]
    rules.at_rest()


@pytest.mark.parametrize(("deadline_s", "reason"), [(10, "down"), (0.25, "deadline")])
def test_a_request_that_cannot_be_done_again_is_lost(tmp_path: Path, deadline_s: float, reason: str) -> None:
    devices = 1 if reason == "down" else 2
    broken = fleet(SLOW, devices=devices, troubles=(Trouble(0, 0, 0.13, 5.0),))
    found = run(trace(tmp_path, [{"at_s": 0, "deadline_s": deadline_s}, {"at_s": 6}]), broken)
    assert [(one.end, one.reason) for one in found.outcomes] == [(End.LOST, reason), (End.ON_TIME, "")]


def test_those_who_wait_for_an_encode_of_a_failed_device_begin_anew(tmp_path: Path) -> None:
    rules = Rules()
    broken = fleet(SLOW, devices=2, troubles=(Trouble(0, 0, 0.1, 5.0),))
    found = run(trace(tmp_path, [{"at_s": 0}, {"at_s": 0.05}]), broken, watch=rules)
    assert [one.end for one in found.outcomes] == [End.ON_TIME] * 2
    assert [stage for _, _, stage, _ in rules.started].count("encode") == 2
    rules.at_rest()


def test_a_refused_client_tries_again_as_often_as_the_workload_says(tmp_path: Path) -> None:
    down = fleet(SLOW, troubles=(Trouble(0, 0, 0.0, 1.5),))
    once = trace(tmp_path, [{"at_s": 0.5}])
    assert [one.end for one in run(once, down).outcomes] == [End.REFUSED]
    retried = run(replace(once, retries=3), down).outcomes[0]
    # The scheduler's hint is a second.
    assert (retried.end, retried.attempts) == (End.ON_TIME, 2)
    assert retried.ended_s == pytest.approx(1.5 + 0.165)


def test_pieces_of_segevery_go_two_at_a_time(tmp_path: Path) -> None:
    most = 0

    class Watching(Rules):
        def __call__(self, *step: object) -> None:
            nonlocal most
            super().__call__(*step)  # type: ignore[arg-type]
            for scheduler in self.schedulers:
                device = scheduler.devices["device0"]
                running = sum(len(batch.works) for batch in device.running["decode"])
                most = max(most, len(device.queues["decode"]) + running)

    rules = Watching()
    entry = {"at_s": 0, "prompts": 50, "everything": True}
    found = run(trace(tmp_path, [entry]), fleet(SLOW), watch=rules)
    assert found.outcomes[0].end is End.ON_TIME
    assert sum(sum(sizes) for _, _, stage, sizes in rules.started if stage == "decode") == 50
    assert most == 2


def test_waiting_is_what_theory_says_of_one_server_with_fixed_service_times() -> None:
    # M/D/1 at 70%: the mean wait is ρ s / 2 (1 − ρ) = 0.1167 s. Waits of 10,000 requests in a row, which depend on each
    # other, give their mean to within some 4%.
    single = fleet(point("a:x", 0.1, Line(0.0, 1e-9)), shared=False)
    steady = workload({"deadline_s": 10_000}, rate=7, duration_s=1430)
    found = latencies(run(steady, single, "static-fast").outcomes)
    assert len(found) > 9_500
    assert sum(found) / len(found) - 0.1 == pytest.approx(0.7 * 0.1 / 2 / 0.3, rel=0.15)


def test_utilisation_is_what_arrives_times_what_it_takes() -> None:
    single = fleet(point("a:x", 0.1, Line(0.0, 1e-9)), shared=False, devices=2)
    found = run(workload({"deadline_s": 100}, rate=8, duration_s=300), single, "static-fast")
    # 2,400 requests, deviation 2%; half of 0.8 for each of two devices.
    assert found.utilisation == pytest.approx(8 * 0.1 / 2, rel=0.08)


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_every_arrival_ends_once_whatever_the_policy(policy: str) -> None:
    busy = workload({}, {"everything": True, "prompts": 100, "deadline_s": 5, "weight": 0.1}, rate=15, per_image=3)
    rules = Rules()
    found = run(busy, two_cores(embeddings=4, troubles=(Trouble(0, 0, 20, 25),)), policy, watch=rules)
    assert [one.arrival for one in found.outcomes] == list(arrivals(busy, 0))
    rules.at_rest()


def test_the_same_seed_gives_the_same_report_and_another_one_another() -> None:
    study = Study(workload(rate=8), two_cores(), ("samgate", "infaas"), (0.5, 1.0))
    first = run_study(study)
    assert first == run_study(study)
    assert [(one.policy, one.load) for one in first] == [
        ("samgate", 0.5),
        ("samgate", 1),
        ("infaas", 0.5),
        ("infaas", 1),
    ]
    assert first != run_study(replace(study, seed=1))


@pytest.mark.parametrize("balance", ["round_robin", "random", "hash"])
def test_parts_of_a_fleet_make_the_whole(balance: str) -> None:
    many = two_cores(gateways=4, balance=balance)
    work = workload(rate=20, per_image=4, duration_s=20)
    whole = run(work, many)
    parts = merged([run(work, many, part=(place, 2)) for place in range(2)])
    assert parts.utilisation == pytest.approx(whole.utilisation)
    assert summarise(replace(parts, utilisation=whole.utilisation), 1.0) == summarise(whole, 1.0)


def test_a_balancer_by_image_finds_embeddings_and_one_in_turn_seldom_does() -> None:
    work = workload(rate=10, per_image=8, duration_s=60)
    cached = {
        balance: summarise(run(work, two_cores(gateways=8, balance=balance)), 1.0).cached
        for balance in ("hash", "round_robin", "least_loaded")
    }
    assert cached["hash"] > cached["round_robin"] + 0.2
    assert cached["hash"] > cached["least_loaded"] + 0.2


def test_figures_are_of_what_came_after_the_warm_up(tmp_path: Path) -> None:
    entries: list[dict[str, Any]] = []
    entries += [{"at_s": at, "image": image} for at, image in ((0, 0), (10, 1), (20, 2), (30, 2))]
    entries += [{"at_s": 40, "deadline_s": 0.01}, {"at_s": 50, "min_accuracy": 0.9}]
    found = run(replace(trace(tmp_path, entries), warmup_s=5.0), fleet(SLOW, overhead_s=0.001))
    figures = summarise(found, 1.0)
    assert figures.sent == 5
    assert figures.attainment == pytest.approx(0.6)
    assert figures.goodput == pytest.approx(3 / 995)
    assert figures.accuracy == pytest.approx(0.7)
    assert figures.value == pytest.approx(0.42)
    assert figures.refused == {"deadline": 0.2, "accuracy": 0.2}
    assert figures.on_time_of_admitted == 1.0
    assert figures.cached == pytest.approx(1 / 3)
    assert figures.points == {"a:x": 1.0}
    assert figures.p50_s == pytest.approx(0.166)
    assert figures.attainment_everything is None


def test_percentiles_are_nearest_ranks() -> None:
    assert percentile([], 0.5) is None
    assert [percentile(range(1, 101), share) for share in (0.0, 0.5, 0.95, 0.99, 1.0)] == [1, 50, 95, 99, 100]


def test_bisection_finds_the_highest_rate_that_passes() -> None:
    found = capacity(lambda rate: 1.0 if rate <= 12.3 else 0.9, start=2.0)
    near = capacity(lambda rate: 1.0 if rate <= 12.3 else 0.9, start=12.0, stride=1.25, precision=0.08)
    assert [rate for rate, _ in near.trials] == pytest.approx([12.0, 15.0, 13.5, 12.75])
    assert found.rate <= 12.3 < found.failed <= 1.02 * found.rate
    assert capacity(lambda rate: 0.0, start=1.0, most_trials=10).rate == 0.0
    assert capacity(lambda rate: 1.0, start=1.0, most_trials=10).failed == float("inf")
    assert capacity(lambda rate: 1.0 if rate <= 0.01 else 0.9, start=1.0).rate == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize(("nearly", "expected"), [(0.95, 12.3), (1.0, 3.0)])
def test_a_rate_that_all_but_passes_has_a_second_chance_if_wanted(nearly: float, expected: float) -> None:
    tried: list[float] = []

    def attainment(rate: float) -> float:
        """A spell spoils the first trial of every rate above 3; above 12.3 there is no chance."""
        tried.append(rate)
        if rate > 12.3:
            return 0.5
        return 0.96 if rate > 3.0 and tried.count(rate) == 1 else 1.0

    found = capacity(attainment, start=3.0, nearly=nearly, precision=0.02)
    assert found.rate == pytest.approx(expected, rel=0.02)
    assert [rate for rate, _ in found.trials] == tried
    assert max(tried.count(rate) for rate in tried) == (2 if nearly < 1.0 else 1)
    assert len(capacity(attainment, start=3.0, nearly=nearly, most_trials=5).trials) <= 5


def test_at_twice_the_capacity_ours_answers_at_least_as_many_on_time_as_each_other_policy() -> None:
    # The fastest point alone has room for about 12 cold requests a second.
    classes = (
        {"deadline_s": {"choices": {1: 1, 2: 1}}},
        {"kind": "box", "prompts": {"uniform": [1, 4]}, "deadline_s": 1},
    )
    flood = workload(*classes, rate=24, warmup_s=10)
    goodput = {policy: summarise(run(flood, two_cores(), policy), 1.0).goodput for policy in POLICIES}
    assert goodput["samgate"] >= max(goodput.values()), goodput
