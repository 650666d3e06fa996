"""What a server takes a client's timeout for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent import futures

import grpc
import pytest

from samgate.api.calls import meant_s


@pytest.fixture(scope="module")
def arrived() -> Iterator[Callable[[float], tuple[float, float]]]:
    """What is left of a timeout when a call arrives at a server, over a real connection, and the seconds that the call
    took."""
    found: list[float] = []

    class Handler(grpc.GenericRpcHandler):
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
            def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
                found.append(context.time_remaining())
                return request

            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(futures.ThreadPoolExecutor(1), handlers=[Handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test/Call")
        call(b"", timeout=30, wait_for_ready=True)

        def ask(seconds: float) -> tuple[float, float]:
            began = time.monotonic()
            call(b"", timeout=seconds)
            return found[-1], time.monotonic() - began

        yield ask
    server.stop(None)


@pytest.mark.parametrize("seconds", [0.2, 0.5205, 0.9999, 1.0, 1.001, 1.041, 2.082, 9.991, 12.34, 30.0, 299.5])
def test_no_client_is_given_more_time_than_it_waits(
    arrived: Callable[[float], tuple[float, float]], seconds: float
) -> None:
    left, passed = arrived(seconds)
    # At most what gRPC may have added is taken off, a hundredth and a millisecond, and what has passed on the way.
    assert 0.99 * seconds - 0.002 - passed <= meant_s(left) <= seconds


def test_gRPC_does_add_to_timeouts(arrived: Callable[[float], tuple[float, float]]) -> None:
    assert max(arrived(1.001)[0] for _ in range(5)) > 1.001


@pytest.mark.parametrize("seconds", [1e-3, 1e-9, 0.0, -0.5])
def test_what_is_over_stays_over(seconds: float) -> None:
    assert meant_s(seconds) == seconds
