"""Real ends for traces: a collector that speaks OTLP, and a way to Triton that looks at what passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

_UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans that it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resources: list[dict[str, Any]] = []
        self.endpoint = ""

    def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            self.resources.append({one.key: one.value.string_value for one in resource.resource.attributes})
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return trace_service_pb2.ExportTraceServiceResponse()

    def trace(self, trace_id: str, whole: Callable[[list[Span]], bool], seconds: float = 15.0) -> list[Span]:
        """The spans of a trace as soon as it is ``whole``, or what there is of it after a while."""
        until = time.monotonic() + seconds
        while True:
            found = [span for span in self.spans if span.trace_id.hex() == trace_id]
            if whole(found) or time.monotonic() > until:
                return found
            time.sleep(0.05)


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port inside the block."""
    collector = Collector()
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
        collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield collector
        finally:
            server.stop(1).wait()


@dataclass
class Passage(grpc.GenericRpcHandler):
    """Hands calls on to ``channel``, and notes the method and metadata of each."""

    channel: grpc.Channel
    address: str = ""
    passed: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method

        def call(data: bytes, context: grpc.ServicerContext) -> bytes:
            self.passed.append((method, {name: str(value) for name, value in context.invocation_metadata()}))
            try:
                forward: Any = self.channel.unary_unary(method)
                answer: bytes = forward(data, timeout=context.time_remaining())
            except grpc.RpcError as error:
                context.abort(error.code(), error.details() or "")
            return answer

        return grpc.unary_unary_rpc_method_handler(call)


@contextmanager
def passage(to: str) -> Iterator[Passage]:
    """A way to the server ``to`` (host:port) that looks at what passes, open inside the block."""
    with ThreadPoolExecutor(8) as threads, grpc.insecure_channel(to, options=_UNLIMITED) as channel:
        handler = Passage(channel)
        server = grpc.server(threads, handlers=[handler], options=_UNLIMITED)
        handler.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield handler
        finally:
            server.stop(1).wait()
