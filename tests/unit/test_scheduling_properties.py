"""What must hold of the scheduler whatever comes: random workloads and fleets, through the simulator."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from samgate.scheduling.core import Options, Scheduler
from samgate.scheduling.policy import POLICIES
from samgate.scheduling.profile import Line
from samgate.scheduling.request import Step
from samgate.simulation.fleet import Fleet, Trouble
from samgate.simulation.outcome import End
from samgate.simulation.workload import Workload, arrivals
from simulation_support import Rules, fleet, point, run, two_cores, workload

# Simulations make poor material for shrinking: it takes minutes and finds little.
_PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
_SLOW = (HealthCheck.too_slow,)

CLASSES = st.fixed_dictionaries(
    {
        "weight": st.sampled_from([1, 5]),
        "kind": st.sampled_from(["box", "point"]),
        "prompts": st.sampled_from([1, 3, 20, {"uniform": [1, 8]}]),
        "deadline_s": st.sampled_from([0.05, 0.3, 1, {"uniform": [0.1, 3]}, 20]),
        "clients": st.sampled_from([{"a": 1}, {"b": 1, "c": 4}]),
        "everything": st.sampled_from([False, False, False, True]),
        "min_accuracy": st.sampled_from([0, 0, 0.65, 0.9]),
    }
)
PROCESSES = st.sampled_from(
    [{"process": "poisson", "rate": 20}, {"process": "bursty", "rates": [2, 80], "dwell_s": [0.5, 0.5]}]
)


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """Ten seconds of anything."""
    images = {"requests_per_image": draw(st.sampled_from([1, 2, 16])), "session_s": 2, "megapixels": 1}
    classes = draw(st.lists(CLASSES, min_size=1, max_size=3))
    return workload(
        *classes, arrivals=draw(PROCESSES), images=images, duration_s=8, retries=draw(st.sampled_from([0, 2]))
    )


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    """One to three devices of one to three points, which may fail or be slow."""
    points = [
        point(
            f"{name}:x",
            draw(st.sampled_from([0.002, 0.05, 0.2])),
            Line(draw(st.sampled_from([0.0, 0.004, 0.02])), draw(st.sampled_from([0.0005, 0.01]))),
            accuracy,
            prepare=Line(0.003, draw(st.sampled_from([0.0, 0.02]))),
            finish=Line(0.0, 0.001),
            ratio=draw(st.sampled_from([1.0, 0.9, 0.5])),
            max_images=draw(st.sampled_from([1, 4])),
            decode_images=draw(st.sampled_from([1, 2, 16])),
            max_prompts=draw(st.sampled_from([1, 16])),
        )
        for name, accuracy in (("a", 0.8), ("b", 0.7), ("c", 0.6))[: draw(st.integers(1, 3))]
    ]
    devices = draw(st.integers(1, 3))
    options: dict[str, Any] = {"weight": draw(st.sampled_from([0.0, 0.5]))} if devices == 1 else {}
    troubles = draw(
        st.sampled_from([(), (Trouble(0, 0, 2.0, 3.0), Trouble(0, devices - 1, 5.0, 6.5)), (Trouble(0, 0, 1, 6, 4.0),)])
    )
    return fleet(
        *points,
        devices=devices,
        instances=draw(st.sampled_from([1, 2])),
        shared=draw(st.booleans()),
        overhead_s=0.003,
        embeddings=draw(st.sampled_from([0, 2, 1000])),
        threads=draw(st.sampled_from([1, 3])),
        troubles=troubles,
        **options,
    )


@settings(max_examples=60, deadline=None, phases=_PHASES, suppress_health_check=_SLOW)
@given(work=workloads(), on=fleets(), policy=st.sampled_from(sorted(POLICIES)), seed=st.integers(0, 3))
def test_every_request_ends_once_and_no_step_breaks_a_rule(work: Workload, on: Fleet, policy: str, seed: int) -> None:
    rules = Rules()
    found = run(work, on, policy, seed, watch=rules)
    rules.at_rest()
    sent = list(arrivals(work, seed))
    assert [one.arrival for one in found.outcomes] == sent
    for one in found.outcomes:
        assert one.ended_s >= one.arrival.at_s
        late = one.ended_s > one.arrival.at_s + one.arrival.deadline_s
        assert late == (one.end is End.LATE) or one.end not in (End.ON_TIME, End.LATE)
        if one.end in (End.ON_TIME, End.LATE):
            assert one.accuracy >= one.arrival.min_accuracy


@settings(max_examples=8, deadline=None, phases=_PHASES, suppress_health_check=_SLOW)
@given(work=workloads(), on=fleets(), policy=st.sampled_from(sorted(POLICIES)))
def test_the_same_input_leads_to_the_same_decisions(work: Workload, on: Fleet, policy: str) -> None:
    first, second = Rules(), Rules()
    one, two = run(work, on, policy, watch=first), run(work, on, policy, watch=second)
    assert first.started == second.started
    assert [(a.end, a.ended_s, a.point) for a in one.outcomes] == [(b.end, b.ended_s, b.point) for b in two.outcomes]


def test_a_call_of_segevery_holds_the_device_no_longer_than_it_may() -> None:
    longest = 0.0

    class Watching(Rules):
        def __call__(self, scheduler: Scheduler, step: Step, now: float) -> None:
            nonlocal longest
            super().__call__(scheduler, step, now)
            calls = [batch.seconds for batch in step.start if batch.stage == "decode" and not batch.interactive]
            longest = max([longest, *calls])

    bulk = workload({"everything": True, "prompts": 256, "deadline_s": 60}, rate=1, duration_s=20)
    found = run(bulk, two_cores(), watch=Watching())
    assert {one.end for one in found.outcomes} == {End.ON_TIME}
    assert 0 < longest <= Options().yield_s + 1e-9
