"""Gauges that are read all at once, on the event loop, and scraped from another thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

Samples = Iterable[tuple[tuple[str, ...], float]]
"""Label values, in the order of the gauge's labels, and a value."""


class Sampled(Collector):
    """The gauges ``described``: name → text and label names. What was there before and isn't any more is gone with the
    next :meth:`set`, so labels such as servers' addresses don't pile up."""

    def __init__(self, described: Mapping[str, tuple[str, Sequence[str]]], registry: CollectorRegistry) -> None:
        self._described = described
        self._now: tuple[GaugeMetricFamily, ...] = ()
        registry.register(self)

    def set(self, values: Mapping[str, Samples]) -> None:
        """What all gauges are from now on."""
        families = []
        for name, samples in values.items():
            text, labels = self._described[name]
            family = GaugeMetricFamily(name, text, labels=labels)
            for given, value in samples:
                family.add_metric(given, value)
            families.append(family)
        # In one go: a scrape sees all of the old or all of the new.
        self._now = tuple(families)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """What Prometheus sees."""
        return self._now

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Names, for the registry to find clashes."""
        return [GaugeMetricFamily(name, text, labels=labels) for name, (text, labels) in self._described.items()]
