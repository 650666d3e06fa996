"""From two scrapes of each server to what happened in between. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from samgate.top.scrape import Labels, Scrape


@dataclass(frozen=True, slots=True)
class VariantFigures:
    """Calls a second that a variant answered, and their latency; None without any."""

    name: str
    calls_s: float
    p50_s: float | None
    p95_s: float | None


@dataclass(frozen=True, slots=True)
class PointFigures:
    """Of an operating point: calls a second by why it was chosen, ε of held and new images, the share of answers that
    came later than predicted (None without any), and whether its engine is healthy."""

    name: str
    decisions_s: dict[str, float]
    held_margin_s: float
    new_margin_s: float
    late_share: float | None
    healthy: bool


@dataclass(frozen=True, slots=True)
class StageFigures:
    """Of an engine's stage: pieces that wait, how long one in twenty waited at least (None without any), pieces a call,
    calls' seconds a second, and how many times their profile's time they take."""

    name: str
    waiting: float
    p95_s: float | None
    batch: float | None
    busy: float
    pace: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one server, or of several together: rates are of the time between the scrapes, a second; ratios are None where
    nothing happened."""

    seconds: float
    in_flight: float
    limit: float
    calls_s: float
    outcomes_s: dict[str, float]
    refusals_s: dict[str, float]
    attainment: dict[str, float | None]
    """By class, in between."""
    attainment_since_start: dict[str, float | None]
    variants: list[VariantFigures]
    points: list[PointFigures]
    stages: list[StageFigures]
    queued_work_s: float
    price: float
    busy: float
    hit_ratio: float | None
    cache_bytes: float
    cache_max_bytes: float
    cache_entries: float
    tritons: dict[tuple[str, str], bool]
    lag_s: float
    draining: bool
    versions: list[str]


class Window:
    """Scrapes of servers, before and now. What counts up is what was added in between; a server that was started anew
    began at 0."""

    def __init__(self, pairs: Sequence[tuple[Scrape, Scrape]]) -> None:
        self._pairs = pairs
        self.seconds = max((now.at - before.at for before, now in pairs), default=0.0)

    def added(self, name: str, **wanted: str) -> float:
        """How much the counters called ``name`` went up, together."""
        return sum(value for _, value in self._deltas(name, wanted))

    def rate(self, name: str, **wanted: str) -> float:
        """The same a second."""
        return self.added(name, **wanted) / self.seconds if self.seconds > 0 else 0.0

    def total(self, name: str, **wanted: str) -> float:
        """The counters called ``name`` as they are, together."""
        return self.gauge(name, sum, **wanted)

    def gauge(self, name: str, how: Callable[[Iterable[float]], float] = sum, **wanted: str) -> float:
        """All gauges called ``name`` now, put together by ``how``; 0 without any."""
        values = [value for _, now in self._pairs for _, value in now.of(name, wanted)]
        return how(values) if values else 0.0

    def values_of(self, label: str, name: str) -> list[str]:
        """What ``label`` is, in what is called ``name``."""
        return sorted({values[0] for values in self.groups(name, label)})

    def groups(self, name: str, *labels: str) -> set[tuple[str, ...]]:
        """What ``labels`` are together, in what is called ``name`` and has all of them."""
        told = [dict(found) for _, now in self._pairs for found, _ in now.of(name, {})]
        return {tuple(one[label] for label in labels) for one in told if one.keys() >= set(labels)}

    def quantile(self, share: float, name: str, **wanted: str) -> float | None:
        """Of the histogram called ``name``: what so large a ``share`` of what was observed in between doesn't pass, in
        a straight line between the edges of a bucket; None when there was nothing."""
        buckets: dict[float, float] = {}
        for labels, value in self._deltas(f"{name}_bucket", wanted):
            edge = float(dict(labels)["le"])
            buckets[edge] = buckets.get(edge, 0.0) + value
        return quantile(share, buckets)

    def _deltas(self, name: str, wanted: dict[str, str]) -> Iterable[tuple[Labels, float]]:
        for before, now in self._pairs:
            earlier = before.samples.get(name, {})
            for labels, value in now.of(name, wanted):
                then = earlier.get(labels, 0.0)
                yield labels, value - then if value >= then else value


