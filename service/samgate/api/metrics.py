"""Prometheus metrics of one gateway.

Label values are RPC names, status codes, operating points, stages, reasons and servers' addresses: all bounded by what
is served. Who asks is never a label.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from samgate import __version__
from samgate.api.sampled import Sampled
from samgate.api.slo import RPCS, Outcome
from samgate.engines.base import Remote
from samgate.errors import NotLetIn, SamgateError
from samgate.scheduling.device import STAGES, Batch
from samgate.scheduling.queue import Priority
from samgate.scheduling.snapshot import snapshot
from samgate.security.clients import RPCS as ALL_RPCS
from samgate.serving.gateway import Gateway
from samgate.serving.requests import Trace

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60, 120, 300)
_STAGE_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30, 120)
_ERROR_SECONDS = (-5, -2, -1, -0.5, -0.2, -0.1, -0.05, -0.02, -0.01, 0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256)

REFUSALS = ("busy", "share", "limit", "deadline", "accuracy", "quota", "down", "draining")
"""Words of refusals; any other is counted as ``other``."""
AUTHENTICATION_FAILURES = ("missing", "malformed", "unknown", "expired", "forbidden")
"""The same of clients that weren't let in."""
NO_VARIANT = "none"
"""Of calls that no variant answered."""

_SAMPLED: dict[str, tuple[str, tuple[str, ...]]] = {
    "samgate_queued_work_seconds": ("Time that the engine needs for all that runs, waits or was promised.", ()),
    "samgate_device_busy_ratio": ("Share of its time that the engine has worked for interactive calls lately.", ()),
    "samgate_device_pace_ratio": ("How many times its profile's time an engine's call takes lately.", ("stage",)),
    "samgate_prediction_margin_seconds": (
        "How much later than predicted answers are at the 95th percentile (epsilon), of new and of held images.",
        ("point", "image"),
    ),
    "samgate_engine_healthy": ("Whether the engine of an operating point is expected to answer.", ("point",)),
    "samgate_triton_healthy": ("Whether a Triton server is believed to run a model.", ("server", "model")),
}


class Ended(Protocol):
    """A call that is over."""

    @property
    def elapsed_s(self) -> float: ...

    @property
    def priority(self) -> Priority: ...

    @property
    def trace(self) -> Trace | None: ...

    @property
    def trace_id(self) -> str: ...


