"""What a load test sends: the same for the same plan, however many processes share it, at the shape's rates."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.options import add_options, plan_from
from loadtest.plan import MAX_REQUESTS, Plan, Source, read_plan
from loadtest.shapes import BURST, BURSTS, NIGHT, SHAPES, STEPS
from samgate.errors import InvalidArgument
from simulation_support import workload_spec

WORKLOADS = Path(__file__).resolve().parents[2] / "loadtest" / "workloads"


def source(name: str = "annotate") -> Source:
    return Source(name.title(), str(WORKLOADS / f"{name}.yaml"))


def plan(*names: str, **changes: Any) -> Plan:
    return Plan(tuple(source(name) for name in names or ("annotate",)), **changes)


def times(made: Plan, part: int = 0, parts: int = 1) -> list[float]:
    return [arrival.at_s for _, arrival in made.arrivals(0, part, parts)]


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["workload", *SHAPES]), st.integers(0, 2**40), st.integers(1, 7), st.floats(0.5, 60)
)  # fmt: skip
def test_parts_together_are_the_whole_and_share_nothing(shape: str, seed: int, parts: int, rate: float) -> None:
    made = plan(shape=shape, seed=seed, rate=rate, duration_s=20)
    whole = dict(made.arrivals(0))
    shared = [dict(made.arrivals(0, part, parts)) for part in range(parts)]
    assert sum(len(one) for one in shared) == len(whole)
    assert {number: arrival for one in shared for number, arrival in one.items()} == whole
    assert max(len(one) for one in shared) - min(len(one) for one in shared) <= 1


def test_another_seed_gives_other_requests_and_sources_differ() -> None:
    assert times(plan(seed=1)) == times(plan(seed=1))
    assert times(plan(seed=1)) != times(plan(seed=2))
    both = plan("annotate", "annotate")
    assert list(both.arrivals(0)) != list(both.arrivals(1))


def share_between(found: Sequence[float], low: float, high: float) -> float:
    return sum(low <= at_s < high for at_s in found) / len(found)


def close(share: float, expected: float, of: int) -> bool:
    """Within five deviations."""
    return abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / of)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_has_the_mean_rate_that_was_asked_for(shape: str) -> None:
    count = len(times(plan(shape=shape, rate=100, duration_s=300)))
    assert abs(count - 30_000) < 5 * math.sqrt(30_000)


def test_steady_arrivals_are_poisson() -> None:
    found = times(plan(shape="steady", rate=100, duration_s=300))
    gaps = [after - before for before, after in pairwise(found)]
    mean = sum(gaps) / len(gaps)
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    assert deviation == pytest.approx(mean, rel=0.05)
    assert sum(gap > mean for gap in gaps) / len(gaps) == pytest.approx(math.exp(-1), abs=0.02)


def test_steps_bursts_and_days_move_the_rate_as_they_say() -> None:
    step = times(plan(shape="step", rate=100, duration_s=300))
    for place, factor in enumerate(STEPS):
        share = share_between(step, 60 * place, 60 * (place + 1))
        assert close(share, factor / len(STEPS), len(step))
    burst = times(plan(shape="burst", rate=100, duration_s=300))
    last = [at_s % (300 / BURSTS) >= 40 for at_s in burst]
    assert close(sum(last) / len(last), BURST[-1] / len(BURST), len(burst))
    day = times(plan(shape="diurnal", rate=100, duration_s=300))
    # Of a sinusoid from 1 - a to 1 + a the middle half has 1/2 + a/π.
    assert close(share_between(day, 75, 225), 0.5 + NIGHT / math.pi, len(day))


def test_a_rate_is_shared_as_the_files_own_rates_are() -> None:
    own = plan("annotate", "cold")
    assert list(own.rates) == [10, 4]
    asked = plan("annotate", "cold", rate=7)
    assert list(asked.rates) == [5, 2]
    assert asked.expected == 7 * asked.duration


def test_tiers_are_sorts_of_requests_after_their_workload_where_there_are_several() -> None:
    alone, several = plan("mixed"), plan("mixed", "cold")
    assert {alone.tier(0, one) for _, one in alone.arrivals(0)} == {"clicks", "boxes", "everything"}
    assert {several.tier(1, one) for _, one in several.arrivals(1)} == {"cold: points", "cold: boxes"}


def test_a_run_knows_its_length_and_its_last_deadline(tmp_path: Path) -> None:
    assert plan("annotate").duration == 120
    assert plan("annotate").warmup == 20
    assert plan("annotate", duration_s=10).warmup == 2
    assert plan("annotate", shape="soak").duration == 3600
    assert plan("mixed", duration_s=100).longest_s == 160
    assert plan("mixed", duration_s=100, slo_scale=2).longest_s == 220
    (tmp_path / "t.csv").write_text("at_s,image,megapixels,kind,prompts,deadline_s\n1,1,0.3,point,1,0.25\n")
    trace = {"name": "trace", "slo_scale": 2, "arrivals": {"process": "replay", "file": "t.csv"}}
    (tmp_path / "trace.yaml").write_text(yaml.safe_dump(trace))
    replayed = Plan((Source("Trace", str(tmp_path / "trace.yaml")),), duration_s=3)
    assert replayed.longest_s == 3.5
    with pytest.raises(InvalidArgument, match="the trace of trace says itself when requests come"):
        Plan(replayed.sources, shape="steady")


def test_a_plan_survives_its_message() -> None:
    made = plan("annotate", "cold", shape="burst", rate=3.5, seed=9, salt="x", warmup_s=1)
    sent = json.loads(json.dumps(made.message()))
    assert read_plan(sent) == made
    with pytest.raises(InvalidArgument, match="same code"):
        read_plan({**sent, "more": 1})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate": 0.0}, "rate: is 0; it must be 1e-06 to"),
        ({"duration_s": -1.0}, "duration: is -1"),
        ({"warmup_s": 120.0}, "warmup: is 120 s; it must be less than the 120 s of the run"),
        ({"in_flight": 0}, "in-flight: is 0; it must be 1 to"),
        ({"target_share": 1.5}, "target-share: is 1.5; it must be 0 to 1"),
        ({"shape": "square"}, "shape: is 'square'; it must be one of workload, steady"),
        ({"rate": 1e5, "duration_s": 100.0}, f"10000000 requests; a run may have {MAX_REQUESTS}"),
        ({"sources": ()}, "users: are 0 classes"),
    ],
)
def test_what_a_run_can_not_be_is_refused_by_name_value_and_limit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        Plan(**{"sources": (source(),), **changes})
    assert message in str(refused.value)


def parsed(*arguments: str) -> Any:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(arguments)


def test_flags_make_the_plan_and_each_run_has_images_of_its_own(tmp_path: Path) -> None:
    asked = ("--shape", "step", "--rate", "12.5", "--duration", "60", "--seed", "3", "--target-share", "0.95")
    made = plan_from(parsed(*asked), [source()])
    assert (made.shape, made.rate, made.duration, made.seed, made.target_share) == ("step", 12.5, 60, 3, 0.95)
    assert made.salt != plan_from(parsed(*asked), [source()]).salt
    assert plan_from(parsed("--salt", "same"), [source()]).salt == "same"
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(workload_spec()))
    assert plan_from(parsed("--workload", str(path)), [source()]).files[0].name == "test"
    with pytest.raises(InvalidArgument, match="replaces the file of one user class; 2 are to run"):
        plan_from(parsed("--workload", str(path)), [source(), source()])


@pytest.mark.parametrize(
    ("flag", "text"), [("--rate", "fast"), ("--duration", "nan"), ("--warmup", "inf"), ("--seed", "1.5")]
)
def test_flags_that_are_no_numbers_are_refused(flag: str, text: str) -> None:
    with pytest.raises(InvalidArgument, match=f"{flag[2:]}: is '{text}'"):
        plan_from(parsed(flag, text), [source()])