def quantile(share: float, buckets: dict[float, float]) -> float | None:
    """See :meth:`Window.quantile`; ``buckets`` holds how many were at most each edge, the last of them infinite."""
    edges = sorted(buckets)
    if not edges or buckets[edges[-1]] <= 0:
        return None
    wanted = share * buckets[edges[-1]]
    low, below = 0.0 if edges[0] > 0 else edges[0], 0.0
    for edge in edges:
        here = buckets[edge]
        if here >= wanted:
            if math.isinf(edge):
                return low
            return low + (edge - low) * ((wanted - below) / (here - below) if here > below else 1.0)
        low, below = edge, here
    return low


def figures(pairs: Sequence[tuple[Scrape, Scrape]]) -> Figures:
    """What happened between two scrapes of each server."""
    window = Window(pairs)
    classes = window.values_of("priority", "samgate_slo_total")
    hits = window.added("samgate_embedding_lookups_total", result="hit")
    servers = {
        (url, model): window.gauge("samgate_triton_healthy", min, server=url, model=model) > 0
        for url, model in sorted(window.groups("samgate_triton_healthy", "server", "model"))
    }
    return Figures(
        seconds=window.seconds,
        in_flight=window.gauge("samgate_requests_in_flight"),
        limit=window.gauge("samgate_concurrency_limit"),
        calls_s=window.rate("samgate_requests_total"),
        outcomes_s=_rates(window, "samgate_slo_total", "outcome"),
        refusals_s=_rates(window, "samgate_refusals_total", "reason"),
        attainment={name: _attained(window.added, name) for name in classes},
        attainment_since_start={name: _attained(window.total, name) for name in classes},
        variants=[_variant(window, name) for name in window.values_of("variant", "samgate_request_seconds_count")],
        points=[_point(window, name) for name in window.values_of("point", "samgate_operating_point_info")],
        stages=[_stage(window, name) for name in reversed(window.values_of("stage", "samgate_queue_length"))],
        queued_work_s=window.gauge("samgate_queued_work_seconds"),
        price=window.gauge("samgate_load_price", max),
        busy=window.gauge("samgate_device_busy_ratio", max),
        hit_ratio=_ratio(hits, window.added("samgate_embedding_lookups_total")),
        cache_bytes=window.gauge("samgate_embedding_cache_bytes"),
        cache_max_bytes=window.gauge("samgate_embedding_cache_max_bytes"),
        cache_entries=window.gauge("samgate_embedding_cache_entries"),
        tritons=servers,
        lag_s=window.gauge("samgate_event_loop_lag_seconds", max),
        draining=window.gauge("samgate_draining", max) > 0,
        versions=window.values_of("version", "samgate_build_info"),
    )


def _rates(window: Window, name: str, label: str) -> dict[str, float]:
    return {value: window.rate(name, **{label: value}) for value in window.values_of(label, name)}


def _attained(count: Callable[..., float], priority: str) -> float | None:
    met = count("samgate_slo_total", priority=priority, outcome="met")
    return _ratio(met, count("samgate_slo_total", priority=priority))


def _variant(window: Window, name: str) -> VariantFigures:
    latency = "samgate_request_seconds"
    return VariantFigures(
        name,
        window.rate(f"{latency}_count", variant=name),
        window.quantile(0.5, latency, variant=name),
        window.quantile(0.95, latency, variant=name),
    )


def _point(window: Window, name: str) -> PointFigures:
    error, margin = "samgate_prediction_error_seconds", "samgate_prediction_margin_seconds"
    reasons = window.values_of("reason", "samgate_decisions_total")
    early = _ratio(window.added(f"{error}_bucket", point=name, le="0.0"), window.added(f"{error}_count", point=name))
    return PointFigures(
        name,
        {reason: window.rate("samgate_decisions_total", point=name, reason=reason) for reason in reasons},
        window.gauge(margin, max, point=name, image="held"),
        window.gauge(margin, max, point=name, image="new"),
        None if early is None else 1 - early,
        window.gauge("samgate_engine_healthy", min, point=name) > 0,
    )


def _stage(window: Window, name: str) -> StageFigures:
    size = "samgate_batch_size"
    return StageFigures(
        name,
        window.gauge("samgate_queue_length", stage=name),
        window.quantile(0.95, "samgate_queue_seconds", stage=name),
        _ratio(window.added(f"{size}_sum", stage=name), window.added(f"{size}_count", stage=name)),
        window.rate("samgate_engine_busy_seconds_total", stage=name),
        window.gauge("samgate_device_pace_ratio", max, stage=name),
    )


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None
