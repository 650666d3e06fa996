"""Which operating points are worth having: the front of accuracy over latency. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from samgate.scheduling.profile import DeviceProfile, OperatingPoint

COLD_MEGAPIXELS = 0.3
"""Of the image of a cold request, about those of COCO's, which accuracy is measured on."""


def cold_s(device: DeviceProfile, point: OperatingPoint) -> float:
    """Seconds at the 95th percentile that one request with an unseen image and one prompt takes, nothing else
    waiting. The stages' percentiles are added up, which is more than the percentile of their sum."""
    stages = point.prepare(COLD_MEGAPIXELS) + point.encode(1) + point.decode(1) + point.finish(1)
    return device.overhead_s + stages


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The indices of those (latency, accuracy) than which no other is better in one and as good in the other, fastest
    first."""
    chosen: list[int] = []
    best = -1.0
    for index in sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1])):
        latency, accuracy = points[index]
        if accuracy > best or (chosen and points[chosen[-1]] == (latency, accuracy)):
            chosen.append(index)
            best = accuracy
    return chosen
