"""Requests that aren't protobuf messages: gRPC itself answers INTERNAL, but the fault is the client's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

_MALFORMED = object()


class MalformedRequests(grpc.aio.ServerInterceptor):
    """Answers a request that can't be parsed with INVALID_ARGUMENT."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Wrap the handler's parser and its behaviour, for the two kinds of handlers that samgate has."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming or handler.request_deserializer is None:
            return handler
        parse = handler.request_deserializer

        def tolerant(data: bytes) -> Any:
            try:
                return parse(data)
            except DecodeError:
                return _MALFORMED

        if handler.response_streaming:
            return handler._replace(request_deserializer=tolerant, unary_stream=_guard_stream(handler.unary_stream))
        return handler._replace(request_deserializer=tolerant, unary_unary=_guard_unary(handler.unary_unary))


async def _refuse(context: Any) -> None:
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "request: is not a valid protobuf message of this RPC")


def _guard_unary(behaviour: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
    async def guarded(request: Any, context: Any) -> Any:
        if request is _MALFORMED:
            await _refuse(context)
        return await behaviour(request, context)

    return guarded


def _guard_stream(behaviour: Callable[[Any, Any], AsyncIterator[Any]]) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def guarded(request: Any, context: Any) -> AsyncIterator[Any]:
        if request is _MALFORMED:
            await _refuse(context)
        async for response in behaviour(request, context):
            yield response

    return guarded
