"""Workloads: the same seed gives the same requests, at the rates, bursts and shapes that the file asks for."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, replace
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from samgate.errors import InvalidArgument
from samgate.simulation.arrival import MAX_DEADLINE_S
from samgate.simulation.processes import Bursty, Diurnal
from samgate.simulation.workload import Arrival, Workload, arrivals, parse_workload
from simulation_support import workload_spec


def workload(**changes: Any) -> Workload:
    return parse_workload(yaml.safe_dump(workload_spec(**changes)).encode())


def test_the_same_seed_gives_the_same_requests_and_another_one_others() -> None:
    one = list(arrivals(workload(), 1))
    assert one == list(arrivals(workload(), 1))
    assert one != list(arrivals(workload(), 2))


def test_another_rate_changes_when_requests_come_and_not_what_they_ask() -> None:
    cold = workload(images={"requests_per_image": 1, "megapixels": {"uniform": [0.5, 2]}})
    slow = list(islice(arrivals(cold, 1), 500))
    fast = list(islice(arrivals(cold, 1, rate=50), 500))
    assert [replace(one, at_s=0.0) for one in slow] == [replace(one, at_s=0.0) for one in fast]
    # Poisson: the same draws, half the gaps.
    assert [one.at_s / 2 for one in slow] == pytest.approx([one.at_s for one in fast])


def test_a_scale_changes_how_long_requests_may_take_and_nothing_else(tmp_path: Path) -> None:
    usual = list(islice(arrivals(workload(), 1), 500))
    scaled = list(islice(arrivals(workload(slo_scale=1.5), 1), 500))
    assert [one.deadline_s for one in scaled] == [1.5 * one.deadline_s for one in usual]
    assert [replace(one, deadline_s=0.0) for one in scaled] == [replace(one, deadline_s=0.0) for one in usual]
    # No client may wait for longer than a day, however its deadline is stretched.
    assert {one.deadline_s for one in islice(arrivals(replace(workload(), slo_scale=1e9), 1), 500)} == {MAX_DEADLINE_S}
    (tmp_path / "t.csv").write_text("at_s,image,megapixels,kind,prompts,deadline_s\n1,1,0.3,point,1,0.25\n")
    trace = {"name": "trace", "slo_scale": 2, "arrivals": {"process": "replay", "file": "t.csv"}}
    replayed = parse_workload(yaml.safe_dump(trace).encode(), folder=tmp_path)
    assert [one.deadline_s for one in arrivals(replayed, 0)] == [0.5]


@pytest.mark.parametrize("bad", [0, -1, 1001, "twice", True, float("nan")])
def test_a_scale_that_is_none_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"slo_scale.*0\.001 to 1000"):
        workload(slo_scale=bad)


def test_poisson_arrivals_have_their_rate_and_the_spread_of_one() -> None:
    times = [one.at_s for one in arrivals(workload(), 3)]
    # 10,000 expected with a standard deviation of 100; five of them.
    assert abs(len(times) - 10_000) < 500
    gaps = [b - a for a, b in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    # Of an exponential distribution it is 1; the estimate's own deviation is 1/√n = 0.01.
    assert deviation / mean == pytest.approx(1.0, abs=0.05)
    assert times == sorted(times)


def test_bursts_have_their_mean_rate_and_are_burstier_than_poisson() -> None:
    bursty = workload(duration_s=4000, arrivals={"process": "bursty", "rates": [5, 45], "dwell_s": [6, 2]})
    assert bursty.rate == pytest.approx((5 * 6 + 45 * 2) / 8)
    times = [one.at_s for one in arrivals(bursty, 4)]
    # 500 cycles whose counts have a deviation of about 95 to their mean of 120: 3.5% of the sum; three of them.
    assert len(times) / 4000 == pytest.approx(bursty.rate, rel=0.11)
    counts = Counter(int(at) for at in times)
    mean = len(times) / 4000
    variance = sum((counts[second] - mean) ** 2 for second in range(4000)) / 4000
    # The index of dispersion of a Poisson process is 1. Of counts in one second, here, about 1 + 300/15 · 0.8.
    assert 8 < variance / mean < 25


def test_bursts_scale_in_rate_and_not_in_time() -> None:
    process = Bursty((0.0, 100.0), (5.0, 5.0))
    slow = list(islice(process.times(Random(1), 1.0), 40_000))
    fast = list(islice(process.times(Random(1), 2.0), 40_000))
    # At twice the rate the same number comes within half as many bursts of the same length: 80 bursts against 40, whose
    # durations scatter by their mean each, which makes about a fifth of the ratio.
    assert 1.2 < slow[-1] / fast[-1] < 3.3


@pytest.mark.parametrize("shape", [{"amplitude": 0.9}, {"hourly": [0, 1, 2, 3, 2, 1]}], ids=["sinusoid", "hourly"])
def test_a_day_has_its_mean_rate_and_its_shape(shape: dict[str, Any]) -> None:
    daily = workload(duration_s=1200, arrivals={"process": "diurnal", "rate": 25, "period_s": 600, **shape})
    times = [one.at_s % 600 for one in arrivals(daily, 5)]
    # 30,000 expected, deviation 173.
    assert abs(len(times) - 30_000) < 900
    process = daily.source
    assert isinstance(process, Diurnal)
    counts = Counter(int(at / 100) for at in times)
    for part in range(6):
        middle = [process.factor(100 * part + second) for second in range(100)]
        # About 5000 · factor each, deviation its root.
        expected = 5000 * sum(middle) / 100
        assert abs(counts[part] - expected) < 5 * math.sqrt(expected) + 30


def test_images_get_their_requests_within_a_session() -> None:
    sent = list(arrivals(workload(), 6))
    per_image = Counter(one.image for one in sent)
    # 1,250 new images in 10,000 requests, deviation 33.
    assert len(per_image) == pytest.approx(1250, abs=170)
    first: dict[int, Arrival] = {}
    for one in sent:
        begun = first.setdefault(one.image, one)
        assert one.at_s - begun.at_s <= 20
        assert one.megapixels == begun.megapixels


def test_a_session_goes_on_when_there_is_no_other_image() -> None:
    rare = workload(arrivals={"process": "poisson", "rate": 0.5}, duration_s=20_000)
    sent = list(arrivals(rare, 7))
    # A session of 20 s sees 10 requests at most; still a new image comes every 8 requests: 1250, deviation 33.
    assert len({one.image for one in sent}) == pytest.approx(len(sent) / 8, rel=0.15)


def test_one_request_an_image_is_always_cold() -> None:
    cold = workload(images={"requests_per_image": 1, "megapixels": 1})
    sent = list(arrivals(cold, 8))
    assert len({one.image for one in sent}) == len(sent)


def test_a_catalogue_is_asked_for_by_zipf() -> None:
    catalogue = workload(images={"zipf": {"catalogue": 100, "exponent": 1}, "megapixels": {"uniform": [0.5, 2]}})
    sent = list(arrivals(catalogue, 9))
    counts = Counter(one.image for one in sent)
    harmonic = sum(1 / rank for rank in range(1, 101))
    for rank in (1, 2, 10):
        expected = len(sent) / harmonic / rank
        assert abs(counts[rank - 1] - expected) < 5 * math.sqrt(expected)
    sizes: dict[int, float] = {}
    assert all(sizes.setdefault(one.image, one.megapixels) == one.megapixels for one in sent)


def test_classes_come_by_weight_with_what_they_say() -> None:
    sent = list(arrivals(workload(), 10))
    boxes = [one for one in sent if one.kind == "box"]
    # A quarter of 10,000, deviation 43.
    assert len(boxes) == pytest.approx(2500, abs=220)
    assert {one.prompts for one in boxes} == {1, 4}
    assert {one.deadline_s for one in boxes} == {1.0, 2.0}
    assert {one.tier for one in boxes} == {"boxes"}
    assert {one.points for one in boxes} == {("m:bf16",)}
    # Nine in ten of 2,500, deviation 15.
    assert sum(one.client == "b" for one in boxes) == pytest.approx(0.9 * len(boxes), abs=75)
    assert {one.client for one in sent if one.kind == "point"} == {"client"}


def test_a_trace_is_replayed_from_json_lines_and_from_csv(tmp_path: Path) -> None:
    sent = list(islice(arrivals(workload(), 11), 50))
    lines = [{key: value for key, value in asdict(one).items() if value is not None} for one in sent]
    (tmp_path / "trace.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = ["at_s,image,megapixels,kind,prompts,deadline_s,client,min_accuracy,everything,points,tier"]
    rows += [
        f"{one.at_s!r},{one.image},{one.megapixels!r},{one.kind},{one.prompts},{one.deadline_s},{one.client},"
        f"{one.min_accuracy},{str(one.everything).lower()},{' '.join(one.points or ())},{one.tier}"
        for one in sent
    ]
    (tmp_path / "trace.csv").write_text("\n".join(rows) + "\n")
    for name in ("trace.jsonl", "trace.csv"):
        replay = {"name": "replay", "arrivals": {"process": "replay", "file": name}}
        found = parse_workload(yaml.safe_dump(replay).encode(), folder=tmp_path)
        assert list(arrivals(found, 0)) == sent
        twice = list(arrivals(found, 0, rate=2 * found.rate))
        assert [one.at_s for one in twice] == pytest.approx([one.at_s / 2 for one in sent])
