"""How fast a machine was during a run, told by its decoder calls."""

from __future__ import annotations

import pytest

from profiles_support import device, operating_point
from samgate.bench.pace import at_pace, stretch
from samgate.scheduling.profile import DeviceProfile
from samgate.simulation.arrival import Arrival
from samgate.simulation.outcome import End, Outcome, Run

POINT = operating_point("mobilesam", "bf16")
PROFILE: DeviceProfile = device(POINT)
USUAL_S = POINT.decode(1) * POINT.decode.median_ratio


def outcome(decode_s: float, end: End = End.ON_TIME, prompts: int = 1, point: str = POINT.name) -> Outcome:
    return Outcome(Arrival(0.0, 1, 0.3, "point", prompts, 1.0), end, 1.0, point=point, decode_s=decode_s)


def run(*outcomes: Outcome) -> Run:
    return Run("samgate", 10.0, 0.0, 60.0, list(outcomes))


def test_the_stretch_is_the_mean_of_answers_over_what_is_usual() -> None:
    found = run(outcome(USUAL_S), outcome(2 * USUAL_S, End.LATE), outcome(9 * USUAL_S, End.DROPPED))
    assert stretch(found, PROFILE) == pytest.approx(1.5)


def test_what_says_nothing_of_calls_does_not_count() -> None:
    others = outcome(0.0), outcome(1.0, prompts=POINT.max_prompts + 1), outcome(1.0, point="other:f32")
    assert stretch(run(*others), PROFILE) is None
    assert stretch(run(), PROFILE) is None


def test_the_pace_is_found_at_which_calls_take_as_long() -> None:
    asked: list[float] = []

    def simulate(pace: float) -> Run:
        asked.append(pace)
        # Half of a call's time is waiting for another, which takes as much longer.
        return run(outcome(1.5 * pace * USUAL_S))

    simulated, pace = at_pace(run(outcome(1.8 * USUAL_S)), simulate, PROFILE)
    assert pace == pytest.approx(1.2)
    assert stretch(simulated, PROFILE) == pytest.approx(1.8)
    assert asked == pytest.approx([1.0, 1.2])


def test_without_answers_it_is_the_profiles() -> None:
    simulated, pace = at_pace(run(), lambda pace: run(outcome(pace * USUAL_S)), PROFILE)
    assert (pace, len(simulated.outcomes)) == (1.0, 1)
    assert at_pace(run(outcome(USUAL_S)), lambda pace: run(), PROFILE)[1] == 1.0


def test_no_pace_is_beyond_bounds() -> None:
    stuck = run(outcome(USUAL_S))
    assert at_pace(run(outcome(50 * USUAL_S)), lambda pace: stuck, PROFILE)[1] == 3.0
    assert at_pace(run(outcome(USUAL_S / 50)), lambda pace: stuck, PROFILE)[1] == 0.5
