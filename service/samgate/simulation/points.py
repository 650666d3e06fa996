"""Operating points written into a fleet file itself, for what hasn't been measured or doesn't exist."""

from __future__ import annotations

from samgate.errors import InvalidArgument
from samgate.scheduling.profile import PROMPT_KINDS, DeviceProfile, Line, OperatingPoint
from samgate.simulation.spec import Section

_MOST_POINTS = 256
_MOST_SECONDS = 3600.0
_LINES = ("encode", "decode", "survivors", "prepare", "finish")


def read_inline(section: Section) -> DeviceProfile:
    """A device's profile: ``overhead_s``, ``instances``, ``shared``, ``median_ratio`` (of all lines that don't say
    their own), lines that all ``points`` share, and the points. Times are in seconds, at the 95th percentile. Raises
    InvalidArgument."""
    overhead_s = section.number("overhead_s", 0, 60)
    instances = section.whole("instances", 1, 1024, default=1)
    shared = section.flag("shared", default=True)
    ratio = section.number("median_ratio", 0.01, 1, default=1.0)
    common = {name: _line(section.section(name), ratio) for name in _LINES if section.has(name)}
    points = [_point(Section(value, where), common, ratio) for where, value in section.items("points", _MOST_POINTS)]
    if not points:
        raise InvalidArgument(section.where("points"), "is empty; it must have one or more")
    names = [point.name for point in points]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidArgument(section.where("points"), f"has {twice} twice")
    section.end()
    return DeviceProfile(tuple(points), overhead_s, instances, shared)


def _point(section: Section, common: dict[str, Line], ratio: float) -> OperatingPoint:
    variant, precision = section.text("variant"), section.text("precision")
    engine = section.text("engine", default="inline")
    lines = dict(common)
    for name in _LINES:
        if section.has(name) or name not in common:
            lines[name] = _line(section.section(name), ratio)
        if name in ("encode", "decode") and lines[name](1) <= 0:
            raise InvalidArgument(section.where(name), "takes no time; fixed_s + each_s must be above 0")
    accuracy = section.section("accuracy")
    accuracies = {kind: accuracy.number(kind, 0, 1) for kind in PROMPT_KINDS}
    accuracy.end()
    max_images = section.whole("max_images", 1, 65536, default=1)
    max_prompts = section.whole("max_prompts", 1, 65536, default=16)
    point = OperatingPoint(
        variant=variant,
        precision=precision,
        engine=engine,
        encode=lines["encode"],
        decode=lines["decode"],
        survivors=lines["survivors"],
        prepare=lines["prepare"],
        finish=lines["finish"],
        accuracy=accuracies,
        max_images=max_images,
        decode_images=section.whole("decode_images", 1, 65536, default=1 if max_images == 1 else max_prompts),
        max_prompts=max_prompts,
    )
    section.end()
    return point


def _line(section: Section, ratio: float) -> Line:
    line = Line(
        fixed_s=section.number("fixed_s", 0, _MOST_SECONDS, default=0.0),
        each_s=section.number("each_s", 0, _MOST_SECONDS, default=0.0),
        median_ratio=section.number("median_ratio", 0.01, 1, default=ratio),
    )
    section.end()
    return line
