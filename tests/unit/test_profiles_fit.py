"""Lines through latencies, and the front of operating points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles_support import device, operating_point
from samgate.profiles.fit import MAX_OUTLIERS, QUICK_TAIL, fit_line, percentile_95, without_outliers
from samgate.profiles.front import cold_s, front
from samgate.profiles.measure import sizes

positive = st.floats(1e-4, 1.0)


@given(fixed=positive, each=positive, limit=st.sampled_from([2, 4, 16, 64]))
def test_a_line_without_noise_is_found_again(fixed: float, each: float, limit: int) -> None:
    line = fit_line({size: [fixed + each * size] * 5 for size in sizes(limit, ladder=True)}, "measured")
    assert line.fixed_s == pytest.approx(fixed, abs=1e-6)
    assert line.each_s == pytest.approx(each, abs=1e-6)
    assert line.residual_s == pytest.approx(0, abs=1e-6)
    assert line.median_ratio == 1


def test_the_line_goes_through_the_tails_not_the_medians() -> None:
    random = np.random.default_rng(0)
    tails = {size: (0.01 + 0.005 * size) * random.uniform(0.8, 1.0, 4000) for size in (1, 2, 4, 8)}
    line = fit_line({size: values.tolist() for size, values in tails.items()}, "measured")
    assert line(4) == pytest.approx(0.99 * 0.03, rel=0.01)
    assert line.median_ratio == pytest.approx(0.9 / 0.99, rel=0.01)


def test_the_residual_is_the_largest_distance() -> None:
    line = fit_line({1: [1.0], 2: [2.3], 3: [3.0]}, "measured")
    distances = [abs(line(size) - value) for size, value in ((1, 1.0), (2, 2.3), (3, 3.0))]
    assert line.residual_s == pytest.approx(max(distances), abs=1e-6)
    assert line.residual_s > 0.15


@given(st.dictionaries(st.integers(1, 64), st.floats(0, 10), min_size=1, max_size=6))
def test_no_coefficient_is_negative(tails: dict[float, float]) -> None:
    line = fit_line({size: [seconds] for size, seconds in tails.items()}, "measured")
    assert line.fixed_s >= 0
    assert line.each_s >= 0
    assert 0 <= line.median_ratio <= 1


def test_what_gets_faster_with_size_is_as_slow_for_all() -> None:
    line = fit_line({1: [3.0], 2: [2.0], 3: [1.0]}, "measured")
    assert [line.fixed_s, line.each_s] == pytest.approx([1.346939, 0.0])
    # Of relative errors, that is: neither a bit less nor a bit more is nearer to all three.
    assert sum((1.346939 / value - 1) ** 2 for value in (1, 2, 3)) < min(
        sum((constant / value - 1) ** 2 for value in (1, 2, 3)) for constant in (1.33, 1.36, 2.0)
    )


def test_one_slow_call_of_one_size_is_not_the_line() -> None:
    calls: dict[float, list[float]] = {size: [0.01 + 0.005 * size] * 20 for size in (1, 2, 4, 8, 16)}
    calls[1][0] = 0.04
    line = fit_line(calls, "measured")
    assert [line(1), line(16)] == pytest.approx([0.015, 0.09])
    # The same in every size is how long calls take.
    slow: dict[float, list[float]] = {
        size: [*taken[:18], 2 * taken[-1], 2 * taken[-1]] for size, taken in calls.items()
    }
    line = fit_line(slow, "measured")
    assert [line(1), line(16)] == pytest.approx([0.03, 0.18])
    assert line.median_ratio == 0.5


def test_one_size_alone_is_right_there() -> None:
    line = fit_line({1: [0.3, 0.3]}, "measured")
    assert (line.fixed_s, line.each_s, line(1)) == (0.0, 0.3, 0.3)
    assert fit_line({4: [0.8]}, "measured")(4) == pytest.approx(0.8)
    with pytest.raises(ValueError, match="no latency"):
        fit_line({1: []}, "measured")


def test_rare_outliers_are_neighbours_and_common_ones_are_the_machine() -> None:
    calls = [1.0] * 38 + [9.0] * 2
    assert without_outliers(calls) == [1.0] * 38
    slow = round(40 * MAX_OUTLIERS) + 1
    assert len(without_outliers([1.0] * (40 - slow) + [9.0] * slow)) == 40
    assert percentile_95([1.0] * 36 + [2.0] * 4) == 2.0


def test_a_quick_tail_is_a_multiple_of_the_median() -> None:
    assert fit_line({1: [1.0, 1.1, 7.0]}, "quick")(1) == pytest.approx(1.1 * QUICK_TAIL)
    assert fit_line({1: [1.0, 1.0, 1.0]}, "quick").median_ratio == pytest.approx(1 / QUICK_TAIL)


def test_ladders() -> None:
    assert sizes(16, ladder=True) == [1, 2, 4, 8, 16]
    assert sizes(12, ladder=True) == [1, 2, 4, 8, 12]
    assert sizes(12, ladder=False) == [1, 12]
    assert sizes(1, ladder=True) == sizes(1, ladder=False) == [1]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_the_front_is_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    def beaten(index: int) -> bool:
        latency, accuracy = points[index]
        return any(other != points[index] and other[0] <= latency and other[1] >= accuracy for other in points)

    chosen = front(points)
    assert sorted(chosen) == [index for index in range(len(points)) if not beaten(index)]
    assert [points[index] for index in chosen] == sorted(points[index] for index in chosen)


def test_a_cold_request_goes_through_all_stages() -> None:
    point = operating_point("mobilesam", "bf16")
    stages = point.encode(1) + point.decode(1) + point.finish(1) + point.prepare(0.3)
    assert cold_s(device(point), point) == pytest.approx(0.004 + stages)
