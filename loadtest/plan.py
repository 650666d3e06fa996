"""What a run will send, decided before it begins: by the same plan each process knows its own part. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from loadtest.shapes import get_shape
from samgate.errors import InvalidArgument
from samgate.simulation.arrival import MAX_DEADLINE_S, Arrival
from samgate.simulation.processes import MAX_RATE, MAX_SECONDS, MIN_RATE
from samgate.simulation.trace import Trace
from samgate.simulation.workload import Workload, arrivals, read_workload

MAX_REQUESTS = 1_000_000
"""Of one run, whose outcomes are all kept until the end."""
MAX_SOURCES = 16
MAX_IN_FLIGHT = 100_000


@dataclass(frozen=True, slots=True)
class Source:
    """A Locust user class: what it is called, the workload file that it sends, and whether the images of that file's
    catalogue are embedded before the run."""

    user: str
    workload: str
    prime: bool = False


@dataclass(frozen=True)
class Plan:
    """A run. ``rate`` is the mean of all sources together, in requests a second, shared as their files' own rates are
    (None: these); ``duration_s`` and ``warmup_s`` are the shape's or the first workload's where None. A process has at
    most ``in_flight`` requests under way. ``salt`` makes images new to a server that has seen the same run.
    ``target_share`` must be answered on time, ``max_lag_s`` is how late the generator itself may be.
    """

    sources: tuple[Source, ...]
    shape: str = "workload"
    rate: float | None = None
    duration_s: float | None = None
    warmup_s: float | None = None
    slo_scale: float | None = None
    seed: int = 0
    salt: str = ""
    images: str = ""
    in_flight: int = 512
    connections: int = 4
    target_share: float = 0.99
    max_lag_s: float = 0.1

    def __post_init__(self) -> None:
        if not 1 <= len(self.sources) <= MAX_SOURCES:
            raise InvalidArgument("users", f"are {len(self.sources)} classes; there must be 1 to {MAX_SOURCES}")
        _within("rate", self.rate, MIN_RATE, MAX_RATE)
        _within("duration", self.duration_s, 1e-3, MAX_SECONDS)
        _within("warmup", self.warmup_s, 0.0, MAX_SECONDS)
        _within("slo-scale", self.slo_scale, 1e-3, 1e3)
        _within("seed", self.seed, 0, 2**53)
        _within("in-flight", self.in_flight, 1, MAX_IN_FLIGHT)
        _within("connections", self.connections, 1, 64)
        _within("target-share", self.target_share, 0.0, 1.0)
        _within("max-lag", self.max_lag_s, 1e-3, 60.0)
        shape = get_shape(self.shape)
        trace = next((one.name for one in self.files if isinstance(one.source, Trace)), None)
        if shape is not None and trace is not None:
            raise InvalidArgument("shape", f"is {self.shape!r}; the trace of {trace} says itself when requests come")
        if self.warmup >= self.duration:
            raise InvalidArgument(
                "warmup", f"is {self.warmup:g} s; it must be less than the {self.duration:g} s of the run"
            )
        if self.expected > MAX_REQUESTS:
            raise InvalidArgument(
                "rate",
                f"× duration is {self.expected:.0f} requests; a run may have {MAX_REQUESTS}: make one of them smaller",
            )

    @cached_property
    def files(self) -> tuple[Workload, ...]:
        """The sources' workloads, with deadlines scaled."""
        found = tuple(read_workload(Path(source.workload)) for source in self.sources)
        return found if self.slo_scale is None else tuple(replace(one, slo_scale=self.slo_scale) for one in found)

    @property
    def duration(self) -> float:
        """Seconds during which requests come."""
        shape = get_shape(self.shape)
        usual = self.files[0].duration_s if shape is None or shape.duration_s is None else shape.duration_s
        return usual if self.duration_s is None else self.duration_s

    @property
    def warmup(self) -> float:
        """Seconds at the beginning that don't count; a short run has a fifth of it."""
        return min(self.files[0].warmup_s, self.duration / 5) if self.warmup_s is None else self.warmup_s

    @property
    def rates(self) -> tuple[float, ...]:
        """The mean rate of each source."""
        own = [one.rate for one in self.files]
        factor = 1.0 if self.rate is None else self.rate / sum(own)
        return tuple(one * factor for one in own)

    @property
    def expected(self) -> float:
        """Requests that will come, in the mean."""
        return sum(self.rates) * self.duration

    @property
    def longest_s(self) -> float:
        """When the last request that could come would have to be answered."""
        return self.duration + max(_longest_deadline_s(one) for one in self.files)

    @property
    def slices(self) -> int:
        """In how many parts of equal length the run is reported."""
        shape = get_shape(self.shape)
        return 10 if shape is None else shape.slices

    def arrivals(self, source: int, part: int = 0, parts: int = 1) -> Iterator[tuple[int, Arrival]]:
        """The requests of a source that ``part`` of ``parts`` sends, each with its number: every parts-th one, so that
        the same requests go at the same times whatever the number of parts."""
        workload, shape, rate = self.files[source], get_shape(self.shape), self.rates[source]
        seed = self.seed * MAX_SOURCES + source
        if shape is None:
            every = arrivals(workload, seed, rate, self.duration)
        else:
            shaped = replace(workload, source=shape.process(rate, self.duration))
            every = arrivals(shaped, seed, duration_s=self.duration)
        return islice(enumerate(every), part, None, parts)

    def tier(self, source: int, arrival: Arrival) -> str:
        """What a request is reported as: the name of its sort, after that of its workload where there are several."""
        several = len({one.name for one in self.files}) > 1
        return f"{self.files[source].name}: {arrival.tier}" if several else arrival.tier

    def message(self) -> dict[str, Any]:
        """All of it as plain data; :func:`read_plan` reads it."""
        return {**asdict(self), "sources": [asdict(one) for one in self.sources]}


def read_plan(message: Mapping[str, Any]) -> Plan:
    """The plan in a message. Raises InvalidArgument."""
    known = {field.name for field in fields(Plan)}
    if set(message) != known:
        raise InvalidArgument(
            "plan", f"has other fields: {', '.join(sorted(set(message) ^ known))}; do all processes run the same code?"
        )
    return Plan(**{**message, "sources": tuple(Source(**one) for one in message["sources"])})


def _within(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise InvalidArgument(name, f"is {value:g}; it must be {low:g} to {high:g}")


def _longest_deadline_s(workload: Workload) -> float:
    if isinstance(workload.source, Trace):
        given = [one.deadline_s for one in workload.source.entries]
    else:
        given = [one.deadline_s.high for one in workload.classes]
    return min(max(given) * workload.slo_scale, MAX_DEADLINE_S)
