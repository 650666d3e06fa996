"""Deadlines that are as hard to meet on a slow machine as on a fast one."""

from __future__ import annotations

from samgate.profiles.front import cold_s
from samgate.scheduling.profile import DeviceProfile
from samgate.simulation.workload import Workload

LEAST_SLACK = 1.35
"""The shortest deadline over the time of a cold request. On two cores with bf16, which the workload was made for, half
a second is 1.42 times that (352 ms), so deadlines stay as they are there and are no easier elsewhere."""


def slo_scale(workload: Workload, profile: DeviceProfile) -> float:
    """By what ``workload``'s deadlines are multiplied on the machine that ``profile`` is of: at least 1, and enough
    that the shortest leaves ``LEAST_SLACK`` times what a request with a new image and one prompt takes at the most
    accurate point, at the 95th percentile, while nothing else runs."""
    point = max(profile.points, key=lambda one: sum(one.accuracy.values()))
    shortest_s = min(one.deadline_s.low for one in workload.classes)
    return max(1.0, LEAST_SLACK * cold_s(profile, point) / shortest_s)