class Metrics:
    """One registry, so that several gateways in a process don't mix."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            with suppress(ValueError):
                collector(registry=registry)
        Info("samgate_build", "Version of samgate.", registry=registry).info(
            {"version": __version__, "python": platform.python_version()}
        )
        self._requests = self._counter("samgate_requests", "Calls that ended, by gRPC status.", "rpc", "code")
        self._latency = self._histogram(
            "samgate_request_seconds",
            "Time from a call's arrival to its end; the variant is none where no variant answered.",
            _SECONDS,
            *("rpc", "variant", "priority"),
        )
        self._slo = self._counter(
            "samgate_slo",
            "Calls that count for the objective: met their deadline, late, refused for want of room, or failed.",
            *("rpc", "priority", "outcome"),
        )
        self._stages = self._histogram(
            "samgate_stage_seconds", "Time of an answered call in each stage.", _STAGE_SECONDS, "stage", "variant"
        )
        self._decisions = self._counter(
            "samgate_decisions", "Calls answered, by operating point and why it was chosen.", "point", "reason"
        )
        self._errors = self._histogram(
            "samgate_prediction_error_seconds",
            "Actual minus predicted time of answered Segment and Embed calls; the prediction has its margin in it.",
            _ERROR_SECONDS,
            "point",
        )
        self._refusals = self._counter("samgate_refusals", "Calls refused, by reason.", "reason")
        self._masks = self._counter("samgate_masks", "Masks answered.", "variant")
        self._everything = self._counter(
            "samgate_everything",
            "SegmentEverything calls answered, by strategy and whether everything was decoded.",
            *("strategy", "complete"),
        )
        self._embeddings = self._counter(
            "samgate_embedding_lookups", "Calls that needed an embedding, by whether it was there already.", "result"
        )
        self._batches = self._histogram(
            "samgate_batch_size", "Images of an encoder call and prompts of a decoder call.", _BATCH, "stage"
        )
        self._waits = self._histogram(
            "samgate_queue_seconds",
            "Time that pieces of work waited for the engine.",
            _STAGE_SECONDS,
            "stage",
            "priority",
        )
        self._busy = self._counter(
            "samgate_engine_busy_seconds", "Time that calls of the engine took; several at once add up.", "stage"
        )
        self._broken = self._counter("samgate_engine_failures", "Calls of the engine that failed.", "stage")
        self._unknown_clients = self._counter(
            "samgate_authentication_failures", "Calls and scrapes that were not let in, by reason.", "reason"
        )
        self._spans = self._counter("samgate_spans", "Spans for the collector, by whether it took them.", "result")
        self.in_flight = self._gauge("samgate_requests_in_flight", "Calls under way.")
        self.draining = self._gauge("samgate_draining", "Whether the server is shutting down.")
        self.lag = self._gauge(
            "samgate_event_loop_lag_seconds", "By how much the event loop was late, at most, in the last 15 seconds."
        )
        self.tls_expiry = self._gauge(
            "samgate_tls_expiry_timestamp_seconds", "When the server's certificate ends; 0 without one."
        )
        self._sampled = Sampled(_SAMPLED, registry)
        self._begin()

    def observe_call(self, rpc: str, code: str, ended: Ended, outcome: Outcome | None) -> None:
        """Count a call that is over, and the stages, masks, prediction and cache use of one that was answered."""
        rpc = rpc if rpc in ALL_RPCS else "other"
        trace, elapsed_s, priority = ended.trace, ended.elapsed_s, ended.priority.name.lower()
        exemplar = {"trace_id": ended.trace_id} if ended.trace_id else None
        self._requests.labels(rpc, code).inc()
        variant = trace.variant if trace is not None else NO_VARIANT
        self._latency.labels(rpc, variant, priority).observe(elapsed_s, exemplar)
        if outcome is not None and rpc in RPCS:
            self._slo.labels(rpc, priority, outcome.value).inc()
        if trace is None:
            return
        for stage, seconds in trace.stages_s.items():
            self._stages.labels(stage, variant).observe(seconds, exemplar)
        point = f"{variant}:{trace.precision}"
        self._masks.labels(variant).inc(trace.masks)
        self._decisions.labels(point, trace.reason.value).inc()
        if trace.strategy:
            self._everything.labels(trace.strategy, str(trace.complete).lower()).inc()
        else:
            self._errors.labels(point).observe(elapsed_s - trace.predicted_s, exemplar)
        self._embeddings.labels("hit" if trace.cached else "miss").inc()

    def observe_refusal(self, error: SamgateError) -> None:
        """Count a call that was refused, or not let in, if ``error`` says why in a word."""
        reason = getattr(error, "reason", "")
        if isinstance(error, NotLetIn):
            self.observe_authentication_failure(reason)
        elif reason:
            self._refusals.labels(reason if reason in REFUSALS else "other").inc()

    def observe_authentication_failure(self, reason: str) -> None:
        """Count somebody who wasn't let in."""
        self._unknown_clients.labels(reason if reason in AUTHENTICATION_FAILURES else "other").inc()

    def count_spans(self, count: int, sent: bool) -> None:
        """``count`` spans were sent, or dropped."""
        self._spans.labels("sent" if sent else "dropped").inc(count)

    def batch_began(self, batch: Batch) -> None:
        """See :class:`samgate.serving.dispatch.Watch`."""
        self._batches.labels(batch.stage).observe(batch.size)
        for work in batch.works:
            waited_s = max(0.0, batch.started - work.submitted)
            self._waits.labels(batch.stage, work.priority.name.lower()).observe(waited_s)

    def batch_ended(self, batch: Batch, seconds: float, *, failed: bool) -> None:
        """See :class:`samgate.serving.dispatch.Watch`."""
        self._busy.labels(batch.stage).inc(seconds)
        if failed:
            self._broken.labels(batch.stage).inc()

    def watch(self, gateway: Gateway) -> None:
        """Read what takes one look from ``gateway`` whenever metrics are scraped."""
        cache, scheduler = gateway.cache, gateway.scheduler
        reads: dict[str, tuple[str, Callable[[], float]]] = {
            "samgate_embedding_cache_bytes": ("Bytes of cached embeddings.", lambda: cache.bytes),
            "samgate_embedding_cache_max_bytes": ("Bytes that the cache may hold.", lambda: cache.max_bytes),
            "samgate_embedding_cache_entries": ("Cached embeddings.", lambda: len(cache)),
            "samgate_load_price": ("mIoU that a second of the engine costs (mu).", lambda: scheduler.price.value),
            "samgate_concurrency_limit": ("Requests that may be under way.", lambda: scheduler.limit.limit),
        }
        for name, (text, read) in reads.items():
            self._gauge(name, text).set_function(read)
        lengths = self._gauge("samgate_queue_length", "Pieces of work waiting.", "stage")
        for device in scheduler.devices.values():
            for stage, queue in device.queues.items():
                lengths.labels(stage).set_function(queue.__len__)
        points = Info("samgate_operating_point", "What is served.", ["point"], registry=self.registry)
        for name, model in gateway.models.items():
            told = {"variant": model.spec.name, "precision": model.engine.precision, "engine": model.engine.name}
            points.labels(name).info(told)
            self._errors.labels(name)

    def sample(self, gateway: Gateway, health: Mapping[str, bool], remotes: Iterable[Remote]) -> None:
        """Read what the scheduler thinks, and the engines' ``health`` by operating point. On the event loop."""
        now = snapshot(gateway.scheduler, time.monotonic())
        believed = [one for remote in remotes for one in remote.servers()]
        self._sampled.set(
            {
                "samgate_queued_work_seconds": [((), now.queued_s)],
                "samgate_device_busy_ratio": [((), now.busy)],
                "samgate_device_pace_ratio": [((stage,), pace) for stage, pace in now.paces.items()],
                "samgate_prediction_margin_seconds": [
                    ((point, "new" if new else "held"), margin_s) for (point, new), margin_s in now.margins_s.items()
                ],
                "samgate_engine_healthy": [((point,), float(well)) for point, well in health.items()],
                "samgate_triton_healthy": [((one.url, one.model), float(one.healthy)) for one in believed],
            }
        )

    def _begin(self) -> None:
        """Everything at 0 whose labels are known: a rate misses what comes before a series' first sample."""
        for rpc in ALL_RPCS:
            self._requests.labels(rpc, "OK")
        for rpc in RPCS:
            classes = (Priority.BULK,) if rpc == "SegmentEverything" else tuple(Priority)
            for priority in classes:
                for outcome in Outcome:
                    self._slo.labels(rpc, priority.name.lower(), outcome.value)
        for counter, values in (
            (self._refusals, REFUSALS),
            (self._unknown_clients, AUTHENTICATION_FAILURES),
            (self._embeddings, ("hit", "miss")),
            (self._spans, ("sent", "dropped")),
            (self._busy, STAGES),
            (self._broken, STAGES),
        ):
            for value in values:
                counter.labels(value)
        for stage in STAGES:
            self._batches.labels(stage)
            for priority in Priority:
                self._waits.labels(stage, priority.name.lower())

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)
