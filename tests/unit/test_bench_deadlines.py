"""Deadlines of benchmarks, by how fast the machine is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from profiles_support import device, operating_point
from samgate.bench.deadlines import LEAST_SLACK, slo_scale
from samgate.profiles.front import cold_s
from simulation_support import workload

ACCURATE = operating_point("mobilesam", "f32", encode_s=0.5)
FAST = replace(operating_point("mobilesam-512", "f32", encode_s=0.1), accuracy={"box": 0.68, "point": 0.41})


def test_the_shortest_deadline_leaves_time_for_the_most_accurate_point() -> None:
    profile = device(FAST, ACCURATE)
    asked = workload({"deadline_s": 0.2})
    scale = slo_scale(asked, profile)
    assert 0.2 * scale == pytest.approx(LEAST_SLACK * cold_s(profile, ACCURATE))
    assert scale > 3


def test_a_fast_machine_gets_no_shorter_deadlines_than_the_workload_says() -> None:
    assert slo_scale(workload({"deadline_s": 60}), device(FAST, ACCURATE)) == 1.0
