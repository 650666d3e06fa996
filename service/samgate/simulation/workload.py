"""Workloads: what clients ask and when, as YAML, and the stream of arrivals that follows from it.

Knows nothing of simulators: a load generator sends the same arrivals to a real server.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from samgate.errors import InvalidArgument
from samgate.scheduling.profile import PROMPT_KINDS, PromptKind
from samgate.simulation import spec
from samgate.simulation.arrival import MAX_DEADLINE_S, MAX_MEGAPIXELS, MAX_PROMPTS, Arrival
from samgate.simulation.draws import Numbers, Weighted, numbers, weighted
from samgate.simulation.pictures import Catalogue, Pictures, Sessions
from samgate.simulation.processes import MAX_SECONDS, MIN_RATE, Process, read_process
from samgate.simulation.trace import Trace, read_trace

_MOST_CLASSES = 64
_MOST_POINTS = 256

__all__ = ["Arrival", "RequestClass", "Workload", "arrivals", "parse_workload", "read_workload"]


@dataclass(frozen=True, slots=True)
class RequestClass:
    """Requests of one sort. ``points`` are the operating points that may answer; None: any."""

    name: str
    weight: float
    kind: PromptKind
    prompts: Numbers
    deadline_s: Numbers
    clients: Weighted[str]
    min_accuracy: float = 0.0
    everything: bool = False
    points: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """What clients ask. Requests of the first ``warmup_s`` of ``duration_s`` seconds don't count; a client tries
    again up to ``retries`` times when it is refused. Deadlines are ``slo_scale`` times what the classes or the trace
    say, as in AlpaServe (Li et al., OSDI 2023): so one workload is as hard on a slow machine as on a fast one."""

    name: str
    duration_s: float
    warmup_s: float
    retries: int
    source: Process | Trace
    classes: tuple[RequestClass, ...] = ()
    pictures: Sessions | Catalogue | None = None
    megapixels: Numbers | None = None
    slo_scale: float = 1.0

    @property
    def rate(self) -> float:
        """Requests a second, over a long time."""
        return self.source.mean_rate


def read_workload(path: Path) -> Workload:
    """The workload in a YAML file. A trace that it names is looked for beside it.

    Raises InvalidArgument that names field, value and limit, SamgateError when a file can't be read.
    """
    return _parse(spec.read_yaml(path), path.parent)


def parse_workload(data: bytes, name: str = "workload", folder: Path | None = None) -> Workload:
    """The workload that ``data`` holds as YAML; ``folder`` is where a trace is looked for. Raises InvalidArgument."""
    return _parse(spec.parse_yaml(data, name), folder or Path())


def arrivals(
    workload: Workload, seed: int, rate: float | None = None, duration_s: float | None = None
) -> Iterator[Arrival]:
    """The requests of ``workload`` in the order in which they come: the same for the same arguments.

    ``rate`` is the mean rate, in requests a second, that the workload is brought to; ``duration_s`` how long it goes
    on. Both default to what the workload says. Another rate changes the times alone: the n-th request asks for the
    same, except that images belong together by the time that passes between requests.
    """
    if rate is not None and not rate >= MIN_RATE:
        raise InvalidArgument("rate", f"is {rate}; it must be at least {MIN_RATE:g}")
    factor = 1.0 if rate is None else rate / workload.rate
    end = workload.duration_s if duration_s is None else duration_s

    def scaled(deadline_s: float) -> float:
        return min(deadline_s * workload.slo_scale, MAX_DEADLINE_S)

    if isinstance(workload.source, Trace):
        for one in workload.source.arrivals(factor, end):
            yield replace(one, deadline_s=scaled(one.deadline_s))
        return
    assert workload.pictures is not None
    assert workload.megapixels is not None
    # A stream of random numbers for each aspect, so that one doesn't shift the others.
    mix, content = Random(f"{seed} mix"), Random(f"{seed} content")
    pictures = Pictures(workload.pictures, workload.megapixels, Random(f"{seed} images"))
    classes = Weighted((one, one.weight) for one in workload.classes)
    for at_s in workload.source.times(Random(f"{seed} times"), factor):
        if at_s >= end:
            return
        chosen = classes.draw(mix)
        image, megapixels = pictures.next(at_s)
        yield Arrival(
            at_s,
            image,
            megapixels,
            chosen.kind,
            chosen.prompts.draw_whole(content),
            scaled(chosen.deadline_s.draw(content)),
            chosen.clients.draw(content),
            chosen.min_accuracy,
            chosen.everything,
            chosen.points,
            chosen.name,
        )


def _parse(top: spec.Section, folder: Path) -> Workload:
    name = top.text("name")
    warmup_s = top.number("warmup_s", 0, MAX_SECONDS, default=0.0)
    retries = top.whole("retries", 0, 100, default=0)
    slo_scale = top.number("slo_scale", 1e-3, 1e3, default=1.0)
    section = top.section("arrivals")
    classes: tuple[RequestClass, ...] = ()
    pictures: Sessions | Catalogue | None = None
    megapixels: Numbers | None = None
    source: Process | Trace
    if section.peek("process") == "replay":
        source = read_trace(section, folder)
        duration_s = top.number("duration_s", 1e-3, MAX_SECONDS, default=source.duration_s)
    else:
        source = read_process(section)
        duration_s = top.number("duration_s", 1e-3, MAX_SECONDS)
        images = top.section("images")
        megapixels = numbers(images.raw("megapixels"), images.where("megapixels"), 1e-4, MAX_MEGAPIXELS)
        pictures = _pictures(images)
        classes = tuple(
            _request_class(spec.Section(value, where)) for where, value in top.items("requests", _MOST_CLASSES)
        )
        if sum(one.weight for one in classes) <= 0:
            raise InvalidArgument(top.where("requests"), "needs a class whose weight is above 0")
    top.end()
    if warmup_s >= duration_s:
        limit = f"less than duration_s, which is {duration_s:g}"
        raise spec.refuse(top.where("warmup_s"), warmup_s, limit)
    return Workload(name, duration_s, warmup_s, retries, source, classes, pictures, megapixels, slo_scale)


def _pictures(images: spec.Section) -> Sessions | Catalogue:
    found: Sessions | Catalogue
    if images.has("zipf"):
        zipf = images.section("zipf")
        found = Catalogue(zipf.whole("catalogue", 1, 1_000_000), zipf.number("exponent", 0, 10))
        zipf.end()
    else:
        per_image = images.number("requests_per_image", 1, 1e6)
        found = Sessions(per_image, images.number("session_s", 1e-3, MAX_SECONDS, default=60.0))
    images.end()
    return found


def _request_class(section: spec.Section) -> RequestClass:
    name = section.text("name")
    weight = section.number("weight", 0, 1e9, default=1.0)
    kind: PromptKind = "box" if section.choice("kind", PROMPT_KINDS) == "box" else "point"
    everything = section.flag("everything", default=False)
    prompts = numbers(section.raw("prompts"), section.where("prompts"), 1, MAX_PROMPTS, whole=True)
    deadline_s = numbers(section.raw("deadline_s"), section.where("deadline_s"), 1e-3, MAX_DEADLINE_S)
    clients: Weighted[str] = Weighted([("client", 1.0)])
    if section.has("clients"):
        clients = weighted(section.raw("clients"), section.where("clients"), spec.text)
    min_accuracy = section.number("min_accuracy", 0, 1, default=0.0)
    points: tuple[str, ...] | None = None
    if section.has("points"):
        points = tuple(spec.text(value, where) for where, value in section.items("points", _MOST_POINTS))
        if not points:
            raise InvalidArgument(section.where("points"), "is empty; leave it out to let any point answer")
    section.end()
    return RequestClass(
        name,
        weight,
        kind,
        prompts,
        deadline_s,
        clients,
        min_accuracy=min_accuracy,
        everything=everything,
        points=points,
    )
