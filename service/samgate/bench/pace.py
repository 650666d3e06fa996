"""How fast the machine is now: neighbours change that by a quarter within minutes."""

from __future__ import annotations

from statistics import median

from samgate.bench.context import Context
from samgate.bench.images import centre, unique_jpegs
from samgate.client import Client
from samgate.scheduling.profile import DeviceProfile, Line

_IMAGES = 16
_CLICKS = 4
"""On each image. Clicks count as 16: so many does an image get in the workloads."""
_CLICKS_AN_IMAGE = 16


def pace(context: Context, target: str, profile: DeviceProfile, seed: int) -> float:
    """How many times as long as ``profile`` says the engine takes for an image and the clicks on it: medians of some on
    the idle server at ``target``, of the point with the fastest encoder. ``seed`` makes images new to the server."""
    point = min(profile.points, key=lambda one: one.encode(1))
    encodes, decodes = [], []
    with Client(target) as client:
        for jpeg in unique_jpegs(context.images, _IMAGES, seed):
            image = client.embed(jpeg, variant=point.name)
            encodes.append(image.info.timings.encode_ms)
            for _ in range(_CLICKS):
                answer = client.segment(image, points=centre(jpeg), variant=point.name)
                decodes.append(answer.info.timings.decode_ms)
    taken_ms = median(encodes) + _CLICKS_AN_IMAGE * median(decodes)
    return taken_ms / (1e3 * (_usual_s(point.encode) + _CLICKS_AN_IMAGE * _usual_s(point.decode)))


def _usual_s(line: Line) -> float:
    return line(1) * line.median_ratio
