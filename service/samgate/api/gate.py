"""What stands before every RPC: who calls is asked, and room looked for, before a byte of the request is read.

Handlers of one request are turned into ones that read it themselves. So a call that is refused costs no memory, a
request that trickles in has its time, and bytes that are no message are the client's fault (gRPC's own answer is
INTERNAL).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from samgate.api.calls import Calls, Context, refuse
from samgate.config import Limits
from samgate.errors import DeadlineExceeded, InvalidArgument, Overloaded, SamgateError, SlowClient
from samgate.security.identity import HEADER


class Gate(grpc.aio.ServerInterceptor):
    """Lets calls in. RPCs of ``service`` are ``calls``' business; others (health) are anybody's."""

    def __init__(self, service: str, calls: Calls, limits: Limits) -> None:
        self._prefix = f"/{service}/"
        self._calls, self._limits = calls, limits
        self.held_bytes = 0
        """Of all requests under way."""
        self.others = 0
        """Calls under way that are not ``service``'s."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Wrap the handler, of which samgate has two kinds: one request, and one answer or many."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        method, header = str(handler_call_details.method), None
        for key, value in handler_call_details.invocation_metadata or ():
            if key == HEADER:
                header = str(value)

        async def behaviour(_: Any, context: Context) -> None:
            if method.startswith(self._prefix):
                async with (
                    self._calls.answer(method.removeprefix(self._prefix), context, header) as call,
                    self._received(handler, context) as request,
                ):
                    call.begin()
                    await self._send(handler, request, context)
            else:
                await self._other(handler, context)

        return grpc.stream_stream_rpc_method_handler(behaviour, response_serializer=handler.response_serializer)

    async def _other(self, handler: Any, context: Context) -> None:
        """A call that nobody is asked about: not more of them than connections."""
        self.others += 1
        try:
            if self.others > self._limits.max_connections:
                raise Overloaded(f"{self._limits.max_connections} such calls are under way, which is the limit", 1.0)
            async with self._received(handler, context) as request:
                await self._send(handler, request, context)
        except SlowClient:
            raise asyncio.CancelledError from None
        except SamgateError as error:
            await refuse(context, error)
        finally:
            self.others -= 1

    @asynccontextmanager
    async def _received(self, handler: Any, context: Any) -> AsyncIterator[Any]:
        """The request inside the block, its size counted.

        Raises DeadlineExceeded when it takes too long to arrive, InvalidArgument for what is none, Overloaded when
        there is too much already.
        """
        limit = self._limits.receive_s
        try:
            async with asyncio.timeout(limit):
                data = await context.read()
        except TimeoutError:
            raise DeadlineExceeded(f"request: has not arrived within {limit:g} s") from None
        if data is grpc.aio.EOF:
            raise InvalidArgument("request", "is missing: the stream ended before it")
        size, most = len(data), self._limits.max_total_bytes
        if self.held_bytes + size > most:
            raise Overloaded(
                f"requests of {self.held_bytes} bytes are under way; with these {size} it were more than {most}",
                retry_after_s=1.0,
                reason="limit",
            )
        self.held_bytes += size
        try:
            try:
                request = handler.request_deserializer(data)
            except DecodeError:
                raise InvalidArgument("request", "is not a valid protobuf message of this RPC") from None
            del data
            yield request
        finally:
            self.held_bytes -= size

    async def _send(self, handler: Any, request: Any, context: Any) -> None:
        """Raises SlowClient when the client doesn't take what there is for it."""
        if not handler.response_streaming:
            await self._write(await handler.unary_unary(request, context), context)
            return
        answers: AsyncGenerator[Any, None] = handler.unary_stream(request, context)
        async with aclosing(answers):
            async for answer in answers:
                await self._write(answer, context)

    async def _write(self, answer: Any, context: Any) -> None:
        limit = self._limits.send_s
        try:
            async with asyncio.timeout(limit) as patience:
                await context.write(answer)
        except TimeoutError:
            if not patience.expired():
                raise
            raise SlowClient(f"the client took nothing of its answer for {limit:g} s") from None
