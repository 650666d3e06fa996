"""Prometheus metrics of one gateway. Label values are RPC names, status codes, variants and stages: all bounded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from samgate import __version__
from samgate.errors import Infeasible, Overloaded, SamgateError
from samgate.scheduling.device import Batch
from samgate.serving.gateway import Gateway
from samgate.serving.requests import Trace

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60, 120, 300)
_STAGE_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30, 120)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """One registry, so that several gateways in a process don't mix."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            with suppress(ValueError):
                collector(registry=registry)
        Info("samgate_build", "Version of samgate.", registry=registry).info({"version": __version__})
        self.requests = Counter(
            "samgate_requests", "Calls answered, by gRPC status code.", ["rpc", "code"], registry=registry
        )
        self.latency = Histogram(
            "samgate_request_seconds",
            "Time from a call's arrival to its end.",
            ["rpc"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.stages = Histogram(
            "samgate_stage_seconds",
            "Time of a call in each stage.",
            ["stage", "variant"],
            buckets=_STAGE_SECONDS,
            registry=registry,
        )
        self.decisions = Counter(
            "samgate_decisions",
            "Calls answered, by operating point and why it was chosen.",
            ["point", "reason"],
            registry=registry,
        )
        self.refusals = Counter(
            "samgate_refusals", "Calls that the scheduler refused, by reason.", ["reason"], registry=registry
        )
        self.masks = Counter("samgate_masks", "Masks answered.", ["variant"], registry=registry)
        self.everything = Counter(
            "samgate_everything",
            "SegmentEverything calls answered, by strategy and whether everything was decoded.",
            ["strategy", "complete"],
            registry=registry,
        )
        self.embeddings = Counter(
            "samgate_embedding_lookups",
            "Calls that needed an embedding, by whether it was there already.",
            ["result"],
            registry=registry,
        )
        self.batches = Histogram(
            "samgate_batch_size",
            "Images an encoder call and prompts a decoder call.",
            ["stage"],
            buckets=_BATCH,
            registry=registry,
        )
        self.in_flight = Gauge("samgate_requests_in_flight", "Calls under way.", registry=registry)

    def observe_batch(self, batch: Batch) -> None:
        """Count one call of an engine."""
        self.batches.labels(batch.stage).observe(batch.size)

    def observe_refusal(self, error: SamgateError) -> None:
        """Count a call that the scheduler has refused."""
        if isinstance(error, Overloaded | Infeasible) and error.reason:
            self.refusals.labels(error.reason).inc()

    def observe_trace(self, trace: Trace) -> None:
        """Count the stages, masks and cache use of one answered call."""
        for stage, seconds in trace.stages_s.items():
            self.stages.labels(stage, trace.variant).observe(seconds)
        self.masks.labels(trace.variant).inc(trace.masks)
        self.decisions.labels(f"{trace.variant}:{trace.precision}", trace.reason.value).inc()
        if trace.strategy:
            self.everything.labels(trace.strategy, str(trace.complete).lower()).inc()
        self.embeddings.labels("hit" if trace.cached else "miss").inc()

    def watch(self, gateway: Gateway) -> None:
        """Read queue lengths and the cache's size from ``gateway`` whenever metrics are scraped."""
        self._gauge("samgate_embedding_cache_bytes", "Bytes of cached embeddings.", lambda: gateway.cache.bytes)
        self._gauge("samgate_embedding_cache_entries", "Cached embeddings.", lambda: len(gateway.cache))
        scheduler = gateway.scheduler
        self._gauge("samgate_load_price", "mIoU that a second of the engine costs.", lambda: scheduler.price.value)
        self._gauge("samgate_concurrency_limit", "Requests that may be under way.", lambda: scheduler.limit.limit)
        lengths = Gauge("samgate_queue_length", "Pieces of work waiting.", ["stage"], registry=self.registry)
        for device in scheduler.devices.values():
            for stage, queue in device.queues.items():
                lengths.labels(stage).set_function(queue.__len__)

    def _gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        Gauge(name, text, registry=self.registry).set_function(read)
