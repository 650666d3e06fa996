"""Spans as OpenTelemetry's, sent by OTLP over gRPC. Needs the extra ``tracing``."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from samgate import __version__
from samgate.logs import log
from samgate.tracing import Nothing, Span, Value

logger = logging.getLogger("samgate.tracing")

_QUEUED = 4096
"""Spans that wait to be sent; of more the oldest are dropped."""
_SENT_TOGETHER = 512
_SEND_EVERY_S = 1.0
_SEND_TIMEOUT_S = 5.0
_CLOSE_TIMEOUT_S = 3.0
_PARENT = "traceparent"


class OtelSpan:
    """One that is recorded."""

    __slots__ = ("_epoch_ns", "_span", "_tracer", "trace_id")
    recording = True

    def __init__(self, span: trace.Span, tracer: trace.Tracer, epoch_ns: int) -> None:
        self._span, self._tracer, self._epoch_ns = span, tracer, epoch_ns
        self.trace_id = f"{span.get_span_context().trace_id:032x}"

    def child(self, name: str, started: float | None = None) -> Span:
        """See :class:`samgate.tracing.Span`."""
        since = time.monotonic() if started is None else started
        span = self._tracer.start_span(
            name, trace.set_span_in_context(self._span, Context()), start_time=self._epoch_ns + int(since * 1e9)
        )
        return OtelSpan(span, self._tracer, self._epoch_ns)

    def set(self, attributes: Mapping[str, Value]) -> None:
        """See :class:`samgate.tracing.Span`."""
        self._span.set_attributes(dict(attributes))

    def link(self, other: Span) -> None:
        """See :class:`samgate.tracing.Span`."""
        if isinstance(other, OtelSpan):
            self._span.add_link(other._span.get_span_context())

    def end(self, error: str = "") -> None:
        """See :class:`samgate.tracing.Span`."""
        if error:
            self._span.set_status(trace.Status(trace.StatusCode.ERROR, error))
        self._span.end(self._epoch_ns + time.monotonic_ns())

    def headers(self) -> dict[str, str] | None:
        """See :class:`samgate.tracing.Span`."""
        return _headers(self._span.get_span_context())


class _Unsampled(Nothing):
    """Not recorded; tells others so, who would decide for themselves otherwise."""

    def __init__(self, context: trace.SpanContext) -> None:
        self._context = context

    def headers(self) -> dict[str, str] | None:
        """See :class:`samgate.tracing.Span`."""
        return _headers(self._context)


class OtelTracer:
    """Sends a share ``sample`` (0 to 1) of traces, and those whose parent is sampled, to the collector at ``endpoint``
    (http://host:port, or https://). ``count`` is told how many spans were sent, and how many were not.

    Nobody waits for a collector: what it doesn't take in time is dropped.
    """

    def __init__(self, endpoint: str, sample: float, count: Callable[[int, bool], None]) -> None:
        # Each retry is worth a line to them; ours tell when it begins and ends.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        exporter = _Watched(OTLPSpanExporter(endpoint, timeout=_SEND_TIMEOUT_S), endpoint, count)
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(sample)),
            resource=Resource.create({"service.name": "samgate", "service.version": __version__}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter,
                max_queue_size=_QUEUED,
                schedule_delay_millis=_SEND_EVERY_S * 1e3,
                max_export_batch_size=_SENT_TOGETHER,
            )
        )
        self._tracer = self._provider.get_tracer("samgate", __version__)

    def call(self, rpc: str, context: Any, started: float) -> Span:
        """See :class:`samgate.tracing.Tracer`."""
        epoch_ns = time.time_ns() - time.monotonic_ns()
        span = self._tracer.start_span(
            f"samgate.v1.Segmentation/{rpc}",
            _parent(context.invocation_metadata() or ()),
            trace.SpanKind.SERVER,
            {"rpc.system": "grpc", "rpc.service": "samgate.v1.Segmentation", "rpc.method": rpc},
            start_time=epoch_ns + int(started * 1e9),
        )
        return OtelSpan(span, self._tracer, epoch_ns) if span.is_recording() else _Unsampled(span.get_span_context())

    def flush(self) -> None:
        """Send what is there, and wait for it."""
        self._provider.force_flush()

    async def close(self) -> None:
        """See :class:`samgate.tracing.Tracer`."""
        # Not on the loop's own threads, whose end it waits for: a collector that hangs would hold up ours.
        closing = threading.Thread(target=self._provider.shutdown, name="tracing-close", daemon=True)
        closing.start()
        until = time.monotonic() + _CLOSE_TIMEOUT_S
        while closing.is_alive() and time.monotonic() < until:
            await asyncio.sleep(0.01)


class _Watched(SpanExporter):
    """Tells when a collector goes and comes back."""

    def __init__(self, exporter: SpanExporter, endpoint: str, count: Callable[[int, bool], None]) -> None:
        self._exporter, self._endpoint, self._count = exporter, endpoint, count
        self._good = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        good = result is SpanExportResult.SUCCESS
        self._count(len(spans), good)
        if good != self._good:
            self._good = good
            told = "traces are sent again" if good else "traces can't be sent: they are dropped until they can"
            log(logger, logging.INFO if good else logging.WARNING, told, collector=self._endpoint)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _parent(metadata: Sequence[tuple[str, Any]]) -> Context:
    """What ``traceparent`` says; a new trace where there is none, or it can't be read."""
    given = [value for name, value in metadata if name == _PARENT and isinstance(value, str)]
    if len(given) != 1:
        return Context()
    return TraceContextTextMapPropagator().extract({_PARENT: given[0]}, Context())


def _headers(context: trace.SpanContext) -> dict[str, str]:
    return {_PARENT: f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"}
